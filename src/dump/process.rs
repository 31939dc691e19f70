//! One process of the tree: what it says of itself and of its threads, and what it shares with those before it.

use super::address_space::Survey;
use super::ahead::{Ahead, Facts, Found};
use super::collect::{Builder, CALLS};
use crate::image::model::address::PageRange;
use crate::image::model::id::{MmId, Pid, Tid};
use crate::image::model::memory::{Backing, Remainder, Vma};
use crate::image::model::process::{Process, ProcessState};
use crate::image::model::signal::QueuedSignal;
use crate::image::model::thread::{AltStack, Thread};
use crate::image::model::timer::PosixTimer;
use crate::proc::{self, TaskDir};
use crate::resources::ask::Asker;
use crate::resources::descriptor::Look;
use crate::resources::namespace::Namespaces;
use crate::resources::sharing::Sharing;
use crate::resources::syscall_restart::{Sample, Samples};
use crate::resources::sysv::undo;
use crate::resources::thread::{Shared, Threads};
use crate::resources::timer::Queues;
use crate::resources::{CollectError, Findings, process, stopped, thread, timer};
use crate::sys::kcmp::{self, Object};
use crate::sys::plain_task::PlainTask;
use crate::tracer::{self, FrozenTree, RemoteSession, Stop, Twin};
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::time::Instant;

/// Bytes of pages up to which they are written as fast as a copy is made.
const LITTLE_MEMORY: u64 = 4 << 20;
/// The same for each thread: looking at one takes longer than writing them. And a copy is read while the target runs, which may leave us little of a CPU.
const LITTLE_FOR_A_THREAD: u64 = 16 << 10;

/// What holds for the whole tree.
pub(super) struct View<'a> {
    pub samples: &'a Samples,
    pub frozen_at: Instant,
    pub sharing: Sharing,
    /// What /proc says of each process.
    pub ahead: Ahead,
    /// The children of each.
    pub children: HashMap<Pid, Vec<Pid>>,
    /// Processes whose memory somebody outside can change.
    pub exposed: HashSet<usize>,
    pub namespaces: Namespaces,
    pub own_speculation: [u32; 3],
    pub has_labels: bool,
}

/// A process that is being collected.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    /// Its place in the tree.
    pub at: usize,
    pub pid: Pid,
    /// The number under which /proc shows what its threads share.
    pub shown_as: Pid,
    pub dir: &'a TaskDir,
    pub facts: &'a Facts,
    pub view: &'a View<'a>,
}

/// What was learnt inside a process.
struct Inside {
    threads: Vec<Thread>,
    answers: process::Answers,
    timers: Vec<PosixTimer>,
    /// Signals for the process.
    pending: Vec<QueuedSignal>,
    mm: MmId,
}

impl Builder {
    pub(super) fn process(
        &mut self,
        tree: &mut FrozenTree,
        at: usize,
        pid: Pid,
        view: &View<'_>,
    ) -> Result<(), CollectError> {
        let process = &tree.processes()[at];
        let (shown_as, is_led) = (process.shown_as(), !process.dead_leader());
        let mut facts = view.ahead.facts(at)?;
        view.namespaces.check(shown_as, &facts.namespaces, &mut self.findings);
        if view.exposed.contains(&at) {
            // Whoever shares the memory runs on, and could change what we do there.
            return Ok(());
        }
        let stop = stopped_by(tree, pid);
        let seen = (facts.descriptors.take(), facts.pages.take());
        let subject = Subject { at, pid, shown_as, dir: &facts.dir, facts: &facts, view };
        let Some(inside) = self.enter(tree, subject, seen)? else { return Ok(()) };
        let stat = &facts.stat;
        let (ended_leader, exit_signal) = if is_led {
            (None, stat.exit_signal)
        } else {
            let (leader, signal) = thread::ended_leader(pid, &inside.threads[0].credentials, &mut self.buffer)?;
            (Some(leader), signal)
        };
        let handlers = self.handlers(view.sharing.handlers(at), inside.answers.actions);
        self.ttys.push((stat.tty_nr, stat.tpgid));
        self.processes.push(Process {
            pid,
            ppid: stat.ppid,
            pgid: stat.pgrp,
            sid: stat.session,
            exit_signal,
            controlling: None,
            state: match (self.states.remove(&pid), stop) {
                (Some(known), _) => known,
                // Nobody in the tree can wait for it.
                (None, Some(signal)) => ProcessState::Stopped { signal, waited: false },
                (None, None) => ProcessState::Running,
            },
            mm: inside.mm,
            pending: inside.pending,
            threads: inside.threads,
            ended_leader,
            handlers,
            itimers: inside.answers.itimers,
            timers: inside.timers,
            rlimits: facts.rlimits,
            oom_score_adj: facts.oom_score_adj,
            child_subreaper: inside.answers.child_subreaper,
            argv: facts.argv,
            cgroups: facts.cgroups,
            loginuid: facts.loginuid.unwrap_or(u32::MAX),
            autogroup_nice: facts.autogroup_nice,
        });
        Ok(())
    }

