//! Targets that change as fast as they can, and targets that fight who dumps them. A dump succeeds, and its image restores, or it says why not;
//! it never crashes, hangs or lies, and the target lives on.

use crate::support::snap::Output;
use crate::support::{Room, Victim, facts, isolated_as, isolated_for, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(240);

/// Dumps of one target.
const DUMPS: usize = 40;
/// Images of it that are restored, those of the first dumps and of the last.
const RESTORES: usize = 12;

/// Dumps a target that runs on, many times; returns the images and what the others have said.
fn dump_often(room: &Room, victim: &Victim) -> (Vec<PathBuf>, Vec<Output>) {
    let (mut images, mut refusals) = (Vec::new(), Vec::new());
    for turn in 0..DUMPS {
        let image = room.path(&format!("{turn}.snap"));
        let run = room.snap(["dump", &victim.pid().to_string(), "-o"]).arg(&image).run();
        match run.code {
            Some(0) => images.push(image),
            // What it met at that instant is not supported, or changed under its hands.
            Some(1 | 3) if run.stderr.contains("snap:") => {
                assert!(!image.exists(), "an image of a dump that failed: {run}");
                assert!(!run.stderr.contains("panicked"), "{run}");
                refusals.push(run);
            }
            _ => panic!("dump {turn}: {run}"),
        }
        assert_eq!(facts::status(victim.pid(), "TracerPid"), "0", "after dump {turn}");
        victim.check();
    }
    (images, refusals)
}

/// Ends the victim and brings it back from each of these images.
fn restore_each(room: &Room, victim: &mut Victim, images: &[PathBuf]) {
    victim.end();
    // Its children died with nobody but us to reap them.
    wait::alone();
    let (first, last) = (images.iter().take(RESTORES / 2), images.iter().rev().take(RESTORES / 2));
    for image in first.chain(last) {
        assert_eq!(room.restore(image, &["--files", "truncate"]), victim.pid(), "{}", image.display());
        victim.check();
        victim.ask("final");
        victim.end();
        wait::alone();
    }
}

/// Every dump must succeed, or be refused with the words of `excuse`.
fn lives_on<Test: Fn() -> (&'static str, &'static str, Option<&'static str>)>(test: Test) {
    isolated_as::<Test>(LIMIT, |room| {
        let (program, argument, excuse) = test();
        let mut victim = room.victim(program, &[argument]);
        let (images, refusals) = dump_often(room, &victim);
        for run in &refusals {
            match excuse {
                Some(reason) => assert!(run.stderr.contains(reason), "refused for another reason than {reason}: {run}"),
                None => panic!("refused: {run}"),
            }
        }
        eprintln!("{argument}: {} images, {} refusals", images.len(), refusals.len());
        restore_each(room, &mut victim, &images);
    });
}

#[test]
fn exam_08_memory_that_is_rewritten() {
    lives_on(|| ("churn", "memory", None));
}

#[test]
fn exam_08_mappings_that_come_and_go() {
    lives_on(|| ("churn", "maps", None));
}

#[test]
fn exam_08_threads_that_come_and_go() {
    lives_on(|| ("churn", "threads", None));
}

#[test]
fn exam_08_descriptors_that_come_and_go() {
    lives_on(|| ("churn", "descriptors", None));
}

#[test]
fn exam_08_signals_that_come_at_every_instant() {
    lives_on(|| ("churn", "signals", None));
}

#[test]
fn exam_08_children_that_come_and_go() {
    isolated_for(LIMIT, |room| {
        let victim = room.victim("churn", &["forks"]);
        let (images, refusals) = dump_often(room, &victim);
        assert!(refusals.is_empty(), "refused: {}", refusals[0]);
        for image in images {
            let tree = room.snap(["inspect", "--json"]).arg(&image).arg("tree").run().expect(0).json();
            let processes = tree["processes"].as_array().map_or(0, Vec::len);
            let zombies = tree["zombies"].as_array().map_or(0, Vec::len);
            assert!(processes <= 2 && processes + zombies <= 2 && processes >= 1, "{tree}");
        }
    });
}

#[test]
fn exam_08_a_program_that_closes_every_descriptor() {
    lives_on(|| ("attacker", "descriptors", None));
}

#[test]
fn exam_08_a_vdso_that_flickers() {
    lives_on(|| ("c-vdso", "flickers", None));
}

#[test]
fn exam_08_a_vdso_that_cannot_be_entered() {
    lives_on(|| ("c-vdso", "protected", None));
}

#[test]
fn exam_08_a_vdso_that_is_gone() {
    lives_on(|| ("c-vdso", "gone", None));
}

/// Without libraries there is only its own code, and behind that may be no room.
#[test]
fn exam_08_a_static_program_whose_vdso_is_gone() {
    lives_on(|| ("attacker", "vdso-gone", Some("has no 512 zero bytes")));
}

/// It looks for mappings that it does not know whenever it runs: a dump must have none then.
#[test]
fn exam_08_a_program_that_destroys_what_it_does_not_know() {
    isolated_for(LIMIT, |room| {
        let mut victim = room.victim("attacker", &["mappings"]);
        let (images, refusals) = dump_often(room, &victim);
        assert!(refusals.is_empty(), "refused: {}", refusals[0]);
        assert_eq!(victim.ask("found"), "0", "it has seen a mapping of ours");
        restore_each(room, &mut victim, &images);
        victim.end();
        // And it has the time to look for one that a killed dump leaves for a moment.
        let victim = room.victim("attacker", &["mappings"]);
        for point in ["stub-entered", "mapped", "collected", "cured"] {
            let dump = room.snap(["dump", &victim.pid().to_string(), "-o", "killed.snap"]).env("SNAP_FAULT", point);
            assert_eq!(dump.run().signal, Some(9), "{point}");
            victim.check();
        }
        room.dump(victim.pid(), "after.snap", &[]);
        victim.check();
    });
}

/// The mapping that a dump needs does not fit.
#[test]
fn exam_08_a_program_without_address_space() {
    isolated_for(LIMIT, |room| {
        let victim = room.victim("attacker", &["no-address-space"]);
        let before = facts::Facts::of(victim.pid());
        for fate in ["--leave-running", "--kill"] {
            let run = room.snap(["dump", fate, &victim.pid().to_string(), "-o", "x.snap"]).run();
            assert!(matches!(run.code, Some(1 | 3)), "{run}");
            assert!(run.stderr.contains("memory"), "what it lacks is not named: {run}");
            assert_eq!(room.images(), [""; 0], "{run}");
            before.assert_same(&facts::Facts::of(victim.pid()), "after a dump that failed");
            victim.check();
        }
        wait::until("no tracer", || (facts::status(victim.pid(), "TracerPid") == "0").then_some(()));
    });
}

/// A task that no freeze of the program stops, because it belongs to nobody in it: it writes to its memory, destroys the mapping of a dump, closes
/// descriptors. A dump must see it, and not touch that memory.
#[test]
fn exam_18_memory_and_descriptors_shared_with_a_task_outside() {
    isolated_for(LIMIT, |room| {
        for way in ["counts", "mappings", "descriptors"] {
            let mut victim = room.victim("c-outsider", &[way]);
            let outsider = std::fs::read_to_string(victim.path("outsider")).expect("its pid");
            let outsider: i32 = outsider.trim().parse().expect("a pid");
            for fate in ["--leave-running", "--kill"] {
                for command in [&["check"][..], &["dump", fate, "-o", "x.snap"]] {
                    let run = room.snap(command).arg(victim.pid().to_string()).run();
                    let state = facts::state(outsider);
                    assert_eq!(run.code, Some(3), "{way}: the task outside is in state {state:?}: {run}");
                    let said = format!("{}{}", run.stdout, run.stderr);
                    for what in ["memory", "table of descriptors"] {
                        assert!(said.contains(what), "{way}: {what} is not named: {run}");
                    }
                    assert!(said.contains(&format!("pid {outsider}")), "{way}: the task outside is not named: {run}");
                }
                assert_eq!(room.images(), [""; 0], "{way}");
                victim.check();
            }
            kill(Pid::from_raw(outsider), Signal::SIGKILL).expect("kill");
            wait::gone(outsider);
            // The others may have left a descriptor of a file that went with them.
            if way == "counts" {
                std::fs::remove_file(room.dump(victim.pid(), "alone.snap", &[])).expect("the image");
            }
            victim.end();
        }
    });
}
