//! Robust and priority-inheriting mutexes.

use crate::support::isolated;

#[test]
fn exam_12_the_owner_of_a_robust_futex_is_the_same_task() {
    isolated(|room| room.survives(room.victim("robust", &[])));
}
