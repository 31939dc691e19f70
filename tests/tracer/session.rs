//! System calls in the name of threads, and what is left of them.

use crate::victim::{Victim, compile};
use snap::image::model::address::Addr;
use snap::image::model::id::{Pid, Tid};
use snap::tracer::{Error, FreezeOptions, FrozenTree, Question, RemotePtr, RemoteSession};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn every_thread_makes_calls_and_nothing_is_left() {
    let victim = Victim::checking(5);
    let before = memory_of(victim.pid());
    let mut together = 0;
    for _ in 0..100 {
        let mut tree = freeze(victim.pid());
        together += ask_every_thread(&mut tree, victim.pid());
        tree.thaw().expect("thaw");
    }
    // Not while the library starts one of the threads, with every signal blocked.
    assert!(together >= 50 * 12, "{together} answers to questions in one go");
    assert_memory(victim.pid(), &before);
    victim.finish();
}

/// Asks each thread for its id, its alternate stack and its tid address; asserts what must hold of them. Returns how many could be
/// asked in one go.
pub fn ask_every_thread(tree: &mut FrozenTree, pid: Pid) -> usize {
    let mut together = 0;
    let tids: Vec<Tid> = tree.threads().iter().map(|thread| thread.tid()).collect();
    let mut session = RemoteSession::open(tree, pid).expect("open");
    let out = session.scratch().start;
    for tid in tids {
        let own = session.syscall(tid, libc::SYS_gettid, [0; 6]).expect("remote call").expect("gettid");
        assert_eq!(own, tid.0 as u64);
        session.memory().write(out, &[0xee; 24]).expect("write");
        session.syscall(tid, libc::SYS_sigaltstack, [0, out.0, 0, 0, 0, 0]).expect("remote call").expect("sigaltstack");
        let flags: i32 = session.memory().get(RemotePtr::new(out.add(8))).expect("read");
        assert!(flags == 0 || flags == libc::SS_DISABLE);
        together += usize::from(ask_together(&mut session, tid));
        let bad = session.syscall(tid, libc::SYS_close, [u64::MAX, 0, 0, 0, 0, 0]).expect("remote call");
        assert_eq!(bad, Err(nix::errno::Errno::EBADF));
    }
    session.close().expect("close");
    together
}

/// Questions in one go have the same answers as one by one. Whether they could be put so.
fn ask_together(session: &mut RemoteSession<'_>, tid: Tid) -> bool {
    let out = session.scratch().start;
    let returns = |number| Question { number, args: [u64::MAX, 0, 0], returns: true };
    let stack = Question { number: libc::SYS_sigaltstack, args: [0, out.0 + 64, 0], returns: false };
    let questions = [stack, returns(libc::SYS_gettid), stack, returns(libc::SYS_close)];
    session.memory().write(out.add(64), &[0xee; 24]).expect("write");
    let Some(answers) = session.answers(tid, &questions, None).expect("a batch") else { return false };
    assert_eq!(answers[..2], [tid.0 as u64, -(libc::EBADF as i64) as u64]);
    let bytes = |at| session.memory().read_vec(at, 24).expect("read");
    assert_eq!(bytes(out)[..12], bytes(out.add(64))[..12]);
    true
}

#[test]
fn padding_is_as_it_was() {
    let victim = Victim::checking(0);
    let vdso = vdso_of(victim.pid());
    let mut tree = freeze(victim.pid());
    RemoteSession::open(&mut tree, victim.pid()).expect("open").close().expect("close");
    drop(RemoteSession::open(&mut tree, victim.pid()).expect("open"));
    assert!(vdso_of(victim.pid()) == vdso);
    tree.thaw().expect("thaw");
    victim.finish();
}

#[test]
fn a_stopped_process_stays_stopped() {
    let victim = Victim::checking(0);
    victim.signal(libc::SIGSTOP);
    await_stopped(&victim);
    let mut tree = freeze(victim.pid());
    ask_every_thread(&mut tree, victim.pid());
    tree.thaw().expect("thaw");
    await_stopped(&victim);
    victim.signal(libc::SIGCONT);
}

#[test]
fn signals_that_arrive_meanwhile_wait() {
    let victim = Victim::checking(0);
    let mut tree = freeze(victim.pid());
    let mut session = RemoteSession::open(&mut tree, victim.pid()).expect("open");
    victim.signal(libc::SIGSTOP);
    victim.signal(libc::SIGWINCH);
    let tids: Vec<Tid> = session.tree().threads().iter().map(|thread| thread.tid()).collect();
    for tid in tids {
        assert_eq!(session.syscall(tid, libc::SYS_gettid, [0; 6]).expect("call"), Ok(tid.0 as u64));
    }
    session.close().expect("close");
    tree.thaw().expect("thaw");
    await_stopped(&victim);
    victim.signal(libc::SIGCONT);
}

