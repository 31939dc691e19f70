//! Trees that change while they are frozen, and large ones.

use super::tree;
use crate::support::{Room, Victim, facts, isolated_for, wait};
use std::collections::HashSet;
use std::fs;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(240);

/// Dumps of a tree that never stands still.
const DUMPS: usize = 40;

/// How many of them are restored.
const RESTORES: usize = 8;

#[test]
fn exam_09_a_tree_that_forks_clones_execs_and_exits_is_dumped_whole() {
    isolated_for(LIMIT, |room| dump_often(room, room.victim("brood", &["4"])));
}

#[test]
fn exam_09_a_tree_that_adopts_its_own_orphans_is_dumped_whole() {
    isolated_for(LIMIT, |room| dump_often(room, room.victim("brood", &["4", "subreaper"])));
}

/// Dumps the victim many times, and goes on with it from some of these instants.
fn dump_often(room: &Room, mut victim: Victim) {
    let mut largest = 0;
    for turn in 0..DUMPS {
        let image = room.path(&format!("{turn}.snap"));
        let run = room.snap(["dump", &victim.pid().to_string(), "-o"]).arg(&image).run();
        assert_eq!(run.code, Some(0), "dump {turn}: {run}");
        assert_none_is_held(room, &victim);
        victim.check();
        let tree = tree(room, &image);
        let pids = |list: &str, member: &str| -> Vec<i64> {
            tree[list].as_array().expect("a list").iter().filter_map(|entry| entry[member].as_i64()).collect()
        };
        let processes: HashSet<i64> = pids("processes", "pid").into_iter().collect();
        let parents = pids("processes", "ppid").into_iter().skip(1).chain(pids("zombies", "ppid"));
        assert!(parents.into_iter().all(|parent| processes.contains(&parent)), "{tree:#}");
        assert!(processes.len() >= 5, "a worker is missed: {tree:#}");
        largest = largest.max(processes.len());
    }
    assert!(largest > 5, "no dump met a worker's child");
    for turn in (0..DUMPS).step_by(DUMPS / RESTORES) {
        victim.end();
        wait::alone();
        room.restore(&room.path(&format!("{turn}.snap")), &["--files", "ignore"]);
        victim.check();
    }
}

/// Growth from a quarter of the processes to all of them: linear is 4, quadratic 16.
const GROWTH: f64 = 9.0;

#[test]
fn exam_22_a_thousand_processes_are_dumped_in_time_that_grows_with_their_number() {
    isolated_for(LIMIT, |room| {
        let mut quarter = room.victim("horde", &["250", "5"]);
        let few = shortest_pause(room, &quarter, 251);
        quarter.end();
        wait::alone();
        let whole = room.victim("horde", &["1000", "5"]);
        let many = shortest_pause(room, &whole, 1001);
        eprintln!("251 processes stand still for {few:.3} s, 1001 for {many:.3} s");
        assert!(many / few < GROWTH, "251 processes stand still for {few} s, 1001 for {many} s");
    });
}

#[test]
fn exam_09_processes_that_somebody_kills_meanwhile_do_not_stop_a_dump() {
    isolated_for(LIMIT, |room| {
        let victim = room.victim("horde", &["150"]);
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", victim.pid())).expect("children");
        let mut doomed = children.split_whitespace().map(|pid| pid.parse().expect("a pid"));
        let image = room.path("x.snap");
        for _ in 0..10 {
            let dump = room.snap(["dump", &victim.pid().to_string(), "-o"]).arg(&image).spawn();
            for pid in doomed.by_ref().take(10) {
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
                    .expect("kill");
                std::thread::sleep(Duration::from_millis(3));
            }
            dump.finish().expect(0);
            assert_none_is_held(room, &victim);
        }
        let tree = tree(room, &image);
        assert!(tree["processes"].as_array().is_some_and(|list| list.len() >= 51), "{tree:#}");
        assert!(tree["zombies"].as_array().is_some_and(|list| list.len() >= 90), "{tree:#}");
    });
}

/// Seconds of the shortest of three pauses.
fn shortest_pause(room: &Room, victim: &Victim, count: u64) -> f64 {
    let pause = |turn: u32| {
        let run =
            room.snap(["dump", "--json", &victim.pid().to_string(), "-o"]).arg(room.path("x.snap")).run().expect(0);
        let report = run.json();
        assert_eq!(report["processes"], count, "dump {turn}: {run}");
        report["pause_ns"].as_f64().expect("a number") / 1e9
    };
    let shortest = (0..3).map(pause).fold(f64::INFINITY, f64::min);
    assert_none_is_held(room, victim);
    victim.check();
    shortest
}

/// Nobody in the room stands still, or is traced.
fn assert_none_is_held(room: &Room, victim: &Victim) {
    let held = held();
    assert!(held.is_empty(), "{held:?} stand still in {}", room.path("").display());
    assert!(victim.state().is_some());
}

/// Processes that stand still, or that somebody traces.
pub fn held() -> Vec<i32> {
    let held = |pid: &i32| {
        matches!(facts::state(*pid), Some('t' | 'T')) || !matches!(facts::status(*pid, "TracerPid").as_str(), "0" | "")
    };
    let entries = fs::read_dir("/proc").expect("proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(held).collect()
}
