//! waitid(2) for one traced task at a time.
#![allow(unsafe_code)]

use super::{Result, checked};
use crate::image::model::id::Tid;
use bitflags::bitflags;

bitflags! {
    /// How to wait.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags: i32 {
        /// Return at once when nothing is to report.
        const NOHANG = libc::WNOHANG;
        /// Leave what is reported in place. A stop for a signal must stay unreaped, or the signal is lost when we die.
        const NOWAIT = libc::WNOWAIT;
    }
}

/// What became of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It ended with this code.
    Exited(i32),
    /// It was ended by this signal.
    Killed(i32),
    /// It is stopped.
    Stopped {
        /// The signal; SIGTRAP with bit 7 set at the entry to or exit from a system call.
        signal: i32,
        /// [`super::ptrace::event`], 0 for none.
        event: i32,
    },
}

/// Waits for an exit or a stop of exactly this task, be it thread or process; `None` only with NOHANG.
///
/// # Errors
/// ECHILD when it is gone or neither traced by nor a child of this thread, EINTR.
pub fn wait(tid: Tid, flags: Flags) -> Result<Option<Status>> {
    let options = flags.bits() | libc::WEXITED | libc::WSTOPPED | libc::__WALL;
    // SAFETY: all-zero bytes are a valid `siginfo_t`.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one siginfo to `info`; the usage pointer is null.
    checked(unsafe { libc::syscall(libc::SYS_waitid, libc::P_PID, tid.0, &raw mut info, options, 0usize) })?;
    // SAFETY: after waitid the members of SIGCHLD are initialised, or zero as we made them.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok((pid != 0).then_some(match info.si_code {
        libc::CLD_EXITED => Status::Exited(status),
        libc::CLD_KILLED | libc::CLD_DUMPED => Status::Killed(status),
        _ => Status::Stopped { signal: status & 0xff, event: status >> 8 },
    }))
}