#[test]
fn a_forbidden_call_is_refused_before_it_is_made() {
    let program = compile("sandboxed.c", &["-O1"]);
    // Only CAP_SYS_ADMIN can read filters; what cannot be read is taken to forbid everything.
    let refused_at_once: &[&str] =
        if nix::unistd::geteuid().is_root() { &["mmap", "strict"] } else { &["getpid", "mmap", "strict"] };
    if !refused_at_once.contains(&"getpid") {
        let victim = Victim::start(Command::new(&program).arg("getpid"));
        let pid = victim.pid();
        let mut tree = freeze(pid);
        let mut session = RemoteSession::open(&mut tree, pid).expect("open");
        assert_eq!(session.syscall(pid.leader(), libc::SYS_gettid, [0; 6]).expect("call"), Ok(pid.0 as u64));
        let refused = session.syscall(pid.leader(), libc::SYS_getpid, [0; 6]);
        assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
        session.close().expect("close");
        tree.thaw().expect("thaw");
        victim.finish();
    }
    for &sandbox in refused_at_once {
        let victim = Victim::start(Command::new(&program).arg(sandbox));
        let mut tree = freeze(victim.pid());
        let pid = victim.pid();
        let Err(Error::Refused { tid, reason, .. }) = RemoteSession::open(&mut tree, pid).map(drop) else {
            panic!("{sandbox} is not refused")
        };
        assert_eq!(tid, pid.leader());
        assert!(reason.contains("seccomp"), "{reason}");
        tree.thaw().expect("thaw");
        if sandbox != "strict" {
            victim.finish();
        }
    }
}

#[test]
fn the_price_of_a_call() {
    let victim = Victim::checking(200);
    let pid = victim.pid();
    let mut tree = freeze(pid);
    let tids: Vec<Tid> = tree.threads().iter().map(|thread| thread.tid()).collect();
    let start = Instant::now();
    let mut session = RemoteSession::open(&mut tree, pid).expect("open");
    eprintln!("open {:?}", start.elapsed());
    let start = Instant::now();
    for _ in 0..1000 {
        let _ = session.syscall(pid.leader(), libc::SYS_gettid, [0; 6]).expect("call");
    }
    eprintln!("call {:?}", start.elapsed() / 1000);
    let start = Instant::now();
    for tid in &tids {
        let _ = session.syscall(*tid, libc::SYS_gettid, [0; 6]).expect("call");
    }
    eprintln!("guest {:?}", start.elapsed() / tids.len() as u32);
    let start = Instant::now();
    session.close().expect("close");
    eprintln!("close {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_millis(100));
    tree.thaw().expect("thaw");
    victim.finish();
}

fn freeze(pid: Pid) -> FrozenTree {
    FrozenTree::freeze(pid, &FreezeOptions::default()).expect("freeze")
}

/// The mappings of a process.
pub fn memory_of(pid: Pid) -> String {
    fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps")
}

/// Asserts that a process has these mappings and no other.
pub fn assert_memory(pid: Pid, before: &str) {
    let now = memory_of(pid);
    let only = |of: &str, other: &str| -> Vec<String> {
        of.lines().filter(|line| !other.lines().any(|known| known == *line)).map(str::to_owned).collect()
    };
    assert_eq!((only(&now, before), only(before, &now)), (vec![], vec![]), "new and lost mappings");
}

/// The bytes of a process's vdso.
pub fn vdso_of(pid: Pid) -> Vec<u8> {
    let maps = memory_of(pid);
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).expect("vdso");
    let (start, rest) = line.split_once('-').expect("range");
    let end = rest.split_once(' ').expect("range").0;
    let (start, end) = (u64::from_str_radix(start, 16).expect("hex"), u64::from_str_radix(end, 16).expect("hex"));
    snap::tracer::Memory::open(pid).expect("mem").read_vec(Addr(start), (end - start) as usize).expect("vdso")
}

fn await_stopped(victim: &Victim) {
    let start = Instant::now();
    while !victim.status("State").starts_with('T') {
        assert!(start.elapsed() < Duration::from_secs(5), "{}", victim.status("State"));
        std::thread::yield_now();
    }
}
