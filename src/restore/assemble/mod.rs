//! The lists of operations of all beings, put together from what each kind of resource wants. Pure.

mod births;
mod meetings;
mod threads;

use super::check::Findings;
use super::genealogy::{Being, Birth, Genealogy, Moment};
use super::host::HostFacts;
use super::locks::Takers;
use super::memory::{self, Found, Sources};
use super::plan::{MAPPED, Places};
use super::script::{List, Script};
use super::{Choices, event, inheritance, lookup, process, sysv, thread};
use crate::image::model::Snapshot;
use crate::image::model::address::Addr;
use crate::image::model::id::Pid;
use crate::image::model::memory::Mm;
use crate::image::model::process::Process;
use crate::image::model::thread::{SeccompFilter, Thread};
use std::borrow::Cow;
use std::collections::HashMap;

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
    /// By their tasks, for those whose table of descriptors is used by threads with a working directory of their own: counted up by these.
    entered: HashMap<usize, Addr>,
    /// For each being with threads that have a table of descriptors of their own, counted up by these.
    placed: HashMap<usize, Addr>,
    adoptions: Vec<births::Turn>,
    /// For each wave of memory, set when it is filled.
    filled: Vec<Addr>,
    meetings: [[Addr; 2]; MEETINGS],
    /// Where they meet before somebody opens what belongs to the others' threads.
    threads_made: [Addr; 2],
    /// Threads that have what they have to undo on semaphores.
    undone: Addr,
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
    /// Who takes which locks.
    takers: Takers,
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
                Being::Process(index) => world.snapshot.processes[index].tasks(),
                Being::Zombie(_) | Being::StandIn | Being::Midwife => 1,
            };
            if let (Being::Zombie(_) | Being::StandIn, Some(parent)) = (birth.being, birth.parent) {
                ends[parent].push(at);
            }
        }
        let mut script = Script::new(base, world.facts.code_len, count + usize::from(choices.orphan));
        let mut word = || script.place(&[0; 16]);
        let words = genealogy.births.iter().map(|_| [word(), word()]).collect();
        let adoptions = genealogy.adoptions.iter().map(|_| births::Turn::new(&mut word)).collect();
        let filled = (0..genealogy.waves()).map(|_| word()).collect();
        let meetings = [(); MEETINGS].map(|()| [word(), word()]);
        let threads_made = [word(), word()];
        let undone = word();
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
            entered: HashMap::new(),
            placed: HashMap::new(),
            adoptions,
            filled,
            meetings,
            threads_made,
            undone,
            untied,
            parents,
            never,
            rseq,
            watching,
            armed,
            owned,
            takers: Takers::among(world.snapshot),
        };
        let is_sharer = |birth: &Birth| birth.shares.files && matches!(birth.being, Being::Process(_));
        for at in (0..genealogy.births.len()).filter(|at| is_sharer(&genealogy.births[*at])) {
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
                    lists.extend((0..process.others().len()).map(|other| self.other_thread(at, index, other)));
                }
                being @ (Being::Zombie(_) | Being::StandIn) => {
                    self.adopt(&mut list, at);
                    self.meet_all(&mut list, at);
                    self.end(&mut list, being);
                    lists.push(list);
                }
                Being::Midwife => lists.push(list),
            }
        }
        if self.orphan {
            lists.push(self.parent());
        }
        lists
    }

    /// The terminal that it makes that of its session, by the number that every skeleton inherits, and the foreground group there.
    fn terminal(&self, birth: Birth) -> Option<(i32, Option<Pid>)> {
        let Being::Process(index) = birth.being else { return None };
        let process = &self.world.snapshot.processes[index];
        let id = lookup::own_terminal(self.world.snapshot, process).filter(|_| birth.leads_session)?;
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

    /// The main thread builds everything that threads share.
    fn main_thread(&mut self, list: &mut List, at: usize, process: &Process, index: usize) {
        let World { snapshot, mms, sources, descriptors, .. } = self.world;
        let mm = mms[process.mm.0 as usize].as_ref();
        let birth = self.genealogy().births[at];
        if !birth.shares.memory {
            self.memory(list, at, process, index);
        }
        self.make(list, at, Moment::Filled);
        self.adopt(list, at);
        if !birth.shares.directories {
            let context = &snapshot.fs_contexts[process.threads[0].fs.0 as usize];
            process::enter_directories(list, &mut self.script, context, descriptors);
        }
        if !birth.shares.memory {
            memory::settle(list, &mut self.script, mm, sources);
        }
        self.spawn(list, at, index, 0, true);
        self.await_entries(list, at, index, 0);
        // One that has ended would have undone it.
        if process.ended_leader.is_none() {
            sysv::undo_semaphores(list, &mut self.script, snapshot, &process.threads[0]);
        }
        // From here on descriptors are those of the image: those who share them have no more need of others.
        self.meet_all(list, at);
        if !birth.shares.handlers {
            process::handle_signals(list, &mut self.script, &snapshot.signal_handlers[process.handlers.0 as usize]);
        }
        if !birth.shares.files {
            let table = &snapshot.fd_tables[process.threads[0].fd_table.0 as usize];
            process::place_descriptors(list, table, descriptors);
        }
        self.spawn(list, at, index, 0, false);
        let own = snapshot.processes.iter().flat_map(Process::others).filter(|thread| !thread.undo.is_empty()).count();
        if own > 0 {
            list.wait("waiting until threads have what they undo", self.undone, own as u32);
        }
        sysv::touch_semaphores(list, &mut self.script, snapshot, process);
        self.last(list, at, index, process, mm);
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
        let above = birth.memory_of.map(|maker| snapshot.processes[maker].mm);
        let kept = match (above, &mm.inherited) {
            (Some(above), Some(inherited)) if above == inherited.from => inheritance::kept(&mms[above.0 as usize], mm),
            _ => Vec::new(),
        };
        let vdso = findings.vdso_at_birth(index, facts);
        let found = Found { vdso, vdso_home: &findings.vdsos[index].home, kept: &kept };
        memory::unmap_old(list, sources, found);
        memory::map(list, &mut self.script, snapshot, mm, sources, &kept);
        self.tell(list, "telling that the mappings stand", MAPPED, at);
        list.wait("waiting for the pages", self.filled[birth.wave], 1);
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
}
