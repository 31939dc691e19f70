//! Core scheduling: threads with one cookie, and they alone, may run on the hardware threads of one core at the same time (prctl(2), PR_SCHED_CORE).

use super::CollectError;
use super::border::Outsider;
use crate::image::model::id::{Pid, Tid};
use crate::image::model::process::Process;
use crate::proc::{TaskDir, many, processes};
use crate::sys::{sched, task};
use std::collections::{HashMap, HashSet};

/// Who has which cookie. The kernel tells a hash of each, by which cookies can be compared and no more (kernel/sched/core_sched.c,
/// `sched_core_share_pid`); 0 is none.
#[derive(Debug, Default)]
pub struct Cookies(HashMap<Tid, u64>);

impl Cookies {
    /// Asks for those of these threads. There are none without CONFIG_SCHED_CORE, on a CPU without SMT, and before Linux 5.14.
    ///
    /// # Errors
    /// A thread that may not be asked.
    pub fn collect(threads: impl IntoIterator<Item = Tid>) -> Result<Self, CollectError> {
        if sched::core_cookie(Tid(0)).is_err() {
            return Ok(Self::default());
        }
        let mut cookies = HashMap::new();
        for tid in threads {
            match sched::core_cookie(tid).map_err(CollectError::at(tid, "PR_SCHED_CORE_GET"))? {
                0 => {}
                cookie => drop(cookies.insert(tid, cookie)),
            }
        }
        Ok(Self(cookies))
    }

    /// Numbers them by the order of the first thread with each.
    pub fn give_groups(&self, processes: &mut [Process]) {
        let mut numbers = HashMap::new();
        for thread in processes.iter_mut().flat_map(|process| &mut process.threads) {
            if let Some(cookie) = self.0.get(&thread.tid) {
                let next = numbers.len() as u32 + 1;
                thread.scheduling.core_group = *numbers.entry(*cookie).or_insert(next);
            }
        }
    }

    /// A process outside, as far as this user may look at it, whose threads may run beside some of the tree: after a restore they may not.
    #[must_use]
    pub fn outsider(&self, inside: &[Pid]) -> Option<Outsider> {
        if self.0.is_empty() {
            return None;
        }
        let known: HashSet<u64> = self.0.values().copied().collect();
        let inside: HashSet<&Pid> = inside.iter().collect();
        let is_outside = |pid: &Pid| !inside.contains(pid) && *pid != task::own_pid();
        let others: Vec<Pid> = processes().into_iter().filter(is_outside).collect();
        let look = |&pid: &Pid, buffer: &mut Vec<u8>| {
            let process = TaskDir::process(pid).ok()?;
            let shares = |tid: &Tid| sched::core_cookie(*tid).is_ok_and(|cookie| known.contains(&cookie));
            let tid = process.threads().ok()?.into_iter().find(shares)?;
            let comm = process.read_into("comm", buffer).unwrap_or_default();
            let comm = String::from_utf8_lossy(comm.trim_ascii_end()).into_owned();
            Some(Outsider { pid, comm, holds: format!("tid {tid}") })
        };
        many::map(&others, look).into_iter().flatten().next()
    }
}
