//! Robust and priority-inheriting mutexes.

use crate::support::isolated;

#[test]
fn robust_and_inheriting_mutexes() {
    isolated(|room| room.survives(room.victim("robust", &[])));
}
