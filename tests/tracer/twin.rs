//! Copies of an address space that stand still while the target runs on.

use crate::kill::die_at_work;
use crate::session::{assert_memory, memory_of};
use crate::victim::Victim;
use snap::image::model::address::Addr;
use snap::image::model::id::Pid;
use snap::tracer::{FreezeOptions, FrozenTree, Memory, RemoteSession, Twin};
use std::fs;
use std::time::{Duration, Instant};

#[test]
fn a_twin_keeps_what_the_target_changes() {
    let victim = Victim::checking(3);
    let before = memory_of(victim.pid());
    for _ in 0..20 {
        let mut tree = freeze(victim.pid());
        let twin = make_twin(&mut tree, victim.pid());
        let memory = Memory::open(victim.pid()).expect("mem");
        // The kernel tells each thread in its rseq area on which CPU it runs, the twin too.
        let rseq = tree.thread(victim.pid().leader()).expect("leader").rseq().expect("rseq").expect("registered");
        let writable = |memory: &Memory| writable(memory, &before, rseq.pointer..rseq.pointer + u64::from(rseq.size));
        let frozen = writable(&memory);
        let start = Instant::now();
        tree.thaw().expect("thaw");
        while writable(&memory) == frozen {
            assert!(start.elapsed() < Duration::from_secs(5), "the target does not run");
        }
        let copied = writable(&twin.memory().expect("mem"));
        assert!(copied == frozen, "the twin changes");
        assert_eq!(fs::read_dir(format!("/proc/{}/fd", twin.pid())).expect("fd").count(), 0);
        let pid = twin.pid();
        drop(twin);
        assert_eq!(children(victim.pid()), "");
        assert_gone(pid);
    }
    assert_memory(victim.pid(), &before);
    victim.finish();
}

#[test]
fn a_killed_tracer_leaves_no_twin() {
    let victim = Victim::checking(42);
    let before = memory_of(victim.pid());
    let rounds = std::env::var("SNAP_TEST_KILLS").map_or(300, |n| n.parse().expect("number"));
    let mut seed = 2_463_534_242u64;
    for _ in 0..rounds {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        die_at_work(victim.pid(), Duration::from_micros(seed % 5000), |target| {
            let mut tree = freeze(target);
            let twin = make_twin(&mut tree, target);
            tree.thaw().expect("thaw");
            drop(twin);
        });
        if victim.has_ended() {
            break;
        }
    }
    if !victim.has_ended() {
        crate::kill::settle(&victim);
        assert_memory(victim.pid(), &before);
        assert_eq!(children(victim.pid()), "");
        assert_no_copy_runs(victim.pid());
    }
    eprintln!("{} interrupted calls in {rounds} kills", victim.finish_counting());
}

fn make_twin(tree: &mut FrozenTree, pid: Pid) -> Twin {
    let mut session = RemoteSession::open(tree, pid).expect("open");
    let start = Instant::now();
    let twin = session.fork_twin().expect("twin");
    let made = start.elapsed();
    if std::env::var_os("SNAP_TEST_TIMES").is_some() {
        eprintln!("twin {made:?}");
    }
    assert_eq!(session.syscall(pid.leader(), libc::SYS_gettid, [0; 6]).expect("call"), Ok(pid.0 as u64));
    session.close().expect("close");
    twin
}

fn freeze(pid: Pid) -> FrozenTree {
    FrozenTree::freeze(pid, &FreezeOptions::default()).expect("freeze")
}

/// What stands in the last part of each private writable mapping, without what lies in `except`.
fn writable(memory: &Memory, maps: &str, except: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1) == Some("rw-p")) {
        let (start, end) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("range");
        let (start, end) = (u64::from_str_radix(start, 16).expect("hex"), u64::from_str_radix(end, 16).expect("hex"));
        let start = start.max(end.saturating_sub(64 << 10));
        let mut bytes = memory.read_vec(Addr(start), (end - start) as usize).expect("read");
        if start <= except.start && except.end <= end {
            bytes[(except.start - start) as usize..(except.end - start) as usize].fill(0);
        }
        all.push(bytes);
    }
    all
}

pub fn children(pid: Pid) -> String {
    crate::victim::tids(pid)
        .iter()
        .map(|tid| fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")).expect("children"))
        .collect()
}

/// Asserts that a process has ended; who has to reap it is not our affair.
fn assert_gone(pid: Pid) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
}

/// Asserts that no other process has the victim's command line, which no other test uses.
pub fn assert_no_copy_runs(pid: Pid) {
    let command = fs::read(format!("/proc/{pid}/cmdline")).expect("cmdline");
    let start = Instant::now();
    for entry in fs::read_dir("/proc").expect("proc").flatten() {
        let Some(other) = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(Pid) else { continue };
        while other != pid && fs::read(format!("/proc/{other}/cmdline")).is_ok_and(|line| line == command) {
            // On a busy machine one that is killed may wait long for a CPU on which to die.
            if start.elapsed() > Duration::from_secs(20) {
                let status = fs::read_to_string(format!("/proc/{other}/status")).unwrap_or_default();
                panic!("a copy of the victim runs as {other}: {status}");
            }
        }
    }
}
