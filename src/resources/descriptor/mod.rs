//! Tables of descriptors and the open file descriptions behind them.
//!
//! Everything is asked of duplicates in our own table (pidfd_getfd(2)), so that the target is not touched.

mod classify;
mod epolls;
mod identity;
mod in_flight;
mod locks;
mod mounts;
mod pipes;
mod refused;
mod seen;
mod terminals;
mod watches;

pub use pipes::Pipes;
pub use seen::Look;
pub use terminals::Terminals;

use super::bpf::BpfMaps;
use super::file::{FileTable, ORPHAN, has_parent};
use super::mqueue::Queues;
use super::shared_memory::SharedMemoryTable;
use super::socket::Sockets;
use super::{CollectError, Findings, event, named_memory, tun};
use crate::image::model::file::{AsyncOwner, Description, FdEntry, FdTable, Link, OpenObject, OwnerTarget};
use crate::image::model::id::{DescriptionId, Fd, FdTableId, FileId, Pid, Tid};
use crate::proc::TaskDir;
use crate::sys::descriptor::{get_owner, get_signal};
use crate::sys::pidfd;
use identity::{Found, Identities};
use refused::Refusal;
use seen::Seen;
use std::collections::HashSet;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// The descriptors of a tree while they are collected.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// Tables, each once.
    pub tables: Vec<FdTable>,
    /// Descriptions, each once.
    pub descriptions: Vec<Description>,
    /// Terminals.
    pub terminals: Terminals,
    /// Sockets.
    pub sockets: Sockets,
    /// Links of descriptors in whose place a restore is given others.
    pub externals: HashSet<String>,
    /// The tasks of the tree, those that have ended too.
    pub inside: HashSet<Tid>,
    /// One descriptor of each description.
    holders: Vec<Holder>,
    /// Epoll instances whose items are not known yet.
    epolls: Vec<epolls::Instance>,
    /// Inotify instances and fanotify groups of whose watches the files are not known yet.
    watches: Vec<watches::Instance>,
    /// POSIX message queues.
    pub queues: Queues,
    /// Maps of bpf(2).
    pub bpf_maps: BpfMaps,
    /// Whether events that nobody has read may be given up.
    pub drop_events: bool,
    /// Whether an eventfd is taken for no semaphore where the kernel does not tell.
    pub plain_eventfds: bool,
    mounts: mounts::Mounts,
    identities: Identities,
    /// Duplicates of files that are on their way through sockets.
    on_their_way: Vec<File>,
}

/// A descriptor of a description, which may have been refused.
#[derive(Clone, Copy, Debug)]
struct Holder {
    tid: Tid,
    fd: Fd,
    ino: u64,
    description: Option<DescriptionId>,
}

/// The same with its duplicate in our table.
struct OpenFd<'a> {
    seen: &'a Seen,
    file: File,
}

impl std::ops::Deref for OpenFd<'_> {
    type Target = Seen;

    fn deref(&self) -> &Seen {
        self.seen
    }
}

/// Where descriptors are looked up and noted.
pub struct Tables<'a> {
    /// Files by path.
    pub files: &'a mut FileTable,
    /// Shared memory objects.
    pub shared: &'a mut SharedMemoryTable,
    /// Pipes.
    pub pipes: &'a mut Pipes,
    /// Blockers.
    pub findings: &'a mut Findings,
}

impl Descriptors {
    /// Collects the table that `tid` uses, of which this was seen.
    ///
    /// # Errors
    /// A kernel interface that failed. What cannot be restored is noted in the findings instead.
    pub fn collect(
        &mut self,
        task: &TaskDir,
        tid: Tid,
        pidfd: BorrowedFd<'_>,
        looks: Vec<Look>,
        tables: &mut Tables<'_>,
    ) -> Result<FdTableId, CollectError> {
        let id = FdTableId(self.tables.len() as u32);
        let mut table = FdTable { id, entries: Vec::new(), locks: Vec::new() };
        for look in looks {
            let fd = match look {
                Look::Seen(seen) => *seen,
                Look::Lost { fd, text } => {
                    let object = format!("fd {fd}: {}", String::from_utf8_lossy(&text));
                    let reason = "the process behind it is gone, and nothing tells any more what it is";
                    tables.findings.block(format!("pid {tid}"), object, reason, "close it before the dump");
                    continue;
                }
            };
            if let Some(description) = self.description(task, tid, pidfd, &fd, tables)? {
                let close_on_exec = fd.info.flags & libc::O_CLOEXEC as u32 != 0;
                table.entries.push(FdEntry { fd: fd.fd, description, close_on_exec });
            }
            locks::of_table(&fd, &mut table.locks);
        }
        self.tables.push(table);
        Ok(id)
    }

