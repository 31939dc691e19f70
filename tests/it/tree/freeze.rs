//! Trees that change while they are frozen, and large ones.

use super::tree;
use crate::support::network::own_network;
use crate::support::snap::{Output, Snap};
use crate::support::{Room, Victim, facts, isolated_for, wait};
use nix::sys::signal::Signal;
use snap::fault::Point;
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
        let mut doomed = children(&victim).into_iter();
        let image = room.path("x.snap");
        for _ in 0..10 {
            let dump = room.snap(["dump", &victim.pid().to_string(), "-o"]).arg(&image).spawn();
            for pid in doomed.by_ref().take(10) {
                send(pid, Signal::SIGKILL);
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

/// What a dump passes while the tree stands still and nothing of the image is durable.
const POINTS: [Point; 10] = [
    Point::Seized,
    Point::Frozen,
    Point::StubWritten,
    Point::StubEntered,
    Point::Mapped,
    Point::Collected,
    Point::Leaving,
    Point::Cured,
    Point::PagesHalf,
    Point::ImageWritten,
];

#[test]
fn exam_09_processes_that_somebody_kills_at_any_point_do_not_stop_a_dump() {
    isolated_for(LIMIT, |room| {
        let victim = room.victim("horde", &["40"]);
        let mut doomed = children(&victim).into_iter();
        for (turn, point) in (1..).zip(POINTS) {
            let dump = ["dump", &victim.pid().to_string(), "-o", "x.snap"];
            // In every second turn they may be on their way to their end when it goes on.
            let doomed: Vec<i32> = doomed.by_ref().take(3).collect();
            let run = killing_at(point, room.snap(dump), &doomed, turn % 2 == 0).expect(0);
            assert_none_is_held(room, &victim);
            let tree = tree(room, &room.path("x.snap"));
            let count = |list: &str| tree[list].as_array().map_or(0, Vec::len);
            let (lived, all) = (41 - 3 * turn, 41);
            assert!(count("processes") >= lived && count("processes") + count("zombies") == all, "{run}: {tree:#}");
        }
    });
}

#[test]
fn exam_09_a_process_that_somebody_kills_while_all_stand_by_does_not_stop_a_dump() {
    isolated_for(LIMIT, |room| {
        own_network();
        for point in [Point::Gathered, Point::Exchanging, Point::Exchanged] {
            let victim = room.victim("packet_ring", &["watched"]);
            let doomed = children(&victim);
            let dump = ["dump", &victim.pid().to_string(), "-o", "x.snap"];
            killing_at(point, room.snap(dump), &doomed, true).expect(0);
            assert_none_is_held(room, &victim);
        }
    });
}

/// Nothing can be taken back of a stream that has begun.
#[test]
fn exam_09_a_stream_ends_when_somebody_kills_a_process_of_the_tree() {
    isolated_for(LIMIT, |room| {
        let victim = room.victim("horde", &["4"]);
        let doomed = children(&victim)[1];
        let out = fs::File::create(room.path("out")).expect("a file");
        let dump = room.snap(["dump", &victim.pid().to_string(), "-o", "-"]).stdout(out);
        let run = killing_at(Point::Collected, dump, &[doomed], true);
        run.expect(3).says(&format!("pid {doomed}")).says("somebody has killed it");
        assert_none_is_held(room, &victim);
    });
}

#[test]
fn exam_09_the_others_are_left_stopped_when_somebody_kills_a_process_of_the_tree() {
    isolated_for(LIMIT, |room| {
        let victim = room.victim("horde", &["10"]);
        let children = children(&victim);
        let points = [Point::Frozen, Point::Collected, Point::PagesHalf, Point::ImageDurable];
        for (number, point) in points.into_iter().enumerate() {
            let (dead, alive) = children.split_at(number + 1);
            let dump = room.snap(["dump", "--leave-stopped", &victim.pid().to_string(), "-o", "x.snap"]);
            killing_at(point, dump, &dead[number..], number % 2 == 0).expect(0);
            for &pid in alive.iter().chain(&[victim.pid()]) {
                assert_eq!(facts::state(pid), Some('T'), "{pid} at {}", point.name());
                send(pid, Signal::SIGCONT);
            }
            assert_none_is_held(room, &victim);
        }
    });
}

#[test]
fn exam_09_a_dump_ends_when_somebody_kills_the_root_of_the_tree() {
    isolated_for(LIMIT, |room| {
        for point in [Point::Seized, Point::Frozen, Point::StubEntered, Point::Mapped, Point::Collected, Point::Cured] {
            let mut victim = room.victim("horde", &["3"]);
            let children = children(&victim);
            let dump = room.snap(["dump", &victim.pid().to_string(), "-o", "x.snap"]);
            let run = killing_at(point, dump, &[victim.pid()], true).expect(5);
            assert!(run.stderr.contains("has ended") && !run.stderr.contains("error"), "{}: {run}", point.name());
            assert!(held().is_empty(), "somebody is held at {}", point.name());
            assert!(!room.path("x.snap").exists(), "half an image");
            victim.killed();
            children.into_iter().for_each(|pid| send(pid, Signal::SIGKILL));
            wait::alone();
        }
    });
}

/// A run that is stopped at that point, where these are killed; whether it goes on only when they are dead.
fn killing_at(point: Point, snap: Snap, doomed: &[i32], when_dead: bool) -> Output {
    let dump = snap.env("SNAP_FAULT", &format!("{}:stop", point.name())).spawn();
    let state = wait::until("snap to stop", || facts::state(dump.pid()).filter(|state| matches!(state, 'T' | 'Z')));
    assert_eq!(state, 'T', "{} is not reached", point.name());
    for &pid in doomed {
        send(pid, Signal::SIGKILL);
        if when_dead {
            wait::until("its end", || (facts::state(pid) == Some('Z')).then_some(()));
        }
    }
    send(dump.pid(), Signal::SIGCONT);
    dump.finish()
}

fn send(pid: i32, signal: Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("a signal");
}

fn children(victim: &Victim) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", victim.pid())).expect("children");
    children.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect()
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
