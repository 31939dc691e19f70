//! Timers of a process: itimers and POSIX timers. Durations are in nanoseconds.

use super::id::Tid;
use serde::{Deserialize, Serialize};

/// setitimer(2): real, virtual and profiling, in this order.
pub type IntervalTimers = [TimerValue; 3];

/// When a timer fires next, and how often after that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerValue {
    /// Time left until it fires, 0 when disarmed.
    pub remaining: u64,
    /// Period, 0 for one shot.
    pub interval: u64,
}

/// timer_create(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PosixTimer {
    /// The kernel's timer id.
    pub id: i32,
    /// CLOCK_*, negative for CPU clocks.
    pub clock: i32,
    /// How it tells.
    pub notify: TimerNotify,
    /// `sigev_value`.
    pub value: u64,
    /// When it fires.
    pub time: TimerValue,
    /// timer_getoverrun(2).
    pub overrun: i32,
}

/// SIGEV_*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimerNotify {
    /// SIGEV_NONE.
    None,
    /// SIGEV_SIGNAL.
    Signal(i32),
    /// SIGEV_THREAD_ID.
    Thread(i32, Tid),
}