    /// The description behind a descriptor, or `None` for one that is refused. Only the first of its descriptors is looked at closely.
    fn description(
        &mut self,
        task: &TaskDir,
        tid: Tid,
        pidfd: BorrowedFd<'_>,
        fd: &Seen,
        tables: &mut Tables<'_>,
    ) -> Result<Option<DescriptionId>, CollectError> {
        let found = self.identities.find(fd.likeness(), tid, fd.fd);
        let place = match found.map_err(CollectError::at(tid, "kcmp KCMP_FILE"))? {
            Found::Known(known) => return Ok(known),
            Found::New(place) => place,
        };
        let file = pidfd::get_fd(pidfd, fd.fd).map_err(CollectError::at(tid, "pidfd_getfd"))?;
        let open = OpenFd { seen: fd, file: File::from(file) };
        let description = self.describe(task, tid, &open, tables)?;
        self.holders.push(Holder { tid, fd: fd.fd, ino: fd.meta.ino(), description });
        let held = description.and_then(|id| self.descriptions.get_mut(id.0 as usize));
        locks::of_description(tid, fd, held, tables.findings);
        self.identities.note(place, description);
        Ok(description)
    }

    fn describe(
        &mut self,
        task_dir: &TaskDir,
        tid: Tid,
        fd: &OpenFd<'_>,
        tables: &mut Tables<'_>,
    ) -> Result<Option<DescriptionId>, CollectError> {
        let Some(object) = self.classify(task_dir, tid, fd, tables)? else { return Ok(None) };
        let id = DescriptionId(self.descriptions.len() as u32);
        self.descriptions.push(Description {
            id,
            object,
            flags: fd.info.flags & !(libc::O_CLOEXEC as u32),
            position: fd.info.pos.cast_unsigned(),
            owner: owner(fd).map_err(CollectError::at(tid, "fcntl F_GETOWN_EX"))?,
            locks: Vec::new(),
        });
        Ok(Some(id))
    }

    /// What is opened again by the path of a file, whose metadata are `meta`.
    fn on_file(
        &mut self,
        task_dir: &TaskDir,
        tid: Tid,
        fd: &OpenFd<'_>,
        meta: &Metadata,
        tables: &mut Tables<'_>,
    ) -> Result<Result<OpenObject, Refusal>, CollectError> {
        let file = match tables.files.intern(meta, &fd.text, &format!("pid {tid}")) {
            Ok(file) => file,
            Err(blocker) => return Ok(Err(blocker.into())),
        };
        if fd.meta.file_type().is_fifo() && !is_path_only(fd) {
            return tables.pipes.end(tid, fd, Some(file)).map(Ok).map_err(CollectError::at(tid, "poll of a pipe"));
        }
        let object = match self.by_path(tid, fd, file, tables.files) {
            Ok(object) => object,
            Err(reason) => return Ok(Err(reason.into())),
        };
        let is_memory = tables.files.may_be_memory(file) && named_memory::is_posix(tables.files.get(file));
        let is_memory = is_memory && named_memory::is_memory(&fd.file);
        if object == OpenObject::Regular(file) && (is_memory || tables.files.wants_content(file)) {
            // Opened anew: the target's own description may be for writing only.
            let content = task_dir.open(&format!("fd/{}", fd.fd))?;
            tables.files.set_content(file, content);
        }
        Ok(Ok(object))
    }

    /// Kinds without a path that are no pipe, socket or memory.
    fn anonymous(
        &mut self,
        tid: Tid,
        fd: &OpenFd<'_>,
        kind: &[u8],
        findings: &mut Findings,
    ) -> Result<OpenObject, Refusal> {
        Ok(match kind {
            b"eventfd" => event::eventfd(&fd.info, self.plain_eventfds)?,
            b"signalfd" => event::signalfd(&fd.info)?,
            b"timerfd" => event::timerfd(&fd.file, &fd.info)?,
            b"pidfd" => event::pidfd(&fd.file, &fd.info, &self.inside)?,
            b"inotify" => self.inotify(tid, fd, findings)?,
            b"fanotify" => self.fanotify(tid, fd, findings)?,
            b"bpf-map" => OpenObject::BpfMap(self.bpf_maps.intern((tid, &fd.shown()), &fd.file, &fd.info)?),
            b"btf" => OpenObject::BpfTypes(self.bpf_maps.types.intern(&fd.file)?),
            b"eventpoll" => {
                let id = DescriptionId(self.descriptions.len() as u32);
                self.epolls.push(epolls::Instance::of(id, tid, fd)?);
                event::epoll(&fd.file)
            }
            other => return Err(refused::anonymous(fd, other)),
        })
    }

