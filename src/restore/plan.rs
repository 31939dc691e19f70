//! The plan of a restore: what is opened, what the skeleton does, and why it cannot be done. Pure: it makes no system call.

use super::assemble::{Builder, World};
use super::check::Findings;
use super::core_scheduling::Cookies;
use super::genealogy::{Being, Genealogy};
use super::host::HostFacts;
use super::layout::find_hole;
use super::lookup::is_pending;
use super::numbers::number;
use super::opening::{Opening, Source};
use super::resume::{self, TimedCall};
use super::script::{Image, List, page_up};
use super::vdso::{self, Vdso};
use super::{Choices, attached, check, inheritance, sysv};
use crate::blocker::Blocker;
use crate::image::model::Snapshot;
use crate::image::model::address::{Addr, PAGE_SIZE, PageRange};
use crate::image::model::file::HeldFutex;
use crate::image::model::id::{FileId, MmId, Pid, QueueId, ShmId};
use crate::image::model::memory::{Mm, SharedMemoryKind};
use crate::image::model::process::{Process, ProcessState};
use crate::sys::sysv::Kind;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;

/// Room for the parts of the vdso while they are moved.
const SCRATCH: u64 = 1 << 20;
/// Room for everything that the script holds.
const SCRIPT_ROOM: u64 = 1 << 30;
/// What a skeleton writes to the report pipe when it is born.
pub const BORN: u8 = b'B';
/// What it writes when its mappings stand.
pub const MAPPED: u8 = b'M';

/// A message on the report pipe: what, and which being. So short, it is written as one piece.
#[must_use]
pub fn message(what: u8, being: usize) -> [u8; 8] {
    let mut message = [0; 8];
    message[0] = what;
    message[4..].copy_from_slice(&(being as u32).to_le_bytes());
    message
}

/// Everything that a restore does, in order, before anything is done.
#[derive(Clone, Debug)]
pub struct RestorePlan {
    /// The root.
    pub pid: Pid,
    /// What is opened before the skeletons are born.
    pub openings: Vec<Opening>,
    /// First descriptor number that `snap` may use for itself meanwhile.
    pub top: i32,
    /// Anonymous shared memory to map.
    pub arenas: Vec<(ShmId, PageRange)>,
    /// System V segments to attach, by whether they may be written there.
    pub attachments: Vec<(ShmId, PageRange, bool)>,
    /// System V objects that are removed first, since those of the image take their places.
    pub replaced: Vec<(Kind, i32)>,
    /// Shared memory with a name that is made again.
    pub made: Vec<FileId>,
    /// POSIX message queues that are made again.
    pub queues: Vec<QueueId>,
    /// Who gets which cookie of core scheduling.
    pub cookies: Cookies,
    /// Robust futexes that were marked when their holders died, and that these hold again.
    pub marked: Vec<(PathBuf, HeldFutex)>,
    /// From the first arena to the end of the script: what the host unmaps at the end.
    pub ours: PageRange,
    /// The script.
    pub script: Image,
    /// Places in it.
    pub places: Places,
    /// Who makes whom.
    pub genealogy: Genealogy,
    /// The processes, in the order of the image.
    pub processes: Vec<ProcessPlan>,
    /// The lists of operations, one for each task, that of the parent that dies last.
    pub lists: Vec<List>,
    /// Files to cut back to their size at the dump, before the processes run.
    pub cut_back: Vec<(PathBuf, u64)>,
    /// What the user should know.
    pub notices: Vec<String>,
}

