//! Damaged and hostile images: exit code 6, a clear error, no panic, no unbounded memory, no process.

use crate::support::snap::{BINARY, Output};
use crate::support::{Room, facts, isolated_for, wait};
use std::fs;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);

/// Address space that reading a small image may take: 1 GiB, as a soft limit, since a lower hard limit would be a reason of its own to refuse.
const MEMORY: &str = "--as=1073741824:";

fn image(room: &Room) -> (i32, Vec<u8>) {
    let mut victim = room.victim("c-nolibc", &[]);
    let path = room.dump_and_kill(&mut victim, "good.snap");
    (victim.pid(), fs::read(path).expect("the image"))
}

fn bounded(room: &Room, arguments: &[&str], path: &Path) -> Output {
    room.snap(arguments).arg(path).through(&["prlimit", MEMORY], Path::new(BINARY)).run()
}

/// Both commands must turn it away, and nothing may run.
fn assert_refused(room: &Room, pid: i32, bytes: &[u8], what: &str) {
    let path = room.path("bad.snap");
    fs::write(&path, bytes).expect("a bad image");
    let run = bounded(room, &["restore", "--detach"], &path);
    assert_eq!(run.code, Some(6), "restore, {what}: {run}");
    assert!(!run.stderr.contains("panicked") && run.stderr.contains("bad.snap"), "restore, {what}: {run}");
    // What was built is dead; we are the one to reap it.
    assert!(matches!(facts::state(pid), None | Some('Z' | 'X')), "{what}: something runs");
    wait::gone(pid);
    let run = bounded(room, &["inspect"], &path);
    assert!(matches!(run.code, Some(0 | 6)), "inspect, {what}: {run}");
    assert!(!run.stderr.contains("panicked"), "inspect, {what}: {run}");
}

#[test]
fn truncated() {
    isolated_for(LIMIT, |room| {
        let (pid, good) = image(room);
        let steps = (0..64).chain((1..60).map(|part| good.len() * part / 60)).chain(good.len() - 64..good.len());
        steps.for_each(|length| assert_refused(room, pid, &good[..length], &format!("cut to {length} bytes")));
    });
}

#[test]
fn with_one_bit_flipped() {
    isolated_for(LIMIT, |room| {
        let (pid, good) = image(room);
        let ends = (0..128).chain(good.len() - 128..good.len());
        for place in ends.chain((1..200).map(|part| good.len() * part / 200)) {
            let mut bad = good.clone();
            bad[place] ^= 1 << (place % 8);
            assert_refused(room, pid, &bad, &format!("bit {} of byte {place} flipped", place % 8));
        }
    });
}

#[test]
fn with_parts_exchanged_repeated_or_overwritten() {
    isolated_for(LIMIT, |room| {
        let (pid, good) = image(room);
        let part = good.len() / 16;
        for index in 1..14 {
            let (here, there) = (index * part, (index + 1) * part);
            let mut exchanged = good.clone();
            exchanged[here..there + part].rotate_left(part);
            if exchanged != good {
                assert_refused(room, pid, &exchanged, &format!("part {index} after the next"));
            }
            let repeated = [&good[..there], &good[here..]].concat();
            assert_refused(room, pid, &repeated, &format!("part {index} twice"));
            let mut huge = good.clone();
            huge[here..here + 16].fill(0xff);
            if huge != good {
                assert_refused(room, pid, &huge, &format!("all ones at {here}"));
            }
        }
        let longer = [&good[..], &[0; 100]].concat();
        assert_refused(room, pid, &longer, "bytes after the end");
    });
}

#[test]
fn that_are_something_else() {
    isolated_for(LIMIT, |room| {
        let (pid, _) = image(room);
        let program = fs::read(BINARY).expect("a program");
        for (what, bytes) in
            [("empty", &b""[..]), ("text", b"hello\n"), ("zeros", &[0; 1 << 16]), ("a program", &program)]
        {
            assert_refused(room, pid, bytes, what);
        }
        for path in ["/dev/zero", "/dev/urandom"] {
            let run = bounded(room, &["restore", "--detach"], Path::new(path));
            assert_eq!(run.code, Some(6), "{path}: {run}");
        }
    });
}
