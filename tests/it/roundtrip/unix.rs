//! UNIX sockets.

use crate::support::{isolated, isolated_for};
use std::time::Duration;

#[test]
fn names_messages_and_what_they_carry() {
    isolated(|room| room.survives(room.victim("unix", &[])));
}

#[test]
fn exam_16_every_state_that_five_operations_lead_to() {
    isolated_for(Duration::from_secs(120), |room| {
        let victim = room.victim("unix_states", &[]);
        let count: usize = victim.ask("count").trim().parse().expect("a number");
        assert!(count > 100, "only {count} states");
        room.survives(victim);
    });
}
