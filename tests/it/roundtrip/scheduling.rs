//! Scheduling of threads.

use crate::support::{isolated, require_root};

#[test]
fn policies_of_ordinary_threads() {
    isolated(|room| room.survives(room.victim("scheduling", &["plain"])));
}

#[test]
fn realtime_policies() {
    isolated(|room| {
        require_root!("to be scheduled before others (CAP_SYS_NICE)");
        room.survives(room.victim("scheduling", &["realtime"]));
    });
}

#[test]
fn deadline_policy() {
    isolated(|room| {
        require_root!("to be scheduled before others (CAP_SYS_NICE)");
        room.survives(room.victim("scheduling", &["deadline"]));
    });
}

/// The parent that dies when `snap restore --detach` ends is not the one whose death the thread asked to hear of.
#[test]
fn signal_of_a_parents_death() {
    isolated(|room| room.survives(room.victim("scheduling", &["death"])));
}
