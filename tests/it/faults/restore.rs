//! Death and failure of `snap restore`: nothing of the half-built process is left, no file, and it has not run.

use crate::support::{Room, facts, isolated, isolated_for, wait};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use snap::fault::Point;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);

/// Who is the parent, and in which namespace.
const WAYS: [&[&str]; 4] = [&["--detach"], &[], &["--detach", "--new-pid-namespace"], &["--new-pid-namespace"]];

/// Fault points that a restore passes.
fn points() -> impl Iterator<Item = Point> {
    Point::ALL.into_iter().filter(|point| *point >= Point::SkeletonBorn)
}

/// Processes of this pid namespace and of those below; the dead whose parent is dead are ours to reap.
pub fn processes() -> Vec<i32> {
    while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status.pid().is_some()) {}
    let entries = fs::read_dir("/proc").expect("proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// What these processes are, for people.
fn describe(pids: &[i32]) -> String {
    let one = |pid: &i32| {
        let words = ["Name", "State", "PPid", "TracerPid"].map(|name| facts::status(*pid, name));
        let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        format!("\n  {pid}: {} {}", words.join(", "), call.trim())
    };
    pids.iter().map(one).collect()
}

#[track_caller]
fn assert_nothing_is_left(when: &str) {
    wait::until(&format!("{when}: the end of all processes but the test"), || (processes() == [1]).then_some(()));
}

/// Names in a directory, without the output of runs.
fn names(directory: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(directory).expect("a directory").flatten().map(|entry| entry.file_name());
    let mut names: Vec<_> = entries.filter(|name| !name.to_string_lossy().starts_with("run-")).collect();
    names.sort();
    names
}

/// Fails a restore of this victim at each point in each way, then restores it.
fn fails_everywhere(room: &Room, kind: &str, arguments: &[&str]) {
    let mut victim = room.victim(kind, arguments);
    victim.check();
    let image = room.dump_and_kill(&mut victim, "kept.snap");
    wait::alone();
    // A question that whoever runs would answer.
    fs::write(victim.path("ask"), "999 check\n").expect("a question");
    let directories = || [names(&room.path(".")), names(&victim.path("."))];
    let before = directories();
    for point in points() {
        for way in WAYS {
            for failure in ["", ":error"] {
                let fault = format!("{}{failure}", point.name());
                let when = format!("{kind} {way:?} {fault}");
                let run = room.snap(["restore"]).args(way).arg(&image).env("SNAP_FAULT", &fault).run();
                let inside = way.contains(&"--new-pid-namespace");
                match (failure, inside) {
                    ("", false) => assert_eq!(run.signal, Some(Signal::SIGKILL as i32), "{when}: not reached: {run}"),
                    // The process that dies is another one, of which snap tells as a shell does.
                    ("", true) => assert_eq!(run.code, Some(137), "{when}: not reached: {run}"),
                    _ => drop(run.expect(7).says(point.name())),
                }
                assert_nothing_is_left(&when);
                assert_eq!(directories(), before, "{when}: other files");
            }
        }
    }
    fs::remove_file(victim.path("ask")).expect("the question");
    room.restore(&image, &[]);
    victim.ask("final");
}

#[test]
fn of_threads_dies_or_fails() {
    isolated_for(LIMIT, |room| fails_everywhere(room, "threads", &["8"]));
}

#[test]
fn of_unlinked_files_dies_or_fails() {
    isolated_for(LIMIT, |room| fails_everywhere(room, "files", &["unlinked"]));
}

#[test]
fn of_a_tree_dies_or_fails() {
    isolated_for(LIMIT, |room| {
        fails_everywhere(room, "family", &["file", "fork", "files", "fs", "memory", "thread", "zombie", "usr1"]);
    });
}

/// Skeletons that nobody traces yet are tied to their parents, those to theirs, and the root to snap.
#[test]
fn of_a_tree_is_killed_at_any_instant() {
    let kinds = ["file", "fork", "files", "memory", "zombie", "fork", "fork", "fork"];
    isolated_for(LIMIT, |room| killed_at_any_instant(room, "family", &kinds, 7, &WAYS, 50));
}

/// Whoever is adopted is tied to nobody for a moment, and sees for itself whose child it becomes.
#[test]
fn of_a_tree_with_adoptions_is_killed_at_any_instant() {
    isolated_for(LIMIT, |room| killed_at_any_instant(room, "relatives", &["daemons", "file"], 9, &WAYS[..1], 60));
}

/// Kills `snap restore` at so many instants: nothing is left, or all of the living.
fn killed_at_any_instant(room: &Room, kind: &str, arguments: &[&str], living: usize, ways: &[&[&str]], turns: u64) {
    let is_stopped_alone = |pid: i32| facts::state(pid) == Some('T') && facts::status(pid, "TracerPid") == "0";
    let mut victim = room.victim(kind, arguments);
    let image = room.dump_and_kill(&mut victim, "kept.snap");
    wait::alone();
    let has_zombie = arguments.contains(&"zombie");
    for way in ways {
        for turn in 0..turns {
            let run = room.snap(["restore", "--stopped"]).args(*way).arg(&image).spawn();
            // The instant is what is tested.
            std::thread::sleep(Duration::from_micros(turn * 600));
            run.kill();
            // Nothing is left, or it was done before and everything is there: stopped, on its own, with the child that has ended.
            let begun = std::time::Instant::now();
            wait::until("nothing or everything", || {
                let left = processes();
                assert!(
                    begun.elapsed() < Duration::from_secs(20),
                    "{way:?} {turn}: neither nothing nor everything is left: {}",
                    describe(&left)
                );
                let whole = left.iter().filter(|pid| is_stopped_alone(**pid)).count() == living
                    && (!has_zombie || left.iter().any(|pid| facts::state(*pid) == Some('Z')));
                (left == [1] || whole).then_some(())
            });
            processes().into_iter().filter(|pid| *pid != 1).for_each(|pid| {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            });
            assert_nothing_is_left(&format!("{way:?} {turn}"));
        }
    }
    room.restore(&image, &[]);
    victim.check();
}

/// The pipe of the image stays open until all is over, so that no end of file does what the kill must do.
#[test]
fn waits_for_pages_and_is_killed() {
    isolated(|room| {
        let mut victim = room.victim("ballast", &["8"]);
        let image = room.dump_and_kill(&mut victim, "kept.snap");
        let bytes = fs::read(&image).expect("the image");
        for way in WAYS {
            let (reader, mut writer) = std::io::pipe().expect("a pipe");
            let run = room.snap(["restore", "-"]).args(way).stdin(File::from(OwnedFd::from(reader))).spawn();
            writer.write_all(&bytes[..bytes.len() / 2]).expect("somebody who reads the image");
            let pid =
                facts::innermost(victim.pid()).unwrap_or_else(|| panic!("{way:?}: pages are read into no process"));
            assert_ne!(facts::status(pid, "TracerPid"), "0", "{way:?}");
            assert_eq!(run.kill().signal, Some(Signal::SIGKILL as i32));
            assert_nothing_is_left(&format!("{way:?}: killed while pages arrive"));
            drop(writer);
        }
        room.restore(&image, &[]);
        victim.check();
    });
}

#[test]
fn a_signal_at_any_instant_ends_it_or_the_program() {
    isolated_for(LIMIT, |room| {
        let mut victim = room.victim("c-static", &[]);
        let image = room.dump_and_kill(&mut victim, "kept.snap");
        for way in [&[][..], &["--new-pid-namespace"]] {
            for turn in 0..40 {
                let run = room.snap(["restore"]).args(way).arg(&image).spawn();
                // The instant is what is tested.
                std::thread::sleep(Duration::from_micros(turn * 1500));
                kill(Pid::from_raw(run.pid()), Signal::SIGTERM).expect("kill");
                let output = run.finish();
                assert_eq!(output.signal, Some(Signal::SIGTERM as i32), "{way:?} {turn}: {output}");
                assert_nothing_is_left(&format!("{way:?} {turn}"));
            }
        }
    });
}
