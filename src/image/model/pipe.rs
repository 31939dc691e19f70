//! Pipes.

use super::id::PipeId;
use serde::{Deserialize, Serialize};

/// A pipe whose ends are inside the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipe {
    /// Its place in [`super::Snapshot::pipes`].
    pub id: PipeId,
    /// Inode number at the dump, for reports.
    pub ino: u64,
    /// F_GETPIPE_SZ in bytes.
    pub capacity: u32,
    /// Unread bytes, oldest first; one element a packet in O_DIRECT mode, else one in all.
    pub unread: Vec<Vec<u8>>,
    /// Owner of the inode.
    pub uid: u32,
    /// Group of the inode.
    pub gid: u32,
}
