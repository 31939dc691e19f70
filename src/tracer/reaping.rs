//! Whether parents outside of a tree reap what was killed in it, and how long they are waited for.
//!
//! The end of a child wakes its parent, if that is anything to it. So a parent all of whose threads sleep has had its chance: it has something else to do with its
//! children, or with its time. One that runs may be on its way to wait(2), which takes long on a busy machine.

use super::patience::Patience;
use super::tasks;
use super::tree::Process;
use crate::image::model::id::Pid;
use crate::sys::pidfd;
use nix::errno::Errno;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// How long a parent may take that sleeps.
const ASLEEP: Duration = Duration::from_millis(20);
/// How long one may take that runs.
const AWAKE: Duration = Duration::from_secs(1);

/// Waits until the pids of dead processes are free. Gives those that stay taken, because their parents have not reaped them.
pub(super) fn unreaped<'a>(processes: impl Iterator<Item = &'a Process>) -> Vec<Pid> {
    let mut left: Vec<&Process> = processes.collect();
    let (mut patience, since) = (Patience::new(AWAKE), Instant::now());
    loop {
        left.retain(|process| pidfd::send_signal(process.pidfd(), 0) != Err(Errno::ESRCH));
        let has_time = since.elapsed() < ASLEEP || parents(&left).into_iter().any(is_awake);
        if left.is_empty() || !has_time || !patience.wait() {
            return left.into_iter().map(Process::pid).collect();
        }
    }
}

/// Their parents. One outside of our pid namespace cannot be seen.
fn parents(children: &[&Process]) -> HashSet<Pid> {
    let parent = |child: &&Process| tasks::status_field(child.pid().leader(), "PPid")?.parse().ok().map(Pid);
    children.iter().filter_map(parent).filter(|parent| parent.0 > 0).collect()
}

/// Whether a thread of a process runs, or is about to.
fn is_awake(process: Pid) -> bool {
    let threads = tasks::threads(process);
    threads.is_ok_and(|threads| threads.into_iter().any(|tid| matches!(tasks::state(tid), Some('R' | 'D'))))
}
