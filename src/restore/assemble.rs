//! The lists of operations of all beings, put together from what each kind of resource wants. Pure.

use super::check::Findings;
use super::genealogy::{Being, Birth, Genealogy, Group, Moment, Shares};
use super::host::HostFacts;
use super::memory::{self, Found, Sources};
use super::plan::{BORN, MAPPED, Places};
use super::script::{Label, List, Script};
use super::{Choices, check, event, inheritance, late, process, thread, zombie};
use crate::image::model::Snapshot;
use crate::image::model::address::Addr;
use crate::image::model::id::Pid;
use crate::image::model::memory::Mm;
use crate::image::model::process::Process;
use crate::image::model::thread::{SeccompFilter, Thread};
use std::borrow::Cow;

const PR_SET_PDEATHSIG: u64 = 1;
const SECCOMP_SET_MODE_STRICT: u64 = 0;
const SECCOMP_SET_MODE_FILTER: u64 = 1;
const SECCOMP_FILTER_FLAG_LOG: u64 = 2;

/// Meetings of all beings on the way to their groups: all are born, groups are made, are joined, and were left.
const MEETINGS: usize = 4;

/// Label of the making of another being, before its id.
pub const MAKING: &str = "making a process with pid";

/// What the lists are made from.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// The image.
    pub snapshot: &'a Snapshot,
    /// Its address spaces as they are made here.
    pub mms: &'a [Cow<'a, Mm>],
    /// This host.
    pub facts: &'a HostFacts,
    /// Who makes whom, and what becomes of the vdso.
    pub findings: &'a Findings,
    /// Where mappings come from.
    pub sources: &'a Sources,
    /// Where descriptions are.
    pub descriptors: &'a process::Descriptors,
}

/// Builds the lists of operations.
pub struct Builder<'a> {
    world: World<'a>,
    /// What the lists refer to.
    pub script: Script,
    orphan: bool,
    /// For each being, the place of its first task.
    tasks: Vec<usize>,
    /// For each being, the children of it that end before anything runs.
    ends: Vec<Vec<usize>>,
    /// For each being, how many others use its table of descriptors.
    sharers: Vec<u32>,
    /// For each being: set when it may go on, and counted up by its threads.
    words: Vec<[Addr; 2]>,
    /// For each wave of memory, set when it is filled.
    filled: Vec<Addr>,
    meetings: [[Addr; 2]; MEETINGS],
    untied: Addr,
    /// The pid of an orphan's parent, as that one and as the orphan knows it.
    parents: [Addr; 2],
    never: Addr,
    rseq: Addr,
    /// Who adds which items of epoll instances.
    watching: event::Watching,
    /// Descriptions that somebody has armed, and whose owner somebody has set.
    armed: Vec<bool>,
    owned: Vec<bool>,
}

impl<'a> Builder<'a> {
    /// A script with room for every thread, and for the parent of an orphan.
    pub fn new(world: World<'a>, base: Addr, choices: &Choices<'_>) -> Self {
        let genealogy = &world.findings.genealogy;
        let mut tasks = Vec::with_capacity(genealogy.births.len());
        let mut ends = vec![Vec::new(); genealogy.births.len()];
        let mut count = 0;
        for (at, birth) in genealogy.births.iter().enumerate() {
            tasks.push(count);
            count += match birth.being {
                Being::Process(index) => world.snapshot.processes[index].threads.len(),
                Being::Zombie(_) | Being::StandIn => 1,
            };
            if let (Being::Zombie(_) | Being::StandIn, Some(parent)) = (birth.being, birth.parent) {
                ends[parent].push(at);
            }
        }
        let mut script = Script::new(base, world.facts.code_len, count + usize::from(choices.orphan));
        let mut word = || script.place(&[0; 16]);
        let words = genealogy.births.iter().map(|_| [word(), word()]).collect();
        let filled = (0..genealogy.waves()).map(|_| word()).collect();
        let meetings = [(); MEETINGS].map(|()| [word(), word()]);
        let (untied, never, parents) = (word(), word(), [word(), word()]);
        let rseq = script.place(&[0; 64]);
        let descriptions = world.snapshot.descriptions.len();
        let watching = event::Watching::plan(world.snapshot, &mut script);
        let (armed, owned) = (vec![false; descriptions], vec![false; descriptions]);
        let (orphan, sharers) = (choices.orphan, vec![0; genealogy.births.len()]);
        let mut builder = Self {
            world,
            script,
            orphan,
            tasks,
            ends,
            sharers,
            words,
            filled,
            meetings,
            untied,
            parents,
            never,
            rseq,
            watching,
            armed,
            owned,
        };
        for at in (0..genealogy.births.len()).filter(|at| genealogy.births[*at].shares.files) {
            let owner = builder.owner_of_files(at);
            builder.sharers[owner] += 1;
        }
        builder
    }

