//! Stopping every thread of a process or of a tree: seize all, interrupt all, wait for each, until no newcomer is found.
//!
//! Stops are looked at with WNOWAIT and stay unreaped: should we die, the kernel still delivers the signal for which a thread may have
//! stopped. Waiting is repeatable for the same reason, so that whatever is in doubt is simply waited for again.

mod stops;
mod vfork;

use super::error::Error;
use super::family;
use super::tasks;
use super::thread::StoppedThread;
use super::tree::{FrozenTree, Process};
use super::urgency::Urgency;
use super::vdso::Vdsos;
use crate::fault;
use crate::image::model::id::{Pid, Tid};
use crate::proc::many;
use crate::sys::ptrace::{self, Options};
use crate::sys::{pidfd, task};
use nix::errno::Errno;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

/// What belongs to the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The one process; children that it makes meanwhile run on.
    Process,
    /// The process and all its descendants.
    Tree,
}

/// How to freeze.
pub struct FreezeOptions<'a> {
    /// What belongs to the tree.
    pub scope: Scope,
    /// How long a thread may take to stop.
    pub bound: Duration,
    /// Asked again and again; `true` ends the attempt.
    pub cancelled: &'a dyn Fn() -> bool,
    /// How urgent the caller is; it is less so while it waits for stops.
    pub urgency: Option<&'a Urgency>,
}

impl Default for FreezeOptions<'_> {
    fn default() -> Self {
        Self { scope: Scope::Process, bound: Duration::from_secs(2), cancelled: &|| false, urgency: None }
    }
}

impl FrozenTree {
    /// Stops every thread of `root`, and with [`Scope::Tree`] of its descendants. When it fails, everything runs on as before.
    ///
    /// A process whose parent ends meanwhile, and that is adopted outside, leaves the tree and runs on.
    ///
    /// # Errors
    /// [`Error`]: by name, whichever task it is that cannot be stopped.
    pub fn freeze(root: Pid, options: &FreezeOptions<'_>) -> Result<Self, Error> {
        let mut freezer = Freezer::new(root, options)?;
        freezer.adopt(root)?;
        freezer.seize_newcomers()?;
        fault::pass(fault::Point::Seized)?;
        freezer.settle_fragile()?;
        loop {
            freezer.stop_running()?;
            if freezer.seize_newcomers()? == 0 {
                break;
            }
        }
        let tree = freezer.finish()?;
        fault::pass(fault::Point::Frozen)?;
        Ok(tree)
    }
}

/// A process that is being stopped.
struct Member {
    process: Process,
    /// Threads that are seized and may run.
    running: HashSet<Tid>,
    stopped: HashMap<Tid, StoppedThread>,
    /// Threads that had ended before they could be seized: a leader, or all of a zombie.
    dead: HashSet<Tid>,
}

impl Member {
    fn knows(&self, tid: Tid) -> bool {
        self.running.contains(&tid) || self.stopped.contains_key(&tid) || self.dead.contains(&tid)
    }
}

/// A tree on its way to be frozen. Dropped, it lets go of what it has.
struct Freezer<'a> {
    /// Its queue of running threads may name some that have ended.
    tree: FrozenTree,
    options: &'a FreezeOptions<'a>,
    root: Pid,
    own: Tid,
    members: HashMap<Pid, Member>,
    /// Newborn processes outside of the scope, traced since their birth and to be let go.
    strays: Vec<Tid>,
    /// Children of vfork(2) that run once more, by the thread that waits for them.
    lent: HashMap<Tid, Tid>,
    vdsos: Vdsos,
}

impl<'a> Freezer<'a> {
    fn new(root: Pid, options: &'a FreezeOptions<'a>) -> Result<Self, Error> {
        if root == task::own_pid() {
            return Err(Error::Own(root));
        }
        Ok(Self {
            tree: FrozenTree::new(),
            options,
            root,
            own: task::own_tid(),
            members: HashMap::new(),
            strays: Vec::new(),
            lent: HashMap::new(),
            vdsos: Vdsos::new(),
        })
    }

    /// Counts a process as part of the tree; its threads are found by the next [`Self::seize_newcomers`].
    fn adopt(&mut self, pid: Pid) -> Result<(), Error> {
        let pidfd = pidfd::open(pid).map_err(|error| match error {
            Errno::ESRCH | Errno::EINVAL | Errno::ENOENT => Error::Vanished(pid),
            source => Error::Kernel { tid: pid.leader(), action: "opening a pidfd", source },
        })?;
        let process = Process { pid, parent: Pid(0), pidfd, dead_leader: false, shown_as: pid };
        let (running, stopped, dead) = (HashSet::new(), HashMap::new(), HashSet::new());
        self.members.insert(pid, Member { process, running, stopped, dead });
        self.vdsos.note(pid);
        Ok(())
    }