/// What is planned for one process.
#[derive(Clone, Debug)]
pub struct ProcessPlan {
    /// Its id.
    pub pid: Pid,
    /// How many tasks it has: threads, and a main thread that ends.
    pub tasks: usize,
    /// Set when it is traced: to 1, or to 2 once the root may start.
    pub go: Addr,
    /// The place of its main thread's task and list; those of its other threads follow.
    pub first_task: usize,
    /// For each thread, the call that gives it its restart block.
    pub timed: Vec<Option<TimedCall>>,
    /// For each thread, the arguments of the seccomp(2) calls that give it its filters.
    pub filters: Vec<Vec<[u64; 6]>>,
    /// The vdso of the dump with jumps to that of this host, and where it goes, where they are not the same.
    pub old_vdso: Option<(Addr, Vec<u8>)>,
    /// Arguments of the rt_sigtimedwait(2) by which it forgets that a child of it has stopped, which it knew; `None` where
    /// SIGCHLD is pending anyway.
    pub forget: Option<[u64; 6]>,
    /// Whether a child of it is in group stop, or was until now.
    pub has_stopped_child: bool,
    /// Arguments of the waitid(2) by which it knows of the stop of each child; whether it had known of it at the dump, or is not to know that there
    /// is one now.
    pub stops_of_children: Vec<([u64; 6], bool)>,
    /// Arguments of the rt_sigtimedwait(2) that takes SIGCONT; `None` where that is pending anyway.
    pub forget_continued: Option<[u64; 6]>,
    /// Whether its memory is that of its maker (CLONE_VM).
    pub shares_memory: bool,
    /// Memory that it shares with its parent and yet cannot inherit: whose, and which pages.
    pub copied: Vec<(MmId, Vec<PageRange>)>,
}

/// Addresses in the script.
#[derive(Clone, Debug)]
pub struct Places {
    /// Entry of the interpreter.
    pub code: Addr,
    /// The tasks.
    pub tasks: Vec<Addr>,
    /// The stack of the root's main thread: lowest address and length.
    pub stack: (Addr, u64),
    /// The task of the parent that dies, and its stack, when the root is to be an orphan.
    pub parent: Option<(Addr, (Addr, u64))>,
    /// For each wave, set to 1 when the pages of its processes are there.
    pub filled: Vec<Addr>,
    /// Address, length and signature of the `struct rseq` that the root's skeleton has inherited.
    pub rseq: Addr,
    /// Number of the report pipe's writing end in the skeletons.
    pub report: i32,
}

/// Plans a restore.
///
/// # Errors
/// Everything that stands in its way, at once.
pub fn plan(snapshot: &Snapshot, facts: &HostFacts, choices: &Choices<'_>) -> Result<RestorePlan, Vec<Blocker>> {
    let mut findings = check::check(snapshot, facts, choices);
    if !findings.blockers.is_empty() {
        return Err(findings.blockers);
    }
    let numbers = number(snapshot, facts, choices);
    let mms = address_spaces(snapshot, &findings);
    let Some(Placed { arenas, attachments, bench, scratch, base, hole }) =
        place(snapshot, &mms, facts, &findings.vdsos)
    else {
        return Err(vec![check::blocker(snapshot.inventory.root, "address space", "no hole is free in all", "")]);
    };
    let mut sources = numbers.sources;
    sources.arenas = arenas.iter().map(|(id, range)| ((*id, true), range.start)).collect();
    sources.arenas.extend(attachments.iter().map(|(id, range, may_write)| ((*id, *may_write), range.start)));
    (sources.bench, sources.scratch, sources.keep) = (bench, scratch, hole);
    (sources.huge_always, sources.xcomp_permitted) = (facts.huge_always, facts.xcomp_permitted);

    let world =
        World { snapshot, mms: &mms, facts, findings: &findings, sources: &sources, descriptors: &numbers.descriptors };
    let mut builder = Builder::new(world, base, choices);
    let lists = builder.lists();
    let processes = processes(snapshot, &findings, &mut builder);
    let places = builder.places();
    let script = builder.script.finish(&lists);
    let mut notices = std::mem::take(&mut findings.notices);
    notices.extend(numbers.notices);
    Ok(RestorePlan {
        pid: snapshot.inventory.root,
        openings: numbers.openings,
        top: numbers.top,
        ours: PageRange { start: hole.start, end: script.range.end },
        arenas,
        attachments,
        replaced: findings.replaced,
        made: findings.made,
        marked: findings.marked,
        cookies: findings.cookies,
        queues: findings.queues,
        script,
        places,
        genealogy: findings.genealogy,
        processes,
        lists,
        cut_back: findings.cut_back,
        notices,
    })
}

