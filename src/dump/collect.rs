//! Asks every kind of resource for its part of the frozen tree and puts the parts together.

use super::After;
use super::ahead::{Ahead, Member};
use super::content::TargetMemory;
use super::own::Own;
use super::process::View;
use super::shared::Known;
use super::warnings;
use crate::fault::{self, Point};
use crate::image::model::Snapshot;
use crate::image::model::address::PageRange;
use crate::image::model::bpf::BpfMap;
use crate::image::model::id::{MmId, Pid, ShmId, Tid};
use crate::image::model::ipc::Ipc;
use crate::image::model::memory::{Backing, ContentOwner, Mm};
use crate::image::model::pipe::Pipe;
use crate::image::model::process::{FsContext, Process, ProcessState, Zombie};
use crate::image::model::signal::SignalHandlers;
use crate::image::{PageRun, ZeroPolicy};
use crate::proc;
use crate::proc::TaskDir;
use crate::proc::sysvipc::{self, SemaphoreSet};
use crate::resources::aio::{self, Rings};
use crate::resources::border;
use crate::resources::copy_on_write::Above;
use crate::resources::descriptor::{Descriptors, Pipes, Tables};
use crate::resources::file::FileTable;
use crate::resources::keyring::Descriptions;
use crate::resources::mapped_only::{MappedOnly, PageSource};
use crate::resources::mqueue::exchange::Exchange;
use crate::resources::mqueue::plan;
use crate::resources::namespace::Namespaces;
use crate::resources::pages::{self, PageSet};
use crate::resources::seccomp::SeccompTable;
use crate::resources::shared_memory::{Content, SharedMemoryTable};
use crate::resources::sharing::Sharing;
use crate::resources::socket::Leaks;
use crate::resources::socket::tcp::lock::Lock;
use crate::resources::socket::tcp::tree::{Manner, Policy, Step};
use crate::resources::syscall_restart::Samples;
use crate::resources::sysv::undo::Adjustment;
use crate::resources::sysv::{self, Uses};
use crate::resources::{CollectError, Findings, robust, scheduling, settings, zombie};
use crate::tracer::{self, FrozenTree, Twin};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::time::Instant;

