//! Restores on a kernel with another vdso. No other kernel is at hand, so `SNAP_FAULT` makes `snap` believe that this is one.

use crate::support::{Victim, isolated, require_root};
use std::fs;

/// As src/fault.rs names them.
const PRETENCES: [&str; 3] = ["other-vdso", "bare-vdso", "sealed-vdso"];

/// Where the program believes that the vdso is (AT_SYSINFO_EHDR).
fn known_to_program(pid: i32) -> u64 {
    let auxv = fs::read(format!("/proc/{pid}/auxv")).expect("auxv");
    let words: Vec<u64> =
        auxv.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("a word"))).collect();
    words.chunks_exact(2).find(|pair| pair[0] == libc::AT_SYSINFO_EHDR).expect("AT_SYSINFO_EHDR")[1]
}

/// Start, rights and name of the mapping at an address, or of that with a name.
fn mapping(pid: i32, wanted: impl Fn(u64, &str) -> bool) -> Option<(u64, String, String)> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps");
    maps.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let start = u64::from_str_radix(fields[0].split('-').next()?, 16).ok()?;
        let name = fields.get(5).copied().unwrap_or_default();
        wanted(start, name).then(|| (start, fields[1].to_owned(), name.to_owned()))
    })
}

/// The code that the program knows is ordinary memory, and that of the kernel stands elsewhere.
fn assert_stand_in(victim: &Victim, when: &str) {
    let known = known_to_program(victim.pid());
    let code = mapping(victim.pid(), |start, _| start == known).unwrap_or_else(|| panic!("{when}: nothing there"));
    assert_eq!((code.1.as_str(), code.2.as_str()), ("r-xp", ""), "{when}");
    let kernels = mapping(victim.pid(), |_, name| name == "[vdso]").unwrap_or_else(|| panic!("{when}: no vdso"));
    assert_ne!(kernels.0, known, "{when}");
}

#[test]
fn exam_14_another_vdso_takes_the_calls_of_the_old_one() {
    isolated(|room| {
        for pretence in PRETENCES {
            let mut victim = room.victim("vdso", &[]);
            victim.check();
            let known = known_to_program(victim.pid());
            let image = room.dump_and_kill(&mut victim, "x.snap");
            for turn in 0..3 {
                let when = format!("{pretence} {turn}");
                room.snap(["restore", "--detach"]).arg(&image).env("SNAP_FAULT", pretence).run().expect(0);
                assert_eq!(known_to_program(victim.pid()), known, "{when}");
                assert_stand_in(&victim, &when);
                victim.check();
                victim.check();
                victim.end();
            }
        }
    });
}

#[test]
fn what_calls_another_vdso_is_dumped_and_restored_again() {
    isolated(|room| {
        let mut victim = room.victim("vdso", &[]);
        for (turn, pretence) in ["other-vdso", "", "bare-vdso", "other-vdso", "sealed-vdso", ""].iter().enumerate() {
            let image = room.dump_and_kill(&mut victim, &format!("{turn}.snap"));
            room.snap(["restore", "--detach"]).arg(&image).env("SNAP_FAULT", pretence).run().expect(0);
            assert_stand_in(&victim, &format!("{turn} {pretence}"));
            victim.check();
        }
    });
}

/// Threads are in the vdso most of the time; a dump lets them out.
#[test]
fn threads_that_do_nothing_else_than_call_it_go_on() {
    isolated(|room| {
        let mut victim = room.victim("vdso", &["3"]);
        for turn in 0..10 {
            victim.check();
            let image = room.dump_and_kill(&mut victim, "x.snap");
            let pretence = PRETENCES[turn % PRETENCES.len()];
            room.snap(["restore", "--detach"]).arg(&image).env("SNAP_FAULT", pretence).run().expect(0);
            victim.check();
            victim.end();
            room.restore(&image, &[]);
        }
    });
}

/// What a new kernel is in practice: the clocks go on in a time namespace, which the data of the vdso know of.
#[test]
fn another_vdso_after_another_boot_tells_the_time_of_the_program() {
    isolated(|room| {
        require_root!("to give a program clocks of its own (CAP_SYS_TIME)");
        let mut victim = room.victim("vdso", &["1"]);
        victim.check();
        let image = room.dump_and_kill(&mut victim, "x.snap");
        room.reboot();
        for pretence in PRETENCES {
            room.snap(["restore", "--detach"]).arg(&image).env("SNAP_FAULT", pretence).run().expect(0);
            let offsets = fs::read_to_string(format!("/proc/{}/timens_offsets", victim.pid())).expect("timens_offsets");
            assert!(offsets.lines().any(|line| line.starts_with("monotonic") && line.contains('-')), "{offsets}");
            victim.check();
            victim.check();
            victim.end();
        }
    });
}

#[test]
fn a_signal_handler_returns_into_the_old_one() {
    isolated(|room| {
        for pretence in PRETENCES {
            let mut victim = room.victim("vdso", &["0", "handler"]);
            let image = room.dump_and_kill(&mut victim, "x.snap");
            room.snap(["restore", "--detach"]).arg(&image).env("SNAP_FAULT", pretence).run().expect(0);
            victim.check();
            victim.check();
        }
    });
}

#[test]
fn programs_that_know_the_vdso_by_themselves_go_on() {
    isolated(|room| {
        for kind in ["c-dynamic", "c-static", "go-goroutines", "timers", "blocked", "transfer"] {
            for pretence in PRETENCES {
                let mut victim = room.victim(kind, &[]);
                victim.check();
                let image = room.dump_and_kill(&mut victim, "x.snap");
                room.snap(["restore", "--detach"]).arg(&image).env("SNAP_FAULT", pretence).run().expect(0);
                victim.check();
                victim.ask("final");
                victim.end();
            }
        }
    });
}
