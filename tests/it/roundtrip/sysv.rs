//! System V IPC: shared memory, semaphores, message queues.

use crate::support::{HugePages, Room, Victim, isolated, require, require_root, wait};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[test]
fn segments_in_every_state() {
    isolated(|room| room.survives(room.victim("sysv", &["segments"])));
}

#[test]
fn segments_of_huge_pages() {
    isolated(|room| {
        require_root!("to reserve huge pages");
        let reserved = HugePages::reserve(8);
        require!(reserved.are_there(), "no memory for huge pages");
        room.survives(room.victim("sysv", &["huge"]));
    });
}

#[test]
fn segments_that_nobody_has_attached() {
    isolated(|room| room.survives(room.victim("sysv", &["detached"])));
}

#[test]
fn semaphores_with_operations_to_undo() {
    isolated(|room| {
        let mut victim = room.victim("sysv", &["semaphores"]);
        victim.check();
        let first = room.dump(victim.pid(), "first.snap", &[]);
        victim.check();
        let second = room.dump_and_kill(&mut victim, "second.snap");
        wait::alone();
        // What the processes had to undo is undone; the image knows what was before.
        assert_eq!(room.restore(&second, &[]), victim.pid());
        victim.check();
        let third = room.dump(victim.pid(), "third.snap", &[]);
        for image in [second, third, first] {
            victim.end();
            wait::alone();
            assert_eq!(room.restore(&image, &[]), victim.pid());
            victim.check();
            victim.ask("final");
        }
    });
}

#[test]
fn threads_that_do_not_share_what_their_process_has_to_undo() {
    isolated(|room| room.survives_with_children(room.victim("sysv", &["apart"])));
}

#[test]
fn a_thread_with_something_of_its_own_to_undo() {
    isolated(|room| {
        let mut victim = room.victim("sysv", &["own"]);
        victim.check();
        let first = room.dump(victim.pid(), "first.snap", &[]);
        victim.check();
        let second = room.dump_and_kill(&mut victim, "second.snap");
        wait::alone();
        let ipc = room.snap(["inspect"]).arg(&second).arg("ipc").run().expect(0).stdout;
        let pid = victim.pid();
        assert!(ipc.contains(&format!("pid {pid} undoes +3 on number 0, tid ")), "{ipc}");
        assert!(ipc.contains(" undoes +1 on number 1"), "{ipc}");
        for image in [&second, &first] {
            assert_eq!(room.restore(image, &[]), pid);
            victim.check();
            // A dump that leaves it running leaves it that too.
            room.dump(pid, "again.snap", &[]);
            victim.check();
            victim.ask("final");
            victim.end();
            wait::alone();
        }
    });
}

#[test]
fn what_a_process_without_its_main_thread_has_to_undo() {
    isolated(|room| {
        let mut victim = room.victim("sysv", &["headless"]);
        let set: i32 = victim.ask("set").trim().parse().expect("a number");
        // SAFETY: GETVAL takes no pointer.
        let value = || unsafe { libc::semctl(set, 0, libc::GETVAL) };
        let first = room.dump(victim.pid(), "first.snap", &[]);
        victim.check();
        let second = room.dump_and_kill(&mut victim, "second.snap");
        wait::alone();
        for image in [&second, &first] {
            assert_eq!(room.restore(image, &[]), victim.pid());
            victim.check();
            assert_eq!(value(), 2);
            victim.end();
            wait::alone();
            assert_eq!(value(), 5, "its end undoes what it has done");
        }
    });
}

#[test]
fn message_queues_in_order() {
    isolated(|room| room.survives(room.victim("sysv", &["queues"])));
}

#[test]
fn exam_01_calls_that_wait_for_system_v_objects_go_on() {
    isolated(|room| room.survives(room.victim("sysv", &["blocked"])));
}

/// A victim of this kind that was killed, and its image. What it had made is still there.
fn killed(room: &Room, part: &str) -> (Victim, PathBuf) {
    let mut victim = room.victim("sysv", &[part]);
    victim.check();
    let image = room.dump_and_kill(&mut victim, "killed.snap");
    (victim, image)
}

/// Lines of a file of /proc/sysvipc, but for the first.
fn listed(kind: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/sysvipc/{kind}")).expect("sysvipc");
    text.lines().skip(1).map(str::to_owned).collect()
}

fn remove_queues() {
    for line in listed("msg") {
        let id: i32 = line.split_whitespace().nth(1).and_then(|id| id.parse().ok()).expect("an identifier");
        // SAFETY: IPC_RMID takes no pointer.
        assert_eq!(unsafe { libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()) }, 0);
    }
}

#[test]
fn a_taken_identifier_or_key_is_a_collision_unless_a_new_namespace_is_asked_for() {
    isolated(|room| {
        let (victim, image) = killed(room, "queues");
        let left = listed("msg");
        let id: i32 = left[0].split_whitespace().nth(1).and_then(|id| id.parse().ok()).expect("an identifier");
        // We use what the victim has left behind.
        let message = (9_i64, 0_u64);
        // SAFETY: the kernel reads a word and 8 bytes.
        assert_eq!(unsafe { libc::msgsnd(id, (&raw const message).cast(), 8, 0) }, 0);
        let used = listed("msg");
        let run = room.snap(["restore", "--detach"]).arg(&image).run().expect(3);
        run.says(&format!("System V message queue {id}"))
            .says("pid 1 (")
            .says("has used it")
            .says("--new-ipc-namespace");
        assert_eq!(listed("msg"), used);
        remove_queues();
        // Another has its key.
        // SAFETY: msgget takes no pointer.
        let other = unsafe { libc::msgget(0x5eed_0000 + victim.pid() * 16, libc::IPC_CREAT | 0o600) };
        assert!(other >= 0 && other != id);
        let run = room.snap(["restore", "--detach"]).arg(&image).run().expect(3);
        run.says("its key is that of").says(&format!("ipcrm -q {other}"));
        let before = listed("msg");
        assert_eq!(room.restore(&image, &["--new-ipc-namespace"]), victim.pid());
        victim.check();
        victim.ask("final");
        assert_eq!(listed("msg"), before);
    });
}

