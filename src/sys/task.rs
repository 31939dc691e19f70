//! What other calls tell of a task: robust list, resource limits; and who we are.
#![allow(unsafe_code)]

use super::{Result, checked};
use crate::image::model::address::Addr;
use crate::image::model::id::{Pid, Tid};

/// prctl(2) PR_GET_SPECULATION_CTRL of the calling thread.
///
/// # Errors
/// ENODEV or EINVAL for a control that the kernel does not have.
pub fn speculation(control: u64) -> Result<u32> {
    // SAFETY: the option takes numbers only.
    checked(unsafe { libc::prctl(libc::PR_GET_SPECULATION_CTRL, control, 0, 0, 0).into() }).map(|state| state as u32)
}

/// get_robust_list(2): head (null for none) and length.
///
/// # Errors
/// ESRCH, EPERM.
pub fn robust_list(tid: Tid) -> Result<(Addr, u64)> {
    let mut head = 0u64;
    let mut len = 0u64;
    // SAFETY: the kernel writes one word to each pointer.
    checked(unsafe { libc::syscall(libc::SYS_get_robust_list, tid.0, &raw mut head, &raw mut len) })?;
    Ok((Addr(head), len))
}

/// tgkill(2).
///
/// # Errors
/// ESRCH, EPERM.
pub fn send_signal(pid: Pid, tid: Tid, signal: i32) -> Result<()> {
    // SAFETY: tgkill takes no pointer.
    checked(unsafe { libc::syscall(libc::SYS_tgkill, pid.0, tid.0, signal) }).map(drop)
}

/// The calling process.
#[must_use]
pub fn own_pid() -> Pid {
    Pid(std::process::id() as i32)
}

/// The calling OS thread, which is what ptrace(2) takes for the tracer.
#[must_use]
pub fn own_tid() -> Tid {
    // SAFETY: gettid takes no argument and cannot fail.
    Tid(unsafe { libc::gettid() })
}
