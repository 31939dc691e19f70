//! Why a target could not be stopped or made to do something. Whatever it is, the target runs on as before.

use crate::image::model::address::Addr;
use crate::image::model::id::{Pid, Tid};
use nix::errno::Errno;
use std::io;
use std::time::Duration;

/// Failures of the tracer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such process, or it ended meanwhile.
    #[error("pid {0} does not exist or has ended")]
    Vanished(Pid),
    /// The target is the caller itself.
    #[error("pid {0} is this process: nobody can freeze himself")]
    Own(Pid),
    /// Somebody else traces it.
    #[error("tid {tid} is traced by pid {tracer} ({name})")]
    Traced {
        /// The traced thread.
        tid: Tid,
        /// Its tracer.
        tracer: Pid,
        /// The tracer's command name.
        name: String,
    },
    /// The kernel does not let us trace it.
    #[error("tid {tid}: {action}: permission denied: {hint}")]
    Permission {
        /// Which task.
        tid: Tid,
        /// What was tried.
        action: &'static str,
        /// What would help.
        hint: String,
    },
    /// A thread did not stop in time.
    #[error("tid {tid} did not stop within {bound:?}: {reason}")]
    Unstoppable {
        /// Which task.
        tid: Tid,
        /// How long it was waited for.
        bound: Duration,
        /// What it does instead, as far as /proc tells.
        reason: String,
    },
    /// [`super::FreezeOptions::cancelled`] said so.
    #[error("interrupted")]
    Cancelled,
    /// A request on a task failed.
    #[error("tid {tid}: {action}: {}", .source.desc())]
    Kernel {
        /// Which task.
        tid: Tid,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: Errno,
    },
    /// A thread must not be made to work for us.
    #[error("tid {tid}: no system call can be made in its name: {reason}")]
    Refused {
        /// Which thread.
        tid: Tid,
        /// Why.
        reason: String,
        /// What would help; empty when nothing does.
        remedy: &'static str,
    },
    /// There is no place for what a remote system call needs.
    #[error("pid {pid}: there is no room for {what}")]
    NoRoom {
        /// Which process.
        pid: Pid,
        /// What was looked for.
        what: &'static str,
    },
    /// A thread that works for us is not where it was sent.
    #[error("tid {tid} is at {rip}, where it should not be")]
    Astray {
        /// Which thread.
        tid: Tid,
        /// Where it is.
        rip: Addr,
    },
    /// A thread is still in what a killed predecessor has left, and waits there for a process that stands still, too.
    #[error("tid {0} has not come out yet of what a killed dump has left")]
    Leaving(Tid),
    /// A thread that works for us got a signal that cannot be blocked.
    #[error("tid {tid} was sent signal {signal} while a system call was made in its name")]
    Signalled {
        /// Which thread.
        tid: Tid,
        /// Which signal.
        signal: i32,
    },
    /// The target's memory could not be used.
    #[error("pid {pid}: {action} {len} bytes at {at}: {source}")]
    Memory {
        /// Whose memory.
        pid: Pid,
        /// What was tried.
        action: &'static str,
        /// Where.
        at: Addr,
        /// How much.
        len: usize,
        /// Why it failed.
        source: io::Error,
    },
    /// A file of /proc could not be used.
    #[error("{path}: {source}")]
    Proc {
        /// Its path.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A failure that a test asked for.
    #[error(transparent)]
    Fault(#[from] io::Error),
}

impl Error {
    /// Turns what a request gave into an error that names task and request; ESRCH means that the process is gone.
    pub(super) fn of(tid: Tid, action: &'static str) -> impl Fn(Errno) -> Self {
        move |source| Self::Kernel { tid, action, source }
    }

    /// Says that something was not put back, where nobody can be given the error. There is nothing to put back in who has been killed.
    pub(super) fn log(&self, action: &str) {
        if !self.is_death() {
            tracing::error!("{action}: {self}");
        }
    }

    /// Whether it tells of no more than that somebody has been killed.
    pub(super) fn is_death(&self) -> bool {
        matches!(self, Self::Vanished(_))
    }

    /// The first failure of several steps that are all made; a death is no failure where there is another.
    pub(super) fn first(before: Result<(), Self>, next: Result<(), Self>) -> Result<(), Self> {
        match before {
            Err(death) if death.is_death() => next.and(Err(death)),
            before => before.and(next),
        }
    }
}
