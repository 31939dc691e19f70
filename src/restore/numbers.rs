//! Which descriptor number each thing has that a skeleton inherits. Pure.

use super::host::HostFacts;
use super::layout::Numbers;
use super::opening::{Opening, Source};
use super::{Choices, late, lookup, memory, process};
use crate::image::model::Snapshot;
use crate::image::model::event::Pidfd;
use crate::image::model::file::{Link, OpenObject};
use crate::image::model::id::{BpfMapId, DescriptionId, Fd, FileId, ShmId, SocketId};
use crate::image::model::memory::{Backing, Mm, Prot, SharedMemoryKind, Vma};
use std::collections::HashMap;

/// How a directory is opened from which paths begin.
const DIRECTORY: u32 = libc::O_DIRECTORY as u32 | libc::O_PATH as u32;

/// Descriptor numbers of everything that the skeletons inherit.
pub struct Numbered {
    /// What is opened, in order.
    pub openings: Vec<Opening>,
    /// Where descriptions and directories are.
    pub descriptors: process::Descriptors,
    /// Where mapped files are.
    pub sources: memory::Sources,
    /// What the user should know.
    pub notices: Vec<String>,
    /// First number that is not given out.
    pub top: i32,
}

/// Numbers descriptions, mapped files, directories and the report pipe.
///
/// A description keeps its number where it is free and nobody has another under it: all others lie above every number that is
/// wanted, so that each table can be put in order one by one.
#[must_use]
pub fn number(snapshot: &Snapshot, facts: &HostFacts, choices: &Choices<'_>) -> Numbered {
    let wanted = wanted(snapshot);
    let watched = snapshot.descriptions.iter().filter_map(|description| match &description.object {
        OpenObject::Epoll(epoll) => Some(epoll.items.iter().map(|item| item.fd.0)),
        _ => None,
    });
    let mut numbers = Numbers::new(&facts.descriptors, wanted.keys().map(|fd| fd.0).chain(watched.flatten()));
    let mut numbered = Numbered {
        openings: Vec::new(),
        descriptors: process::Descriptors {
            descriptions: vec![None; snapshot.descriptions.len()],
            late: late::holders(snapshot),
            ..process::Descriptors::default()
        },
        sources: memory::Sources::default(),
        notices: Vec::new(),
        top: 0,
    };
    number_descriptions(snapshot, &wanted, (facts, choices), &mut numbers, &mut numbered);
    snapshot.mms.iter().for_each(|mm| number_mappings(snapshot, mm, &mut numbers, &mut numbered));
    for fs in &snapshot.fs_contexts {
        if lookup::task_path(snapshot, fs.cwd).is_none() {
            numbered.open_directory(snapshot, fs.cwd, DIRECTORY, &mut numbers);
        }
        if snapshot.files[fs.root.0 as usize].path != b"/" {
            numbered.open_directory(snapshot, fs.root, DIRECTORY, &mut numbers);
        }
    }
    number_programs(snapshot, facts, &mut numbers, &mut numbered);
    let slave = (libc::O_RDWR | libc::O_NOCTTY) as u32;
    for id in snapshot.processes.iter().filter_map(|process| lookup::own_terminal(snapshot, process)) {
        let number = numbered.open(Source::Slave(id), slave, &mut numbers);
        numbered.descriptors.terminals.insert(id, number);
    }
    number_late(snapshot, &mut numbers, &mut numbered);
    numbered.descriptors.report = numbers.fresh();
    numbered.top = numbers.top();
    numbered
}

/// Each number under which there is a description in some table: that one, if it is the same in all of them.
fn wanted(snapshot: &Snapshot) -> HashMap<Fd, Option<DescriptionId>> {
    let mut wanted = HashMap::new();
    for entry in snapshot.fd_tables.iter().flat_map(|table| &table.entries) {
        let only = wanted.entry(entry.fd).or_insert(Some(entry.description));
        *only = only.filter(|description| *description == entry.description);
    }
    wanted
}

