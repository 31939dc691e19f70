//! Asks every kind of resource for its part of the frozen tree and puts the parts together.

use super::After;
use super::ahead::{Ahead, Member};
use super::collected::Collected;
use super::content::TargetMemory;
use super::own::Own;
use super::process::View;
use super::shared::Known;
use super::warnings;
use crate::fault::{self, Point};
use crate::image::model::Snapshot;
use crate::image::model::id::{MmId, Pid, ShmId, Tid};
use crate::image::model::ipc::Ipc;
use crate::image::model::memory::{Backing, Mm};
use crate::image::model::pipe::Pipe;
use crate::image::model::process::{FsContext, Process, ProcessState, Zombie};
use crate::image::model::signal::SignalHandlers;
use crate::proc;
use crate::proc::TaskDir;
use crate::proc::sysvipc::{self, SemaphoreSet};
use crate::resources::aio::{self, Rings};
use crate::resources::border::{self, Outsider, Tie};
use crate::resources::bpf;
use crate::resources::copy_on_write::Above;
use crate::resources::core_scheduling::Cookies;
use crate::resources::descriptor::{Descriptors, Pipes, Tables};
use crate::resources::file::FileTable;
use crate::resources::keyring::Descriptions;
use crate::resources::mapped_only::{MappedOnly, PageSource};
use crate::resources::mqueue::plan;
use crate::resources::namespace::Namespaces;
use crate::resources::pages::PageSet;
use crate::resources::seccomp::SeccompTable;
use crate::resources::shared_memory::SharedMemoryTable;
use crate::resources::sharing::Sharing;
use crate::resources::socket::Leaks;
use crate::resources::socket::packet::asking;
use crate::resources::socket::tcp::lock::Lock;
use crate::resources::socket::tcp::tree::{Manner, Policy, Step};
use crate::resources::syscall_restart::Samples;
use crate::resources::sysv::undo::Adjustment;
use crate::resources::sysv::{self, Uses};
use crate::resources::{CollectError, Findings, robust, settings, zombie};
use crate::tracer::{self, FrozenTree, Twin};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Instant;

/// The parts of a snapshot while they are collected.
#[derive(Default)]
pub(super) struct Builder {
    /// What was collected of each object that processes share, by the place of the first of them.
    pub(super) known: Known,
    /// Processes whose orphans somebody in the tree would adopt, as it would a copy.
    pub(super) adopted: HashSet<Pid>,
    pub(super) findings: Findings,
    pub(super) files: FileTable,
    pub(super) shared: SharedMemoryTable,
    /// Rings of AIO contexts, by the number under which /proc shows who has them.
    pub(super) rings: HashMap<Pid, Rings>,
    pub(super) mapped: MappedOnly,
    pub(super) seccomp: SeccompTable,
    pub(super) keyrings: Descriptions,
    pub(super) descriptors: Descriptors,
    pub(super) pipes: Pipes,
    pub(super) fs_contexts: Vec<FsContext>,
    pub(super) signal_handlers: Vec<SignalHandlers>,
    pub(super) mms: Vec<Mm>,
    /// What those say of their children who were asked.
    pub(super) states: HashMap<Pid, ProcessState>,
    /// The address space of each process so far, and the number under which /proc shows it.
    pub(super) spaces: HashMap<Pid, (Pid, MmId)>,
    pub(super) memories: Vec<Option<TargetMemory>>,
    pub(super) pages: Vec<PageSet>,
    pub(super) twins: Vec<Option<Twin>>,
    /// The parent with whose pages those of a child were compared last.
    pub(super) above: Option<Above>,
    pub(super) wants_twins: bool,
    /// Bytes of the pages that they are copies of.
    pub(super) copied: u64,
    pub(super) processes: Vec<Process>,
    /// What tasks have to undo in sets of semaphores.
    pub(super) undo: HashMap<Tid, Vec<Adjustment>>,
    /// Lists of operations to undo that were looked at, by the place of the first task that has each.
    pub(super) undo_seen: HashSet<usize>,
    /// Sets of semaphores that may be in these lists.
    pub(super) semaphores: Vec<SemaphoreSet>,
    /// The terminal of each process and its foreground group, as /proc/PID/stat has them.
    pub(super) ttys: Vec<(i32, i32)>,
    pub(super) resident: u64,
    pub(super) buffer: Vec<u8>,
}

