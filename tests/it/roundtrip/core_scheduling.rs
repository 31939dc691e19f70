//! Core scheduling, where kernel and CPU have it; and what becomes of it where they do not.

use crate::support::{facts, isolated, needs};
use fixtures::sys::{address_mut, call, must};
use std::fs;
use std::thread;

const CREATE: u64 = 1;
/// Scopes of PR_SCHED_CORE.
const THREAD: u64 = 0;
const PROCESS: u64 = 1;

/// Whether there is core scheduling here; says that the test was not run where there is nothing to lose.
fn is_there() -> bool {
    let mut cookie = 0u64;
    let get = [libc::PR_SCHED_CORE as u64, 0, 0, THREAD, address_mut(&mut cookie)];
    let found = call(libc::SYS_prctl, &get);
    if let Err(error) = &found {
        needs::not_run(&format!("there is no core scheduling (CONFIG_SCHED_CORE, SMT): {error}"));
    }
    found.is_ok()
}

/// A cookie for the calling thread, or for all of its process.
fn make_cookie(scope: u64) {
    must("PR_SCHED_CORE_CREATE", libc::SYS_prctl, &[libc::PR_SCHED_CORE as u64, CREATE, 0, scope, 0]);
}

#[test]
fn cookies_of_threads_and_children() {
    isolated(|room| {
        if is_there() {
            room.survives_with_children(room.victim("core_scheduling", &[]));
        }
    });
}

/// The restore makes cookies for some threads, and leaves the others none, although it is itself kept apart.
#[test]
fn a_cookie_of_snap_is_not_handed_on() {
    isolated(|room| {
        if !is_there() {
            return;
        }
        let mut victim = room.victim("core_scheduling", &[]);
        let image = room.dump_and_kill(&mut victim, "x.snap");
        crate::support::wait::alone();
        let restored = thread::scope(|scope| {
            let restore = scope.spawn(|| {
                make_cookie(THREAD);
                room.restore(&image, &[])
            });
            restore.join().expect("a restore")
        });
        assert_eq!(restored, victim.pid());
        victim.check();
        victim.end();
    });
}

#[test]
fn a_cookie_that_cannot_be_kept_from_a_program_is_told_of() {
    isolated(|room| {
        if !is_there() {
            return;
        }
        let mut victim = room.victim("c-dynamic", &[]);
        let image = room.dump_and_kill(&mut victim, "x.snap");
        make_cookie(PROCESS);
        let restore = room.snap(["restore", "--detach"]).arg(&image).run().expect(0);
        restore.says("core scheduling: snap has a cookie, and 2 threads of the program");
        victim.check();
        victim.end();
    });
}

#[test]
fn who_shares_a_cookie_outside_is_told_of() {
    isolated(|room| {
        if !is_there() {
            return;
        }
        make_cookie(PROCESS);
        let mut victim = room.victim("c-dynamic", &[]);
        let dump = room.snap(["dump", "--kill", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(0);
        let told = |words: &str| assert!(dump.stdout.contains(words), "{words}: {dump}");
        ["core scheduling: pid 1 (", "has the cookie of a thread too, and is outside"].into_iter().for_each(told);
        victim.killed();
        room.restore(&room.path("x.snap"), &[]);
        victim.check();
        victim.end();
    });
}

#[test]
fn without_core_scheduling_a_program_with_cookies_is_refused() {
    isolated(|room| {
        if !is_there() {
            return;
        }
        let mut victim = room.victim("core_scheduling", &[]);
        let image = room.dump_and_kill(&mut victim, "x.snap");
        crate::support::wait::alone();
        let restore = room.snap(["restore", "--detach"]).arg(&image).env("SNAP_FAULT", "no-core-scheduling");
        restore.run().expect(3).says("core scheduling").says("CONFIG_SCHED_CORE");
        assert_eq!(facts::state(victim.pid()), None, "something runs");
        room.restore(&image, &[]);
        victim.check();
        victim.end();
    });
}

/// An image of another machine, on any that has no core scheduling, or believes so.
#[test]
fn an_image_with_cookies_is_refused_by_name() {
    isolated(|room| {
        let image = room.path("golden.snap");
        fs::write(&image, include_bytes!("../../../fixtures/golden/v1-small.snap")).expect("an image");
        let threads = room.snap(["inspect"]).arg(&image).arg("threads").run().expect(0);
        assert!(threads.stdout.contains("core scheduling group 1"), "{threads}");
        let restore = room.snap(["restore", "--dry-run"]).arg(&image).env("SNAP_FAULT", "no-core-scheduling");
        let refused = restore.run().expect(3);
        refused
            .says("core scheduling")
            .says("threads have cookies, and this kernel has none")
            .says("CONFIG_SCHED_CORE");
    });
}
