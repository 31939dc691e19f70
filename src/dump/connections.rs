//! TCP connections of a tree that is killed: they vanish without a word to the other side, which waits until they are restored.

use crate::resources::socket::tcp::connection;
use crate::resources::socket::tcp::tree::{Lock, may_repair};
use crate::sys::undo::{Held, Undo};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// Those of the tree.
#[derive(Debug)]
pub struct Connections {
    /// Duplicates of their descriptors.
    pub files: Vec<File>,
    /// What drops the packets of those that lead outside.
    pub lock: Option<Lock>,
}

/// Connections in repair mode: closed so, they send nothing.
#[must_use]
pub struct Vanishing<'a>(Vec<[Held<'a>; 2]>);

impl Connections {
    /// Has them vanish when the last who has them closes them.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn vanish<'a>(&'a self, undo: &'a Undo) -> io::Result<Vanishing<'a>> {
        // Without that right all have both ends in the tree.
        if self.files.is_empty() || !may_repair()? {
            return Ok(Vanishing(Vec::new()));
        }
        self.files.iter().map(|file| connection::repair(file.as_fd(), undo)).collect::<io::Result<_>>().map(Vanishing)
    }

    /// Closes them, and leaves the lock until they are restored.
    ///
    /// # Errors
    /// As netlink(7).
    pub fn leave_lock(self) -> io::Result<()> {
        drop(self.files);
        self.lock.as_ref().map_or(Ok(()), Lock::leave)
    }
}

impl Vanishing<'_> {
    /// Nobody else has them any more: they stay in repair mode until they are closed.
    pub fn end(self) {
        std::mem::forget(self.0);
    }
}