/// What a seccomp filter, or the mode a thread is in, can forbid us.
pub const CALLS: &str = "system calls in its place";

/// What the user says of descriptors that lead out of the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Border {
    /// Links of /proc/PID/fd in whose place a restore is given others.
    pub externals: Vec<String>,
    /// Whether pipes are dumped although somebody outside has an end, which is closed after a restore.
    pub leaks: bool,
    /// Whether events of inotify and fanotify that nobody has read are given up.
    pub drop_events: bool,
    /// Whether an eventfd is taken for no semaphore where the kernel does not tell.
    pub plain_eventfds: bool,
    /// What becomes of TCP connections.
    pub tcp: Policy,
}

/// Collects everything about the tree. Nothing in it is changed.
///
/// # Errors
/// A kernel interface that failed. What cannot be restored is in the findings instead, all of it.
pub fn collect(
    tree: &mut FrozenTree,
    root: Pid,
    samples: &Samples,
    frozen_at: Instant,
    after: After,
    own: &Own,
    border: &Border,
) -> Result<(Collected, Findings), CollectError> {
    let mut builder = Builder::new(after, border);
    tree.read_statuses();
    builder.semaphores = sysvipc::semaphores(&mut builder.buffer)?;
    let living: Vec<Pid> = tree.processes().iter().map(tracer::Process::pid).collect();
    let ended = tree.zombies().iter().map(tracer::Process::pid);
    let mut zombies = zombie::collect(ended, &mut builder.findings)?;
    let inside: Vec<Pid> = living.iter().copied().chain(zombies.iter().map(|zombie| zombie.pid)).collect();
    let cookies = Cookies::collect(living.iter().flat_map(|pid| tree.threads_of(*pid)).map(|thread| thread.tid()))?;
    builder.findings.warnings.extend(warnings::shared_cookie(&cookies, &inside));
    let view = builder.view(tree, &living, &inside, (samples, frozen_at))?;
    for (at, &pid) in living.iter().enumerate() {
        builder.process(tree, at, pid, &view)?;
    }
    builder.look_behind_descriptors()?;
    let left_out = if own.is_in(&living) { own.pipes() } else { HashSet::new() };
    own.refuse_deadlock(&builder.pipes, &mut builder.findings);
    let mut ipc = builder.system_v(&inside, border.leaks)?;
    let outsiders = builder.refuse_outside(&inside, border.leaks)?;
    let manner = Manner { policy: border.tcp, ends: after == After::Kill, frozen: true, passed };
    let lock = builder.descriptors.sockets.connections(&outsiders, manner, &mut builder.findings)?;
    let pipes = std::mem::take(&mut builder.pipes);
    let descriptions = &mut builder.descriptors.descriptions;
    let pipes =
        pipes.finish(descriptions, &outsiders, &left_out, border.leaks, Some(&inside), &mut builder.findings)?;
    builder.findings.warnings.extend(warnings::shared_locks(&builder.descriptors, &inside));
    builder.findings.warnings.extend(warnings::unknown_externals(&builder.descriptors));
    builder.findings.warnings.extend(warnings::unknown_timeouts(&builder.processes));
    own.leave_out(&mut builder.processes, &builder.signal_handlers, &mut zombies, &mut builder.findings)?;
    cookies.give_groups(&mut builder.processes);
    let charged: Vec<_> = builder.descriptors.sockets.charged().collect();
    let maps = std::mem::take(&mut builder.descriptors.bpf_maps);
    let maps = maps.finish((&outsiders, &inside), border.leaks, &mut builder.findings);
    let queues;
    (ipc.posix_queues, queues) = std::mem::take(&mut builder.descriptors.queues).finish();
    let (mut collected, mut findings) = builder.finish(root, zombies, pipes, (ipc, maps), lock)?;
    collected.exchanges = plan::plan((&collected.snapshot, tree), &queues, &charged, &mut findings);
    collected.askings = asking::plan(&collected.snapshot, &mut findings);
    Ok((collected, findings))
}

/// How many mappings there are of each shared memory object.
fn attached(mms: &[Mm]) -> HashMap<ShmId, u64> {
    let mut counts = HashMap::new();
    for vma in mms.iter().flat_map(|mm| &mm.vmas) {
        if let Backing::Shared { shm, offset: _, may_write: _ } = vma.backing {
            *counts.entry(shm).or_default() += 1;
        }
    }
    counts
}

