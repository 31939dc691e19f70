//! Processes that stand still, every thread of them: who they are, parents before their children.

use super::family;
use super::patience::Patience;
use super::shorten::Shortened;
use super::thread::{self, StoppedThread};
use crate::image::model::id::{Pid, Tid};
use crate::proc::many;
use std::collections::{HashMap, VecDeque};
use std::marker::PhantomData;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Bound of the wait for the first sign that a process ends.
const DYING: Duration = Duration::from_millis(20);

/// A process of a frozen tree.
#[derive(Debug)]
pub struct Process {
    pub(super) pid: Pid,
    pub(super) parent: Pid,
    pub(super) pidfd: OwnedFd,
    pub(super) dead_leader: bool,
    /// See [`Self::shown_as`].
    pub(super) shown_as: Pid,
}

impl Process {
    /// Its id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Its parent in the tree, 0 for the root.
    #[must_use]
    pub fn parent(&self) -> Pid {
        self.parent
    }

    /// A descriptor that means this process and no other.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The number under which /proc shows what its threads share: its own id or, when its first thread has ended, that of another one.
    #[must_use]
    pub fn shown_as(&self) -> Pid {
        self.shown_as
    }

    /// Whether its first thread has ended before the others; it stands in no list of threads then.
    #[must_use]
    pub fn dead_leader(&self) -> bool {
        self.dead_leader
    }
}

/// Processes that stand still, every thread of them, for as long as this value lives. Dropped, it lets them go on.
#[derive(Debug)]
pub struct FrozenTree {
    pub(super) processes: Vec<Process>,
    pub(super) zombies: Vec<Process>,
    pub(super) threads: Vec<StoppedThread>,
    pub(super) index: HashMap<Tid, usize>,
    ranges: HashMap<Pid, Range<usize>>,
    /// Seized and not known to be stopped: empty once the freeze has succeeded.
    pub(super) running: VecDeque<(Pid, Tid)>,
    /// Calls that are made again with what is left of their timeout.
    pub(super) shortened: Vec<(Tid, Shortened)>,
    /// ptrace(2) is bound to the OS thread that seized.
    not_send: PhantomData<*const ()>,
}

impl FrozenTree {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self {
            processes: Vec::new(),
            zombies: Vec::new(),
            threads: Vec::new(),
            index: HashMap::new(),
            ranges: HashMap::new(),
            running: VecDeque::new(),
            shortened: Vec::new(),
            not_send: PhantomData,
        }
    }

    /// Adds a process with its stopped threads, after its parent.
    pub(super) fn add(&mut self, mut process: Process, mut threads: Vec<StoppedThread>) {
        let pid = process.pid;
        threads.sort_by_key(|thread| (thread.tid != pid.leader(), thread.tid));
        process.shown_as = threads.first().map_or(pid, |first| Pid(first.tid.0));
        let first = self.threads.len();
        self.index.extend(threads.iter().enumerate().map(|(at, thread)| (thread.tid, first + at)));
        self.ranges.insert(pid, first..first + threads.len());
        self.threads.extend(threads);
        self.processes.push(process);
    }

    /// The living processes, parents before their children; the root is the first.
    #[must_use]
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// Those that have ended and that their parent, which is in the tree, has not reaped.
    #[must_use]
    pub fn zombies(&self) -> &[Process] {
        &self.zombies
    }

    /// The threads: those of each process together, its leader first, in the order of the processes.
    #[must_use]
    pub fn threads(&self) -> &[StoppedThread] {
        &self.threads
    }

    /// The threads of one process, the leader first unless that has ended.
    #[must_use]
    pub fn threads_of(&self, pid: Pid) -> &[StoppedThread] {
        &self.threads[self.range(pid)]
    }

    pub(super) fn threads_of_mut(&mut self, pid: Pid) -> &mut [StoppedThread] {
        let range = self.range(pid);
        &mut self.threads[range]
    }

    fn range(&self, pid: Pid) -> Range<usize> {
        self.ranges.get(&pid).cloned().unwrap_or(0..0)
    }

    /// The thread with this id.
    #[must_use]
    pub fn thread(&self, tid: Tid) -> Option<&StoppedThread> {
        self.index.get(&tid).map(|&at| &self.threads[at])
    }

    /// Processes that end although they stand still, after something has failed: SIGKILL ends everybody.
    ///
    /// Between the signal and the first sign of the end there is a moment in which neither shows: so it is looked for a while.
    #[must_use]
    pub fn lost(&self) -> Vec<Pid> {
        let mut patience = Patience::new(DYING);
        loop {
            let lost = self.ending();
            if !lost.is_empty() || !patience.wait() {
                return lost;
            }
        }
    }

    fn ending(&self) -> Vec<Pid> {
        // The main thread may have ended long ago.
        let first = |pid| self.threads_of(pid).first().map_or(pid, |thread| Pid(thread.tid.0));
        let firsts: Vec<Pid> = self.processes.iter().map(|process| first(process.pid)).collect();
        let ends = |kin: &Option<family::Kin>| kin.is_none_or(|kin| kin.is_ending);
        let pairs = self.processes.iter().zip(family::kin(&firsts));
        pairs.filter(|(_, kin)| ends(kin)).map(|(process, _)| process.pid).collect()
    }

    /// Reads the `status` of every thread, on every CPU. One that cannot be read is read again, and fails, where it is asked for.
    pub fn read_statuses(&self) {
        let ids: Vec<(Pid, Tid)> = self.threads.iter().map(|thread| (thread.pid, thread.tid)).collect();
        let statuses = many::map(&ids, |&(pid, tid), buffer| thread::read_status(pid, tid, buffer));
        for (thread, status) in self.threads.iter().zip(statuses) {
            if let Ok(status) = status {
                thread.learn(status);
            }
        }
    }
}