/// Open file descriptions, but for those that only the tasks themselves can open.
fn number_descriptions(
    snapshot: &Snapshot,
    wanted: &HashMap<Fd, Option<DescriptionId>>,
    (facts, choices): (&HostFacts, &Choices<'_>),
    numbers: &mut Numbers,
    numbered: &mut Numbered,
) {
    let entries = snapshot.fd_tables.iter().flat_map(|table| &table.entries);
    let on_their_way = lookup::on_their_way(snapshot).map(|id| (id, None));
    for (id, fd) in entries.map(|entry| (entry.description, Some(entry.fd))).chain(on_their_way) {
        let index = id.0 as usize;
        if numbered.descriptors.descriptions[index].is_some() || numbered.descriptors.late.contains_key(&id) {
            continue;
        }
        let description = &snapshot.descriptions[index];
        let source = description_source(snapshot, &description.object, facts, choices, &mut numbered.notices);
        let number = match fd.filter(|fd| wanted[fd].is_some()) {
            Some(fd) => numbers.claim(fd.0),
            None => numbers.fresh(),
        };
        numbered.descriptors.descriptions[index] = Some(number);
        let opening = Opening { number, source, flags: description.flags, description: Some(description.id) };
        numbered.openings.push(opening);
    }
}

/// Programs of which nothing is mapped, and one to stand in where rings of AIO are made.
fn number_programs(snapshot: &Snapshot, facts: &HostFacts, numbers: &mut Numbers, numbered: &mut Numbered) {
    for mm in &snapshot.mms {
        // The kernel refuses (EBUSY) to set a program of which anything is mapped, even to what it is.
        if !numbered.sources.programs.contains_key(&mm.exe) && !facts.is_own_program(&snapshot.files[mm.exe.0 as usize])
        {
            let program = numbered.open(file_source(snapshot, mm.exe), libc::O_RDONLY as u32, numbers);
            numbered.sources.programs.insert(mm.exe, program);
        }
    }
    if let Some(mm) = snapshot.mms.iter().find(|mm| mm.vmas.iter().any(is_ring)) {
        numbered.sources.ready = numbered.open(file_source(snapshot, mm.exe), libc::O_RDONLY as u32, numbers);
    }
}

/// What is needed where tasks open something themselves: sockets by which they hand it over, and directories to begin at.
fn number_late(snapshot: &Snapshot, numbers: &mut Numbers, numbered: &mut Numbered) {
    let shared = numbered.descriptors.late.iter().filter(|(_, tables)| tables.len() > 1);
    for id in shared.map(|(id, _)| *id).collect::<Vec<_>>() {
        let ends = [false, true].map(|taking| numbered.open(Source::HandOver(id, taking), 0, numbers));
        numbered.descriptors.handovers.insert(id, ends);
    }
    let held = numbered.descriptors.late.iter().filter(|(_, tables)| !tables.is_empty());
    let held: Vec<&OpenObject> = held.map(|(id, _)| &snapshot.descriptions[id.0 as usize].object).collect();
    if held.iter().any(|object| matches!(object, OpenObject::OwnTerminal(_))) {
        numbered.descriptors.root = Some(numbered.open(Source::Path(b"/".to_vec()), DIRECTORY, numbers));
    }
    let mut contexts = snapshot.fs_contexts.iter();
    if held.iter().any(|object| matches!(late::late(snapshot, object), Some(late::Late::File(_))))
        || contexts.any(|context| lookup::task_path(snapshot, context.cwd).is_some())
    {
        numbered.descriptors.proc = Some(numbered.open(Source::Path(b"/proc".to_vec()), DIRECTORY, numbers));
    }
}

const fn is_ring(vma: &Vma) -> bool {
    matches!(vma.backing, Backing::AioRing(_))
}

/// Files and memfds that are mapped, each once for reading and once for writing.
fn number_mappings(snapshot: &Snapshot, mm: &Mm, numbers: &mut Numbers, numbered: &mut Numbered) {
    for vma in &mm.vmas {
        match &vma.backing {
            Backing::PrivateFile { file, offset: _ } => numbered.map_file(snapshot, *file, false, numbers),
            Backing::SharedFile { file, offset: _, may_write } => {
                numbered.map_file(snapshot, *file, *may_write || vma.prot.contains(Prot::WRITE), numbers);
            }
            Backing::Shared { shm, offset: _, may_write } => numbered.map_memfd(snapshot, *shm, *may_write, numbers),
            Backing::PrivateShared { shm, offset: _ } => numbered.map_memfd(snapshot, *shm, true, numbers),
            Backing::PacketRing { ino } => numbered.map_ring(snapshot, *ino, numbers),
            Backing::BpfMap { map, offset: _, may_write: _ } => numbered.map_bpf(*map, numbers),
            Backing::Anonymous
            | Backing::HugeTlb { .. }
            | Backing::AioRing(_)
            | Backing::Vdso
            | Backing::Vvar
            | Backing::Vsyscall => {}
        }
    }
}

impl Numbered {
    fn open(&mut self, source: Source, flags: u32, numbers: &mut Numbers) -> i32 {
        let number = numbers.fresh();
        self.openings.push(Opening { number, source, flags, description: None });
        number
    }

    fn open_directory(&mut self, snapshot: &Snapshot, file: FileId, flags: u32, numbers: &mut Numbers) {
        if !self.descriptors.directories.contains_key(&file) {
            let number = self.open(file_source(snapshot, file), flags, numbers);
            self.descriptors.directories.insert(file, number);
        }
    }

    fn map_memfd(&mut self, snapshot: &Snapshot, shm: ShmId, write: bool, numbers: &mut Numbers) {
        let is_memfd = match &snapshot.shared_memory[shm.0 as usize].kind {
            SharedMemoryKind::Memfd { .. } | SharedMemoryKind::AnonymousHuge { .. } => true,
            SharedMemoryKind::Anonymous | SharedMemoryKind::SystemV(_) => false,
        };
        if is_memfd && !self.sources.memfds.contains_key(&(shm, write)) {
            let flags = if write { libc::O_RDWR } else { libc::O_RDONLY };
            let number = self.open(Source::Memfd(shm), flags as u32, numbers);
            self.sources.memfds.insert((shm, write), number);
        }
    }

    /// A socket is opened but once: a mapping of its ring is made by a second descriptor of the same description.
    fn map_ring(&mut self, snapshot: &Snapshot, ino: u64, numbers: &mut Numbers) {
        let is_it = |id: &SocketId| snapshot.sockets.get(id.0 as usize).is_some_and(|socket| socket.ino == ino);
        let of_socket = |opening: &&Opening| matches!(&opening.source, Source::Socket(id) if is_it(id));
        let Some(socket) = self.openings.iter().find(of_socket).map(|opening| opening.number) else { return };
        if !self.sources.rings.contains_key(&ino) {
            let number = self.open(Source::Another(socket), 0, numbers);
            self.sources.rings.insert(ino, number);
        }
    }

    /// The kernel maps no memory of a map for a descriptor that cannot write, for it takes such a mapping for a private one (mm/mmap.c, `do_mmap`).
    fn map_bpf(&mut self, map: BpfMapId, numbers: &mut Numbers) {
        if !self.sources.bpf_maps.contains_key(&map) {
            let number = self.open(Source::BpfMap(map), libc::O_RDWR as u32, numbers);
            self.sources.bpf_maps.insert(map, number);
        }
    }

    fn map_file(&mut self, snapshot: &Snapshot, file: FileId, write: bool, numbers: &mut Numbers) {
        if !self.sources.files.contains_key(&(file, write)) {
            let flags = if write { libc::O_RDWR } else { libc::O_RDONLY };
            let number = self.open(file_source(snapshot, file), flags as u32, numbers);
            self.sources.files.insert((file, write), number);
        }
    }
}

fn file_source(snapshot: &Snapshot, id: FileId) -> Source {
    let file = &snapshot.files[id.0 as usize];
    if file.link == Link::Unlinked && file.path.starts_with(b"/proc/") {
        return Source::OfDead(id);
    }
    match lookup::name(file) {
        Some(path) => Source::Path(path.to_vec()),
        None => Source::Unlinked(id),
    }
}

fn description_source(
    snapshot: &Snapshot,
    object: &OpenObject,
    facts: &HostFacts,
    choices: &Choices<'_>,
    notices: &mut Vec<String>,
) -> Source {
    match object {
        OpenObject::Regular(file)
        | OpenObject::Directory(file)
        | OpenObject::PathOnly(file)
        | OpenObject::MemoryDevice(file)
        | OpenObject::Pseudo(file)
        | OpenObject::ControllingTerminal(file) => file_source(snapshot, *file),
        OpenObject::HungUpTerminal(_) => Source::HungUp,
        OpenObject::OutsideTerminal(file) => {
            let old = &snapshot.files[file.0 as usize].path;
            let new = facts.terminal.clone().unwrap_or_else(|| b"/dev/tty".to_vec());
            let [now, before] = [&new, old].map(|path| String::from_utf8_lossy(path));
            let notice = format!("{now} stands in for the terminal {before}");
            if new != *old && !notices.contains(&notice) {
                notices.push(notice);
            }
            Source::Path(new)
        }
        OpenObject::Pipe { pipe, write, quiet: _ } => Source::Pipe(*pipe, *write),
        OpenObject::Memfd(shm) => Source::Memfd(*shm),
        OpenObject::Eventfd { counter, semaphore } => Source::Eventfd { counter: *counter, semaphore: *semaphore },
        OpenObject::Epoll(epoll) => Source::Epoll(epoll.busy_poll),
        OpenObject::Timerfd(timer) => Source::Timerfd(timer.clock),
        OpenObject::Pidfd(Pidfd::Task(_)) => Source::Late,
        OpenObject::Inotify(_) => Source::Inotify,
        OpenObject::Fanotify(_) => Source::Fanotify,
        OpenObject::Tun(tun) => Source::Tun(tun.clone()),
        OpenObject::Pidfd(Pidfd::Gone(status)) => Source::GoneTask(status.unwrap_or(0)),
        OpenObject::External(id) => Source::Inherited(lookup::inherited(choices, id).unwrap_or(-1)),
        OpenObject::Signalfd(mask) => Source::Signalfd(*mask),
        OpenObject::Namespace(kind) => Source::Path(format!("/proc/self/ns/{kind}").into_bytes()),
        OpenObject::TerminalMaster(id) => Source::Master(*id),
        OpenObject::TerminalSlave(id) | OpenObject::OwnTerminal(id) => Source::Slave(*id),
        OpenObject::Socket(id) => Source::Socket(*id),
        OpenObject::Queue(id) => Source::Queue(*id),
        OpenObject::BpfMap(id) => Source::BpfMap(*id),
        OpenObject::BpfTypes(id) => Source::BpfTypes(*id),
    }
}
