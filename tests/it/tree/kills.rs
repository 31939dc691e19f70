//! `snap` is killed at any instant of the dump of a tree: all of it goes on, unharmed.

use super::freeze::held;
use super::{channel, family};
use crate::support::{Facts, Room, Victim, isolated_for, wait};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(240);

/// Instants of one dump, evenly spaced.
const KILLS: u32 = 40;

#[test]
fn exam_07_a_tree_whose_processes_share_goes_on_unharmed() {
    isolated_for(LIMIT, |room| {
        let victim = room.victim("family", &[channel(), "fork", "files", "fs", "memory", "thread", "zombie"]);
        let pids = family(&victim);
        let facts = || -> Vec<Facts> { pids.iter().map(|pid| Facts::of(*pid)).collect() };
        let before = facts();
        for_each_instant(room, &victim, |when| {
            // Threads that were in the stub need a moment to run through its tail.
            let differs = || before.iter().zip(facts()).any(|(before, now)| !before.differences(&now).is_empty());
            let end = Instant::now() + Duration::from_secs(10);
            while differs() && Instant::now() < end {
                std::thread::yield_now();
            }
            for (pid, (before, now)) in pids.iter().zip(before.iter().zip(facts())) {
                before.assert_same(&now, &format!("{when}: pid {pid}"));
            }
        });
        victim.ask("final");
    });
}

#[test]
fn exam_07_a_tree_that_never_stands_still_goes_on() {
    isolated_for(LIMIT, |room| {
        let victim = room.victim("brood", &["3", "subreaper"]);
        for_each_instant(room, &victim, |_| {});
    });
}

/// Kills dumps of the victim earlier and later. Afterwards nobody is held, nothing of ours is left, and the victim finds itself well.
fn for_each_instant(room: &Room, victim: &Victim, look: impl Fn(&str)) {
    let dump = || room.snap(["dump", &victim.pid().to_string(), "-o"]).arg(room.path("killed.snap"));
    // The shortest of some: whatever else runs here makes them longer.
    let timed = || {
        let begun = Instant::now();
        dump().run().expect(0);
        begun.elapsed()
    };
    let whole = (0..5).map(|_| timed()).min().unwrap_or_default();
    let mut in_time = 0;
    for kill in 0..KILLS {
        let instant = whole * kill / KILLS;
        let when = format!("killed after {instant:?} of {whole:?}");
        let run = dump().spawn();
        // The instant itself is what is tested here; nothing is waited for.
        std::thread::sleep(instant);
        in_time += u32::from(run.kill().signal.is_some());
        wait::until("the end of what snap has started", || processes_of_ours().is_empty().then_some(()));
        look(&when);
        wait::until(&format!("{when}: nobody is held"), || held().is_empty().then_some(()));
        victim.check();
    }
    assert!(in_time > KILLS / 8, "{in_time} of {KILLS} dumps were killed before they had ended");
    dump().run().expect(0);
}

/// Living processes that run `snap`.
fn processes_of_ours() -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc").expect("proc").flatten().map(|entry| entry.path());
    let runs_snap = |path: &PathBuf| {
        fs::read_link(path.join("exe")).is_ok_and(|exe| exe == std::path::Path::new(crate::support::snap::BINARY))
    };
    entries.filter(runs_snap).collect()
}
