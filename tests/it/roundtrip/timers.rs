//! Interval timers and POSIX timers.

use crate::support::isolated;

#[test]
fn every_kind_of_timer() {
    // Thread 4 takes the signals of a timer with sigtimedwait(2), which unblocks them for a moment.
    isolated(|room| room.survives_but(room.victim("timers", &[]), &["task 4 Sig"]));
}
