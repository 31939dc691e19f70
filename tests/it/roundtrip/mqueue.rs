//! POSIX message queues.

use crate::support::{Facts, Room, Victim, isolated, wait};
use std::ffi::CString;
use std::path::PathBuf;

fn unlink(name: &str) {
    let name = CString::new(format!("/{name}")).expect("a name");
    // SAFETY: the name is a string.
    assert_eq!(unsafe { libc::mq_unlink(name.as_ptr()) }, 0, "{}", std::io::Error::last_os_error());
}

fn make(name: &str) {
    let name = CString::new(format!("/{name}")).expect("a name");
    // SAFETY: the name is a string, and without attributes the kernel takes its own.
    let made = unsafe { libc::mq_open(name.as_ptr(), libc::O_CREAT | libc::O_EXCL, 0o600, 0) };
    assert!(made >= 0, "{}", std::io::Error::last_os_error());
}

fn killed(room: &Room, part: &str) -> (Victim, PathBuf, Facts, String) {
    let mut victim = room.victim("mqueue", &[part]);
    let name = victim.ask("names").trim().to_owned();
    victim.check();
    let facts = Facts::of(victim.pid());
    let image = room.dump_and_kill(&mut victim, "killed.snap");
    wait::alone();
    (victim, image, facts, name)
}

#[test]
fn queues_without_messages() {
    isolated(|room| room.survives(room.victim("mqueue", &["empty"])));
}

#[test]
fn a_queue_that_is_gone_is_made_again_and_another_of_its_name_is_in_the_way() {
    isolated(|room| {
        let (mut victim, image, before, name) = killed(room, "empty");
        unlink(&name);
        for fault in ["unmapped", "barrier", "barrier:error"] {
            let run = room.snap(["restore", "--detach"]).arg(&image).env("SNAP_FAULT", fault).run();
            assert_ne!(run.code, Some(0), "{fault}: {run}");
            wait::alone();
        }
        make(&name);
        let run = room.snap(["restore", "--detach"]).arg(&image).run().expect(3);
        run.says(&name).says("another one has its name").says("--new-ipc-namespace");
        unlink(&name);
        assert_eq!(room.restore(&image, &[]), victim.pid());
        before.assert_same(&Facts::of(victim.pid()), "after the restore");
        victim.check();
        victim.ask("final");
        victim.end();
    });
}

#[test]
fn messages_without_a_name() {
    isolated(|room| room.survives(room.victim("mqueue", &["nameless"])));
}

#[test]
fn messages_of_a_queue_that_is_open_for_sending_alone() {
    isolated(|room| room.survives(room.victim("mqueue", &["writer"])));
}

#[test]
fn messages_and_whoever_is_told_of_them() {
    isolated(|room| room.survives(room.victim("mqueue", &["notified"])));
}

#[test]
fn threads_that_are_started_when_a_message_comes() {
    isolated(|room| room.survives(room.victim("mqueue", &["thread"])));
}

#[test]
fn a_queue_of_several_processes() {
    isolated(|room| room.survives_with_children(room.victim("mqueue", &["family"])));
}

#[test]
fn messages_stay_in_their_queue_and_come_back_without_it() {
    isolated(|room| {
        let mut victim = room.victim("mqueue", &["messages"]);
        let name = victim.ask("names").trim().to_owned();
        let before = Facts::of(victim.pid());
        let running = room.dump(victim.pid(), "running.snap", &[]);
        before.assert_same(&Facts::of(victim.pid()), "after a dump that left it running");
        victim.check();
        let image = room.dump_and_kill(&mut victim, "killed.snap");
        wait::alone();
        let ipc = room.snap(["inspect"]).arg(&image).arg("ipc").run().expect(0).stdout;
        assert!(ipc.contains("5 messages with 27 B, up to 5 of 200 B"), "{ipc}");
        assert_eq!(room.restore(&image, &[]), victim.pid());
        before.assert_same(&Facts::of(victim.pid()), "after the restore");
        victim.check();
        assert_eq!(victim.ask("take").trim(), "urgent");
        victim.end();
        wait::alone();
        for image in [&running, &image] {
            let run = room.snap(["restore", "--detach"]).arg(image).run().expect(3);
            run.says("somebody has used it since the dump").says(&name).says("--new-ipc-namespace");
        }
        unlink(&name);
        for image in [&running, &image] {
            assert_eq!(room.restore(image, &[]), victim.pid());
            victim.check();
            victim.ask("final");
            victim.end();
            wait::alone();
        }
    });
}

#[test]
fn a_queue_that_a_process_outside_has_too() {
    isolated(|room| {
        let victim = room.victim("mqueue", &["messages"]);
        let name = CString::new(format!("/{}", victim.ask("names").trim())).expect("a name");
        // SAFETY: the name is a string.
        let fd = unsafe { libc::mq_open(name.as_ptr(), libc::O_RDONLY) };
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        room.refuses(victim, &["could use it while its messages are looked at"]);
    });
}

#[test]
fn what_cannot_be_had_again_is_named() {
    isolated(|room| {
        let cases: [(&[&str], &str); 5] = [
            (&["killing"], "nobody can see what it would carry"),
            (&["pending"], "one of that number is pending"),
            (&["limited"], "has almost as many signals pending as may be (RLIMIT_SIGPENDING)"),
            (&["underway"], "nobody has it but a socket"),
            (&["crowded", "400"], "has no padding for a stub of each of its threads"),
        ];
        for (part, words) in cases {
            room.refuses(room.victim("mqueue", part), &[words]);
            wait::alone();
        }
    });
}

#[test]
fn a_queue_of_several_threads() {
    isolated(|room| room.survives(room.victim("mqueue", &["crowded", "3"])));
}

#[test]
fn a_queue_that_its_process_may_not_open_for_receiving() {
    isolated(|room| room.refuses(room.victim("mqueue", &["closed"]), &["nobody who may not both receive and send"]));
}
