//! System calls that the freeze interrupted: where they were, and how they go on after a restore.
//!
//! A stop wakes every blocked call, which then waits to be restarted (arch/x86/kernel/signal.c, `arch_do_signal_or_restart`).
//! The living target is restarted by the kernel. A restored thread has no such state, so the image holds registers
//! that make the call again, and the time that was left of a relative timeout.

pub mod sample;
pub mod timeout;
pub mod transfer;

pub use sample::{Left, Sample, Samples};

use crate::image::model::address::Addr;
use crate::image::model::thread::{BlockedSyscall, Registers, Resume};
use std::time::Instant;

/// Length of the `syscall` instruction.
const SYSCALL_LEN: u64 = 2;

/// Errors below which the kernel restarts a call (include/linux/errno.h).
const ERESTARTSYS: i64 = -512;
const ERESTARTNOINTR: i64 = -513;
const ERESTARTNOHAND: i64 = -514;
const ERESTART_RESTARTBLOCK: i64 = -516;

/// The call as which the kernel goes on with one that has a restart block.
const RESTART: u64 = libc::SYS_restart_syscall as u64;

/// What FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME leave of a futex operation.
const FUTEX_CMD_MASK: u64 = 0x7f;

/// Reads 16 bytes of the target: a `struct timespec`.
pub type ReadTimespec<'a> = &'a mut dyn FnMut(Addr) -> Option<(i64, i64)>;

/// What a stopped thread was blocked in; its registers are set to make the call again.
///
/// The sample tells what the stop hides: since when it slept, and the call behind a restart_syscall(2).
pub fn rewind(
    regs: &mut Registers,
    sample: Option<Sample>,
    frozen_at: Instant,
    timespec: ReadTimespec<'_>,
) -> Option<BlockedSyscall> {
    if regs.orig_rax.cast_signed() < 0 {
        return None;
    }
    let asleep = sample.and_then(|sample| Some(Asleep::since(sample.since?, frozen_at)));
    let args = [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9];
    let blocked = match regs.rax.cast_signed() {
        ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND => {
            let resume = sample.and_then(|sample| sample.left).map_or(Resume::Again, |left| match left {
                Left::Known(nanos) => Resume::Shortened { nanos },
                Left::Unknown => Resume::Anew,
            });
            BlockedSyscall { number: regs.orig_rax, args, resume }
        }
        ERESTART_RESTARTBLOCK => {
            let number = original_number(regs.orig_rax, &args, sample);
            let woke = sample.is_some_and(|sample| sample.woke);
            let mut resume = remaining(number, &args, asleep, woke, timespec);
            // It was stopped before, and is known to sleep only since then.
            if let Resume::Remaining { nanos: _, exact } = &mut resume {
                *exact &= regs.orig_rax != RESTART || written_by_kernel(number, &args);
            }
            BlockedSyscall { number, args, resume }
        }
        _ => return None,
    };
    regs.rip = regs.rip.wrapping_sub(SYSCALL_LEN);
    regs.rax = blocked.number;
    regs.orig_rax = u64::MAX;
    Some(blocked)
}

/// How long a thread has slept, in nanoseconds.
#[derive(Clone, Copy)]
struct Asleep {
    /// When the freeze began, with which its sleep ended at the soonest.
    then: u64,
    /// By now, when it certainly stands still.
    now: u64,
}

impl Asleep {
    fn since(since: Instant, frozen_at: Instant) -> Self {
        let until = |end: Instant| end.saturating_duration_since(since).as_nanos() as u64;
        Self { then: until(frozen_at), now: until(frozen_at.max(Instant::now())) }
    }
}

/// Calls with a restart block that have a relative timeout (kernel/time, kernel/futex, fs/select.c).
fn original_number(orig_rax: u64, args: &[u64; 6], sample: Option<Sample>) -> u64 {
    if orig_rax != RESTART {
        return orig_rax;
    }
    match sample {
        Some(sample) if sample.number != RESTART => sample.number,
        _ => guess_number(args),
    }
}