    fn genealogy(&self) -> &'a Genealogy {
        &self.world.findings.genealogy
    }

    /// Where the host finds what it must know.
    pub fn places(&self) -> Places {
        let count = self.tasks.last().map_or(0, |_| self.script.tasks()) - usize::from(self.orphan);
        Places {
            code: self.script.code(),
            parent: self.orphan.then(|| (self.script.task(count), self.script.stack(count))),
            tasks: (0..count).map(|index| self.script.task(index)).collect(),
            stack: self.script.stack(0),
            filled: self.filled.clone(),
            rseq: self.rseq,
            report: self.world.descriptors.report,
        }
    }

    /// The word that lets a being go on, and the place of its first task.
    pub fn of_being(&self, at: usize) -> (Addr, usize) {
        (self.words[at][0], self.tasks[at])
    }

    /// Arguments of an rt_sigtimedwait(2) that takes this signal if it is there.
    pub fn taking(&mut self, signal: i32) -> [u64; 6] {
        let mask = self.script.place_words(&[1 << (signal - 1)]);
        let now = self.script.place_words(&[0, 0]);
        [mask.0, 0, now.0, 8, 0, 0]
    }

    fn inherited(&self) -> thread::Inherited<'a> {
        thread::Inherited {
            credentials: &self.world.facts.credentials,
            groups_stay: self.world.facts.setgroups_denied,
            speculation: self.world.facts.speculation,
        }
    }

    /// One list for each task: the threads of the root, its main thread first, then those of the others.
    pub fn lists(&mut self) -> Vec<List> {
        let mut lists = Vec::new();
        for at in 0..self.genealogy().births.len() {
            let mut list = List::default();
            self.begin(&mut list, at);
            match self.genealogy().births[at].being {
                Being::Process(index) => {
                    let process = &self.world.snapshot.processes[index];
                    self.main_thread(&mut list, at, process, index);
                    lists.push(list);
                    lists.extend(process.threads[1..].iter().map(|other| self.other_thread(at, process, other)));
                }
                being @ (Being::Zombie(_) | Being::StandIn) => {
                    self.meet_all(&mut list, at);
                    self.end(&mut list, being);
                    lists.push(list);
                }
            }
        }
        if self.orphan {
            lists.push(self.parent());
        }
        lists
    }

    /// What is done in the memory in which it was born, which is that of its maker.
    fn begin(&mut self, list: &mut List, at: usize) {
        let birth = self.genealogy().births[at];
        // Until it is traced; then PTRACE_O_EXITKILL watches over it.
        list.call("tying itself to its parent", libc::SYS_prctl, &[PR_SET_PDEATHSIG, libc::SIGKILL as u64]);
        match birth.parent {
            Some(parent) => {
                let parent = self.genealogy().births[parent].pid.0 as u64;
                list.call_equals("looking for its parent", libc::SYS_getppid, &[], parent);
            }
            None if self.orphan => {
                // Its parent may be dead already, and then nothing ties it.
                let [known, found] = self.parents;
                list.call_stored("asking for its parent", libc::SYS_getppid, &[], found);
                list.same("looking for its parent", [known, found]);
            }
            None => list.call_equals("looking for snap", libc::SYS_getppid, &[], self.world.facts.pid as u64),
        }
        if matches!(birth.being, Being::Process(_)) {
            let [go, _] = self.words[at];
            self.tell(list, "telling that it is born", BORN, at);
            list.wait("waiting to be traced", go, 1);
            list.call("untying itself", libc::SYS_prctl, &[PR_SET_PDEATHSIG, 0]);
        }
        if at == 0 {
            self.begin_root(list);
        }
        self.make(list, at, Moment::BeforeSession);
        if birth.leads_session {
            list.call("setsid", libc::SYS_setsid, &[]);
        }
        if let Some((terminal, _)) = self.terminal(birth) {
            let args = [terminal as u64, crate::sys::terminal::TIOCSCTTY, 0];
            list.call("taking the terminal for its session", libc::SYS_ioctl, &args);
        }
        self.make(list, at, Moment::Early);
    }

    /// The terminal that it makes that of its session, by the number that every skeleton inherits, and the foreground group there.
    fn terminal(&self, birth: Birth) -> Option<(i32, Option<Pid>)> {
        let Being::Process(index) = birth.being else { return None };
        let process = &self.world.snapshot.processes[index];
        let id = check::own_terminal(self.world.snapshot, process).filter(|_| birth.leads_session)?;
        let number = self.world.descriptors.terminals.get(&id)?;
        Some((*number, process.controlling?.foreground))
    }

    fn begin_root(&mut self, list: &mut List) {
        const RSEQ_FLAG_UNREGISTER: u64 = 1;
        list.arrive("letting its parent go", self.untied);
        list.wait("waiting to start", self.words[0][0], 2);
        let rseq = self.rseq;
        let args = [rseq.0, rseq.add(8).0, RSEQ_FLAG_UNREGISTER, rseq.add(16).0];
        list.try_call_indirect("unregistering rseq", libc::SYS_rseq, &args, 0b1011);
    }

    /// A message to the host: what, and who.
    fn tell(&mut self, list: &mut List, label: &'static str, what: u8, at: usize) {
        let message = self.script.place(&super::plan::message(what, at));
        list.call_equals(label, libc::SYS_write, &[self.world.descriptors.report as u64, message.0, 8], 8);
    }

    /// Makes those whom it makes at this moment.
    fn make(&mut self, list: &mut List, at: usize, moment: Moment) {
        for &child in &self.genealogy().made[at] {
            let birth = self.genealogy().births[child];
            if birth.moment == moment {
                self.make_one(list, child, birth);
            }
        }
    }

    fn make_one(&mut self, list: &mut List, child: usize, birth: Birth) {
        let task = self.tasks[child];
        let tid = self.script.place(&birth.pid.0.to_le_bytes());
        let (stack, size) = self.script.stack(task);
        // CLONE_PARENT takes the signal of the maker.
        let (sibling, signal) =
            if birth.is_sibling() { (libc::CLONE_PARENT, 0) } else { (0, birth.exit_signal as u64) };
        let Shares { memory, files, directories } = birth.shares;
        let shared = [(memory, libc::CLONE_VM), (files, libc::CLONE_FILES), (directories, libc::CLONE_FS)];
        let flags = shared.iter().filter(|(shares, _)| *shares).fold(sibling, |flags, (_, flag)| flags | flag) as u64;
        let words = [flags, 0, 0, 0, signal, stack.0, size, 0, tid.0, 1];
        let args = self.script.place_words(&words);
        let label = Label::Number(MAKING, i64::from(birth.pid.0));
        list.spawn(label, args, words.len() as u64 * 8, self.script.task(task), birth.pid.0);
    }

    /// The main thread builds everything that threads share.
    fn main_thread(&mut self, list: &mut List, at: usize, process: &Process, index: usize) {
        let World { snapshot, mms, sources, descriptors, .. } = self.world;
        let mm = mms[process.mm.0 as usize].as_ref();
        let birth = self.genealogy().births[at];
        if !birth.shares.memory {
            self.memory(list, at, process, index);
        }
        self.make(list, at, Moment::Filled);
        if !birth.shares.directories {
            let context = &snapshot.fs_contexts[process.threads[0].fs.0 as usize];
            process::enter_directories(list, &mut self.script, context, descriptors);
        }
        if !birth.shares.memory {
            memory::settle(list, &mut self.script, mm, sources);
        }
        // From here on descriptors are those of the image: those who share them have no more need of others.
        self.meet_all(list, at);
        process::handle_signals(list, &mut self.script, process);
        if !birth.shares.files {
            process::place_descriptors(list, snapshot, process, descriptors);
        }
        self.spawn(list, at, process);
        self.last(list, at, process, mm);
        if birth.shares.files {
            list.arrive("telling that all is done", self.words[self.owner_of_files(at)][1]);
        } else {
            list.call("telling that all is done", libc::SYS_close, &[descriptors.report as u64]);
        }
        list.wait("waiting to be released", self.never, 1);
    }

    /// Who makes the table of descriptors that a being uses.
    fn owner_of_files(&self, mut at: usize) -> usize {
        let births = &self.genealogy().births;
        while let (true, Some(maker)) = (births[at].shares.files, births[at].maker) {
            at = maker;
        }
        at
    }

    /// Makes the address space and waits until it is filled.
    fn memory(&mut self, list: &mut List, at: usize, process: &Process, index: usize) {
        let World { snapshot, mms, facts, findings, sources, .. } = self.world;
        let mm = mms[process.mm.0 as usize].as_ref();
        let birth = self.genealogy().births[at];
        let kept = match (birth.moment, birth.maker.map(|maker| self.genealogy().births[maker].being)) {
            (Moment::Filled, Some(Being::Process(maker))) => {
                inheritance::kept(&mms[snapshot.processes[maker].mm.0 as usize], mm)
            }
            _ => Vec::new(),
        };
        let vdso = findings.vdso_at_birth(index, facts);
        let found = Found { vdso, vdso_home: &findings.vdsos[index].home, kept: &kept };
        memory::unmap_old(list, sources, found);
        memory::map(list, &mut self.script, snapshot, mm, sources, &kept);
        self.tell(list, "telling that the mappings stand", MAPPED, at);
        list.wait("waiting for the pages", self.filled[birth.wave], 1);
    }

    fn other_thread(&mut self, at: usize, process: &Process, thread: &Thread) -> List {
        let mut list = List::default();
        let inherited = self.inherited();
        thread::give(&mut list, &mut self.script, thread, &inherited);
        thread::queue_private(&mut list, &mut self.script, process.pid, thread);
        list.arrive("arriving at the barrier", self.words[at][1]);
        list.wait("waiting to be released", self.never, 1);
        list
    }

    /// Process groups, which must exist before they are joined and be joined before their stand-ins end; then the ends of children.
    fn meet_all(&mut self, list: &mut List, at: usize) {
        let all = self.genealogy().births.len() as u32;
        let birth = self.genealogy().births[at];
        let [born, made, joined, left] = self.meetings;
        let set = |list: &mut List, group: i32| {
            let label = Label::Number("joining process group", i64::from(group));
            list.call(label, libc::SYS_setpgid, &[0, group as u64]);
        };
        if all > 1 {
            list.meet("waiting until all are born", born, all);
        }
        if matches!(birth.group, Group::Own | Group::Left(_)) && !birth.leads_session {
            list.call("making a process group", libc::SYS_setpgid, &[0, 0]);
        }
        if all == 1 {
            self.bring_to_foreground(list, birth);
            return;
        }
        list.meet("waiting for process groups", made, all);
        if let Group::Of(group) = birth.group {
            set(list, group.0);
        }
        list.meet("waiting until process groups are joined", joined, all);
        if let Group::Left(group) = birth.group {
            set(list, group.0);
        }
        list.meet("waiting until process groups were left", left, all);
        self.bring_to_foreground(list, birth);
        for &child in &self.ends[at] {
            let birth = self.genealogy().births[child];
            zombie::await_end(list, &mut self.script, &birth);
        }
    }

    fn bring_to_foreground(&mut self, list: &mut List, birth: Birth) {
        if let Some((terminal, Some(foreground))) = self.terminal(birth) {
            let group = self.script.place(&foreground.0.to_le_bytes());
            let args = [terminal as u64, crate::sys::terminal::TIOCSPGRP, group.0];
            // Of a group that is gone the terminal keeps but the number.
            list.try_call("foreground group of the terminal", libc::SYS_ioctl, &args);
        }
    }

    fn end(&mut self, list: &mut List, being: Being) {
        let zombies = &self.world.snapshot.zombies;
        let own = self.world.facts.credentials.uid[0];
        match being {
            Being::Zombie(index) => zombie::end(list, &mut self.script, &zombies[index], own),
            Being::StandIn | Being::Process(_) => list.call("ending", libc::SYS_exit_group, &[0]),
        }
    }

    /// The seccomp(2) calls of each thread of each process; a filter that threads share is placed once.
    pub fn filters(&mut self) -> Vec<Vec<Vec<[u64; 6]>>> {
        let place = |filter: &SeccompFilter| {
            let code = self.script.place_words(&filter.program);
            // `struct sock_fprog`: the count, and where they are.
            let program = self.script.place_words(&[filter.program.len() as u64, code.0]);
            [SECCOMP_SET_MODE_FILTER, u64::from(filter.flags) & SECCOMP_FILTER_FLAG_LOG, program.0, 0, 0, 0]
        };
        let placed: Vec<[u64; 6]> = self.world.snapshot.seccomp_filters.iter().map(place).collect();
        let of = |thread: &Thread| match thread.seccomp.mode {
            0 => Vec::new(),
            1 => vec![[SECCOMP_SET_MODE_STRICT, 0, 0, 0, 0, 0]],
            _ => thread.seccomp.filters.iter().map(|id| placed[id.0 as usize]).collect(),
        };
        self.world.snapshot.processes.iter().map(|process| process.threads.iter().map(of).collect()).collect()
    }

    /// A parent for an orphan: it dies once the skeleton is traced, so that nothing happens when `snap` ends.
    fn parent(&mut self) -> List {
        let mut list = List::default();
        list.call("tying itself to snap", libc::SYS_prctl, &[PR_SET_PDEATHSIG, libc::SIGKILL as u64]);
        list.call_equals("looking for snap", libc::SYS_getppid, &[], self.world.facts.pid as u64);
        list.call_stored("noting its pid", libc::SYS_getpid, &[], self.parents[0]);
        let birth = self.genealogy().births[0];
        self.make_one(&mut list, 0, Birth { exit_signal: libc::SIGCHLD, ..birth });
        list.wait("waiting until the process is traced", self.untied, 1);
        list.call("ending", libc::SYS_exit_group, &[0]);
        list
    }

    fn spawn(&mut self, list: &mut List, at: usize, process: &Process) {
        let flags = libc::CLONE_VM
            | libc::CLONE_FS
            | libc::CLONE_FILES
            | libc::CLONE_SIGHAND
            | libc::CLONE_THREAD
            | libc::CLONE_SYSVSEM;
        for (index, other) in process.threads.iter().enumerate().skip(1) {
            let task = self.tasks[at] + index;
            let tid = self.script.place(&other.tid.0.to_le_bytes());
            let (stack, size) = self.script.stack(task);
            // `struct clone_args` of linux/sched.h.
            let words = [flags as u64, 0, 0, 0, 0, stack.0, size, 0, tid.0, 1];
            let args = self.script.place_words(&words);
            let label = Label::Number("starting thread", i64::from(other.tid.0));
            list.spawn(label, args, words.len() as u64 * 8, self.script.task(task), other.tid.0);
        }
    }

    /// What needs all threads, and what nothing may come after.
    fn last(&mut self, list: &mut List, at: usize, process: &Process, mm: &Mm) {
        let World { snapshot, facts, descriptors, .. } = self.world;
        let from = self.inherited();
        let birth = self.genealogy().births[at];
        let arrivals = process.threads.len() as u32 - 1 + self.sharers[at];
        let script = &mut self.script;
        let table = &snapshot.fd_tables[process.threads[0].fd_table.0 as usize];
        process::make_timers(list, script, &process.timers, facts.timer_ids);
        if !birth.shares.files {
            late::open(list, script, snapshot, table, descriptors);
            self.watching.watch(list, script, table);
            process::own_descriptors(list, script, snapshot, table, &mut self.owned);
            process::lock_files(list, script, snapshot, process);
            event::arm(list, script, snapshot, table, &mut self.armed);
        }
        let mut inherited = facts.limits.clone();
        if let Some(open_files) = inherited.get_mut(libc::RLIMIT_NOFILE as usize) {
            open_files[0] = open_files[1];
        }
        process::limit(list, script, process, &inherited);
        let leader = &process.threads[0];
        thread::give(list, script, leader, &from);
        thread::queue_private(list, script, process.pid, leader);
        list.wait("waiting for all threads", self.words[at][1], arrivals);
        process::attributes(list, process, mm.dumpable);
        thread::queue_shared(list, script, process.pid, &process.pending);
        if !birth.shares.memory {
            memory::seal(list, mm);
        }
        process::arm_timers(list, script, process);
    }
}
