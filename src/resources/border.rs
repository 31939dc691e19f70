//! The border of the tree: who outside holds an end of a pipe, FIFO, socket or terminal, or memory, that the tree has too. A restore would part the two.

use super::bpf;
use crate::image::model::id::{Fd, Pid};
use crate::proc::fd_link::{self, FdLink};
use crate::proc::syscall::{self, Activity};
use crate::proc::{TaskDir, fdinfo, many, maps, processes};
use crate::sys::{kcmp, task};
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// An object by which processes are tied together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tie {
    /// A pipe, by its inode.
    Pipe(u64),
    /// A named FIFO, by device and inode.
    Fifo(u64, u64),
    /// A socket, by its inode.
    Socket(u64),
    /// Shared memory without a path, by device and inode.
    Memory(u64, u64),
    /// A System V segment, by its identifier.
    Segment(i32),
    /// A POSIX message queue, by device and inode.
    Queue(u64, u64),
    /// A map of bpf(2), by its number.
    BpfMap(u32),
    /// The slave of a pseudo-terminal, by the device of its devpts(5) and its number.
    Terminal(u64, u32),
}

/// The number of a pseudo-terminal from the device number of its slave.
#[must_use]
pub fn terminal_index(device: u64) -> Option<u32> {
    /// Major numbers of slaves, of which there are eight.
    const SLAVES: std::ops::RangeInclusive<u32> = 136..=143;
    let (major, minor) = (libc::major(device), libc::minor(device));
    SLAVES.contains(&major).then(|| (major - SLAVES.start()) << 20 | minor)
}

/// The pipe or FIFO behind a descriptor, if it is one.
#[must_use]
pub fn channel(task: &TaskDir, fd: Fd) -> Option<Tie> {
    match fd_link::read(task, fd).ok()? {
        FdLink::Pipe(ino) => Some(Tie::Pipe(ino)),
        FdLink::Path(_) => {
            let meta = task.metadata(&format!("fd/{fd}")).ok()?;
            meta.file_type().is_fifo().then(|| Tie::Fifo(meta.dev(), meta.ino()))
        }
        FdLink::Socket(_)
        | FdLink::AnonInode(_)
        | FdLink::Memfd(_)
        | FdLink::Inode { kind: _, ino: _ }
        | FdLink::Other(_) => None,
    }
}

/// Whether the name of a mapping is that of a System V segment, whose identifier is its inode number (ipc/shm.c, `newseg`).
#[must_use]
pub fn is_segment(name: &[u8]) -> bool {
    let key = name.strip_prefix(b"/SYSV").and_then(|rest| rest.strip_suffix(b" (deleted)"));
    key.is_some_and(|key| key.len() == 8 && key.iter().all(u8::is_ascii_hexdigit))
}

/// Who holds it outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outsider {
    /// The process.
    pub pid: Pid,
    /// Its command name.
    pub comm: String,
    /// Its descriptor or mapping.
    pub holds: String,
}

impl fmt::Display for Outsider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} ({}) {}", self.pid, self.comm, self.holds)
    }
}

/// For each of these objects a process outside that holds it, if there is one that this user may look at. `inside` is the tree, and the copies that were made of it; `snap`
/// itself counts for neither.
#[must_use]
pub fn outsiders(inside: impl IntoIterator<Item = Pid>, wanted: &HashSet<Tie>) -> HashMap<Tie, Outsider> {
    if wanted.is_empty() {
        return HashMap::new();
    }
    let inside: HashSet<Pid> = inside.into_iter().chain([task::own_pid()]).collect();
    let others: Vec<Pid> = processes().into_iter().filter(|pid| !inside.contains(pid)).collect();
    let mut holders = HashMap::new();
    for (tie, outsider) in many::map(&others, |&pid, buffer| held(pid, wanted, buffer)).into_iter().flatten() {
        holders.entry(tie).or_insert(outsider);
    }
    holders
}

/// Who outside waits in open(2) for the other end of a FIFO, whichever it is, or may do so, for this user may not look at it.
#[must_use]
pub fn waits_at_a_fifo(inside: &[Pid]) -> Option<String> {
    let others: Vec<Pid> =
        processes().into_iter().filter(|pid| !inside.contains(pid) && *pid != task::own_pid()).collect();
    many::map(&others, |&pid, buffer| waits(pid, buffer)).into_iter().flatten().next()
}

