//! Being urgent while a target stands still: on a busy machine a dump is mostly the time that we wait for a CPU, and it is often the target itself that
//! keeps the machine busy.
//!
//! Among a thousand threads that want a CPU the kernel lets an ordinary one run once in some seconds, and one of the highest nice value gets a
//! sixth of a CPU. So only real time is soon enough to go through threads one by one: to seize and interrupt them, to ask them, to let them go. While all of
//! them are to stop, and for large work, the highest nice value does: they have to run in order to stop.

use crate::image::model::id::Tid;
use crate::sys::{own, sched};

/// How the calling thread is scheduled, as far as that is allowed; as it was found when dropped.
#[derive(Debug)]
pub struct Urgency {
    /// As it was found; none where nothing may be changed.
    found: Option<sched::SchedAttr>,
    real_time: bool,
}

impl Urgency {
    /// The most urgent of those that are not real-time.
    const MOST: i32 = -20;
    /// The least urgent of those that are real-time: before everything ordinary, and before nothing else.
    const LEAST: u32 = 1;

    /// Takes what is allowed. A thread that somebody has made real-time or of a deadline stays as it is.
    #[must_use]
    pub fn take() -> Self {
        let attributes = sched::attributes(Tid(0)).ok();
        let found = attributes.filter(|found| matches!(found.policy as i32, libc::SCHED_OTHER | libc::SCHED_BATCH));
        let mut urgency = Self { found, real_time: !own::has_real_time_limit() };
        urgency.real_time = urgency.real_time();
        urgency
    }

    /// Before all that is ordinary, where that is allowed; true then.
    pub fn real_time(&self) -> bool {
        let first = |found| sched::SchedAttr { policy: libc::SCHED_RR as u32, nice: 0, priority: Self::LEAST, ..found };
        let allowed = self.real_time && self.set(first);
        if !allowed {
            self.high();
        }
        allowed
    }

    /// The highest priority that is not real-time, where that is allowed.
    pub fn high(&self) {
        self.set(|found| sched::SchedAttr { nice: Self::MOST, ..found });
    }

    /// For what is left when the target runs again, as before if somebody asked for us to be modest.
    pub fn afterwards(&self) {
        let nice = |found: sched::SchedAttr| if found.nice > 0 { found.nice } else { Self::MOST };
        self.set(|found| sched::SchedAttr { nice: nice(found), ..found });
    }

    /// As it was found.
    pub fn give_up(&self) {
        self.set(|found| found);
    }

    fn set(&self, changed: impl FnOnce(sched::SchedAttr) -> sched::SchedAttr) -> bool {
        self.found.is_some_and(|found| sched::set_attributes(Tid(0), &changed(found)).is_ok())
    }
}

impl Drop for Urgency {
    fn drop(&mut self) {
        self.give_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> (i32, i32) {
        let attributes = sched::attributes(Tid(0)).expect("own attributes");
        (attributes.policy as i32, attributes.nice)
    }

    fn in_a_thread(test: impl FnOnce() + Send) {
        std::thread::scope(|scope| scope.spawn(test).join().expect("the thread"));
    }

    #[test]
    fn it_is_as_it_was_afterwards() {
        in_a_thread(|| {
            let before = now();
            let urgency = Urgency::take();
            let allowed = urgency.real_time;
            assert_eq!(now().0 == libc::SCHED_RR, allowed);
            urgency.high();
            assert_eq!(now().0, libc::SCHED_OTHER);
            if allowed {
                assert_eq!(now().1, Urgency::MOST);
                assert!(urgency.real_time());
                assert_eq!(now().0, libc::SCHED_RR);
            }
            drop(urgency);
            assert_eq!(now(), before);
        });
    }

    #[test]
    fn who_is_modest_is_so_again_when_the_target_runs() {
        in_a_thread(|| {
            sched::set_own_nice(7).expect("to be less urgent");
            let urgency = Urgency::take();
            urgency.afterwards();
            assert_eq!(now(), (libc::SCHED_OTHER, 7));
        });
    }

    #[test]
    fn who_is_real_time_stays_so() {
        in_a_thread(|| {
            let (_, nice) = now();
            let fifo =
                sched::SchedAttr { policy: libc::SCHED_FIFO as u32, priority: 2, nice, ..sched::SchedAttr::default() };
            let allowed = sched::set_attributes(Tid(0), &fifo).is_ok();
            let urgency = Urgency::take();
            assert!(!urgency.real_time, "nothing is taken");
            urgency.high();
            assert_eq!(now().0 == libc::SCHED_FIFO, allowed);
        });
    }
}