    /// Seizes every thread not seen before, of every process and of newly found children; returns how many there were.
    fn seize_newcomers(&mut self) -> Result<usize, Error> {
        let mut seized = 0;
        let mut wave: Vec<Pid> = self.members.keys().copied().collect();
        while !wave.is_empty() {
            let lists = many::map(&wave, |&pid, _| (pid, tasks::threads(pid)));
            wave.clear();
            let mut parents = Vec::with_capacity(lists.len());
            for (pid, threads) in lists {
                match threads {
                    Ok(tids) => {
                        for &tid in &tids {
                            seized += usize::from(self.seize(pid, tid)?);
                        }
                        parents.push((pid, tids));
                    }
                    Err(Error::Vanished(_)) if pid != self.root => drop(self.members.remove(&pid)),
                    Err(error) => return Err(error),
                }
            }
            if self.options.scope == Scope::Tree {
                wave = self.adopt_children(&parents)?;
            }
        }
        Ok(seized)
    }

    /// Adopts children that were not known; which they are.
    fn adopt_children(&mut self, parents: &[(Pid, Vec<Tid>)]) -> Result<Vec<Pid>, Error> {
        let mut adopted = Vec::new();
        for child in family::children(parents) {
            // A program that freezes the tree it is part of does not stand still itself.
            if child != task::own_pid() && !self.members.contains_key(&child) {
                match self.adopt(child) {
                    Err(Error::Vanished(_)) => {}
                    other => other.map(|()| adopted.push(child))?,
                }
            }
        }
        Ok(adopted)
    }

    /// Seizes one thread unless it is known; false when there is nothing to stop.
    fn seize(&mut self, pid: Pid, tid: Tid) -> Result<bool, Error> {
        let Some(member) = self.members.get_mut(&pid).filter(|member| !member.knows(tid)) else { return Ok(false) };
        let options = Options::SYSGOOD | Options::FORK | Options::VFORK | Options::CLONE | Options::EXEC;
        match ptrace::seize(tid, options) {
            Ok(()) => {}
            Err(Errno::ESRCH) => return Ok(false),
            // A thread whose maker we trace was traced from birth.
            Err(Errno::EPERM) if tasks::tracer(tid) == Some(self.own) => {}
            Err(_) if tasks::is_dead(tid) => {
                member.dead.insert(tid);
                member.process.dead_leader |= tid == pid.leader();
                return Ok(false);
            }
            Err(error) => return Err(tasks::refused(pid, tid, error)),
        }
        self.watch(pid, tid);
        Ok(true)
    }

    /// Waits for this thread to stop from now on.
    fn watch(&mut self, pid: Pid, tid: Tid) {
        if let Some(member) = self.members.get_mut(&pid)
            && member.running.insert(tid)
        {
            self.tree.running.push_back((pid, tid));
        }
    }

    /// Puts together what is stopped: the root, and all that still descends from it. What does not runs on.
    fn finish(mut self) -> Result<FrozenTree, Error> {
        let pids: Vec<Pid> = self.members.keys().copied().collect();
        let mut children: HashMap<Pid, Vec<(Pid, bool)>> = HashMap::new();
        for (pid, kin) in pids.iter().zip(family::kin(&pids)) {
            if let Some(kin) = kin {
                children.entry(kin.parent).or_default().push((*pid, kin.ended));
            }
        }
        let mut tree = std::mem::replace(&mut self.tree, FrozenTree::new());
        let mut next = VecDeque::from([(self.root, Pid(0), false)]);
        while let Some((pid, parent, ended)) = next.pop_front() {
            let Some(Member { mut process, stopped, .. }) = self.members.remove(&pid) else { continue };
            process.parent = parent;
            if !stopped.is_empty() {
                tree.add(process, stopped.into_values().collect());
            } else if ended {
                tree.zombies.push(process);
            }
            let mut born = children.remove(&pid).unwrap_or_default();
            born.sort();
            next.extend(born.into_iter().map(|(child, ended)| (child, pid, ended)));
        }
        match tree.processes().first() {
            Some(first) if first.pid() == self.root => Ok(tree),
            _ => Err(Error::Vanished(self.root)),
        }
    }
}

impl Drop for Freezer<'_> {
    fn drop(&mut self) {
        let stopped = self.members.drain().flat_map(|(_, member)| member.stopped.into_values());
        self.tree.threads.extend(stopped);
    }
}
