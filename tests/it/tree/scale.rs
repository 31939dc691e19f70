//! Very many of one thing: what a dump takes grows with their number, and they come back.

use crate::support::{Room, Victim, isolated_for, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(240);

/// Growth of the pause from a quarter of them to all: linear is 4, quadratic 16.
const GROWTH: f64 = 9.0;

/// Seconds of the shorter of two pauses, the second of which is that of a dump that kills.
fn shorter_pause(room: &Room, victim: &mut Victim) -> f64 {
    let pause = |fate: &str| {
        let run = room.snap(["dump", fate, "--json", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(0);
        run.json()["pause_ns"].as_f64().expect("a number") / 1e9
    };
    // Of a killed target the pause is the whole dump.
    let pauses = [pause("--leave-running"), pause("--leave-running"), pause("--kill")];
    victim.killed();
    wait::alone();
    pauses[0].min(pauses[1])
}

/// A quarter of them and all of them: dumped, and all of them restored.
fn grows_linearly(room: &Room, kind: &str, few: &[&str], many: &[&str]) {
    let mut quarter = room.victim(kind, few);
    let first = shorter_pause(room, &mut quarter);
    let mut whole = room.victim(kind, many);
    let second = shorter_pause(room, &mut whole);
    eprintln!("{kind} {few:?} stands still for {first:.3} s, {many:?} for {second:.3} s");
    assert!(second / first < GROWTH, "{kind}: {few:?} stands still for {first} s, {many:?} for {second} s");
    assert_eq!(room.restore(&room.path("x.snap"), &[]), whole.pid());
    whole.check();
    let _ = kill(Pid::from_raw(-whole.pid()), Signal::SIGKILL);
    whole.end();
    wait::alone();
}

#[test]
fn exam_22_sixty_thousand_mappings() {
    isolated_for(LIMIT, |room| grows_linearly(room, "vmas", &["15000"], &["60000"]));
}

#[test]
fn exam_22_fifteen_thousand_descriptors_in_one_process() {
    isolated_for(LIMIT, |room| grows_linearly(room, "hoard", &["3750"], &["15000"]));
}

#[test]
fn exam_22_a_hundred_thousand_descriptors_in_a_tree() {
    isolated_for(LIMIT, |room| grows_linearly(room, "hoard", &["2500", "9"], &["10000", "9"]));
}

#[test]
fn exam_22_ten_thousand_idle_threads() {
    isolated_for(LIMIT, |room| grows_linearly(room, "crowd", &["2500"], &["10000"]));
}

#[test]
fn exam_22_a_thousand_threads_of_which_a_tenth_is_busy() {
    isolated_for(LIMIT, |room| room.survives(room.victim("crowd", &["900", "100"])));
}
