//! Whether parents outside of a tree reap what was killed in it, and how long they are waited for.
//!
//! The end of a child wakes its parent, if that is anything to it. So a parent that sleeps, and has slept on for a while, has had its chance: it has something else to do
//! with its children, or with its time. One that runs, or has run, may be on its way to wait(2), which takes long on a busy machine.

use super::patience::Patience;
use super::tasks;
use super::tree::Process;
use crate::image::model::id::{Pid, Tid};
use crate::sys::pidfd;
use nix::errno::Errno;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// How long parents must sleep on.
const ASLEEP: Duration = Duration::from_millis(20);
/// How long they may take in all.
const AWAKE: Duration = Duration::from_secs(1);

/// Waits until the pids of dead processes are free. Gives those that stay taken, because their parents have not reaped them.
pub(super) fn unreaped<'a>(processes: impl Iterator<Item = &'a Process>) -> Vec<Pid> {
    let mut left: Vec<&Process> = processes.collect();
    let mut patience = Patience::new(AWAKE);
    let (mut before, mut asleep_since) = (None, Instant::now());
    loop {
        left.retain(|process| pidfd::send_signal(process.pidfd(), 0) != Err(Errno::ESRCH));
        let sleeps = sleeps_of_parents(&left);
        if sleeps.is_none() || sleeps != before {
            (before, asleep_since) = (sleeps, Instant::now());
        }
        if left.is_empty() || asleep_since.elapsed() >= ASLEEP || !patience.wait() {
            return left.into_iter().map(Process::pid).collect();
        }
    }
}

/// How often the threads of the parents have gone to sleep, all of which sleep now; `None` when one does not. Parents outside of our pid namespace cannot be seen.
fn sleeps_of_parents(children: &[&Process]) -> Option<u64> {
    let number = |tid: Tid, key| tasks::status_field(tid, key).and_then(|number| number.parse::<u64>().ok());
    let parent = |child: &&Process| number(child.pid().leader(), "PPid").map(|parent| Pid(parent as i32));
    let parents: HashSet<Pid> = children.iter().filter_map(parent).filter(|parent| parent.0 > 0).collect();
    let threads = parents.into_iter().flat_map(|parent| tasks::threads(parent).unwrap_or_default());
    threads
        .map(|tid| match tasks::state(tid) {
            Some('R' | 'D') => None,
            _ => Some(number(tid, "voluntary_ctxt_switches").unwrap_or(0)),
        })
        .sum()
}