/// The address spaces as they are made here.
fn address_spaces<'a>(snapshot: &'a Snapshot, findings: &Findings) -> Vec<Cow<'a, Mm>> {
    let mut mms: Vec<Cow<'a, Mm>> = snapshot.mms.iter().map(Cow::Borrowed).collect();
    for (process, vdso) in snapshot.processes.iter().zip(&findings.vdsos) {
        let index = process.mm.0 as usize;
        if vdso.old.is_some() {
            mms[index] = Cow::Owned(vdso::as_memory(&snapshot.mms[index]));
        }
    }
    mms
}

fn processes(snapshot: &Snapshot, findings: &Findings, builder: &mut Builder<'_>) -> Vec<ProcessPlan> {
    let filters = builder.filters();
    let is_stopped = |process: &&Process| process.state != ProcessState::Running;
    let stopped: HashSet<Pid> = snapshot.processes.iter().filter(is_stopped).map(|process| process.ppid).collect();
    let mut stops = stops_of_children(snapshot);
    let planned = snapshot.processes.iter().zip(filters).enumerate().map(|(index, (process, filters))| {
        let at = findings.genealogy.of_process[index];
        let timed = process
            .threads
            .iter()
            .map(|thread| thread.blocked.as_ref().and_then(|blocked| resume::timed_call(&mut builder.script, blocked)));
        let timed = timed.collect();
        let (go, first_task) = builder.of_being(at);
        let forget = (!is_pending(process, libc::SIGCHLD)).then(|| builder.taking(libc::SIGCHLD));
        let birth = &findings.genealogy.births[at];
        let from = snapshot.mms[process.mm.0 as usize].inherited.as_ref().map(|inherited| inherited.from);
        let inherits = birth.memory_of.is_some_and(|above| Some(snapshot.processes[above].mm) == from);
        ProcessPlan {
            pid: process.pid,
            tasks: process.tasks(),
            go,
            first_task,
            timed,
            filters,
            old_vdso: findings.vdsos[index].old.clone(),
            forget,
            has_stopped_child: stopped.contains(&process.pid),
            stops_of_children: stops.remove(&process.pid).unwrap_or_default(),
            forget_continued: (!is_pending(process, libc::SIGCONT)).then(|| builder.taking(libc::SIGCONT)),
            shares_memory: findings.genealogy.births[at].shares.memory,
            copied: if inherits || birth.shares.memory {
                Vec::new()
            } else {
                inheritance::sources(snapshot, process.mm)
            },
        }
    });
    planned.collect()
}

/// For each parent the calls by which it waits for the stops of its children; whether it knows of these anyway. One that was not stopped at the dump
/// is only stopped by a restore that leaves all of them so, which is nothing to its parent.
fn stops_of_children(snapshot: &Snapshot) -> HashMap<Pid, Vec<([u64; 6], bool)>> {
    const P_PID: u64 = 1;
    const WALL: u64 = 0x4000_0000;
    let mut stops: HashMap<Pid, Vec<([u64; 6], bool)>> = HashMap::new();
    for process in &snapshot.processes {
        let is_known = match process.state {
            ProcessState::Stopped { signal: _, waited: false } => continue,
            ProcessState::Stopped { signal: _, waited: true } => true,
            ProcessState::Running | ProcessState::Continued => false,
        };
        let args = [P_PID, process.pid.0 as u64, 0, (libc::WSTOPPED | libc::WNOHANG) as u64 | WALL, 0, 0];
        stops.entry(process.ppid).or_default().push((args, is_known));
    }
    stops
}

