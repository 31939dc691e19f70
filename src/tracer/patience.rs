//! Waiting for other tasks without blocking: gives up the CPU first, then sleeps for longer and longer, up to a bound.
//!
//! A blocking waitid(2) would be deaf to a time limit and to a cancellation.

use crate::sys::sched;
use std::time::{Duration, Instant};

const YIELDS: u32 = 200;
const SHORTEST: Duration = Duration::from_micros(20);
const LONGEST: Duration = Duration::from_millis(1);

/// How long something was waited for.
pub(super) struct Patience {
    since: Instant,
    bound: Duration,
    yields: u32,
    pause: Duration,
}

impl Patience {
    /// Waits for at most `bound` in all.
    pub fn new(bound: Duration) -> Self {
        Self { since: Instant::now(), bound, yields: 0, pause: SHORTEST }
    }

    /// Something moved: be attentive again. The bound counts from now.
    pub fn encouraged(&mut self) {
        *self = Self::new(self.bound);
    }

    /// Whether giving up the CPU has not been enough.
    pub fn is_sleeping(&self) -> bool {
        self.yields >= YIELDS
    }

    /// Lets others run for a moment; false when the bound has passed.
    #[must_use]
    pub fn wait(&mut self) -> bool {
        if self.yields < YIELDS {
            self.yields += 1;
            sched::yield_now();
            return true;
        }
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(LONGEST);
        self.since.elapsed() < self.bound
    }
}
