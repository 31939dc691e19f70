//! TCP connections of a tree that is killed: they vanish without a word to the other side, which waits until they are restored.

use crate::resources::socket::tcp::connection;
use crate::resources::socket::tcp::lock::{Left, Lock};
use crate::resources::socket::tcp::tree::may_repair;
use crate::sys::nftables::Remover;
use crate::sys::undo::{Held, Undo};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Those of the tree.
#[derive(Debug)]
pub struct Connections {
    /// Duplicates of their descriptors.
    pub files: Vec<File>,
    /// What drops the packets of those that lead outside.
    pub lock: Option<Lock>,
}

/// Connections in repair mode: closed so, they send nothing. Where that is not permitted, a reset between two that end both. The lock that outlives us is there too.
#[must_use]
pub struct Vanishing<'a> {
    /// Dropped first.
    held: Vec<[Held<'a>; 2]>,
    left: Option<Left<'a>>,
    undo: &'a Undo,
}

impl Connections {
    /// What takes the lock away again that [`Connections::vanish`] leaves.
    ///
    /// # Errors
    /// As netlink(7).
    pub fn remover(&self) -> io::Result<Option<Remover>> {
        self.lock.as_ref().map(Lock::remover).transpose()
    }

    /// Has them vanish when the last who has them closes them, and leaves the lock until they are restored: unless we die before
    /// [`Vanishing::end`], or what is returned is dropped.
    ///
    /// # Errors
    /// As setsockopt(2), netlink(7).
    pub fn vanish<'a>(&'a self, remover: Option<&'a Remover>, undo: &'a Undo) -> io::Result<Vanishing<'a>> {
        if self.files.is_empty() {
            return Ok(Vanishing { held: Vec::new(), left: None, undo });
        }
        if !may_repair()? {
            // All have both ends in the tree. The first that was closed would have their names for a minute (TIME-WAIT).
            let held = self.files.iter().map(|file| connection::end_at_once(file.as_fd(), undo));
            return Ok(Vanishing { held: held.collect::<io::Result<_>>()?, left: None, undo });
        }
        let left = match (&self.lock, remover) {
            (Some(lock), Some(remover)) => Some(lock.leave(remover, undo)?),
            (Some(_) | None, _) => None,
        };
        let held = self.files.iter().map(|file| connection::repair(file.as_fd(), undo)).collect::<io::Result<_>>()?;
        Ok(Vanishing { held, left, undo })
    }
}

impl Vanishing<'_> {
    /// Should we die from here on, all of these are killed: the first that is takes its connections with it.
    ///
    /// # Errors
    /// ENOSPC when there are too many.
    pub fn commit<'a>(&self, pidfds: impl ExactSizeIterator<Item = BorrowedFd<'a>>) -> io::Result<()> {
        self.undo.kill_instead(pidfds)
    }

    /// Whoever else has them is as good as dead: they stay in repair mode until they are closed.
    pub fn end(self) {
        let Self { held, left, undo } = self;
        undo.forget();
        std::mem::forget((held, left));
    }
}
