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

#[test]
fn urgent_data_in_every_state_that_four_operations_lead_to() {
    isolated(|room| {
        let victim = room.victim("urgent", &[]);
        let count: usize = victim.ask("count").trim().parse().expect("a number");
        println!("{count} states");
        assert!(count == 1 || count > 60, "only {count} states");
        room.survives(victim);
    });
}
