//! pidfd_open(2), pidfd_getfd(2), pidfd_send_signal(2).
#![allow(unsafe_code)]

use super::{Result, checked};
use crate::image::model::id::{Fd, Pid, Tid};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A descriptor that means this process and never another that gets its pid.
///
/// # Errors
/// ESRCH, EMFILE, EINVAL when `pid` is a thread and not a process.
pub fn open(pid: Pid) -> Result<OwnedFd> {
    // SAFETY: pidfd_open takes no pointer.
    let fd = checked(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.0, 0) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A descriptor that means this one thread (PIDFD_THREAD, Linux 6.9).
///
/// # Errors
/// ESRCH, EMFILE, EINVAL before Linux 6.9.
pub fn open_thread(tid: Tid) -> Result<OwnedFd> {
    // SAFETY: pidfd_open takes no pointer.
    let fd = checked(unsafe { libc::syscall(libc::SYS_pidfd_open, tid.0, libc::O_EXCL) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A descriptor that means this task, with PIDFD_NONBLOCK and PIDFD_THREAD among the flags.
///
/// # Errors
/// As pidfd_open(2).
pub fn open_as(tid: Tid, flags: u32) -> Result<OwnedFd> {
    // SAFETY: pidfd_open takes no pointer.
    let fd = checked(unsafe { libc::syscall(libc::SYS_pidfd_open, tid.0, flags) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A descriptor of ours for the open file description behind `fd` of that process, close-on-exec.
///
/// # Errors
/// EBADF, EPERM without the right to attach to it, EMFILE, ESRCH.
pub fn get_fd(pidfd: BorrowedFd<'_>, fd: Fd) -> Result<OwnedFd> {
    // SAFETY: pidfd_getfd takes no pointer.
    let fd = checked(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd.0, 0) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends a signal to exactly this process; 0 asks whether it is alive or an unreaped zombie.
///
/// # Errors
/// ESRCH when it is gone, EPERM.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: a null siginfo is what kill(2) sends.
    checked(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, 0usize, 0) }).map(drop)
}
