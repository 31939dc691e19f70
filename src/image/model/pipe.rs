//! Pipes and named FIFOs.

use super::id::{FileId, PipeId};
use serde::{Deserialize, Serialize};

/// A pipe whose ends are inside the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipe {
    /// Its place in [`super::Snapshot::pipes`].
    pub id: PipeId,
    /// Inode number at the dump, for reports.
    pub ino: u64,
    /// The FIFO that it is (fifo(7)); `None` for one of pipe(2).
    pub fifo: Option<FileId>,
    /// F_GETPIPE_SZ in bytes.
    pub capacity: u32,
    /// What nobody has read yet, oldest first.
    pub unread: Vec<Unread>,
    /// Owner of the inode.
    pub uid: u32,
    /// Group of the inode.
    pub gid: u32,
}

/// A part of what is in a pipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// One packet of O_DIRECT mode, which a read never joins with what follows; else a stream of bytes.
    pub packet: bool,
    /// The bytes, at least one.
    pub bytes: Vec<u8>,
}
