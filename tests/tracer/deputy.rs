//! Children that share a target's memory and work for us: what they do, how they end, and what is left when we die.

use crate::kill::{die_at_work, settle};
use crate::session::{assert_memory, memory_of};
use crate::twin::{assert_no_copy_runs, children};
use crate::victim::Victim;
use snap::image::model::address::{Addr, PAGE_SIZE};
use snap::image::model::id::Pid;
use snap::tracer::{Child, Error, Fate, FreezeOptions, FrozenTree, RemotePtr, RemoteSession};
use std::time::{Duration, Instant};

/// `inc qword [rdi]; jmp` back.
const COUNT: [u8; 5] = [0x48, 0xff, 0x07, 0xeb, 0xfb];

#[test]
fn a_child_works_while_the_target_stands_still() {
    let victim = Victim::checking(5);
    let before = memory_of(victim.pid());
    for _ in 0..30 {
        at_work(victim.pid(), |child, counter| {
            let memory = child.deputy().expect("deputy").memory().expect("mem");
            wait_until(|| memory.get(RemotePtr::<u64>::new(counter)).expect("counter") > 0);
            let deputy = child.deputy().expect("deputy");
            assert_eq!(deputy.running().expect("running"), 2);
            deputy.halt().expect("halt");
            let counted = memory.get(RemotePtr::<u64>::new(counter)).expect("counter");
            assert_eq!(memory.get(RemotePtr::<u64>::new(counter)).expect("counter"), counted);
            let entries = std::fs::read_dir(format!("/proc/{}/fd", deputy.pid())).expect("fd");
            assert_eq!(entries.count(), 0, "it has descriptors of the target");
            deputy.schedule_as_own().expect("schedule");
        });
        assert_eq!(children(victim.pid()), "");
    }
    assert_memory(victim.pid(), &before);
    victim.finish();
}

#[test]
fn a_fault_is_told_and_harms_nobody() {
    let victim = Victim::checking(6);
    let before = memory_of(victim.pid());
    for _ in 0..20 {
        at_work(victim.pid(), |child, counter| {
            let scratch = child.scratch();
            let deputy = child.deputy().expect("deputy");
            // Its stack is not code.
            deputy.start(counter, scratch.end, counter).expect("start");
            wait_until(|| matches!(deputy.running(), Err(Error::Signalled { signal: libc::SIGSEGV, .. })));
            deputy.halt().expect("halt");
        });
        assert_eq!(children(victim.pid()), "");
    }
    assert_memory(victim.pid(), &before);
    victim.finish();
}

#[test]
fn a_child_that_somebody_kills_is_told_and_reaped() {
    let victim = Victim::checking(7);
    let before = memory_of(victim.pid());
    for _ in 0..20 {
        at_work(victim.pid(), |child, _| {
            let deputy = child.deputy().expect("deputy");
            let pid = nix::unistd::Pid::from_raw(deputy.pid().0);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill");
            wait_until(|| matches!(deputy.running(), Err(Error::Signalled { signal: libc::SIGKILL, .. })));
        });
        assert_eq!(children(victim.pid()), "");
    }
    assert_memory(victim.pid(), &before);
    victim.finish();
}

#[test]
fn a_killed_tracer_leaves_no_child() {
    let victim = Victim::checking(43);
    let before = memory_of(victim.pid());
    let rounds = std::env::var("SNAP_TEST_KILLS").map_or(300, |n| n.parse().expect("number"));
    let mut seed = 3_141_592_653u64;
    for _ in 0..rounds {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        die_at_work(victim.pid(), Duration::from_micros(seed % 5000), |target| at_work(target, |_, _| ()));
        if victim.has_ended() {
            break;
        }
    }
    if !victim.has_ended() {
        settle(&victim);
        assert_memory(victim.pid(), &before);
        assert_eq!(children(victim.pid()), "");
        assert_no_copy_runs(victim.pid());
    }
    eprintln!("{} interrupted calls in {rounds} kills", victim.finish_counting());
}

/// Freezes a target and has two threads of a child count in its memory, for as long as `look` takes.
fn at_work(target: Pid, look: impl FnOnce(&mut Child<'_>, Addr)) {
    let mut tree = FrozenTree::freeze(target, &FreezeOptions::default()).expect("freeze");
    let mut session = RemoteSession::open_with(&mut tree, target, 4 * PAGE_SIZE).expect("open");
    let mut child = session.child(Fate::DiesWithUs, &[]).expect("child");
    let scratch = child.scratch();
    let counter = scratch.start.add(PAGE_SIZE);
    let deputy = child.deputy().expect("deputy");
    let protection = (libc::PROT_READ | libc::PROT_EXEC) as u64;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED) as u64;
    let args = [scratch.start.0, PAGE_SIZE, protection, flags, u64::MAX, 0];
    deputy.syscall(libc::SYS_mmap, args).expect("remote call").expect("mmap");
    deputy.memory().expect("mem").write(scratch.start, &COUNT).expect("write");
    for _ in 0..2 {
        deputy.start(scratch.start, scratch.end, counter).expect("start");
    }
    look(&mut child, counter);
    child.end().expect("end");
    session.close().expect("close");
    tree.thaw().expect("thaw");
}

fn wait_until(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "it does not happen");
        std::thread::yield_now();
    }
}
