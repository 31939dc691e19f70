//! Relations that have a history: leaders that are gone or elsewhere, threads that have gone apart, stops that were waited for or not.

use super::restore::relations;
use super::{channel, family};
use crate::support::{Facts, Room, Victim, facts, isolated, wait};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use std::collections::HashSet;

/// Dumps it and lets it run; dumps it, kills it, restores it: all that it knows of its children is as before, and so is what an image says of them.
fn survives(room: &Room, kind: &str) {
    let mut victim = room.victim("relatives", &[kind, channel()]);
    let pids = family(&victim);
    // In which order a parent has made its children is not kept.
    let of = |pid: i32| Facts::of(pid).without(&format!("task {pid} children"));
    let look = || pids.iter().map(|pid| of(*pid)).collect::<Vec<_>>();
    let before = look();
    let first = room.dump(victim.pid(), "first.snap", &[]);
    for (before, after) in before.iter().zip(look()) {
        before.assert_same(&after, "after a dump");
    }
    victim.check();
    let image = room.dump(victim.pid(), "second.snap", &["--kill"]);
    assert_eq!(relations(room, &image), relations(room, &first));
    victim.killed();
    wait::alone();
    assert_eq!(room.restore(&image, &[]), victim.pid());
    for (before, after) in before.iter().zip(look()) {
        before.assert_same(&after, "after the restore");
    }
    victim.check();
    let again = room.dump(victim.pid(), "third.snap", &[]);
    assert_eq!(relations(room, &again), relations(room, &image));
    victim.ask("final");
    for pid in &pids {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    victim.end();
    wait::alone();
}

#[test]
fn exam_13_sessions_that_are_led_by_a_nephew_a_brother_or_nobody() {
    isolated(|room| survives(room, "daemons"));
}

#[test]
fn exam_13_a_group_without_its_leader_and_one_that_was_set_after_exec() {
    isolated(|room| survives(room, "history"));
}

#[test]
fn exam_05_parents_hear_of_stopped_children_once() {
    isolated(|room| survives(room, "jobs"));
}

#[test]
fn threads_with_descriptors_and_directories_of_their_own() {
    isolated(|room| {
        let victim = room.victim("apart", &[]);
        let first = room.dump(victim.pid(), "relations.snap", &[]);
        let tree = super::tree(room, &first);
        let threads = tree["processes"][0]["threads"].as_array().expect("threads").iter();
        let seen: HashSet<String> = threads.map(|thread| format!("{} {}", thread["fd_table"], thread["fs"])).collect();
        assert_eq!(seen.len(), 4, "{seen:?}");
        room.survives(victim);
    });
}

#[test]
fn exam_05_a_main_thread_that_has_ended_before_the_others() {
    isolated(|room| {
        let mut victim = room.victim("leaderless", &[]);
        let pid = victim.pid();
        assert_eq!(victim.state(), Some('Z'));
        let thread = facts::threads(pid)[1];
        // The signal mask that it had, and that nobody asks any more.
        let look = || Facts::of(pid).without(&format!("task {pid} SigBlk"));
        let before = look();
        let check = room.snap(["check", &pid.to_string()]).run();
        check.expect(0);
        let first = room.dump(pid, "first.snap", &[]);
        before.assert_same(&look(), "after a dump");
        victim.check();
        let image = room.dump(pid, "second.snap", &["--kill"]);
        assert_eq!(relations(room, &image), relations(room, &first));
        victim.killed();
        wait::alone();
        let run = room.snap(["restore"]).arg(&image).spawn();
        wait::until("the program to run again", || {
            facts::state(thread).filter(|state| !matches!(state, 'Z' | 'X' | 't'))
        });
        victim.check();
        before.assert_same(&look(), "after the restore");
        assert_eq!(facts::status(pid, "Name"), "has-ended");
        assert_eq!(facts::status(pid, "TracerPid"), "0");
        // Whose code counts when threads end one by one, kernels do not agree on.
        let end = |victim: &Victim| std::fs::write(victim.path("ask"), "9999 end").expect("a question");
        let twin = room.victim("leaderless", &[]);
        end(&twin);
        let Some(WaitStatus::Exited(_, code)) = wait::gone(twin.pid()) else { panic!("the twin has not exited") };
        end(&victim);
        run.finish().expect(code);
        victim.killed();
        wait::alone();
    });
}