fn waits(pid: Pid, buffer: &mut Vec<u8>) -> Option<String> {
    // fs/pipe.c: the second where the first is inlined.
    const PLACES: [&[u8]; 2] = [b"wait_for_partner", b"fifo_open"];
    let process = TaskDir::process(pid).ok()?;
    let name = |what: &str| Some(format!("pid {pid} ({}) {what}", comm(&process, &mut Vec::new())));
    for tid in process.threads().ok()? {
        let Ok(thread) = process.task(tid) else { continue };
        match syscall::read(&thread, buffer) {
            Err(error) if error.is_vanished() => {}
            Err(_) => return name("may not be looked at, and may wait for somebody to read from it"),
            Ok(Activity::Running) => {}
            // A thread of io_uring is in no call.
            Ok(Activity::Blocked { .. } | Activity::InSyscall { .. }) => match thread.read_into("wchan", buffer) {
                Ok(place) if PLACES.contains(&place.trim_ascii()) => return name("waits for the other end of a FIFO"),
                Ok(_) => {}
                Err(error) if error.is_vanished() => {}
                Err(_) => return name("does not tell where it waits"),
            },
        }
    }
    None
}

/// What of it a process holds; nothing where it is gone or may not be looked at.
fn held(pid: Pid, wanted: &HashSet<Tie>, buffer: &mut Vec<u8>) -> Vec<(Tie, Outsider)> {
    let Ok(task) = TaskDir::process(pid) else { return Vec::new() };
    let wants_memory = wanted.iter().any(|tie| matches!(tie, Tie::Memory(..)));
    let wants_terminals = wanted.iter().any(|tie| matches!(tie, Tie::Terminal(..)));
    let wants_queues = wanted.iter().any(|tie| matches!(tie, Tie::Queue(..)));
    let wants_maps_of_bpf = wanted.iter().any(|tie| matches!(tie, Tie::BpfMap(_)));
    let wants_fifos = wanted.iter().any(|tie| matches!(tie, Tie::Fifo(..)));
    let mut found: HashMap<Tie, String> = HashMap::new();
    for fd in task.fds().unwrap_or_default() {
        let tie = match fd_link::read(&task, fd) {
            Ok(FdLink::Pipe(ino)) => Tie::Pipe(ino),
            Ok(FdLink::Socket(ino)) => Tie::Socket(ino),
            Ok(FdLink::AnonInode(kind)) if wants_maps_of_bpf && kind == b"bpf-map" => {
                match fdinfo::read(&task, fd, buffer).ok().and_then(|info| bpf::number(&info)) {
                    Some(number) => Tie::BpfMap(number),
                    None => continue,
                }
            }
            Ok(FdLink::Memfd(_)) if wants_memory => match task.metadata(&format!("fd/{fd}")) {
                Ok(meta) => Tie::Memory(meta.dev(), meta.ino()),
                Err(_) => continue,
            },
            Ok(FdLink::Path(path)) if wants_terminals && path.raw.starts_with(b"/dev/pts/") => {
                let Ok(meta) = task.metadata(&format!("fd/{fd}")) else { continue };
                let Some(index) = terminal_index(meta.rdev()) else { continue };
                Tie::Terminal(meta.dev(), index)
            }
            Ok(FdLink::Path(_)) if wants_queues || wants_fifos => match task.metadata(&format!("fd/{fd}")) {
                Ok(meta) if meta.file_type().is_fifo() => Tie::Fifo(meta.dev(), meta.ino()),
                Ok(meta) => Tie::Queue(meta.dev(), meta.ino()),
                Err(_) => continue,
            },
            _ => continue,
        };
        if wanted.contains(&tie) {
            found.entry(tie).or_insert_with(|| format!("fd {fd}"));
        }
    }
    let wants_maps = wants_memory || wanted.iter().any(|tie| matches!(tie, Tie::Segment(_)));
    for mapping in if wants_maps { maps::read(&task, buffer).unwrap_or_default() } else { Vec::new() } {
        let tie = match is_segment(&mapping.name.raw) {
            true => Tie::Segment(mapping.ino as i32),
            false => Tie::Memory(mapping.dev, mapping.ino),
        };
        if wanted.contains(&tie) {
            found.entry(tie).or_insert_with(|| format!("mapping {}", mapping.range));
        }
    }
    if found.is_empty() || is_ours(pid) {
        return Vec::new();
    }
    let comm = comm(&task, buffer);
    found.into_iter().map(|(tie, holds)| (tie, Outsider { pid, comm: comm.clone(), holds })).collect()
}

/// Whether it is a process of ours that has our descriptors ([`crate::sys::undo`]).
fn is_ours(pid: Pid) -> bool {
    kcmp::compare(task::own_tid(), pid.leader(), kcmp::Object::Files, 0, 0) == Ok(Some(Ordering::Equal))
}

/// The command name of a process, empty when it is gone.
fn comm(task: &TaskDir, buffer: &mut Vec<u8>) -> String {
    let name = task.read_into("comm", buffer);
    name.map(|name| String::from_utf8_lossy(name.trim_ascii_end()).into_owned()).unwrap_or_default()
}
