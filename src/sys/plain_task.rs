//! A process of ours that has nothing: beside it, whether another task has an object can be told.
#![allow(unsafe_code)]

use super::{Result, sched};
use crate::image::model::id::Tid;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

/// A child without undo list and I/O context, for kcmp(2) takes two tasks that have none for two that have the same. Dropped, it is gone.
#[derive(Debug)]
pub struct PlainTask(Pid);

impl PlainTask {
    /// Makes it.
    ///
    /// # Errors
    /// As fork(2).
    pub fn start() -> Result<Self> {
        // A child inherits the priority, and an I/O context to hold it (block/blk-ioc.c, `__copy_io`).
        let priority = sched::io_priority(Tid(0))?;
        if priority == 0 {
            return Self::fork();
        }
        sched::set_own_io_priority(0)?;
        let task = Self::fork();
        sched::set_own_io_priority(priority)?;
        task
    }

    fn fork() -> Result<Self> {
        // SAFETY: the child makes system calls alone, which take no pointer of memory that another thread may be changing.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Self(child)),
            ForkResult::Child => loop {
                // SAFETY: takes numbers alone.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                if nix::unistd::getppid().as_raw() == 1 {
                    // SAFETY: ends this process.
                    unsafe { libc::_exit(0) };
                }
                // SAFETY: takes nothing.
                unsafe { libc::pause() };
            },
        }
    }

    /// Its id.
    #[must_use]
    pub fn tid(&self) -> Tid {
        Tid(self.0.as_raw())
    }
}

impl Drop for PlainTask {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        while waitpid(self.0, None) == Err(Errno::EINTR) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::kcmp::{Object, compare};
    use std::cmp::Ordering;

    #[test]
    fn two_of_them_have_nothing_alike() {
        let (one, other) = (PlainTask::start().unwrap(), PlainTask::start().unwrap());
        let same = |object| compare(one.tid(), other.tid(), object, 0, 0).unwrap() == Some(Ordering::Equal);
        assert!(same(Object::SysvSem) && same(Object::Io) && !same(Object::Files));
    }
}
