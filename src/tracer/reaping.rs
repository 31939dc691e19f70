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
        let has_time = since.elapsed() < ASLEEP || left.iter().any(|process| is_parent_awake(process.pid()));
        if left.is_empty() || !has_time || !patience.wait() {
            return left.into_iter().map(Process::pid).collect();
        }
    }
}

/// Whether a thread of its parent runs, or is about to. A parent outside of our pid namespace cannot be seen.
fn is_parent_awake(child: Pid) -> bool {
    let parent = tasks::status_field(child.leader(), "PPid").and_then(|parent| parent.parse().ok()).map(Pid);
    let threads = parent.filter(|parent| parent.0 > 0).and_then(|parent| tasks::threads(parent).ok());
    threads.is_some_and(|threads| threads.into_iter().any(|tid| matches!(tasks::state(tid), Some('R' | 'D'))))
}