    /// Asks what only the tasks themselves can say; `None` with a blocker noted where they must not be made to.
    fn enter(
        &mut self,
        tree: &mut FrozenTree,
        subject: Subject<'_>,
        (looks, found): (Option<Vec<Look>>, Option<Found>),
    ) -> Result<Option<Inside>, CollectError> {
        let Subject { at, pid, shown_as, dir, facts, view } = subject;
        let tids: Vec<Tid> = tree.threads_of(pid).iter().map(|thread| thread.tid()).collect();
        let shared = self.shared(tree, subject, &tids, looks)?;
        let children = view.children.get(&pid).into_iter().flatten();
        let children: Vec<(Pid, Option<i32>)> = children.map(|child| (*child, stopped_by(tree, *child))).collect();
        let remote = |action| move |source| CollectError::Remote { tid: pid.leader(), action, source };
        let session = RemoteSession::open_unmapped(tree, pid).map_err(remote("entering the target"));
        let Some(mut session) = unless_refused(session, &mut self.findings)? else { return Ok(None) };
        let mut asker = Asker::new(&mut session);
        let greeting = unless_refused(process::greet(&mut asker, tids[0]), &mut self.findings)?;
        // A main thread that does not greet is named already.
        let tasks = tids.iter().copied().zip(shared).skip(usize::from(greeting.is_none()));
        let mut threads = self.threads(&mut asker, subject, tasks)?;
        let Some(greeting) = greeting.filter(|_| threads.len() == tids.len()) else { return Ok(None) };
        self.states.extend(stopped::of_children(&mut asker, tids[0], &children)?);
        let queues = Queues::of(tids[0], &facts.timers)?;
        let mut answers = process::ask(&mut asker, tids[0])?;
        let (timers, Queues { shared: pending, private }) =
            timer::with_signals(&mut asker, tids[0], &facts.timers, queues, &mut answers.itimers)?;
        let mut private: HashMap<Tid, Vec<QueuedSignal>> = private.into_iter().collect();
        for thread in &mut threads {
            thread.pending = private.remove(&thread.tid).unwrap_or_else(|| std::mem::take(&mut thread.pending));
        }
        if answers.has_ldt {
            let reason = "segments of modify_ldt(2) are not supported";
            self.findings.block(format!("pid {pid}"), "local descriptor table", reason, "");
        }
        self.undo(&mut asker, subject, &tids)?;
        let keyring = self.keyrings.collect(&mut asker, tids[0], greeting.keyrings, &mut self.findings)?;
        threads[0].credentials.session_keyring = keyring;
        let adopts = answers.child_subreaper || pid.0 == 1 || self.adopted.contains(&facts.stat.ppid);
        if adopts {
            self.adopted.insert(pid);
        }
        let memory = view.sharing.memory(at);
        let mm = match self.known.mms.get(&memory) {
            Some(&known) => known,
            None => {
                let survey = Survey { ahead: &view.ahead, at, dir, pid: shown_as };
                let task_policy = threads[0].settings.memory_policy.as_ref();
                let surveyed = survey.finish(&mut asker, tids[0], task_policy, (greeting, found))?;
                let mm = self.address_space(shown_as, facts, (greeting, &answers), surveyed)?;
                self.mapped.ask(shown_as, &mut asker, tids[0])?;
                let twin = if !adopts && self.is_worth_a_twin(mm, dir, threads.len()) {
                    fork_twin(&mut session)?
                } else {
                    None
                };
                self.copied += twin.as_ref().map_or(0, |_| self.pages[mm.0 as usize].len());
                self.twins.push(twin);
                self.known.mms.insert(memory, mm);
                mm
            }
        };
        self.remainders(&session, mm, &threads).map_err(remote("looking for remainders of transfers"))?;
        self.spaces.insert(pid, (shown_as, mm));
        session.close().map_err(remote("leaving the target"))?;
        Ok(Some(Inside { threads, answers, timers, pending, mm }))
    }

    /// What threads say of themselves, less those that must not be made to, which are named.
    fn threads(
        &mut self,
        asker: &mut Asker<'_, '_>,
        subject: Subject<'_>,
        tasks: impl Iterator<Item = (Tid, Shared)>,
    ) -> Result<Vec<Thread>, CollectError> {
        let view = subject.view;
        let mut collector = Threads {
            process: subject.dir,
            frozen_at: view.frozen_at,
            seccomp: &mut self.seccomp,
            own_speculation: view.own_speculation,
            has_labels: view.has_labels,
            findings: &mut self.findings,
            buffer: &mut self.buffer,
        };
        let mut threads = Vec::new();
        for (tid, shared) in tasks {
            let sample = view.samples.get(&tid).copied().unwrap_or(Sample::awake(view.frozen_at));
            let thread = collector.collect(asker, tid, shared, Some(sample));
            threads.extend(unless_refused(thread, collector.findings)?);
        }
        Ok(threads)
    }

