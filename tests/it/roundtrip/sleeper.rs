//! How long a sleep takes in all that a dump or a restore falls into.
//!
//! A sleep must never end early, which is tested to the nanosecond, and not late. A busy machine may wake anybody late, so late means by a good part of
//! what a sleep that had begun anew would take longer.

use crate::support::{Room, Victim, isolated_for, wait};
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// What each thread sleeps.
const TIME: Duration = Duration::from_secs(6);
/// When it is dumped, from its start on.
const DUMPED: Duration = Duration::from_secs(3);
/// What a busy machine may add. A sleep that began anew at the dump would end three seconds late.
const TOLERANCE: Duration = Duration::from_secs(2);

/// Bound on a test.
const LIMIT: Duration = Duration::from_secs(120);

fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock").into()
}

/// One sleep: its name, its beginning, its end (zero while it lasts).
fn slept(victim: &Victim) -> Vec<(String, Duration, Duration)> {
    let time = |text: &str| Duration::from_nanos(text.parse().expect("nanoseconds"));
    let one = |word: &str| {
        let (name, times) = word.split_once('=').expect("a name");
        let (begun, ended) = times.split_once('-').expect("two times");
        (name.to_owned(), time(begun), time(ended))
    };
    victim.ask("slept").split(' ').map(one).collect()
}

/// Starts the sleeps and lets a part of them pass: what is tested is a dump at this time.
fn sleeping(room: &Room) -> Victim {
    let victim = room.victim("sleeper", &[&TIME.as_millis().to_string()]);
    victim.ask("go");
    std::thread::sleep(DUMPED);
    victim
}

/// Waits for the end of every sleep. Those with a deadline end at it, the others when they have slept their time, not counting what passed while
/// they did not exist: at least `dead.0`, at most `dead.1`.
fn assert_slept(victim: &Victim, dead: (Duration, Duration), when: &str) {
    let sleeps = wait::within(LIMIT / 2, "the end of every sleep", || {
        let sleeps = slept(victim);
        sleeps.iter().all(|(.., ended)| !ended.is_zero()).then_some(sleeps)
    });
    for (name, begun, ended) in sleeps {
        let (least, most) = if name == "deadline" { (Duration::ZERO, dead.1) } else { dead };
        let asleep = ended - begun;
        assert!(
            asleep >= TIME + least,
            "{when}: {name} slept {asleep:?}, which is too short by {:?}",
            TIME + least - asleep
        );
        assert!(
            asleep <= TIME + most + TOLERANCE,
            "{when}: {name} slept {asleep:?}, of which it was dead at most {most:?}"
        );
    }
}

#[test]
fn a_dump_that_leaves_them_running_changes_no_sleep() {
    isolated_for(LIMIT, |room| {
        let victim = sleeping(room);
        room.dump(victim.pid(), "first.snap", &[]);
        room.dump(victim.pid(), "second.snap", &[]);
        assert_slept(&victim, (Duration::ZERO, Duration::ZERO), "after two dumps");
    });
}

#[test]
fn sleeps_go_on_with_what_was_left_of_them() {
    isolated_for(LIMIT, |room| {
        let mut victim = sleeping(room);
        let asked = now();
        let image = room.dump(victim.pid(), "killed.snap", &["--kill"]);
        let dumped = now();
        victim.killed();
        // Time in which it does not exist does not count.
        std::thread::sleep(Duration::from_secs(1));
        let revived = now();
        room.restore(&image, &[]);
        let running = now();
        assert_slept(&victim, (revived - dumped, running - asked), "after a restore");
    });
}

/// What stopped them before is not known, so a sleep may end late then, and the dump says of which; it never ends early.
#[test]
fn a_dump_after_a_dump_shortens_no_sleep() {
    isolated_for(LIMIT, |room| {
        let mut victim = sleeping(room);
        let asked = now();
        room.dump(victim.pid(), "first.snap", &[]);
        let image = room.path("second.snap");
        let run = room.snap(["dump", "--kill", &victim.pid().to_string(), "-o"]).arg(&image).run().expect(0);
        let dumped = now();
        // Those without a deadline, and without a place to which the kernel writes what is left.
        assert!(run.stdout.contains("tid 4, 6, 8, 9: how much is left of the timeout"), "{run}");
        victim.killed();
        let revived = now();
        room.restore(&image, &[]);
        let running = now();
        assert_slept(&victim, (revived - dumped, running - asked + DUMPED), "after a second dump");
    });
}
