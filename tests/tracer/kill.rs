//! The dead-man's switch: a tracer that is killed at random instants leaves its target unharmed.

use crate::session::{ask_every_thread, assert_memory, memory_of};
use crate::victim::{Victim, status};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use snap::image::model::id::Pid;
use snap::tracer::{FreezeOptions, FrozenTree};
use std::time::{Duration, Instant};

#[test]
fn a_killed_tracer_leaves_no_trace() {
    let victim = Victim::checking(3);
    let mut seed = 88_172_645_463_325_252u64;
    let rounds = std::env::var("SNAP_TEST_KILLS").map_or(400, |n| n.parse().expect("number"));
    let before = memory_of(victim.pid());
    for _ in 0..rounds {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        die_at_work(victim.pid(), Duration::from_micros(seed % 6000), ask);
        if victim.has_ended() {
            break;
        }
    }
    if !victim.has_ended() {
        settle(&victim);
        assert_memory(victim.pid(), &before);
    }
    eprintln!("{} interrupted calls in {rounds} kills", victim.finish_counting());
}

/// Starts a tracer that does `work` without an end, and kills it after some time.
pub fn die_at_work(target: Pid, after: Duration, work: fn(Pid)) {
    // SAFETY: glibc makes its allocator usable in the child of a threaded program; nothing else of the parent is used.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            let _ = std::panic::catch_unwind(|| {
                loop {
                    work(target);
                }
            });
            // SAFETY: _exit runs nothing of the parent's.
            unsafe { libc::_exit(101) }
        }
        ForkResult::Parent { child } => {
            std::thread::sleep(after);
            let _ = kill(child, Signal::SIGKILL);
            let end = waitpid(child, None).expect("wait");
            assert!(
                end == WaitStatus::Signaled(child, Signal::SIGKILL, false) || is_dead(target),
                "the tracer failed before it was killed"
            );
        }
    }
}

fn is_dead(target: Pid) -> bool {
    status(target.leader(), "State").starts_with('Z')
}

fn ask(target: Pid) {
    let mut tree = FrozenTree::freeze(target, &FreezeOptions::default()).expect("freeze");
    ask_every_thread(&mut tree, target);
    tree.thaw().expect("thaw");
}

/// Waits until the last tracer's threads have left their stub, and wipes what it left there.
pub fn settle(victim: &Victim) {
    let start = Instant::now();
    while victim.status("TracerPid") != "0" {
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    let mut tree = FrozenTree::freeze(victim.pid(), &FreezeOptions::default()).expect("freeze");
    ask_every_thread(&mut tree, victim.pid());
    tree.thaw().expect("thaw");
}
