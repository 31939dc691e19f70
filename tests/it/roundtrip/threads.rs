//! Programs of many threads.

use crate::support::isolated;

#[test]
fn eight_threads_with_masks_stacks_and_names() {
    isolated(|room| room.survives(room.victim("threads", &["8"])));
}

#[test]
fn fifteen_threads_that_never_enter_the_kernel() {
    isolated(|room| room.survives(room.victim("busy", &[])));
}

#[test]
fn a_thousand_threads() {
    isolated(|room| room.survives(room.victim("threads", &["1000"])));
}
