//! Who is whose child, as /proc tells.

use super::tasks;
use crate::image::model::id::{Pid, Tid};
use crate::proc::{TaskDir, many, processes, stat};
use crate::sys::task;
use std::collections::{HashMap, HashSet};

/// PF_EXITING of include/linux/sched.h.
const EXITING: u32 = 4;
/// SIGKILL among those that are pending.
const KILL: u64 = 1 << (libc::SIGKILL - 1);

/// A task that was looked at: its parent, whether it has ended, and whether it will, whatever anybody does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kin {
    pub parent: Pid,
    pub ended: bool,
    pub is_ending: bool,
}

/// Looks at processes; `None` for those that are gone.
pub(super) fn kin(pids: &[Pid]) -> Vec<Option<Kin>> {
    many::map(pids, |&pid, buffer| {
        let stat = stat::read(&TaskDir::process(pid).ok()?, buffer).ok()?;
        // A process whose main thread alone has ended lives on in the others.
        let ended = matches!(stat.state, b'Z' | b'X') && stat.threads <= 1;
        let is_ending = stat.flags & EXITING != 0 || stat.pending & KILL != 0;
        Some(Kin { parent: stat.ppid, ended, is_ending })
    })
}

/// The children of each of these processes, whose threads are given.
///
/// Each thread has a list of its own children. Where there are more threads than processes on the machine, and where the kernel
/// has no such lists (CONFIG_PROC_CHILDREN), all processes are asked for their parent instead.
pub(super) fn children(parents: &[(Pid, Vec<Tid>)]) -> Vec<Pid> {
    let threads: Vec<(Pid, Tid)> = parents.iter().flat_map(|(pid, tids)| tids.iter().map(|tid| (*pid, *tid))).collect();
    let processes = processes();
    if threads.len() > processes.len() || !tasks::lists_children() {
        let wanted: HashSet<Pid> = parents.iter().map(|(pid, _)| *pid).collect();
        let kin = kin(&processes);
        let is_child = |kin: &Option<Kin>| kin.is_some_and(|kin| wanted.contains(&kin.parent));
        return processes.into_iter().zip(kin).filter(|(_, kin)| is_child(kin)).map(|(pid, _)| pid).collect();
    }
    many::map(&threads, |&(pid, tid), _| tasks::children(pid, tid)).into_iter().flatten().collect()
}

/// The descendants of a process as they are at this moment, parents before their children, the process itself first. `snap` is left out, unless it
/// is the process itself.
#[must_use]
pub fn descendants(root: Pid) -> Vec<Pid> {
    let mut parents: HashMap<Pid, Vec<Pid>> = HashMap::new();
    let processes = processes();
    for (pid, kin) in processes.iter().zip(kin(&processes)) {
        if let Some(kin) = kin {
            parents.entry(kin.parent).or_default().push(*pid);
        }
    }
    let own = task::own_pid();
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        let mut children = parents.remove(pid).unwrap_or_default();
        children.retain(|child| *child != own);
        children.sort();
        found.extend(children);
        at += 1;
    }
    found
}
