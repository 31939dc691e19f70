//! The promise: whatever programs do, a dump that succeeds restores.

use crate::support::needs::privileged;
use crate::support::network::own_network;
use crate::support::{Facts, Room, Victim, isolated_for, wait};
use std::io::Write;
use std::process::Command;
use std::time::Duration;

/// Operations of a program.
const OPERATIONS: u64 = 120;

/// How many programs are tried, and from which seed on.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("SNAP_PROMISE_FIRST").unwrap_or(1);
    first..first + number("SNAP_PROMISE_SEEDS").unwrap_or(24)
}

/// Programs that do at random whatever a seed says are dumped at two random points, which their twins are not: in the first they run on, in the second they
/// are killed and restored. What they note must be the same. A dump may be refused; then the program goes on as if nothing had happened.
#[test]
fn exam_19_random_programs_come_back_as_undisturbed_twins() {
    let seeds = seeds();
    let limit = Duration::from_secs(60 + 20 * (seeds.end - seeds.start));
    isolated_for(limit, |room| {
        own_network();
        let count = seeds.end - seeds.start;
        let restored = seeds.filter(|seed| keeps_the_promise(room, *seed)).count() as u64;
        let _ = writeln!(std::io::stderr(), "{restored} of {count} random programs were restored, the others refused");
        // Most of what they do can be saved: otherwise nothing has been tested.
        assert!(restored * 2 >= count, "{restored} of {count} programs were restored");
    });
}

/// Whether the second dump was taken.
fn keeps_the_promise(room: &Room, seed: u64) -> bool {
    let arguments = [seed.to_string(), u8::from(privileged()).to_string()];
    let arguments = arguments.each_ref().map(String::as_str);
    let mut twin = room.victim("random", &arguments);
    twin.ask(&format!("run {OPERATIONS}"));
    let (digest, log) = (twin.ask("digest"), twin.ask("log"));
    twin.end();
    wait::alone();
    clear_ipc();
    let mut victim = room.victim("random", &arguments);
    let first = seed.wrapping_mul(7) % (OPERATIONS / 2) + 5;
    let second = first + seed.wrapping_mul(13) % (OPERATIONS / 3) + 1;
    victim.ask(&format!("run {first}"));
    dump(room, &victim, seed, "--leave-running");
    victim.ask(&format!("run {second}"));
    let pid = victim.pid();
    let facts = || Facts::of(pid).without_armed_errors().without_waiting_descriptors();
    let before = facts();
    let taken = dump(room, &victim, seed, "--kill");
    if taken {
        victim.killed();
        wait::alone();
        assert_eq!(room.restore(&room.path("promise.snap"), &[]), victim.pid(), "seed {seed}");
    }
    before.assert_same(&facts(), &format!("seed {seed}"));
    victim.ask(&format!("run {OPERATIONS}"));
    if victim.ask("digest") != digest {
        let notes = victim.ask("log");
        let different = notes.split("; ").zip(log.split("; ")).enumerate().find(|(_, (is, was))| is != was);
        panic!("seed {seed}, dumped after {first} and {second} operations: note, here and of its twin: {different:?}");
    }
    victim.end();
    wait::alone();
    clear_ipc();
    let _ = std::fs::remove_file(room.path("promise.snap"));
    taken
}

/// Removes what outlives a program in the IPC namespace of the test, which has room for 4,096 segments (kernel.shmmni).
fn clear_ipc() {
    let status = Command::new("ipcrm").arg("--all").status().expect("ipcrm of util-linux");
    assert!(status.success(), "ipcrm --all: {status}");
}

/// Whether it was not refused. Whatever else fails is a failure.
fn dump(room: &Room, victim: &Victim, seed: u64, fate: &str) -> bool {
    let run = room.snap(["dump", fate, &victim.pid().to_string(), "-o", "promise.snap"]).run();
    match run.code {
        Some(0) => true,
        Some(3) => {
            assert!(run.stderr.contains("why:"), "seed {seed}: {run}");
            if std::env::var_os("SNAP_PROMISE_SEEDS").is_some() {
                let _ = writeln!(std::io::stderr(), "seed {seed}: {run}");
            }
            false
        }
        _ => panic!("seed {seed}: {run}"),
    }
}