    /// Kinds that have a path.
    fn by_path(&mut self, tid: Tid, fd: &OpenFd<'_>, file: FileId, files: &FileTable) -> Result<OpenObject, String> {
        if is_tun(fd) {
            return tun::collect(&fd.file, file);
        }
        let object = by_path(fd, file, files)?;
        match object {
            OpenObject::OutsideTerminal(_) | OpenObject::ControllingTerminal(_) => {
                let found = self.terminals.slave(tid, fd, object);
                found.map_err(|error| format!("the terminal does not tell its number: {error}"))
            }
            OpenObject::Pseudo(_) if is_master(fd) => {
                let found = self.terminals.master(tid, fd);
                found.map_err(|error| format!("the terminal does not tell its number: {error}"))
            }
            other => Ok(other),
        }
    }
}

/// /dev/net/tun.
fn is_tun(fd: &OpenFd<'_>) -> bool {
    !is_path_only(fd) && fd.meta.file_type().is_char_device() && fd.meta.rdev() == libc::makedev(10, 200)
}

/// /dev/ptmx, in /dev or on devpts.
fn is_master(fd: &OpenFd<'_>) -> bool {
    let rdev = fd.meta.rdev();
    fd.meta.file_type().is_char_device() && (libc::major(rdev), libc::minor(rdev)) == (5, 2)
}

/// Kinds that are opened again by their path.
fn by_path(fd: &OpenFd<'_>, file: FileId, files: &FileTable) -> Result<OpenObject, String> {
    let kind = fd.meta.file_type();
    if is_path_only(fd) {
        Ok(OpenObject::PathOnly(file))
    } else if is_pseudo(&fd.file) {
        pseudo(file, files)
    } else if kind.is_dir() {
        let through = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd.file));
        match files.get(file).link {
            Link::Unlinked if !has_parent(through.as_ref(), &fd.text) => Err(ORPHAN.into()),
            Link::Unlinked | Link::Named | Link::OtherName(_) => Ok(OpenObject::Directory(file)),
        }
    } else if kind.is_file() {
        Ok(OpenObject::Regular(file))
    } else if kind.is_char_device() {
        device(fd.meta.rdev(), file)
    } else {
        Err(refused::device("block", fd.meta.rdev()).reason)
    }
}

fn pseudo(file: FileId, files: &FileTable) -> Result<OpenObject, String> {
    match files.get(file).link {
        Link::Named => Ok(OpenObject::Pseudo(file)),
        _ => Err("the object behind this file of /proc or /sys is gone".into()),
    }
}

fn device(rdev: u64, file: FileId) -> Result<OpenObject, String> {
    match (libc::major(rdev), libc::minor(rdev)) {
        (1, 3 | 5 | 7 | 8 | 9) => Ok(OpenObject::MemoryDevice(file)),
        (5, 0) => Ok(OpenObject::ControllingTerminal(file)),
        (4 | 136..=143, _) | (5, 1) => Ok(OpenObject::OutsideTerminal(file)),
        // A master, see `Descriptors::by_path`.
        (5, 2) => Ok(OpenObject::Pseudo(file)),
        _ => Err(refused::device("character", rdev).reason),
    }
}

fn is_path_only(fd: &OpenFd<'_>) -> bool {
    fd.info.flags & libc::O_PATH as u32 != 0
}

/// Whether the file lies on proc, sysfs, debugfs, tracefs or a cgroup file system.
fn is_pseudo(file: &File) -> bool {
    const PSEUDO: [i64; 6] = [0x9fa0, 0x6265_6572, 0x6462_6720, 0x7472_6163, 0x6367_7270, 0x0027_e0eb];
    nix::sys::statfs::fstatfs(file).is_ok_and(|fs| PSEUDO.contains(&fs.filesystem_type().0))
}

fn is_proc(file: &File) -> bool {
    nix::sys::statfs::fstatfs(file).is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC)
}

fn owner(fd: &OpenFd<'_>) -> io::Result<Option<AsyncOwner>> {
    if is_path_only(fd) {
        return Ok(None);
    }
    let owner = get_owner(fd.file.as_fd())?;
    let signal = get_signal(fd.file.as_fd())?;
    let target = match (owner.kind, owner.pid) {
        (_, 0) => OwnerTarget::None,
        (0, tid) => OwnerTarget::Thread(Tid(tid)),
        (1, pid) => OwnerTarget::Process(Pid(pid)),
        (_, pgid) => OwnerTarget::Group(Pid(pgid)),
    };
    let unset = target == OwnerTarget::None && signal == 0;
    Ok((!unset).then_some(AsyncOwner { target, signal }))
}