/// Places of arenas, attachments, the scratch range and the script in one hole.
struct Placed {
    arenas: Vec<(ShmId, PageRange)>,
    attachments: Vec<(ShmId, PageRange, bool)>,
    bench: Addr,
    scratch: Addr,
    base: Addr,
    hole: PageRange,
}

fn place(snapshot: &Snapshot, mms: &[Cow<'_, Mm>], facts: &HostFacts, vdsos: &[Vdso]) -> Option<Placed> {
    let mut used = facts.used.clone();
    used.extend(vdsos.iter().flat_map(|vdso| &vdso.parts));
    used.extend(mms.iter().flat_map(|mm| &mm.vmas).map(|vma| vma.range));
    let anonymous = snapshot.shared_memory.iter().filter(|shared| matches!(shared.kind, SharedMemoryKind::Anonymous));
    let sizes: Vec<(ShmId, u64)> = anonymous.map(|shared| (shared.id, page_up(shared.size))).collect();
    let mut total = sizes.iter().try_fold(0_u64, |sum, (_, size)| sum.checked_add(*size))?;
    let read_only = sysv::read_only(snapshot);
    for (shm, segment) in sysv::segments(snapshot) {
        let room = snapshot.shared_memory[shm.0 as usize].size.checked_add(segment.huge_page.unwrap_or(0))?;
        total = total.checked_add(room.checked_mul(1 + u64::from(read_only.contains(&shm)))?)?;
    }
    let parts = mms.iter().flat_map(|mm| &mm.vmas).filter_map(|vma| attached::part_of_huge(snapshot, vma));
    let [bench_size, bench_page] = parts.fold([0, PAGE_SIZE], |[all, of], (size, page)| [all.max(size), of.max(page)]);
    total = total.checked_add(bench_size.checked_add(bench_page)?)?;
    let hole = find_hole(&used, total.checked_add(SCRATCH + SCRIPT_ROOM)?)?;
    let mut at = hole.start;
    let mut arenas = Vec::new();
    for (id, size) in sizes {
        arenas.push((id, PageRange { start: at, end: at.add(size) }));
        at = at.add(size);
    }
    let mut attachments = Vec::new();
    for (shm, segment) in sysv::segments(snapshot) {
        let (size, page) = (snapshot.shared_memory[shm.0 as usize].size, segment.huge_page.unwrap_or(PAGE_SIZE));
        let ways = if read_only.contains(&shm) { &[true, false][..] } else { &[true] };
        for may_write in ways {
            let start = Addr(at.0.next_multiple_of(page));
            attachments.push((shm, PageRange { start, end: start.add(size) }, *may_write));
            at = start.add(size);
        }
    }
    let bench = Addr(at.0.next_multiple_of(bench_page));
    at = bench.add(bench_size);
    // What follows is laid out in pages.
    Some(Placed { arenas, attachments, bench, scratch: at, base: at.add(SCRATCH), hole })
}

impl fmt::Display for RestorePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads: usize = self.processes.iter().map(|process| process.timed.len()).sum();
        match self.processes.len() {
            1 => writeln!(f, "restore pid {} with {threads} threads", self.pid)?,
            count => writeln!(f, "restore the tree of pid {}: {count} processes with {threads} threads", self.pid)?,
        }
        for notice in &self.notices {
            writeln!(f, "  note: {notice}")?;
        }
        for (kind, id) in &self.replaced {
            writeln!(f, "  remove {} {id}", kind.name())?;
        }
        for opening in &self.openings {
            match &opening.source {
                Source::Path(path) => writeln!(f, "  open {} as {}", String::from_utf8_lossy(path), opening.number)?,
                Source::Unlinked(file) => writeln!(f, "  make unlinked file {file} as {}", opening.number)?,
                Source::Pipe(pipe, write) => {
                    let end = if *write { "writing" } else { "reading" };
                    writeln!(f, "  make the {end} end of pipe {pipe} as {}", opening.number)?;
                }
                Source::Memfd(shm) => writeln!(f, "  make memfd {shm} as {}", opening.number)?,
                Source::Eventfd { counter, semaphore: _ } => {
                    writeln!(f, "  make an eventfd that counts {counter} as {}", opening.number)?;
                }
                Source::Another(fd) => writeln!(f, "  duplicate descriptor {fd} as {}", opening.number)?,
                Source::Inherited(fd) => writeln!(f, "  take descriptor {fd} of snap as {}", opening.number)?,
                Source::Signalfd(mask) => writeln!(f, "  make a signalfd for {mask:#x} as {}", opening.number)?,
                Source::Master(terminal) => writeln!(f, "  make terminal {terminal} as {}", opening.number)?,
                Source::HungUp => writeln!(f, "  make a terminal that hangs up as {}", opening.number)?,
                Source::Slave(terminal) => writeln!(f, "  open terminal {terminal} as {}", opening.number)?,
                Source::Socket(socket) => writeln!(f, "  make socket {socket} as {}", opening.number)?,
                Source::Queue(queue) => writeln!(f, "  open message queue {queue} as {}", opening.number)?,
                Source::BpfMap(map) => writeln!(f, "  make BPF map {map} as {}", opening.number)?,
                Source::BpfTypes(types) => writeln!(f, "  load BTF {types} as {}", opening.number)?,
                Source::Epoll(_) => writeln!(f, "  make an epoll instance as {}", opening.number)?,
                Source::Timerfd(clock) => writeln!(f, "  make a timerfd on clock {clock} as {}", opening.number)?,
                Source::GoneTask(_) => writeln!(f, "  make a pidfd of a task that is gone as {}", opening.number)?,
                Source::HandOver(id, taking) => {
                    let way = if *taking { "taking" } else { "giving" };
                    writeln!(f, "  make the end for {way} open file {id} as {}", opening.number)?;
                }
                Source::Inotify => writeln!(f, "  make an inotify instance as {}", opening.number)?,
                Source::Fanotify => writeln!(f, "  make a fanotify group as {}", opening.number)?,
                Source::Tun(_) => writeln!(f, "  open /dev/net/tun as {}", opening.number)?,
                Source::Late => {}
                Source::OfDead(file) => {
                    writeln!(f, "  open file {file} of a process that then ends as {}", opening.number)?;
                }
            }
        }
        for (start, _) in self.processes.iter().filter_map(|process| process.old_vdso.as_ref()) {
            writeln!(f, "  let the vdso at {start} call that of this kernel")?;
        }
        write!(f, "{}", self.cookies)?;
        for (path, held) in &self.marked {
            writeln!(f, "  give the lock at {:#x} of {} back to its holder", held.offset, path.display())?;
        }
        for (path, size) in &self.cut_back {
            writeln!(f, "  cut {} back to {size} bytes", path.display())?;
        }
        for (name, list) in self.names().iter().zip(&self.lists) {
            writeln!(f, "  {name}:")?;
            for label in list.labels() {
                writeln!(f, "    {label}")?;
            }
        }
        Ok(())
    }
}

impl RestorePlan {
    /// What each list is of.
    fn names(&self) -> Vec<String> {
        let alone = self.genealogy.births.len() == 1;
        let mut names = Vec::with_capacity(self.lists.len());
        for birth in &self.genealogy.births {
            match birth.being {
                Being::Process(index) => {
                    let threads = 0..self.processes[index].tasks;
                    let process = if alone { String::new() } else { format!("pid {} ", birth.pid) };
                    names.extend(threads.map(|thread| format!("{process}thread {thread}")));
                }
                Being::Zombie(_) => names.push(format!("pid {}, which has ended", birth.pid)),
                Being::StandIn => names.push(format!("a stand-in for pid {}", birth.pid)),
                Being::Midwife => names.push("a midwife".into()),
            }
        }
        names.push("parent".into());
        names
    }
}
