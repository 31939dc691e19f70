//! Waiting for other tasks without blocking: gives up the CPU first, then sleeps for longer and longer, up to a bound.
//!
//! A blocking waitid(2) would be deaf to a time limit and to a cancellation.

use crate::sys::sched;
use std::time::{Duration, Instant};

const YIELDS: u32 = 200;
const SHORTEST: Duration = Duration::from_micros(20);
const LONGEST: Duration = Duration::from_millis(1);
/// After how long a wait it is first asked what is in the way; then after twice as long, and so on.
const FIRST_LOOK: Duration = Duration::from_millis(1);
/// The longest time between two such looks.
const NEXT_LOOK: Duration = Duration::from_millis(50);

/// How long something was waited for.
pub(super) struct Patience {
    since: Instant,
    bound: Duration,
    yields: u32,
    pause: Duration,
    look: Duration,
}

impl Patience {
    /// Waits for at most `bound` in all.
    pub fn new(bound: Duration) -> Self {
        Self { since: Instant::now(), bound, yields: 0, pause: SHORTEST, look: FIRST_LOOK }
    }

    /// Something moved: be attentive again. The bound counts from now.
    pub fn encouraged(&mut self) {
        *self = Self::new(self.bound);
    }

    /// Whether nothing has moved for so long that it is worth a look at what is in the way: looks may be dear, so that they become rarer.
    pub fn looks_around(&mut self) -> bool {
        let waited = self.since.elapsed();
        let looks = waited >= self.look;
        if looks {
            self.look = waited + waited.min(NEXT_LOOK);
        }
        looks
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
