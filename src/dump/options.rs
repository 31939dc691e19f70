//! What is asked of a dump, and what it says that it has done.

use super::collect::Border;
use crate::blocker::Blocker;
use crate::image::model::Snapshot;
use crate::image::model::id::Pid;
use crate::image::model::inventory::Stats;
use crate::progress::Progress;
use std::path::PathBuf;
use std::time::Duration;

/// What to dump, and how.
pub struct Options<'a> {
    /// The process to dump.
    pub pid: Pid,
    /// Where the image goes.
    pub output: Output,
    /// What becomes of the target.
    pub after: After,
    /// Bound on the whole dump.
    pub timeout: Option<Duration>,
    /// zstd level of the pages; `None` stores them as they are.
    pub compression: Option<i32>,
    /// What is said of descriptors that lead out of the tree.
    pub border: Border,
    /// What of an image no restore could bring back, wherever it is.
    pub unrestorable: fn(&Snapshot) -> Vec<Blocker>,
    /// Who is told how far it is.
    pub progress: &'a dyn Progress,
}

/// Where an image is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A file that appears under its name only when it is whole.
    File(PathBuf),
    /// Standard output, as a stream.
    Stdout,
}

/// What becomes of the target after the dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It goes on as if nothing had happened.
    LeaveRunning,
    /// It is in group stop (SIGSTOP).
    LeaveStopped,
    /// It is killed once the image is durable.
    Kill,
}

/// What a dump did.
#[derive(Clone, Debug)]
pub struct Report {
    /// Counts, bytes and the pause.
    pub stats: Stats,
    /// Bytes of the image.
    pub image_size: u64,
    /// Time from start to end.
    pub total: Duration,
    /// Killed processes whose pid stays taken until their parent reaps them.
    pub unreaped: Vec<Pid>,
    /// What the user should know about the image.
    pub warnings: Vec<String>,
}