/// The call behind a restart_syscall(2), by the shape of its arguments, which are still in the registers.
///
/// clock_nanosleep has a clock id first, poll a count of at most RLIMIT_NOFILE second, futex an operation second.
fn guess_number(args: &[u64; 6]) -> u64 {
    const LOWEST_POINTER: u64 = 0x1_0000;
    let (first, second, third) = (args[0], args[1], args[2]);
    let number = if first < LOWEST_POINTER && third >= LOWEST_POINTER {
        libc::SYS_clock_nanosleep
    } else if second == 0 || second >= LOWEST_POINTER {
        libc::SYS_nanosleep
    } else if second & 0x7f <= 13 && args[3] >= LOWEST_POINTER {
        libc::SYS_futex
    } else {
        libc::SYS_poll
    };
    number as u64
}

/// How much is left of a relative timeout.
fn remaining(number: u64, args: &[u64; 6], asleep: Option<Asleep>, woke: bool, timespec: ReadTimespec<'_>) -> Resume {
    let nanos = |pair: Option<(i64, i64)>| {
        pair.map(|(s, ns)| {
            s.max(0).cast_unsigned().saturating_mul(1_000_000_000).saturating_add(ns.max(0).cast_unsigned())
        })
    };
    let (full, rest) = match number as i64 {
        // The kernel has written what is left to the caller's own `rem` when it woke the sleeper.
        libc::SYS_nanosleep => (nanos(timespec(Addr(args[0]))), written(args[1], timespec)),
        libc::SYS_clock_nanosleep => (nanos(timespec(Addr(args[2]))), written(args[3], timespec)),
        // FUTEX_WAIT alone counts from its start; the others have a deadline.
        libc::SYS_futex if args[1] & FUTEX_CMD_MASK == libc::FUTEX_WAIT as u64 => {
            (nanos(timespec(Addr(args[3]))), None)
        }
        // A negative timeout is none.
        libc::SYS_poll if (args[2] as i32) >= 0 => (Some((args[2] as i32) as u64 * 1_000_000), None),
        _ => return Resume::Again,
    };
    if let Some(rest) = nanos(rest) {
        return Resume::Remaining { nanos: rest, exact: true };
    }
    match (full, asleep) {
        // Its time may have come before it stood still; then it has only begun to sleep again, and may not wake early.
        (Some(full), Some(asleep)) if asleep.now >= full => Resume::Remaining { nanos: full, exact: true },
        // It may have begun anew, or have looked about and gone on sleeping.
        (Some(full), Some(_)) if woke => Resume::Remaining { nanos: full, exact: false },
        (Some(full), Some(asleep)) => Resume::Remaining { nanos: full - asleep.then, exact: true },
        (Some(full), None) => Resume::Remaining { nanos: full, exact: false },
        (None, _) => Resume::Again,
    }
}

/// Whether the kernel writes what is left to the caller whenever it wakes a sleeper.
fn written_by_kernel(number: u64, args: &[u64; 6]) -> bool {
    match number as i64 {
        libc::SYS_nanosleep => args[1] != 0,
        libc::SYS_clock_nanosleep => args[3] != 0,
        _ => false,
    }
}

