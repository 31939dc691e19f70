//! A restore after another boot: the clocks of the program go on from where they stood.
//!
//! Another boot is another boot id ([`crate::support::Room::reboot`]); all that follows is what `snap` does after a real boot.

use crate::support::{Victim, facts, isolated, require_root, wait};
use std::fs;
use std::time::Duration;

/// Offset of a clock of the program from that of the host, in nanoseconds.
fn offset(victim: &Victim, clock: &str) -> i64 {
    let text = fs::read_to_string(format!("/proc/{}/timens_offsets", victim.pid())).expect("timens_offsets");
    let line = text.lines().find(|line| line.starts_with(clock)).unwrap_or_else(|| panic!("no {clock} in {text}"));
    let numbers: Vec<i64> = line.split_whitespace().skip(1).map(|number| number.parse().expect("a number")).collect();
    numbers[0] * 1_000_000_000 + numbers[1]
}

fn clock(victim: &Victim) -> Duration {
    Duration::from_nanos(victim.ask("clock").parse().expect("nanoseconds"))
}

#[test]
fn exam_28_the_monotonic_clock_goes_on_after_another_boot() {
    isolated(|room| {
        require_root!("to give a program clocks of its own (CAP_SYS_TIME)");
        let mut victim = room.victim("sleeper", &["4000"]);
        victim.ask("go");
        let image = room.dump(victim.pid(), "killed.snap", &["--kill"]);
        let at_most = host_clock();
        victim.killed();
        room.reboot();
        std::thread::sleep(Duration::from_secs(2));
        let revived = host_clock();
        room.restore(&image, &[]);
        let own = clock(&victim);
        let host = host_clock();
        // The time in which it did not exist is missing from its clock, and nothing else.
        let missing = host.checked_sub(own).expect("a clock that stands behind that of the host");
        assert!(missing >= revived - at_most, "only {missing:?} are missing");
        for clock in ["monotonic", "boottime"] {
            let behind = -offset(&victim, clock);
            assert!(behind >= (revived - at_most).as_nanos() as i64, "{clock} is {behind} ns behind");
        }
        // A deadline that lay ahead still does, and comes.
        let ended = |name: &str| {
            let slept = victim.ask("slept");
            let word = slept.split(' ').find(|word| word.starts_with(name)).expect("this sleep");
            let (begun, ended) = word.rsplit('=').next().and_then(|times| times.split_once('-')).expect("two times");
            let number = |text: &str| text.parse::<i64>().expect("nanoseconds");
            (number(ended) != 0).then(|| number(ended) - number(begun))
        };
        let slept = wait::until("the deadline", || ended("deadline="));
        assert!(slept >= 4_000_000_000, "the deadline came {slept} ns after its beginning");
        assert!(slept <= 5_900_000_000, "the deadline came {slept} ns after its beginning, as if the clock had jumped");
        assert_eq!(facts::status(victim.pid(), "TracerPid"), "0");
        victim.check();
    });
}

#[test]
fn a_program_with_clocks_of_its_own_is_refused_by_a_dump_from_outside() {
    isolated(|room| {
        require_root!("to give a program clocks of its own (CAP_SYS_TIME)");
        let mut victim = room.victim("sleeper", &[]);
        let image = room.dump_and_kill(&mut victim, "killed.snap");
        room.reboot();
        room.restore(&image, &[]);
        room.snap(["dump", &victim.pid().to_string(), "-o", "again.snap"]).run().expect(3).says("time");
        victim.check();
    });
}

fn host_clock() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("a clock").into()
}
