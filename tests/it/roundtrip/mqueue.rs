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
    let image = room.dump(victim.pid(), "killed.snap", &["--kill"]);
    victim.killed();
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
fn messages_stay_in_their_queue() {
    isolated(|room| {
        let mut victim = room.victim("mqueue", &["messages"]);
        let name = victim.ask("names").trim().to_owned();
        let run = room.snap(["dump", &victim.pid().to_string(), "-o", "running.snap"]).run().expect(3);
        run.says("17 bytes in 3 messages").says("--kill");
        victim.check();
        let image = room.dump(victim.pid(), "killed.snap", &["--kill"]);
        victim.killed();
        wait::alone();
        let run = room.snap(["restore", "--detach", "--new-ipc-namespace"]).arg(&image).run().expect(3);
        run.says("it is gone, and 17 bytes in 3 messages with it");
        assert_eq!(room.restore(&image, &[]), victim.pid());
        victim.check();
        assert_eq!(victim.ask("take").trim(), "urgent");
        victim.end();
        wait::alone();
        let run = room.snap(["restore", "--detach"]).arg(&image).run().expect(3);
        run.says("somebody has used it since the dump").says(&name);
        unlink(&name);
        room.snap(["restore", "--detach"]).arg(&image).run().expect(3).says("it is gone");
    });
}

#[test]
fn messages_come_back_in_their_order() {
    isolated(|room| {
        let (mut victim, image, before, _) = killed(room, "messages");
        assert_eq!(room.restore(&image, &[]), victim.pid());
        before.assert_same(&Facts::of(victim.pid()), "after the restore");
        victim.check();
        victim.ask("final");
        victim.end();
    });
}

#[test]
fn what_cannot_be_had_again_is_named() {
    isolated(|room| {
        let cases: [(&str, &[&str]); 3] = [
            ("nameless", &["4 bytes in 1 messages", "to look at them is to take them out"]),
            ("notified", &["signal 10 when a message comes", "what that would carry cannot be read"]),
            ("registered", &["registered to be told of a message"]),
        ];
        for (part, words) in cases {
            let mut victim = room.victim("mqueue", &[part]);
            let run = room.snap(["dump", "--kill", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(3);
            words.iter().fold(run, |run, word| run.says(word));
            victim.check();
            victim.end();
            wait::alone();
        }
    });
}