fn written(rem: u64, timespec: ReadTimespec<'_>) -> Option<(i64, i64)> {
    if rem == 0 { None } else { timespec(Addr(rem)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn stopped(number: i64, rax: i64) -> Registers {
        Registers { orig_rax: number as u64, rax: rax as u64, rip: 0x1002, ..Registers::default() }
    }

    #[test]
    fn a_read_is_made_again() {
        let mut regs = stopped(libc::SYS_read, ERESTARTSYS);
        regs.rdi = 5;
        let blocked = rewind(&mut regs, None, Instant::now(), &mut |_| None).unwrap();
        assert_eq!((regs.rip, regs.rax, blocked.args[0]), (0x1000, 0, 5));
        assert_eq!(blocked.resume, Resume::Again);
    }

    #[test]
    fn a_sleep_goes_on_with_what_the_kernel_wrote_to_rem() {
        let mut regs = stopped(libc::SYS_nanosleep, ERESTART_RESTARTBLOCK);
        (regs.rdi, regs.rsi) = (0x2000, 0x3000);
        let mut memory = |addr: Addr| Some(if addr.0 == 0x2000 { (10, 0) } else { (3, 5) });
        let blocked = rewind(&mut regs, None, Instant::now(), &mut memory).unwrap();
        assert_eq!(blocked.resume, Resume::Remaining { nanos: 3_000_000_005, exact: true });
    }

    #[test]
    fn a_poll_goes_on_with_its_timeout_less_the_time_asleep() {
        let mut regs = stopped(libc::SYS_restart_syscall, ERESTART_RESTARTBLOCK);
        (regs.rdi, regs.rsi, regs.rdx) = (0x7f00_0000_0000, 3, 5000);
        let frozen_at = Instant::now();
        let sample = Sample {
            number: libc::SYS_poll as u64,
            since: Some(frozen_at - Duration::from_secs(2)),
            switches: None,
            woke: false,
            left: None,
        };
        let blocked = rewind(&mut regs, Some(sample), frozen_at, &mut |_| None).unwrap();
        assert_eq!(blocked.number, libc::SYS_poll as u64);
        // When it was stopped before is not known, so three seconds are the most that is left.
        assert_eq!(blocked.resume, Resume::Remaining { nanos: 3_000_000_000, exact: false });
        let mut regs = stopped(libc::SYS_poll, ERESTART_RESTARTBLOCK);
        (regs.rdi, regs.rsi, regs.rdx) = (0x7f00_0000_0000, 3, 5000);
        let blocked = rewind(&mut regs, Some(sample), frozen_at, &mut |_| None).unwrap();
        assert_eq!(blocked.resume, Resume::Remaining { nanos: 3_000_000_000, exact: true });
    }

    #[test]
    fn a_running_thread_is_left_alone() {
        let mut regs = stopped(-1, 17);
        assert_eq!(rewind(&mut regs, None, Instant::now(), &mut |_| None), None);
        assert_eq!((regs.rip, regs.rax), (0x1002, 17));
    }

    #[test]
    fn an_endless_poll_and_a_deadline_have_no_remainder() {
        let mut regs = stopped(libc::SYS_poll, ERESTART_RESTARTBLOCK);
        regs.rdx = u64::from(u32::MAX);
        let blocked = rewind(&mut regs, None, Instant::now(), &mut |_| None).unwrap();
        assert_eq!(blocked.resume, Resume::Again);
        let mut regs = stopped(libc::SYS_futex, ERESTART_RESTARTBLOCK);
        (regs.rsi, regs.r10) = (9 | 128, 0x2000);
        let blocked = rewind(&mut regs, None, Instant::now(), &mut |_| Some((5, 0))).unwrap();
        assert_eq!(blocked.resume, Resume::Again);
    }

    #[test]
    fn a_sleep_that_may_have_ended_during_the_freeze_has_begun_anew() {
        let mut regs = stopped(libc::SYS_nanosleep, ERESTART_RESTARTBLOCK);
        regs.rdi = 0x2000;
        let frozen_at = Instant::now().checked_sub(Duration::from_millis(20)).unwrap();
        let since = frozen_at.checked_sub(Duration::from_millis(990)).unwrap();
        let sample =
            Sample { number: libc::SYS_nanosleep as u64, since: Some(since), switches: None, woke: false, left: None };
        let blocked = rewind(&mut regs, Some(sample), frozen_at, &mut |_| Some((1, 0))).unwrap();
        assert_eq!(blocked.resume, Resume::Remaining { nanos: 1_000_000_000, exact: true });
    }

    #[test]
    fn a_sleep_that_should_be_over_has_begun_anew() {
        let mut regs = stopped(libc::SYS_nanosleep, ERESTART_RESTARTBLOCK);
        regs.rdi = 0x2000;
        let frozen_at = Instant::now();
        let sample = Sample {
            number: libc::SYS_nanosleep as u64,
            since: Some(frozen_at - Duration::from_secs(3)),
            switches: None,
            woke: false,
            left: None,
        };
        let blocked = rewind(&mut regs, Some(sample), frozen_at, &mut |_| Some((1, 0))).unwrap();
        assert_eq!(blocked.resume, Resume::Remaining { nanos: 1_000_000_000, exact: true });
    }
}
