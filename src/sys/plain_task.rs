//! A process of ours that has nothing: beside it, whether another task has an object can be told.
#![allow(unsafe_code)]

use super::skeleton::CloneArgs;
use super::{Result, sched};
use crate::image::model::id::Tid;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use std::io;

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
        let parent = nix::unistd::getpid();
        // SAFETY: the child makes system calls alone, which take no pointer of memory that another thread may be changing.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Self(child)),
            ForkResult::Child => idle(parent),
        }
    }

    /// One with this id, whatever else it has.
    ///
    /// # Errors
    /// As clone3(2): EEXIST when the id is taken, EPERM without CAP_CHECKPOINT_RESTORE.
    pub fn with_id(tid: Tid) -> io::Result<Self> {
        let parent = nix::unistd::getpid();
        let args = CloneArgs {
            exit_signal: libc::SIGCHLD as u64,
            set_tid: (&raw const tid.0) as u64,
            set_tid_size: 1,
            ..CloneArgs::default()
        };
        // SAFETY: as fork(2), for no memory is shared and the stack is a copy; the child makes system calls alone.
        match unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) } {
            0 => idle(parent),
            child @ 1.. => Ok(Self(Pid::from_raw(child as i32))),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Its id.
    #[must_use]
    pub fn tid(&self) -> Tid {
        Tid(self.0.as_raw())
    }
}

/// What it does: wait for its end, which is that of its parent at the latest.
fn idle(parent: Pid) -> ! {
    loop {
        // SAFETY: takes numbers alone.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        if nix::unistd::getppid() != parent {
            // SAFETY: ends this process.
            unsafe { libc::_exit(0) };
        }
        // SAFETY: takes nothing.
        unsafe { libc::pause() };
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
