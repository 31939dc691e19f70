//! ptrace(2): attaching, stopping and resuming. Reading and writing of state is in [`super::regset`] and
//! [`super::ptrace_info`].
#![allow(unsafe_code)]

use super::{Result, checked};
use crate::image::model::id::Tid;
use bitflags::bitflags;

bitflags! {
    /// PTRACE_O_*.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Options: usize {
        /// Stops of system calls are told apart from SIGTRAP; without it our death kills the target (kernel/ptrace.c,
        /// `ptrace_report_syscall`).
        const SYSGOOD = 0x01;
        /// Children of fork(2) are traced from birth.
        const FORK = 0x02;
        /// Children of vfork(2) are traced from birth.
        const VFORK = 0x04;
        /// Threads are traced from birth.
        const CLONE = 0x08;
        /// execve(2) is an event.
        const EXEC = 0x10;
        /// Our death kills the task. Never for a target, which must outlive its tracer: only for a process that is half built.
        const EXITKILL = 0x10_0000;
        /// Seccomp filters do not apply while the task is traced; takes CAP_SYS_ADMIN.
        const SUSPEND_SECCOMP = 0x20_0000;
    }
}

/// PTRACE_EVENT_*, as the second byte of a stop's status.
pub mod event {
    /// A child was born by fork(2).
    pub const FORK: i32 = 1;
    /// A child was born by vfork(2).
    pub const VFORK: i32 = 2;
    /// A thread was born.
    pub const CLONE: i32 = 3;
    /// A new program began.
    pub const EXEC: i32 = 4;
    /// PTRACE_INTERRUPT, a group stop, or the first stop of a newborn.
    pub const STOP: i32 = 128;
}

/// Any request of ptrace(2).
///
/// # Safety
/// `address` and `data` must be what `request` wants: where they are pointers of ours, valid for what it reads and writes.
pub(super) unsafe fn request(request: libc::c_uint, tid: Tid, address: usize, data: usize) -> Result<usize> {
    // SAFETY: the caller vouches for the pointers; everything else is checked by the kernel.
    checked(unsafe { libc::syscall(libc::SYS_ptrace, libc::c_ulong::from(request), tid.0, address, data) })
}

/// PTRACE_SEIZE: from now on this OS thread traces `tid`, which runs on.
///
/// # Errors
/// EPERM (not allowed, already traced, or a zombie), ESRCH.
pub fn seize(tid: Tid, options: Options) -> Result<()> {
    // SAFETY: PTRACE_SEIZE takes no pointer.
    unsafe { request(libc::PTRACE_SEIZE, tid, 0, options.bits()) }.map(drop)
}

/// PTRACE_SETOPTIONS of a stopped task.
///
/// # Errors
/// EPERM for SUSPEND_SECCOMP without CAP_SYS_ADMIN or when this process is filtered itself, ESRCH.
pub fn set_options(tid: Tid, options: Options) -> Result<()> {
    // SAFETY: PTRACE_SETOPTIONS takes no pointer.
    unsafe { request(libc::PTRACE_SETOPTIONS, tid, 0, options.bits()) }.map(drop)
}

/// PTRACE_INTERRUPT: `tid` stops as soon as it can.
///
/// # Errors
/// ESRCH when it is gone or not ours.
pub fn interrupt(tid: Tid) -> Result<()> {
    // SAFETY: PTRACE_INTERRUPT takes no pointer.
    unsafe { request(libc::PTRACE_INTERRUPT, tid, 0, 0) }.map(drop)
}

/// PTRACE_CONT: a stopped task runs, with `signal` delivered if it stopped for one (0 for none).
///
/// # Errors
/// ESRCH when it is gone or not stopped.
pub fn cont(tid: Tid, signal: i32) -> Result<()> {
    // SAFETY: PTRACE_CONT takes no pointer.
    unsafe { request(libc::PTRACE_CONT, tid, 0, signal as usize) }.map(drop)
}

/// PTRACE_SYSCALL: as [`cont`], up to the next entry to or exit from a system call.
///
/// # Errors
/// ESRCH when it is gone or not stopped.
pub fn syscall(tid: Tid, signal: i32) -> Result<()> {
    // SAFETY: PTRACE_SYSCALL takes no pointer.
    unsafe { request(libc::PTRACE_SYSCALL, tid, 0, signal as usize) }.map(drop)
}

/// PTRACE_DETACH: a stopped task is free again. One in group stop stays stopped (kernel/ptrace.c, `__ptrace_unlink`).
///
/// # Errors
/// ESRCH when it is gone or not stopped.
pub fn detach(tid: Tid, signal: i32) -> Result<()> {
    // SAFETY: PTRACE_DETACH takes no pointer.
    unsafe { request(libc::PTRACE_DETACH, tid, 0, signal as usize) }.map(drop)
}

/// PTRACE_LISTEN: a task in group stop waits for SIGCONT without running.
///
/// # Errors
/// EIO when it is not in group stop, ESRCH.
pub fn listen(tid: Tid) -> Result<()> {
    // SAFETY: PTRACE_LISTEN takes no pointer.
    unsafe { request(libc::PTRACE_LISTEN, tid, 0, 0) }.map(drop)
}

/// PTRACE_GETEVENTMSG: the newborn's id after FORK, VFORK and CLONE, the former thread id after EXEC.
///
/// # Errors
/// ESRCH when it is gone or not stopped.
pub fn event_message(tid: Tid) -> Result<u64> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: the kernel writes one unsigned long to `message`.
    unsafe { request(libc::PTRACE_GETEVENTMSG as libc::c_uint, tid, 0, (&raw mut message) as usize) }?;
    Ok(message)
}