#[test]
fn what_a_failed_restore_has_made_is_gone() {
    isolated(|room| {
        for (part, kind) in [("segments", "shm"), ("semaphores", "sem"), ("queues", "msg")] {
            let (_victim, image) = killed(room, part);
            wait::alone();
            // What the victim has left behind is replaced, and so gone too.
            for fault in ["barrier:error", "unmapped", "barrier"] {
                let run = room.snap(["restore", "--detach"]).arg(&image).env("SNAP_FAULT", fault).run();
                assert_ne!(run.code, Some(0), "{fault}: {run}");
                wait::until(&format!("{kind} to be empty after {fault}"), || listed(kind).is_empty().then_some(()));
                wait::alone();
            }
        }
    });
}

#[test]
fn an_image_is_restored_without_privilege_in_namespaces_of_its_own() {
    isolated(|room| {
        let (_victim, image) = killed(room, "queues");
        let before = listed("msg");
        let run = room.snap(["restore", "--new-pid-namespace"]).arg(&image).run().expect(3);
        run.says("cannot be seen from a pid namespace").says("--new-ipc-namespace");
        let pid = room.restore(&image, &["--new-pid-namespace", "--new-ipc-namespace"]);
        assert!(fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "sysv"));
        let other = fs::read_link(format!("/proc/{pid}/ns/ipc")).expect("a namespace");
        assert_ne!(other, fs::read_link("/proc/self/ns/ipc").expect("a namespace"));
        assert_eq!(listed("msg"), before);
    });
}

#[test]
fn exam_18_system_v_objects_that_somebody_outside_uses_are_named() {
    isolated(|room| {
        let ours = format!("pid {} (", std::process::id());
        let refused = |victim: &Victim, words: &[&str]| {
            let check = room.snap(["check", &victim.pid().to_string()]).run().expect(3);
            let dump = room.snap(["dump", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(3);
            for word in words {
                assert!(check.stdout.contains(word) && dump.stderr.contains(word), "{word}: {check} {dump}");
            }
            victim.check();
        };
        let victim = room.victim("sysv", &["blocked"]);
        let line = listed("msg").into_iter().next().expect("a queue");
        let id: i32 = line.split_whitespace().nth(1).and_then(|id| id.parse().ok()).expect("an identifier");
        let message = (9_i64, 0_u64);
        // SAFETY: the kernel reads a word and 8 bytes; the victim does not wait for this type.
        assert_eq!(unsafe { libc::msgsnd(id, (&raw const message).cast(), 8, 0) }, 0);
        refused(&victim, &[&format!("System V message queue {id}"), &ours, "has used it too", "--allow-leak"]);
        room.dump(victim.pid(), "leak.snap", &["--allow-leak"]);
        drop(victim);

        let victim = room.victim("sysv", &["segments"]);
        let line = listed("shm").into_iter().next().expect("a segment");
        let id: i32 = line.split_whitespace().nth(1).and_then(|id| id.parse().ok()).expect("an identifier");
        // SAFETY: without an address, the kernel takes no memory that is in use.
        let at = unsafe { libc::shmat(id, std::ptr::null(), libc::SHM_RDONLY) };
        assert_ne!(at as isize, -1);
        let dump = room.snap(["dump", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(3);
        dump.says(&format!("{ours}it-")).says("mapping").says("/SYSV5eed").says("shares this memory");
        // SAFETY: nothing refers to it.
        assert_eq!(unsafe { libc::shmdt(at) }, 0);
        room.dump(victim.pid(), "alone.snap", &[]);
    });
}

/// Makes an object of which the kernel remembers no process; its identifier.
fn make_queue() -> i32 {
    // SAFETY: msgget(2) takes numbers.
    let id = unsafe { libc::msgget(libc::IPC_PRIVATE, libc::IPC_CREAT | 0o600) };
    assert!(id >= 0, "{}", std::io::Error::last_os_error());
    id
}

#[test]
fn only_objects_that_could_be_of_the_tree_are_named() {
    isolated(|room| {
        let before = make_queue();
        // The kernel counts seconds, and a little more is allowed for.
        let old = Instant::now() + Duration::from_secs(5);
        wait::until("the queue to be older than the victim", || (Instant::now() > old).then_some(()));
        let victim = room.victim("sysv", &["detached"]);
        let dump = || room.snap(["dump", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(0);
        let alone = dump();
        assert!(!alone.stdout.contains("known to use"), "{alone}");
        let after = make_queue();
        let both = dump();
        let named = format!("no process of the tree is known to use them: System V message queue {after} ");
        assert!(both.stdout.contains(&named), "{both}");
        assert!(!both.stdout.contains(&format!("queue {before} ")), "{both}");
    });
}
