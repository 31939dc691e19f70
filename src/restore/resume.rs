//! How a restored thread goes on with the system call in which it was frozen.
//!
//! A thread that resumes from a PTRACE_EVENT_STOP passes through the kernel's own restart logic
//! (arch/x86/kernel/signal.c, `arch_do_signal_or_restart`), which looks at `orig_rax` and `rax` alone. So the thread is
//! given what it had when it was stopped, an error of the restart family, and the kernel does what it would have done:
//! it makes the call again, or, if a signal with a handler is pending, ends it with EINTR where it must.
//!
//! A call with time left has a restart block in the kernel. The thread gets one of its own by making the call with the
//! remaining time, taken from memory of ours, while a stop is already due: the kernel reads the time, goes to sleep, is
//! woken at once, and leaves the absolute deadline in the block. No memory of the caller's is touched but `rem`, which
//! the kernel itself writes whenever it wakes a sleeper.

use super::script::Script;
use crate::image::model::thread::{BlockedSyscall, Registers, Resume};

/// Errors that the kernel turns into a restart (include/linux/errno.h).
const ERESTARTSYS: i64 = -512;
const ERESTARTNOHAND: i64 = -514;
/// The restart block decides.
pub const ERESTART_RESTARTBLOCK: i64 = -516;
/// What FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME leave of the operation.
const FUTEX_CMD_MASK: u64 = 0x7f;
/// Length of the `syscall` instruction.
const SYSCALL_LEN: u64 = 2;

/// A call that gives a thread its restart block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedCall {
    /// Its number.
    pub number: u64,
    /// Its arguments, the time taken from memory of ours.
    pub args: [u64; 6],
}

/// The call that a thread must make before it gets its registers, if it has time left to wait.
pub fn timed_call(script: &mut Script, blocked: &BlockedSyscall) -> Option<TimedCall> {
    let Resume::Remaining { nanos, exact: _ } = blocked.resume else { return None };
    let mut args = blocked.args;
    let time = |script: &mut Script| script.place_words(&[nanos / 1_000_000_000, nanos % 1_000_000_000]).0;
    match i64::try_from(blocked.number).ok()? {
        libc::SYS_nanosleep => args[0] = time(script),
        libc::SYS_clock_nanosleep => args[2] = time(script),
        // FUTEX_WAIT alone counts from now; the others have a deadline.
        libc::SYS_futex if args[1] & FUTEX_CMD_MASK == libc::FUTEX_WAIT as u64 => args[3] = time(script),
        // Without a timeout, poll has a restart block all the same.
        libc::SYS_poll if (args[2] as i32) < 0 => {}
        libc::SYS_poll => args[2] = nanos.div_ceil(1_000_000).min(i32::MAX as u64),
        _ => return None,
    }
    Some(TimedCall { number: blocked.number, args })
}

/// The registers with which a thread leaves its stop. `result` is what its timed call returned, if it made one.
///
/// The image's registers make the call again: the instruction pointer stands on the `syscall` instruction.
#[must_use]
pub fn registers(regs: &Registers, blocked: Option<&BlockedSyscall>, result: Option<i64>) -> Registers {
    let Some(blocked) = blocked else {
        return Registers { orig_rax: u64::MAX, ..*regs };
    };
    let after = Registers { rip: regs.rip.wrapping_add(SYSCALL_LEN), ..*regs };
    match result {
        None => Registers { rax: restart_error(blocked.number) as u64, orig_rax: blocked.number, ..after },
        Some(ERESTART_RESTARTBLOCK) => {
            Registers { rax: ERESTART_RESTARTBLOCK as u64, orig_rax: blocked.number, ..after }
        }
        // It is over already: what it waited for has come.
        Some(result) => Registers { rax: result as u64, orig_rax: u64::MAX, ..after },
    }
}

/// Whether a handler ends the call with EINTR whatever its SA_RESTART says (signal(7)).
fn restart_error(number: u64) -> i64 {
    let never_after_handler = [
        libc::SYS_pause,
        libc::SYS_rt_sigsuspend,
        libc::SYS_rt_sigtimedwait,
        libc::SYS_poll,
        libc::SYS_ppoll,
        libc::SYS_select,
        libc::SYS_pselect6,
        libc::SYS_epoll_wait,
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2,
        libc::SYS_nanosleep,
        libc::SYS_clock_nanosleep,
        libc::SYS_semop,
        libc::SYS_semtimedop,
        libc::SYS_msgrcv,
        libc::SYS_msgsnd,
        libc::SYS_io_getevents,
    ];
    if never_after_handler.contains(&(number as i64)) { ERESTARTNOHAND } else { ERESTARTSYS }
}
