//! One file per kind of kernel resource: collect, plan and apply side by side.

pub mod aio;
pub mod ask;
pub mod border;
pub mod bpf;
pub mod copy_on_write;
pub mod core_scheduling;
pub mod credentials;
pub mod descriptor;
pub mod event;
pub mod file;
pub mod keyring;
pub mod mapped_only;
pub mod memory;
pub mod memory_policy;
pub mod mqueue;
pub mod named_memory;
pub mod namespace;
pub mod pages;
pub mod pipe;
pub mod process;
pub mod robust;
pub mod scheduling;
pub mod seccomp;
pub mod settings;
pub mod shared_memory;
pub mod sharing;
pub mod signal;
pub mod socket;
pub mod stopped;
pub mod syscall_restart;
pub mod sysv;
pub mod thread;
pub mod timer;
pub mod together;
pub mod tun;
pub mod watch;
pub mod zombie;

use crate::blocker::Blocker;
use crate::image::model::id::Tid;
use crate::{proc, tracer};
use std::io;

/// What is found while facts are collected, besides the facts.
#[derive(Debug, Default)]
pub struct Findings {
    /// Reasons to refuse, all of them.
    pub blockers: Vec<Blocker>,
    /// Reasons that may be gone in a moment.
    pub passing: Vec<Blocker>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Findings {
    /// Notes a reason to refuse.
    pub fn block(
        &mut self,
        task: impl Into<String>,
        object: impl Into<String>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.blockers.push(Blocker::new(task, object, reason, remedy));
    }

    /// Notes a reason to refuse that may be gone in a moment.
    pub fn pass(
        &mut self,
        task: impl Into<String>,
        object: impl Into<String>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.passing.push(Blocker::new(task, object, reason, remedy));
    }
}

/// A kernel interface that did not answer while facts were collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// A file of /proc.
    #[error(transparent)]
    Proc(#[from] proc::Error),
    /// A system call, ours or one made in the target's place.
    #[error("tid {tid}: {action}: {source}")]
    Kernel {
        /// Which task.
        tid: Tid,
        /// What was asked.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A call that could not be made in the target's place.
    #[error("tid {tid}: {action}: {source}")]
    Remote {
        /// Which task.
        tid: Tid,
        /// What was asked.
        action: &'static str,
        /// Why.
        source: tracer::Error,
    },
}

impl CollectError {
    /// For `map_err`: says which task was asked what.
    pub fn at<E: Into<io::Error>>(tid: Tid, action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Kernel { tid, action, source: source.into() }
    }
}
