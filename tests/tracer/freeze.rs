//! Freezing and what may follow it.

use crate::victim::{Victim, compile, status, tids};
use snap::image::model::id::Tid;
use snap::tracer::{Error, FreezeOptions, FrozenTree, Scope, Stop};
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn every_thread_stands_still_and_goes_on() {
    let victim = Victim::checking(20);
    for _ in 0..300 {
        let tree = FrozenTree::freeze(victim.pid(), &FreezeOptions::default()).expect("freeze");
        let mut frozen: Vec<Tid> = tree.threads().iter().map(|thread| thread.tid()).collect();
        frozen.sort();
        assert_eq!(frozen, tids(victim.pid()));
        assert!(tree.threads().iter().all(|thread| thread.stop() == Stop::Interrupted));
        assert!(frozen.iter().all(|tid| status(*tid, "State").starts_with('t')));
        tree.thaw().expect("thaw");
    }
    assert_eq!(victim.status("TracerPid"), "0");
    victim.finish();
}

#[test]
fn dropping_thaws() {
    let victim = Victim::checking(0);
    drop(FrozenTree::freeze(victim.pid(), &FreezeOptions::default()).expect("freeze"));
    assert_eq!(victim.status("TracerPid"), "0");
    victim.finish();
}

#[test]
fn blocked_calls_are_named() {
    let victim = Victim::checking(0);
    let start = Instant::now();
    while !std::fs::read_to_string(format!("/proc/{}/syscall", victim.pid())).expect("syscall").starts_with("128 ") {
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    let tree = FrozenTree::freeze(victim.pid(), &FreezeOptions::default()).expect("freeze");
    let leader = tree.thread(victim.pid().leader()).expect("leader").blocked().expect("blocked");
    assert_eq!(leader.number, libc::SYS_rt_sigtimedwait as u64);
    tree.thaw().expect("thaw");
    victim.finish();
}

#[test]
fn group_stop_stays() {
    let victim = Victim::checking(0);
    victim.signal(libc::SIGSTOP);
    await_state(&victim, 'T');
    let tree = FrozenTree::freeze(victim.pid(), &FreezeOptions::default()).expect("freeze");
    assert!(tree.threads().iter().all(|thread| thread.stop() == Stop::Group(libc::SIGSTOP)));
    tree.thaw().expect("thaw");
    await_state(&victim, 'T');
    assert_eq!(victim.status("TracerPid"), "0");
}

#[test]
fn left_stopped_until_sigcont() {
    let victim = Victim::checking(10);
    for _ in 0..20 {
        let tree = FrozenTree::freeze(victim.pid(), &FreezeOptions::default()).expect("freeze");
        tree.leave_stopped().expect("stop");
        for tid in tids(victim.pid()) {
            let start = Instant::now();
            while !status(tid, "State").starts_with('T') {
                assert!(start.elapsed() < Duration::from_secs(5), "{}", status(tid, "State"));
            }
        }
        victim.signal(libc::SIGCONT);
    }
}

#[test]
fn killed_when_asked() {
    let victim = Victim::checking(50);
    let pid = victim.pid();
    let tree = FrozenTree::freeze(pid, &FreezeOptions::default()).expect("freeze");
    assert_eq!(tree.kill(|| ()).expect("kill"), []);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn another_tracer_is_named_and_nothing_changes() {
    let victim = Victim::checking(0);
    let tree = FrozenTree::freeze(victim.pid(), &FreezeOptions::default()).expect("freeze");
    let pid = victim.pid();
    let second = std::thread::spawn(move || FrozenTree::freeze(pid, &FreezeOptions::default()).map(drop));
    let Err(Error::Traced { tid, name, .. }) = second.join().expect("join") else { panic!("not refused") };
    assert_eq!(tid, pid.leader());
    assert!(!name.is_empty());
    tree.thaw().expect("thaw");
    victim.finish();
}

#[test]
fn a_vfork_parent_is_refused_in_time_and_runs_on() {
    let program = compile("vfork.c", &["-O1"]);
    let victim = Victim::start(&mut Command::new(program));
    let options = FreezeOptions { bound: Duration::from_millis(200), ..FreezeOptions::default() };
    let start = Instant::now();
    let Err(Error::Unstoppable { tid, .. }) = FrozenTree::freeze(victim.pid(), &options) else { panic!("not refused") };
    assert_eq!(tid, victim.pid().leader());
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn cancelling_thaws() {
    let program = compile("vfork.c", &["-O1"]);
    let victim = Victim::start(&mut Command::new(program));
    let options = FreezeOptions { cancelled: &|| true, ..FreezeOptions::default() };
    assert!(matches!(FrozenTree::freeze(victim.pid(), &options), Err(Error::Cancelled)));
}

#[test]
fn a_process_that_makes_threads_and_children_is_frozen_whole() {
    let program = compile("breeder.c", &["-O1", "-pthread"]);
    for (scope, kinds) in [(Scope::Process, "with-vfork"), (Scope::Tree, "fork")] {
        breed(scope, Victim::start(Command::new(&program).arg(kinds)));
    }
}

fn breed(scope: Scope, victim: Victim) {
    for _ in 0..200 {
        let options = FreezeOptions { scope, ..FreezeOptions::default() };
        let tree = FrozenTree::freeze(victim.pid(), &options).expect("freeze");
        for process in tree.processes() {
            let alive: Vec<_> =
                tids(process.pid()).into_iter().filter(|tid| !status(*tid, "State").starts_with('Z')).collect();
            assert!(alive.iter().all(|tid| tree.thread(*tid).is_some()), "{alive:?}");
        }
        tree.thaw().expect("thaw");
    }
    victim.finish();
}

#[test]
fn a_thousand_threads() {
    let victim = Victim::checking(1000);
    let mut best = Duration::MAX;
    for _ in 0..10 {
        let start = Instant::now();
        let tree = FrozenTree::freeze(victim.pid(), &FreezeOptions::default()).expect("freeze");
        let frozen = start.elapsed();
        tree.thaw().expect("thaw");
        eprintln!("frozen {frozen:?}, thawed {:?}", start.elapsed() - frozen);
        best = best.min(frozen);
    }
    assert!(best < Duration::from_millis(100), "{best:?}");
    victim.finish();
}

fn await_state(victim: &Victim, letter: char) {
    let start = Instant::now();
    while !victim.status("State").starts_with(letter) {
        assert!(start.elapsed() < Duration::from_secs(5));
        std::thread::yield_now();
    }
}
