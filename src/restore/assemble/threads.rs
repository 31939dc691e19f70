//! The threads of a process: who starts them and when, and what each gives itself.

use super::super::genealogy::ThreadBirth;
use super::super::script::{Label, List};
use super::super::{event, late, process, sysv, thread};
use super::{Builder, World};
use crate::image::model::address::Addr;
use crate::image::model::file::FdTable;
use crate::image::model::memory::Mm;
use crate::image::model::process::Process;
use crate::image::model::thread::Thread;
use crate::restore::memory;

impl<'a> Builder<'a> {
    fn births_of_threads(&self, index: usize) -> &'a [ThreadBirth] {
        &self.world.findings.genealogy.threads[index]
    }

    fn table(&self, thread: &Thread) -> &'a FdTable {
        &self.world.snapshot.fd_tables[thread.fd_table.0 as usize]
    }

    /// A word, made when it is first asked for.
    fn word(&mut self, is_entered: bool, key: usize) -> Addr {
        let script = &mut self.script;
        let words = if is_entered { &mut self.entered } else { &mut self.placed };
        *words.entry(key).or_insert_with(|| script.place(&[0; 32]))
    }

    /// Starts those threads that this one makes, by its place: first those that get a copy of its descriptors or directories as they are
    /// now, later the others.
    pub(super) fn spawn(&mut self, list: &mut List, at: usize, index: usize, maker: usize, is_early: bool) {
        const FLAGS: i32 = libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
        const IOPRIO_WHO_PROCESS: u64 = 1;
        let process = &self.world.snapshot.processes[index];
        let births = self.births_of_threads(index).iter().zip(process.others()).enumerate();
        let made =
            |birth: &ThreadBirth| birth.maker == maker && is_early != (birth.shares.files && birth.shares.directories);
        for (other, (birth, thread)) in births.filter(|(_, (birth, _))| made(birth)) {
            if birth.shares.io_context {
                list.call("having an I/O context", libc::SYS_ioprio_set, &[IOPRIO_WHO_PROCESS, 0, 0]);
            }
            let task = self.tasks[at] + other + 1;
            let tid = self.script.place(&thread.tid.0.to_le_bytes());
            let (stack, size) = self.script.stack(task);
            // `struct clone_args` of linux/sched.h.
            let flags = FLAGS as u64 | birth.shares.flags();
            let words = [flags, 0, 0, 0, 0, stack.0, size, 0, tid.0, 1];
            let args = self.script.place_words(&words);
            let label = Label::Number("starting thread", i64::from(thread.tid.0));
            list.spawn(label, args, words.len() as u64 * 8, self.script.task(task), thread.tid.0);
        }
    }

    /// Waits until all threads that use this one's descriptors are in directories of their own: these are entered by descriptors that are
    /// closed afterwards.
    pub(super) fn await_entries(&mut self, list: &mut List, at: usize, index: usize, owner: usize) {
        let enters = |birth: &&ThreadBirth| birth.shares.files && !birth.shares.directories && birth.table_of == owner;
        let count = self.births_of_threads(index).iter().filter(enters).count() as u32;
        if count > 0 {
            let word = self.word(true, self.tasks[at] + owner);
            list.wait("waiting until threads are in their directories", word, count);
        }
    }

    /// How many threads have a table of descriptors of their own.
    fn count_tables(&self, index: usize) -> u32 {
        self.births_of_threads(index).iter().filter(|birth| !birth.shares.files).count() as u32
    }

    /// Any thread but the main one.
    pub(super) fn other_thread(&mut self, at: usize, index: usize, other: usize) -> List {
        let World { snapshot, descriptors, .. } = self.world;
        let mut list = List::default();
        let process = &snapshot.processes[index];
        let (birth, thread) = (self.births_of_threads(index)[other], &process.others()[other]);
        self.spawn(&mut list, at, index, other + 1, true);
        if !thread.undo.is_empty() {
            sysv::undo_semaphores(&mut list, &mut self.script, snapshot, thread);
            list.arrive("telling that it has what it undoes", self.undone);
        }
        if !birth.shares.directories {
            let context = &snapshot.fs_contexts[thread.fs.0 as usize];
            process::enter_directories(&mut list, &mut self.script, context, descriptors);
            if birth.shares.files {
                let word = self.word(true, self.tasks[at] + birth.table_of);
                list.arrive("telling that it is in its directory", word);
            }
        }
        if !birth.shares.files {
            self.await_entries(&mut list, at, index, other + 1);
            process::place_descriptors(&mut list, self.table(thread), descriptors);
        }
        self.spawn(&mut list, at, index, other + 1, false);
        if !birth.shares.files {
            let placed = self.word(false, at);
            list.wait("waiting until all tasks are there", placed.add(16), 1);
            self.set_up_table(&mut list, self.table(thread));
            list.call("closing the report pipe", libc::SYS_close, &[descriptors.report as u64]);
            list.arrive("telling that its descriptors are there", placed);
        }
        let inherited = self.inherited();
        let has_parent = self.has_lasting_parent(at);
        thread::give(&mut list, &mut self.script, thread, &inherited, has_parent);
        thread::queue_private(&mut list, &mut self.script, process.pid, thread);
        list.arrive("arriving at the barrier", self.words[at][1]);
        list.wait("waiting to be released", self.never, 1);
        list
    }

    /// What of a table needs tasks that are there, and locks.
    fn set_up_table(&mut self, list: &mut List, table: &FdTable) {
        let World { snapshot, descriptors, .. } = self.world;
        let script = &mut self.script;
        late::open(list, script, snapshot, table, descriptors);
        self.watching.watch(list, script, table);
        process::own_descriptors(list, script, snapshot, table, &mut self.owned);
        self.takers.take(list, script, snapshot, table);
        event::arm(list, script, snapshot, table, &mut self.armed);
    }

    /// Whether the thread that has made a process stays: the end of one that ends would be told as the death of its parent.
    fn has_lasting_parent(&self, at: usize) -> bool {
        let genealogy = self.genealogy();
        genealogy.births[at].parent.is_none_or(|parent| match genealogy.births[parent].being {
            super::Being::Process(index) => self.world.snapshot.processes[index].ended_leader.is_none(),
            super::Being::Zombie(_) | super::Being::StandIn | super::Being::Midwife => true,
        })
    }

    /// What needs all threads, and what nothing may come after.
    pub(super) fn last(&mut self, list: &mut List, at: usize, index: usize, process: &Process, mm: &Mm) {
        let facts = self.world.facts;
        let from = self.inherited();
        let birth = self.genealogy().births[at];
        let arrivals = process.others().len() as u32 + self.sharers[at];
        let tables = self.count_tables(index);
        let all = self.world.snapshot.processes.len() as u32;
        let descriptors = self.world.descriptors;
        if (descriptors.proc.is_some() || !descriptors.late.is_empty()) && all > 1 {
            list.meet("waiting until all threads are made", self.threads_made, all);
        }
        if let Some(proc) = descriptors.proc.filter(|_| !birth.shares.directories) {
            let context = &self.world.snapshot.fs_contexts[process.threads[0].fs.0 as usize];
            late::enter(list, &mut self.script, self.world.snapshot, context, proc);
        }
        if tables > 0 {
            let placed = self.word(false, at);
            list.arrive("telling that all tasks are there", placed.add(16));
        }
        process::make_timers(list, &mut self.script, &process.timers, facts.timer_ids);
        if !birth.shares.files {
            self.set_up_table(list, self.table(&process.threads[0]));
        }
        process::register(list, &mut self.script, self.world.snapshot, process);
        if tables > 0 {
            let placed = self.word(false, at);
            list.wait("waiting until threads have their descriptors", placed, tables);
        }
        let mut inherited = facts.limits.clone();
        if let Some(open_files) = inherited.get_mut(libc::RLIMIT_NOFILE as usize) {
            open_files[0] = open_files[1];
        }
        process::limit(list, &mut self.script, process, &inherited);
        match &process.ended_leader {
            Some(leader) => thread::give_ended(list, &mut self.script, leader, &from),
            None => {
                let (leader, has_parent) = (&process.threads[0], self.has_lasting_parent(at));
                thread::give(list, &mut self.script, leader, &from, has_parent);
                thread::queue_private(list, &mut self.script, process.pid, leader);
            }
        }
        list.wait("waiting for all threads", self.words[at][1], arrivals);
        process::attributes(list, process, mm.dumpable);
        thread::queue_shared(list, &mut self.script, process.pid, &process.pending);
        if !birth.shares.memory {
            memory::seal(list, mm);
        }
        process::arm_timers(list, &mut self.script, process);
    }
}
