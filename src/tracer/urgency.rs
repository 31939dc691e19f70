//! Being urgent while a target stands still: on a busy machine the pause is mostly the time that we wait for a CPU.

use crate::sys::sched;

/// The highest priority that is not real-time, for the calling thread, where that is allowed; put back when dropped.
#[derive(Debug)]
pub(super) struct Urgency {
    nice: Option<i32>,
}

impl Urgency {
    const MOST: i32 = -20;

    pub fn new() -> Self {
        let nice = sched::own_nice().ok().filter(|_| sched::set_own_nice(Self::MOST).is_ok());
        Self { nice }
    }
}

impl Drop for Urgency {
    fn drop(&mut self) {
        if let Some(nice) = self.nice {
            let _ = sched::set_own_nice(nice);
        }
    }
}
