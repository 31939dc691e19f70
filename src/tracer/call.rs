//! The system call in which a stop found a thread, and how the kernel goes on with it.
//!
//! The kernel takes most calls back with one of its restart codes in `rax` and makes them again when the thread goes on. Some end with
//! EINTR on any wake-up though no handler ran (signal(7), "interrupted by stop signals"); these are told here to be made again.

use crate::sys::regset::UserRegs;

/// A call that a stop interrupted and that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Its number; 219 (restart_syscall) when the call had been taken up once before and its number is not known any more.
    pub number: u64,
    /// Its arguments.
    pub args: [u64; 6],
    /// How the kernel goes on with it.
    pub restart: Restart,
}

/// The kernel's restart codes (include/linux/errno.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// -ERESTARTSYS: again, after a handler only with SA_RESTART.
    System,
    /// -ERESTARTNOINTR: again, always.
    NoInterrupt,
    /// -ERESTARTNOHAND: again if no handler ran.
    NoHandler,
    /// -ERESTART_RESTARTBLOCK: restart_syscall(2) with what is left of the time.
    Block,
}

const ERESTARTSYS: u64 = -512i64 as u64;
const ERESTARTNOINTR: u64 = -513i64 as u64;
const ERESTARTNOHAND: u64 = -514i64 as u64;
const ERESTART_RESTARTBLOCK: u64 = -516i64 as u64;
const EINTR: u64 = -(libc::EINTR as i64) as u64;

/// Not declared by libc for x86-64.
const SYS_IO_PGETEVENTS: i64 = 333;

/// The call that a thread with these registers is in the middle of.
#[must_use]
pub fn blocked(regs: &UserRegs) -> Option<Blocked> {
    let restart = match regs.rax {
        _ if (regs.orig_rax as i64) < 0 => return None,
        ERESTARTSYS => Restart::System,
        ERESTARTNOINTR => Restart::NoInterrupt,
        ERESTARTNOHAND => Restart::NoHandler,
        ERESTART_RESTARTBLOCK => Restart::Block,
        _ => return None,
    };
    let args = [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9];
    Some(Blocked { number: regs.orig_rax, args, restart })
}

/// Registers with which a call interrupted by our stop is made again, if it is one that the kernel has ended with EINTR.
///
/// Only right when nothing but our stop can have woken the thread: a handler that still runs gives EINTR as before.
#[must_use]
pub fn undo_interruption(regs: &UserRegs) -> Option<UserRegs> {
    let interrupted = regs.rax == EINTR && i64::try_from(regs.orig_rax).is_ok_and(ends_when_stopped);
    interrupted.then_some(UserRegs { rax: ERESTARTNOHAND, ..*regs })
}

/// Registers that make the call again from user space, for a thread that goes on from somewhere else than the stop which
/// interrupted it: the kernel looks at restart codes only there.
#[must_use]
pub fn made_again(regs: &UserRegs) -> UserRegs {
    let Some(call) = blocked(regs) else { return *regs };
    let rax = match call.restart {
        Restart::Block => libc::SYS_restart_syscall as u64,
        Restart::System | Restart::NoInterrupt | Restart::NoHandler => call.number,
    };
    UserRegs { rax, rip: regs.rip.wrapping_sub(2), orig_rax: u64::MAX, ..*regs }
}

/// Calls that end with EINTR whenever a wake-up finds nothing to do, and that have then done nothing.
///
/// close(2) is not among them: it has closed the descriptor.
pub(super) fn ends_when_stopped(number: i64) -> bool {
    matches!(
        number,
        libc::SYS_epoll_wait
            | libc::SYS_epoll_wait_old
            | libc::SYS_epoll_pwait
            | libc::SYS_epoll_pwait2
            | libc::SYS_rt_sigtimedwait
            // With STICKY_TIMEOUTS, or a timeout in memory that cannot be written (fs/select.c, `poll_select_finish`).
            | libc::SYS_ppoll
            | libc::SYS_select
            | libc::SYS_pselect6
            | libc::SYS_semop
            | libc::SYS_semtimedop
            | libc::SYS_msgrcv
            | libc::SYS_msgsnd
            | libc::SYS_io_getevents
            | SYS_IO_PGETEVENTS
            | libc::SYS_io_uring_enter
            | libc::SYS_read
            | libc::SYS_readv
            | libc::SYS_write
            | libc::SYS_writev
            | libc::SYS_accept
            | libc::SYS_accept4
            | libc::SYS_connect
            | libc::SYS_recvfrom
            | libc::SYS_recvmsg
            | libc::SYS_recvmmsg
            | libc::SYS_sendto
            | libc::SYS_sendmsg
            | libc::SYS_sendmmsg
            // From and to a socket with a timeout.
            | libc::SYS_preadv2
            | libc::SYS_pwritev2
            | libc::SYS_sendfile
            | libc::SYS_splice
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::regset;

    fn regs(number: i64, result: i64) -> UserRegs {
        UserRegs { orig_rax: number as u64, rax: result as u64, rip: 0x1002, rdi: 7, ..regset::zeroed() }
    }

    #[test]
    fn a_restart_code_outside_of_a_call_is_a_value() {
        assert_eq!(blocked(&regs(-1, -512)), None);
        assert_eq!(made_again(&regs(-1, -512)).rip, 0x1002);
    }

    #[test]
    fn each_code_is_told_apart_and_made_again() {
        for (code, restart, rax) in [
            (-512, Restart::System, 0),
            (-513, Restart::NoInterrupt, 0),
            (-514, Restart::NoHandler, 0),
            (-516, Restart::Block, 219),
        ] {
            let stopped = regs(0, code);
            let call = blocked(&stopped).expect("blocked");
            assert_eq!((call.number, call.args[0], call.restart), (0, 7, restart));
            let again = made_again(&stopped);
            assert_eq!((again.rax, again.rip, again.orig_rax), (rax, 0x1000, u64::MAX));
        }
    }

    #[test]
    fn eintr_is_undone_only_where_the_call_did_nothing() {
        assert_eq!(undo_interruption(&regs(libc::SYS_epoll_wait, -4)).map(|r| r.rax as i64), Some(-514));
        assert!(undo_interruption(&regs(libc::SYS_close, -4)).is_none());
        assert!(undo_interruption(&regs(libc::SYS_epoll_wait, 0)).is_none());
        assert!(undo_interruption(&regs(-1, -4)).is_none());
    }
}