/// What the frozen tree is, and where its pages are read.
pub struct Collected {
    /// The model.
    pub snapshot: Snapshot,
    /// Pages that must be read while the target stands still.
    pub runs: Vec<PageRun>,
    /// Pages that a twin keeps as they are, if there is one.
    pub forked_runs: Vec<PageRun>,
    /// Copies of address spaces, by the ids of those.
    pub twins: Vec<Option<Twin>>,
    /// Where the pages of shared objects and unlinked files are read.
    pub sources: HashMap<ContentOwner, PageSource>,
    /// Memory of the address spaces, by their ids.
    pub memories: Vec<Option<TargetMemory>>,
    /// Bytes of zero pages left out.
    pub zero: u64,
    /// Bytes of clean file pages left out.
    pub clean_file: u64,
    /// Resident bytes.
    pub resident: u64,
    /// TCP connections of the tree.
    pub connections: Vec<File>,
    /// Message queues that have to be looked into.
    pub exchanges: Vec<Exchange>,
    /// What drops packets of those that lead outside, if the tree is to be killed.
    pub lock: Option<Lock>,
}

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
    let mut builder = Builder { wants_twins: after == After::LeaveRunning, ..Builder::default() };
    builder.descriptors.drop_events = border.drop_events;
    builder.descriptors.plain_eventfds = border.plain_eventfds;
    builder.descriptors.externals = border.externals.iter().cloned().collect();
    tree.read_statuses();
    builder.semaphores = sysvipc::semaphores(&mut builder.buffer)?;
    let living: Vec<Pid> = tree.processes().iter().map(tracer::Process::pid).collect();
    let ended = tree.zombies().iter().map(tracer::Process::pid);
    let zombies = zombie::collect(ended, &mut builder.findings)?;
    let inside: Vec<Pid> = living.iter().copied().chain(zombies.iter().map(|zombie| zombie.pid)).collect();
    let all = living.iter().flat_map(|pid| tree.threads_of(*pid)).map(|thread| thread.tid());
    builder.descriptors.inside = all.chain(inside.iter().map(|pid| pid.leader())).collect();
    let tids = |pid: &Pid| tree.threads_of(*pid).iter().map(|thread| thread.tid()).collect();
    let threads: Vec<Vec<Tid>> = living.iter().map(tids).collect();
    let sharing = Sharing::among(&threads)?;
    let exposed = sharing.refuse_outside(&inside, &mut builder.findings);
    builder.rings = aio::settle(tree, &sharing, &exposed, &mut builder.findings)?;
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
    let view = View {
        samples,
        frozen_at,
        exposed,
        sharing,
        ahead,
        children,
        namespaces: Namespaces::own(),
        own_speculation: settings::own_speculation(),
        has_core_cookies: scheduling::has_core_cookies(),
        has_labels: own_label.is_ok_and(|own| !own.is_empty()),
    };
    for (at, &pid) in living.iter().enumerate() {
        builder.process(tree, at, pid, &view)?;
    }
    builder.look_into_sockets()?;
    builder.refuse_parts_of_rings();
    builder.find_mapped_maps();
    builder.descriptors.bpf_maps.add_inner(&mut builder.findings);
    builder.descriptors.find_watched(&mut builder.findings);
    let arguments = builder.processes.iter().flat_map(|process| &process.argv);
    let arguments: Vec<OsString> = arguments.map(|argument| OsString::from_vec(argument.clone())).collect();
    builder.descriptors.find_marked(&mut builder.files, arguments.into_iter(), &mut builder.findings);
    let left_out = if own.is_in(&living) { own.pipes() } else { HashSet::new() };
    own.refuse_deadlock(&builder.pipes, &mut builder.findings);
    let terminals = &builder.descriptors.terminals;
    let mut uses = builder.ipc_uses(inside.iter().copied(), border.leaks);
    builder.shared.add_detached(&uses, &mut builder.findings)?;
    uses.undo = std::mem::take(&mut builder.undo);
    let mut ipc = sysv::collect(&uses, &mut builder.findings)?;
    sysv::give_undo(&uses, &ipc, &mut builder.processes);
    let ties = builder.pipes.ties().chain(builder.shared.ties()).chain(terminals.ties());
    let ties = ties.chain(builder.descriptors.queues.ties()).chain(builder.descriptors.bpf_maps.ties());
    let ties = ties.chain(builder.descriptors.sockets.ties()).collect();
    let copies = builder.twins.iter().flatten().map(Twin::pid);
    let outsiders = border::outsiders(inside.iter().copied().chain(copies), &ties);
    builder.shared.refuse_outside(&outsiders, &mut builder.findings);
    if builder.findings.blockers.is_empty() {
        builder.shared.refuse_unseen(&attached(&builder.mms), &mut builder.findings);
    }
    builder.descriptors.queues.refuse_outside(&outsiders, &builder.descriptors.inside, &mut builder.findings);
    builder.descriptors.terminals.refuse_outside(&outsiders, &mut builder.findings);
    let leaks = if border.leaks { Leaks::Allow } else { Leaks::Refuse };
    builder.descriptors.sockets.link(&outsiders, leaks, &mut builder.findings)?;
    let manner = Manner { policy: border.tcp, ends: after == After::Kill, frozen: true, passed };
    let lock = builder.descriptors.sockets.connections(&outsiders, manner, &mut builder.findings)?;
    let pipes = std::mem::take(&mut builder.pipes);
    let descriptions = &mut builder.descriptors.descriptions;
    let pipes =
        pipes.finish(descriptions, &outsiders, &left_out, border.leaks, Some(&inside), &mut builder.findings)?;
    let mut zombies = zombies;
    builder.findings.warnings.extend(warnings::shared_locks(&builder.descriptors, &inside));
    builder.findings.warnings.extend(warnings::unknown_timeouts(&builder.processes));
    own.leave_out(&mut builder.processes, &builder.signal_handlers, &mut zombies, &mut builder.findings)?;
    let charged: Vec<_> = builder.descriptors.sockets.charged().collect();
    let maps = std::mem::take(&mut builder.descriptors.bpf_maps);
    let maps = maps.finish((&outsiders, &inside), border.leaks, &mut builder.findings);
    let queues;
    (ipc.posix_queues, queues) = std::mem::take(&mut builder.descriptors.queues).finish();
    let (mut collected, mut findings) = builder.finish(root, zombies, pipes, (ipc, maps), lock)?;
    collected.exchanges = plan::plan((&collected.snapshot, tree), &queues, &charged, &mut findings);
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
        (ipc, bpf_maps): (Ipc, Vec<BpfMap>),
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
                bpf_maps,
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
            lock,
        };
        for (index, set) in self.pages.into_iter().enumerate() {
            let twin = collected.twins[index].is_some();
            collected.add_pages(ContentOwner::Mm(MmId(index as u32)), &set, twin);
        }
        for (index, content) in objects.into_iter().enumerate() {
            let owner = ContentOwner::SharedMemory(ShmId(index as u32));
            let size = collected.snapshot.shared_memory[index].size;
            match content {
                None => {}
                Some(Content::File(file)) => collected.add_source(owner, file, size, root)?,
                Some(Content::Attached(attachment, ranges)) => {
                    collected.add_ranges(owner, &ranges);
                    collected.sources.insert(owner, PageSource::Attached(attachment));
                }
            }
        }
        for (id, file) in contents {
            let size = collected.snapshot.files[id.0 as usize].size;
            collected.add_source(ContentOwner::File(id), file, size, root)?;
        }
        for (owner, source) in mapped {
            collected.add_ranges(owner, source.ranges());
            collected.sources.insert(owner, PageSource::Mapped(source));
        }
        Ok((collected, self.findings))
    }
}

impl Collected {
    fn add_pages(&mut self, owner: ContentOwner, set: &PageSet, twin: bool) {
        self.zero += set.zero;
        self.clean_file += set.clean_file;
        for span in &set.spans {
            let zero = if span.keep_zero { ZeroPolicy::Keep } else { ZeroPolicy::Drop };
            let runs = if twin && span.forked { &mut self.forked_runs } else { &mut self.runs };
            runs.push(PageRun { owner, range: span.range, zero });
        }
    }

    fn add_source(&mut self, owner: ContentOwner, file: File, size: u64, root: Pid) -> Result<(), CollectError> {
        let ranges = pages::data_ranges(&file, size).map_err(CollectError::at(root.leader(), "lseek SEEK_DATA"))?;
        self.add_ranges(owner, &ranges);
        self.sources.insert(owner, PageSource::File(file));
        Ok(())
    }

    fn add_ranges(&mut self, owner: ContentOwner, ranges: &[PageRange]) {
        self.runs.extend(ranges.iter().map(|&range| PageRun { owner, range, zero: ZeroPolicy::Drop }));
    }
}
