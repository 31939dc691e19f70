//! Why a dump fails, told of what its parts report.

use super::collect::CALLS;
use super::{Dump, Output};
use crate::blocker::Blocker;
use crate::image::WriteError;
use crate::image::model::id::{Pid, Tid};
use crate::resources::CollectError;
use crate::tracer::{self, FrozenTree};
use std::io;
use std::time::Duration;

/// Why a dump failed. Whatever it is, the target runs on as before and no image is left.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something in the tree cannot be saved.
    #[error("{} cannot be dumped", .0.len())]
    Blocked(Vec<Blocker>),
    /// The kernel does not let us.
    #[error("pid {pid}: {action}: permission denied: {hint}")]
    Permission {
        /// Which task.
        pid: Pid,
        /// What was tried.
        action: &'static str,
        /// What would help.
        hint: String,
    },
    /// There is no such process, or it ended meanwhile.
    #[error("pid {0} does not exist, or has ended")]
    Vanished(Pid),
    /// Somebody else traces it.
    #[error("pid {pid} is traced by pid {tracer} ({name})")]
    Traced {
        /// The target.
        pid: Pid,
        /// The tracer.
        tracer: Pid,
        /// Its command name.
        name: String,
    },
    /// `--timeout` passed.
    #[error("not finished after {0:?}")]
    TimedOut(Duration),
    /// SIGINT or SIGTERM.
    #[error("interrupted")]
    Interrupted,
    /// The image could not be written.
    #[error("{path}: {source}")]
    Output {
        /// The image, or `standard output`.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A kernel interface did not do what it should.
    #[error("pid {pid}: {action}: {source}")]
    Kernel {
        /// Which task.
        pid: Pid,
        /// What was tried.
        action: String,
        /// Why.
        source: io::Error,
    },
}

/// Why an attempt has failed.
pub(super) enum Failure {
    /// For good.
    Final(Error),
    /// For reasons that may be gone in a moment.
    Passing(Vec<Blocker>),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl Dump<'_> {
    pub(super) fn connection_error(&self, source: io::Error) -> Error {
        Error::Kernel { pid: self.options.pid, action: "taking its TCP connections away".into(), source }
    }

    pub(super) fn tracer_error(&self, error: tracer::Error) -> Error {
        let kernel = |tid: Tid, action: String, source: io::Error| Error::Kernel { pid: Pid(tid.0), action, source };
        match error {
            tracer::Error::Vanished(pid) => Error::Vanished(pid),
            tracer::Error::Traced { tid, tracer, name } => Error::Traced { pid: Pid(tid.0), tracer, name },
            tracer::Error::Permission { tid, action, hint } => Error::Permission { pid: Pid(tid.0), action, hint },
            tracer::Error::Cancelled => self.cancelled().unwrap_or(Error::Interrupted),
            tracer::Error::Kernel { tid, action, source } => kernel(tid, action.into(), source.into()),
            tracer::Error::Own(pid) => {
                refusal(format!("pid {pid}"), "snap", "it is this very process".into(), "name another process")
            }
            tracer::Error::Unstoppable { tid, bound, reason } => refusal(
                format!("tid {tid}"),
                "a thread that does not stop",
                format!("not within {bound:?}: {reason}"),
                "wait until what it waits for is there, or its vfork child ends",
            ),
            tracer::Error::Refused { tid, reason, remedy } => refusal(format!("tid {tid}"), CALLS, reason, remedy),
            tracer::Error::NoRoom { pid, what } => refusal(
                format!("pid {pid}"),
                CALLS,
                format!("its address space has no {what}"),
                "dump it under a kernel whose vdso has that room, or with a C library that is linked dynamically",
            ),
            error @ (tracer::Error::Astray { .. }
            | tracer::Error::Leaving(_)
            | tracer::Error::Signalled { .. }
            | tracer::Error::Memory { .. }
            | tracer::Error::Proc { .. }
            | tracer::Error::Fault(_)) => {
                kernel(self.options.pid.leader(), "stopping it and asking it".into(), io::Error::other(error))
            }
        }
    }

    /// A process of the tree that somebody kills meanwhile is no reason to fail while the root lives: the others are tried again.
    pub(super) fn collect_failure(&self, error: CollectError, tree: &FrozenTree) -> Failure {
        if let CollectError::Remote { tid: _, action: _, source: error @ tracer::Error::Leaving(tid) } = &error {
            let (task, object, reason) = (format!("tid {tid}"), CALLS.into(), error.to_string());
            return Failure::Passing(vec![Blocker { task, object, reason, remedy: "try again in a moment".into() }]);
        }
        // Whoever shares them goes on while the tree stands still; that somebody does is found and said when they hold still for a moment.
        if let CollectError::Proc(gone) = &error
            && let Some(path) = gone.object_gone()
        {
            return Failure::Passing(vec![Blocker {
                task: format!("pid {}", self.options.pid),
                object: path.into(),
                reason: "it has gone while the tree stood still: a task outside shares its descriptors or memory"
                    .into(),
                remedy: "end that task, or try again".into(),
            }]);
        }
        self.failure_of(tree, self.collect_error(error))
    }

    /// The same while memory is read. What has gone out to a stream cannot be taken back.
    pub(super) fn writing_failure(&self, error: Error, tree: &FrozenTree) -> Failure {
        if !matches!(error, Error::Kernel { .. }) {
            return Failure::Final(error);
        }
        match (self.failure_of(tree, error), &self.options.output) {
            (Failure::Passing(blockers), Output::Stdout) => Failure::Final(Error::Blocked(blockers)),
            (failure, _) => failure,
        }
    }

    /// What has failed, unless it is because somebody has killed a process of the tree.
    pub(super) fn failure_of(&self, tree: &FrozenTree, error: Error) -> Failure {
        let root = self.options.pid;
        match tree.lost().first() {
            None => Failure::Final(error),
            Some(&lost) if lost == root => Failure::Final(Error::Vanished(root)),
            Some(lost) => Failure::Passing(vec![Blocker {
                task: format!("pid {lost}"),
                object: "a process of the tree".into(),
                reason: "somebody has killed it while it was looked at".into(),
                remedy: "try again when that has come to an end".into(),
            }]),
        }
    }

    fn collect_error(&self, error: CollectError) -> Error {
        let pid = self.options.pid;
        match error {
            CollectError::Proc(e) if e.is_vanished() => Error::Vanished(pid),
            CollectError::Proc(e) => Error::Kernel { pid, action: "reading /proc".into(), source: io::Error::other(e) },
            CollectError::Kernel { tid, action, source } => {
                Error::Kernel { pid: Pid(tid.0), action: action.into(), source }
            }
            CollectError::Remote { source, .. } => self.tracer_error(source),
        }
    }

    pub(super) fn write_error(&self, error: WriteError) -> Error {
        match error {
            WriteError::Stopped(source) => self.cancelled().unwrap_or(Error::Kernel {
                pid: self.options.pid,
                action: "writing pages".into(),
                source,
            }),
            WriteError::Read { source, .. } => {
                Error::Kernel { pid: self.options.pid, action: "reading its memory".into(), source }
            }
            other => self
                .cancelled()
                .unwrap_or_else(|| Error::Output { path: self.output_name(), source: io::Error::other(other) }),
        }
    }

    fn output_name(&self) -> String {
        match &self.options.output {
            Output::File(path) => path.display().to_string(),
            Output::Stdout => "standard output".into(),
        }
    }
}

/// A refusal for one reason, found before anything could be collected.
fn refusal(task: String, object: &str, reason: String, remedy: &str) -> Error {
    Error::Blocked(vec![Blocker::new(task, object, reason, remedy)])
}
