//! Programs of every make that compute and sleep.

use crate::support::victim::program;
use crate::support::{Victim, isolated};
use std::process::Command;

#[test]
fn exam_04_a_program_of_dynamic_libraries() {
    isolated(|room| room.survives(room.victim("c-dynamic", &[])));
}

#[test]
fn exam_04_a_static_program() {
    isolated(|room| room.survives(room.victim("c-static", &[])));
}

#[test]
fn exam_04_a_static_program_that_lies_anywhere() {
    isolated(|room| room.survives(room.victim("c-static-pie", &[])));
}

#[test]
fn exam_04_a_program_without_any_library() {
    isolated(|room| room.survives(room.victim("c-nolibc", &[])));
}

#[test]
fn exam_04_a_program_under_sanitisers() {
    isolated(|room| room.survives(room.victim("c-sanitised", &[])));
}

#[test]
fn exam_04_a_program_with_a_preloaded_library() {
    isolated(|room| {
        let directory = Victim::directory_in(room, "preload");
        let mut command = Command::new(program("c-dynamic"));
        command.arg(&directory).env("LD_PRELOAD", program("preload.so"));
        let victim = Victim::start_command(command, directory);
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", victim.pid())).expect("maps");
        assert!(maps.contains("preload.so"), "{maps}");
        room.survives(victim);
    });
}
