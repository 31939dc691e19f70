//! Threads that are blocked in system calls.

use crate::support::isolated;

/// The thread that waits for a signal with a time-out has it unblocked only while it waits.
const RESTLESS: &[&str] = &["task 12 Sig"];

#[test]
fn exam_01_blocked_calls_go_on() {
    isolated(|room| room.survives_but(room.victim("blocked", &[]), RESTLESS));
}

#[test]
fn blocked_calls_of_two_seconds() {
    isolated(|room| room.survives_but(room.victim("blocked", &["2000"]), RESTLESS));
}
