//! POSIX timers: `/proc/PID/timers` lists them, the remaining times come from the process itself.

use super::CollectError;
use super::ask::Asker;
use crate::image::model::id::Tid;
use crate::image::model::timer::{PosixTimer, TimerNotify, TimerValue};
use crate::proc::timers::{Notify, Timer};

/// Asks each POSIX timer for its time and overruns.
///
/// # Errors
/// The call that failed.
pub fn posix_timers(asker: &mut Asker<'_, '_>, tid: Tid, timers: &[Timer]) -> Result<Vec<PosixTimer>, CollectError> {
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