    /// What is left of transfers that an earlier stop has cut short.
    fn remainders(&mut self, session: &RemoteSession<'_>, mm: MmId, threads: &[Thread]) -> Result<(), tracer::Error> {
        let alternate = threads.iter().map(|thread| {
            let AltStack { base, size, flags: _ } = thread.alt_stack;
            (thread.tid, PageRange::new(base.0, base.0.saturating_add(size)))
        });
        let left = session.remainders(&alternate.collect())?;
        let left = left.iter().map(|remainder| Remainder { at: remainder.at(), code: remainder.bytes().to_vec() });
        self.mms[mm.0 as usize].remainders = left.collect();
        Ok(())
    }

    /// What the tasks of a process have to undo in sets of semaphores, if there are any: each list once, by the first task that has it.
    fn undo(&mut self, asker: &mut Asker<'_, '_>, subject: Subject<'_>, tids: &[Tid]) -> Result<(), CollectError> {
        if self.semaphores.is_empty() {
            return Ok(());
        }
        let (at, sharing) = (subject.at, &subject.view.sharing);
        for (place, &tid) in tids.iter().enumerate() {
            let task = if place == 0 { at } else { sharing.task(at, tid) };
            if !self.undo_seen.insert(sharing.first_with_undo_list(task)) {
                continue;
            }
            let is_without = match sharing.has_undo_list(task) {
                Some(has) => !has,
                None => {
                    let none = PlainTask::start().map_err(CollectError::at(tid, "fork of snap"))?;
                    let order = kcmp::compare(tid, none.tid(), Object::SysvSem, 0, 0);
                    order.map_err(CollectError::at(tid, "kcmp KCMP_SYSVSEM"))? == Some(Ordering::Equal)
                }
            };
            if is_without {
                continue;
            }
            let found = undo::adjustments(asker, tid, &self.semaphores, &mut self.findings);
            self.undo.extend(unless_refused(found, &mut self.findings)?.map(|found| (tid, found)));
        }
        Ok(())
    }

    /// Whether a copy shortens the pause: of more than a little memory, and when all of them together leave enough to the program.
    fn is_worth_a_twin(&mut self, mm: MmId, dir: &TaskDir, threads: usize) -> bool {
        let pages = self.pages[mm.0 as usize].len();
        // The kernel lets nobody change a ring of a socket, or freeze a map, as long as anybody maps it, a copy too.
        let has_ring = |vma: &Vma| matches!(vma.backing, Backing::PacketRing { .. } | Backing::BpfMap { .. });
        self.wants_twins
            && !self.mms[mm.0 as usize].vmas.iter().any(has_ring)
            && pages > LITTLE_MEMORY.max(LITTLE_FOR_A_THREAD * threads as u64)
            && self.findings.blockers.is_empty()
            && pages + self.copied < memory_left(dir, &mut self.buffer) / 2
    }
}

/// What a thread was made to tell, or `None` with a blocker noted where it must not be made to.
fn unless_refused<T>(told: Result<T, CollectError>, findings: &mut Findings) -> Result<Option<T>, CollectError> {
    match told {
        Err(CollectError::Remote { tid: _, action: _, source: tracer::Error::Refused { tid, reason, remedy } }) => {
            findings.block(format!("tid {tid}"), CALLS, reason, remedy);
            Ok(None)
        }
        told => told.map(Some),
    }
}

/// The signal by which a process is in group stop.
fn stopped_by(tree: &FrozenTree, pid: Pid) -> Option<i32> {
    match tree.threads_of(pid).first()?.stop() {
        Stop::Group(signal) => Some(signal),
        Stop::Interrupted => None,
    }
}

/// Bytes that the host has, and the cgroups of the target let it have: to them a copy is charged.
fn memory_left(dir: &TaskDir, buffer: &mut Vec<u8>) -> u64 {
    let of_host = proc::host::available_memory().unwrap_or(0);
    proc::cgroup::memory_left(dir, buffer).map_or(of_host, |of_cgroup| of_cgroup.min(of_host))
}

/// A copy of the address space, or none where the kernel or a filter does not allow it: the pause is longer then.
fn fork_twin(session: &mut RemoteSession<'_>) -> Result<Option<Twin>, CollectError> {
    let tid = session.host();
    match session.fork_twin() {
        Ok(twin) => Ok(Some(twin)),
        Err(error @ (tracer::Error::NoRoom { .. } | tracer::Error::Refused { .. } | tracer::Error::Kernel { .. })) => {
            tracing::info!("no copy of the memory can be made, so the target stands still for longer: {error}");
            Ok(None)
        }
        Err(source) => Err(CollectError::Remote { tid, action: "copying its memory", source }),
    }
}
