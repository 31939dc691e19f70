//! POSIX timers: `/proc/PID/timers` lists them, the remaining times come from the process itself.
//!
//! Timers go on while their process stands still. One that expires after its signal was looked for, and before its own time is, would be found to have expired without
//! a signal; the other way round, the signal would come twice. So the signals are looked for before and after: one that has come
//! meanwhile makes all be asked again. A timer whose signal waits does not expire again until that is taken, so there is an end to it.

use super::ask::Asker;
use super::{CollectError, signal};
use crate::image::model::id::Tid;
use crate::image::model::signal::QueuedSignal;
use crate::image::model::timer::{IntervalTimers, PosixTimer, TimerNotify, TimerValue};
use crate::proc::timers::{Notify, Timer};
use crate::sys::ptrace_info::Queue;

/// Signals that wait where the timers of a process send theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queues {
    /// For the process.
    pub shared: Vec<QueuedSignal>,
    /// For each thread that timers tell.
    pub private: Vec<(Tid, Vec<QueuedSignal>)>,
}

impl Queues {
    /// Those of a process with these timers, of which `tid` is a thread.
    ///
    /// # Errors
    /// As PTRACE_PEEKSIGINFO.
    pub fn of(tid: Tid, timers: &[Timer]) -> Result<Self, CollectError> {
        let told = |timer: &Timer| match timer.notify {
            Notify::Thread(told) => Some(told).filter(|told| told.0 != 0),
            Notify::None | Notify::Signal | Notify::SignalOfLibrary => None,
        };
        let mut told: Vec<Tid> = timers.iter().filter_map(told).collect();
        told.sort_unstable();
        told.dedup();
        let private = told.into_iter().map(|tid| Ok((tid, signal::queued(tid, Queue::Private)?)));
        Ok(Self { shared: signal::queued(tid, Queue::Shared)?, private: private.collect::<Result<_, CollectError>>()? })
    }

    /// Those that a timer may have sent.
    fn of_timers(&self) -> Vec<&QueuedSignal> {
        let queues = self.private.iter().map(|(_, queue)| queue).chain([&self.shared]);
        queues.flatten().filter(|signal| is_of_timer(&signal.info)).collect()
    }
}

/// Whether a `siginfo_t` is that of a POSIX timer, or of SIGALRM.
fn is_of_timer(info: &[u8]) -> bool {
    let word =
        |at: usize| info.get(at..at + 4).map(|bytes| i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    word(0) == Some(libc::SIGALRM) || word(8) == Some(libc::SI_TIMER)
}

/// Asks each POSIX timer for its time and overruns, and what waits in the queues at that moment, in which this was `before` the interval timers were asked. That of real
/// time is asked again if need be.
///
/// # Errors
/// The call that failed.
pub fn with_signals(
    asker: &mut Asker<'_, '_>,
    tid: Tid,
    timers: &[Timer],
    mut before: Queues,
    itimers: &mut IntervalTimers,
) -> Result<(Vec<PosixTimer>, Queues), CollectError> {
    let mut posix = posix_timers(asker, tid, timers)?;
    // Each of them, and the interval timer, has one signal.
    for _ in 0..timers.len() + 2 {
        let after = Queues::of(tid, timers)?;
        if after.of_timers() == before.of_timers() {
            return Ok((posix, after));
        }
        before = after;
        itimers[libc::ITIMER_REAL as usize] = real_time(asker, tid)?;
        posix = posix_timers(asker, tid, timers)?;
    }
    Ok((posix, before))
}

fn real_time(asker: &mut Asker<'_, '_>, tid: Tid) -> Result<TimerValue, CollectError> {
    let out = asker.scratch(0);
    asker.expect(tid, "getitimer", libc::SYS_getitimer, [libc::ITIMER_REAL as u64, out.0, 0, 0, 0, 0])?;
    let [interval_s, interval_us, value_s, value_us] = asker.words(0)?;
    let nanos = |seconds: u64, micros: u64| seconds * 1_000_000_000 + micros * 1000;
    Ok(TimerValue { remaining: nanos(value_s, value_us), interval: nanos(interval_s, interval_us) })
}

fn posix_timers(asker: &mut Asker<'_, '_>, tid: Tid, timers: &[Timer]) -> Result<Vec<PosixTimer>, CollectError> {
    timers.iter().map(|timer| posix_timer(asker, tid, timer)).collect()
}

fn posix_timer(asker: &mut Asker<'_, '_>, tid: Tid, timer: &Timer) -> Result<PosixTimer, CollectError> {
    let out = asker.scratch(0);
    let id = timer.id as u64;
    asker.expect(tid, "timer_gettime", libc::SYS_timer_gettime, [id, out.0, 0, 0, 0, 0])?;
    let [interval_s, interval_ns, value_s, value_ns] = asker.words(0)?;
    let overrun = asker.expect(tid, "timer_getoverrun", libc::SYS_timer_getoverrun, [id, 0, 0, 0, 0, 0])?;
    Ok(PosixTimer {
        id: timer.id,
        clock: timer.clock,
        notify: match timer.notify {
            Notify::None => TimerNotify::None,
            Notify::Signal | Notify::SignalOfLibrary => TimerNotify::Signal(timer.signal),
            Notify::Thread(target) => TimerNotify::Thread(timer.signal, target),
        },
        value: timer.value,
        time: TimerValue {
            remaining: value_s * 1_000_000_000 + value_ns,
            interval: interval_s * 1_000_000_000 + interval_ns,
        },
        overrun: overrun as i32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(number: i32, code: i32) -> QueuedSignal {
        QueuedSignal { info: [number, 0, code, 0].iter().flat_map(|word| word.to_le_bytes()).collect() }
    }

    #[test]
    fn only_signals_of_timers_are_compared() {
        let of_timer = signal(50, libc::SI_TIMER);
        let queues = |shared: &[QueuedSignal], private: &[QueuedSignal]| Queues {
            shared: shared.to_vec(),
            private: vec![(Tid(1), private.to_vec())],
        };
        let none = queues(&[signal(50, libc::SI_USER)], &[]);
        assert!(none.of_timers().is_empty());
        let some = queues(&[signal(libc::SIGALRM, libc::SI_KERNEL)], std::slice::from_ref(&of_timer));
        assert_eq!(some.of_timers(), [&of_timer, &signal(libc::SIGALRM, libc::SI_KERNEL)]);
    }
}
