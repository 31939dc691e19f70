//! Watches of inotify(7) and marks of fanotify(7).

use super::id::FileId;
use serde::{Deserialize, Serialize};

/// One watch of an inotify instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Its number.
    pub wd: i32,
    /// What is watched.
    pub file: FileId,
    /// IN_* bits.
    pub mask: u32,
}

impl Watch {
    /// The highest number that is given back: the kernel gives them out one after another, and a restore uses up all that come before.
    pub const HIGHEST: i32 = 1 << 18;
}

/// A fanotify group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fanotify {
    /// FAN_* bits of fanotify_init(2).
    pub flags: u32,
    /// O_* bits of the descriptors that its events have.
    pub event_flags: u32,
    /// Its marks.
    pub marks: Vec<Mark>,
}

/// One mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// What of the file is marked.
    pub scope: MarkScope,
    /// The file.
    pub file: FileId,
    /// FAN_MARK_EVICTABLE, FAN_MARK_IGNORED_SURV_MODIFY, FAN_MARK_IGNORE.
    pub flags: u32,
    /// Events that are reported.
    pub mask: u32,
    /// Events that are ignored.
    pub ignored: u32,
}

/// What a mark covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MarkScope {
    /// The inode.
    Inode,
    /// The mount that it is in.
    Mount,
    /// Its file system.
    FileSystem,
}
