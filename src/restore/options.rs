//! What is asked of a restore, and what comes of it.

use super::readdress::{Addresses, Consequences};
use super::renumber::Ids;
use crate::blocker::Blocker;
use crate::image::model::id::Pid;
use crate::progress::Progress;
use std::io;
use std::path::PathBuf;

/// What to restore, and how.
pub struct Options<'a> {
    /// The image.
    pub image: Input,
    /// Return once the program runs, instead of standing in as its parent until it ends.
    pub detach: bool,
    /// Leave it stopped at the instant of the dump.
    pub stopped: bool,
    /// What to do about files open for writing that changed since.
    pub files: FilesPolicy,
    /// Changed mapped files to accept.
    pub ignore_changed: Vec<PathBuf>,
    /// Descriptors of this process that stand in for those that lie outside the image, by the names of these.
    pub inherit: Vec<(i32, String)>,
    /// Restore into a pid namespace (and, without privilege, a user namespace) of its own.
    pub new_pid_namespace: bool,
    /// Restore under ids that are free, whichever these are.
    pub new_pids: bool,
    /// Restore into an IPC namespace of its own.
    pub new_ipc_namespace: bool,
    /// What becomes of addresses, and of connections to the outside.
    pub addresses: Addresses,
    /// Who is told how far it is.
    pub progress: &'a dyn Progress,
}

/// Where an image is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

/// `--files`: files open for writing that are not as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesPolicy {
    /// Any change is an error.
    Check,
    /// A file that grew is cut back to its size at the dump; other changes are errors.
    Truncate,
    /// They are used as they are.
    Ignore,
}

/// How a restore ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The program ran to its end and exited with this code.
    Exited(i32),
    /// The program was ended by this signal.
    Signaled(i32),
    /// The program runs (`--detach`), or is stopped (`--stopped`).
    Left(Pid),
}

/// What came of a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// How it ended.
    pub outcome: Outcome,
    /// With [`Options::new_pids`], the new ids by the old ones.
    pub ids: Option<Ids>,
}

/// Why a restore failed. Whatever it is, no process and no file of it is left.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This host cannot give what the image needs.
    #[error("{} cannot be restored here", .0.len())]
    Blocked(Vec<Blocker>),
    /// The image is damaged or of another version.
    #[error("{image}: {reason}")]
    Image {
        /// Its name.
        image: String,
        /// What is wrong with it.
        reason: String,
        /// What helps.
        remedy: &'static str,
    },
    /// The kernel does not let us.
    #[error("{action}: permission denied: {hint}")]
    Permission {
        /// What was tried.
        action: String,
        /// What would help.
        hint: String,
    },
    /// A step failed; what was built is killed.
    #[error("{step}: {source}")]
    Step {
        /// Which step.
        step: String,
        /// Why.
        source: io::Error,
    },
}

/// What the plan depends on besides image and host.
#[derive(Clone, Copy, Debug)]
pub struct Choices<'a> {
    /// See [`Options::files`].
    pub files: FilesPolicy,
    /// See [`Options::ignore_changed`].
    pub ignore_changed: &'a [PathBuf],
    /// See [`Options::inherit`].
    pub inherit: &'a [(i32, String)],
    /// Whether the process is nobody's child: `snap` does not stay.
    pub orphan: bool,
    /// See [`Options::new_pid_namespace`].
    pub new_pid_namespace: bool,
    /// See [`Options::new_ipc_namespace`].
    pub new_ipc_namespace: bool,
    /// What follows from [`Options::addresses`], and from new ids.
    pub readdressed: &'a Consequences,
}

impl<'a> Choices<'a> {
    /// Those of a restore in the foreground without any option.
    #[must_use]
    pub const fn plain(readdressed: &'a Consequences) -> Self {
        Self {
            files: FilesPolicy::Check,
            ignore_changed: &[],
            inherit: &[],
            orphan: false,
            new_pid_namespace: false,
            new_ipc_namespace: false,
            readdressed,
        }
    }
}
