//! Whole trees come back: every process under its id, with its relations, and with what it shares.

use super::{channel, family, tree};
use crate::support::snap::BINARY;
use crate::support::{Facts, Room, Victim, facts, isolated, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::path::Path;

fn end(pids: &[i32], victim: &mut Victim) {
    for pid in pids {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    victim.end();
    wait::alone();
}

/// Dumps it, kills it, brings it back; every process is as it was, and the image of another dump is the same in what it says of relations.
fn survives(room: &Room, kinds: &[&str]) {
    let mut victim = room.victim("family", &[&[channel()], kinds].concat());
    let pids = family(&victim);
    let alive: Vec<i32> = pids.iter().copied().filter(|pid| !matches!(facts::state(*pid), Some('Z') | None)).collect();
    let before: Vec<Facts> = alive.iter().map(|pid| Facts::of(*pid)).collect();
    let image = room.dump_and_kill(&mut victim, "first.snap");
    wait::alone();
    assert_eq!(room.restore(&image, &[]), victim.pid());
    for (pid, before) in alive.iter().zip(&before) {
        before.assert_same(&Facts::of(*pid), &format!("pid {pid} after the restore"));
    }
    victim.check();
    let again = room.dump(victim.pid(), "second.snap", &[]);
    assert_eq!(relations(room, &again), relations(room, &image));
    victim.check();
    victim.ask("final");
    end(&pids, &mut victim);
}

/// What an image says of ids, relations and sharing, but for the root's parent.
pub(super) fn relations(room: &Room, image: &Path) -> Vec<Vec<Value>> {
    let tree = tree(room, image);
    let processes = tree["processes"].as_array().expect("processes").iter();
    let living = processes.enumerate().map(|(index, process)| {
        let parent = if index == 0 { Value::Null } else { process["ppid"].clone() };
        let of = |name: &str| process[name].clone();
        let threads = process["threads"].as_array().expect("threads").iter();
        let shared = threads
            .flat_map(|thread| ["tid", "fd_table", "fs", "undo_list", "io_context"].map(|name| thread[name].clone()));
        let own = ["pid", "pgid", "sid", "memory", "handlers", "state", "stop_waited_for", "ended_leader"].map(of);
        own.into_iter().chain([parent]).chain(shared).collect()
    });
    let zombies = tree["zombies"].as_array().expect("zombies").iter();
    let ended = zombies.map(|zombie| {
        let of = |name: &str| zombie[name].clone();
        ["pid", "ppid", "pgid", "sid", "exit_code", "killed_by", "exit_signal"].map(of).to_vec()
    });
    living.chain(ended).collect()
}

#[test]
fn exam_10_children_that_share_descriptors_directories_or_memory() {
    isolated(|room| survives(room, &["fork", "files", "fs", "memory", "thread"]));
}

#[test]
fn exam_10_children_that_share_signal_handlers_undo_lists_or_io_contexts() {
    isolated(|room| survives(room, &["fork", "handlers", "undo", "io", "thread"]));
}

#[test]
fn exam_10_children_that_share_with_one_another_and_not_with_their_parent() {
    isolated(|room| survives(room, &["fork", "brothers"]));
}

#[test]
fn exam_13_children_that_have_ended() {
    isolated(|room| survives(room, &["zombie", "killed", "fork"]));
}

#[test]
fn children_that_tell_of_their_end_by_other_signals() {
    isolated(|room| survives(room, &["fork", "usr1", "no-signal"]));
}

#[test]
fn exam_29_a_script_that_dumps_itself_is_told_on_which_side_it_is() {
    isolated(|room| {
        let script = format!("exec >log 2>&1; {BINARY} dump $$ -o x.snap; echo code $?; exit 4");
        room.snap(["-c", &script]).through(&[], Path::new("/bin/bash")).run().expect(4);
        let log = || std::fs::read_to_string(room.path("log")).expect("the log");
        assert!(log().ends_with("code 0\n"), "{}", log());
        room.snap(["restore", "--files", "truncate", "x.snap"]).run().expect(4);
        assert!(log().ends_with("code 10\n"), "{}", log());
    });
}

#[test]
fn exam_17_a_tree_in_a_pid_namespace_of_its_own() {
    isolated(|room| {
        let mut victim = room.victim("family", &[channel(), "fork", "zombie", "memory"]);
        let pids = family(&victim);
        let image = room.dump(victim.pid(), "x.snap", &[]);
        // The ids are taken here, and yet it comes back beside the living one.
        let outside = room.restore(&image, &["--new-pid-namespace", "--files", "ignore"]);
        assert_ne!(outside, victim.pid());
        let inside = format!("/proc/{outside}/status");
        let status = std::fs::read_to_string(inside).expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).expect("NSpid");
        assert!(line.trim().ends_with(&victim.pid().to_string()), "{line}");
        for pid in &pids {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        victim.end();
        victim.goes_by(outside);
        victim.check();
        end(&[], &mut victim);
    });
}

#[test]
fn taken_ids_are_listed_with_their_holders() {
    isolated(|room| {
        let mut victim = room.victim("family", &[channel(), "fork", "fork"]);
        let pids = family(&victim);
        let image = room.dump(victim.pid(), "x.snap", &[]);
        let run = room.snap(["restore", "--detach", "--json"]).arg(&image).run().expect(3);
        for pid in &pids {
            assert!(run.stdout.contains(&format!("id {pid}")) || run.stderr.contains(&format!("id {pid}")), "{run}");
        }
        victim.check();
        end(&pids, &mut victim);
    });
}