/// The fault points of connections.
fn passed(step: Step) -> std::io::Result<()> {
    fault::pass(match step {
        Step::Locked => Point::Locked,
        Step::Repairing => Point::Repairing,
    })
}

impl Builder {
    fn new(after: After, border: &Border) -> Self {
        let mut builder = Self { wants_twins: after == After::LeaveRunning, ..Self::default() };
        builder.descriptors.drop_events = border.drop_events;
        builder.descriptors.plain_eventfds = border.plain_eventfds;
        builder.descriptors.externals = border.externals.iter().cloned().collect();
        builder
    }

    /// What holds for the whole tree, of whose processes these are alive, or `inside` it with those that have ended.
    fn view<'a>(
        &mut self,
        tree: &mut FrozenTree,
        living: &[Pid],
        inside: &[Pid],
        (samples, frozen_at): (&'a Samples, Instant),
    ) -> Result<View<'a>, CollectError> {
        let all = living.iter().flat_map(|pid| tree.threads_of(*pid)).map(|thread| thread.tid());
        self.descriptors.inside = all.chain(inside.iter().map(|pid| pid.leader())).collect();
        let tids = |pid: &Pid| tree.threads_of(*pid).iter().map(|thread| thread.tid()).collect();
        let threads: Vec<Vec<Tid>> = living.iter().map(tids).collect();
        let sharing = Sharing::among(&threads)?;
        let exposed = sharing.refuse_outside(inside, &mut self.findings);
        self.rings = aio::settle(tree, &sharing, &exposed, &mut self.findings)?;
        let member = |(at, process): (usize, &tracer::Process)| Member {
            shown_as: process.shown_as(),
            has_known_memory: sharing.memory(at) != at,
            has_known_files: sharing.files(at) != at,
        };
        let ahead = Ahead::begin(tree.processes().iter().enumerate().map(member).collect())?;
        let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
        for process in tree.processes() {
            children.entry(process.parent()).or_default().push(process.pid());
        }
        let own_label = proc::values::lsm_label(&TaskDir::current()?, &mut Vec::new());
        Ok(View {
            samples,
            frozen_at,
            exposed,
            sharing,
            ahead,
            children,
            namespaces: Namespaces::own(),
            own_speculation: settings::own_speculation(),
            has_labels: own_label.is_ok_and(|own| !own.is_empty()),
        })
    }

    /// What can be known of descriptors once all tables are.
    fn look_behind_descriptors(&mut self) -> Result<(), CollectError> {
        self.look_into_sockets()?;
        self.refuse_parts_of_rings();
        self.find_mapped_maps();
        self.descriptors.bpf_maps.add_inner(&mut self.findings);
        self.descriptors.find_watched(&mut self.findings);
        let arguments = self.processes.iter().flat_map(|process| &process.argv);
        let arguments: Vec<OsString> = arguments.map(|argument| OsString::from_vec(argument.clone())).collect();
        self.descriptors.find_marked(&mut self.files, arguments.into_iter(), &mut self.findings);
        Ok(())
    }

    /// System V objects, and what processes have to undo in them.
    fn system_v(&mut self, inside: &[Pid], leaks: bool) -> Result<Ipc, CollectError> {
        let mut uses = self.ipc_uses(inside.iter().copied(), leaks);
        self.shared.add_detached(&uses, &mut self.findings)?;
        uses.undo = std::mem::take(&mut self.undo);
        let ipc = sysv::collect(&uses, &mut self.findings)?;
        sysv::give_undo(&uses, &ipc, &mut self.processes);
        Ok(ipc)
    }

    /// Who outside has something of the tree, which is refused unless it may leak.
    fn refuse_outside(&mut self, inside: &[Pid], leaks: bool) -> Result<HashMap<Tie, Outsider>, CollectError> {
        let ties = self.pipes.ties().chain(self.shared.ties()).chain(self.descriptors.terminals.ties());
        let ties = ties.chain(self.descriptors.queues.ties()).chain(self.descriptors.bpf_maps.ties());
        let ties = ties.chain(self.descriptors.sockets.ties()).collect();
        let copies = self.twins.iter().flatten().map(Twin::pid);
        let outsiders = border::outsiders(inside.iter().copied().chain(copies), &ties);
        self.shared.refuse_outside(&outsiders, &mut self.findings);
        if self.findings.blockers.is_empty() {
            self.shared.refuse_unseen(&attached(&self.mms), &mut self.findings);
        }
        self.descriptors.queues.refuse_outside(&outsiders, &self.descriptors.inside, &mut self.findings);
        self.descriptors.terminals.refuse_outside(&outsiders, &mut self.findings);
        let leaks = if leaks { Leaks::Allow } else { Leaks::Refuse };
        self.descriptors.sockets.link(&outsiders, leaks, &mut self.findings)?;
        Ok(outsiders)
    }

    /// Robust futexes in files, whose words the death of the tree would change.
    fn note_held(&mut self) -> Result<(), CollectError> {
        for process in &self.processes {
            let (vmas, lists) = (&self.mms[process.mm.0 as usize].vmas, process.threads.iter().map(|t| &t.robust_list));
            let held = robust::held(process.pid, vmas, lists);
            for (file, futex) in held.map_err(CollectError::at(process.pid.leader(), "opening its memory"))? {
                self.files.set_held(file, futex);
            }
        }
        Ok(())
    }

    /// What waits in sockets, once all tables are known: it may be open files.
    fn look_into_sockets(&mut self) -> Result<(), CollectError> {
        let mut tables = Tables {
            files: &mut self.files,
            shared: &mut self.shared,
            pipes: &mut self.pipes,
            findings: &mut self.findings,
        };
        self.descriptors.look_into_sockets(&mut tables, &mut || fault::pass(Point::OptionChanged))
    }

    fn ipc_uses(&self, inside: impl Iterator<Item = Pid>, leaks: bool) -> Uses {
        Uses { inside: inside.collect(), leaks, ..Uses::of(&self.processes) }
    }

    fn finish(
        mut self,
        root: Pid,
        zombies: Vec<Zombie>,
        pipes: Vec<Pipe>,
        (ipc, maps): (Ipc, bpf::Finished),
        lock: Option<Lock>,
    ) -> Result<(Collected, Findings), CollectError> {
        for (process, (tty_nr, tpgid)) in self.processes.iter_mut().zip(&self.ttys) {
            process.controlling = self.descriptors.terminals.controlling(*tty_nr, *tpgid);
        }
        let terminals = std::mem::take(&mut self.descriptors.terminals);
        let terminals = terminals.finish(&mut self.descriptors.descriptions, &mut self.findings)?;
        self.note_held()?;
        let inventory = super::inventory::collect(root, self.processes.first())?;
        let mapped = self.mapped.finish(&mut self.shared, &mut self.files, &mut self.findings)?;
        let (shared_memory, objects) = self.shared.finish();
        let files = self.files.finish().map_err(CollectError::at(root.leader(), "reading shared memory"));
        let (files, contents) = files?;
        let (socket_options, sockets, connections) = self.descriptors.sockets.finish();
        let mut collected = Collected {
            snapshot: Snapshot {
                inventory,
                processes: self.processes,
                zombies,
                mms: self.mms,
                shared_memory,
                files,
                descriptions: self.descriptors.descriptions,
                fd_tables: self.descriptors.tables,
                fs_contexts: self.fs_contexts,
                signal_handlers: self.signal_handlers,
                pipes,
                terminals,
                socket_options,
                sockets,
                ipc,
                bpf_types: maps.types,
                bpf_maps: maps.maps,
                seccomp_filters: self.seccomp.into_filters(),
            },
            runs: Vec::new(),
            forked_runs: Vec::new(),
            twins: self.twins,
            sources: HashMap::new(),
            memories: self.memories,
            zero: 0,
            clean_file: 0,
            resident: self.resident,
            connections,
            exchanges: Vec::new(),
            askings: Vec::new(),
            lock,
        };
        collected.add_pages(&self.pages);
        collected.add_objects(objects, root)?;
        collected.add_files(contents, root)?;
        collected.add_maps(maps.sources);
        for (owner, source) in mapped {
            collected.add_ranges(owner, source.ranges());
            collected.sources.insert(owner, PageSource::Mapped(source));
        }
        Ok((collected, self.findings))
    }
}
