//! Restartable sequences.

use crate::support::isolated;

#[test]
fn a_thread_that_is_always_in_a_critical_section() {
    isolated(|room| room.survives(room.victim("c-rseq", &[])));
}
