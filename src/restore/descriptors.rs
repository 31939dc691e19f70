//! Opens what the skeleton inherits: each open file description once, under the number that the plan gives it.

use super::bpf::BpfMaps;
use super::late::PIDFD_FLAGS;
use super::loose::{self, Loose};
use super::opening::{Opening, Source};
use super::pipes::Pipes;
use super::queues::Queues;
use super::sockets::{Names, Reviving, Sockets, UnixSockets};
use super::terminals::{self, Terminals};
use super::watches::{self, Watchers};
use crate::image::model::Snapshot;
use crate::image::model::event::BusyPoll;
use crate::image::model::file::{Description, OpenObject};
use crate::image::model::id::{DescriptionId, FileId, ShmId, Tid};
use crate::image::model::memory::SharedMemoryKind;
use crate::image::model::tun::{Tun, TunInterface};
use crate::sys::event::{self, EpollParams};
use crate::sys::file_map;
use crate::sys::open;
use crate::sys::plain_task::PlainTask;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What was made for the image, held open by `snap` until the skeleton runs.
#[derive(Debug, Default)]
pub struct Carriers<'a> {
    /// Unlinked files.
    pub files: HashMap<FileId, File>,
    /// Memfds.
    pub memfds: HashMap<ShmId, File>,
    /// Pipes and FIFOs.
    pipes: Pipes,
    /// Maps of bpf(2).
    pub bpf_maps: BpfMaps,
    /// Masters and slaves of terminals.
    terminals: Terminals,
    /// The taking ends of pairs of sockets.
    handovers: HashMap<DescriptionId, File>,
    /// UNIX sockets that are not what they are to be yet.
    sockets: Option<UnixSockets<'a>>,
    /// Names of those that are.
    names: Names,
    /// What no process can set up.
    loose: Loose,
    /// What is to be watched at the end.
    pub watchers: Watchers,
    /// TCP connections that do not live yet.
    connections: Reviving,
    /// Everything under its number.
    opened: Vec<OwnedFd>,
}

/// A descriptor that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct OpenError {
    /// What was opened or changed.
    pub what: String,
    /// Why it failed.
    pub source: io::Error,
}

/// For `map_err`: says what was opened or changed.
pub fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
    let what = what.into();
    |source| OpenError { what, source }
}

impl<'a> Carriers<'a> {
    /// Opens everything. Numbers from `top` on are free for our own use.
    ///
    /// # Errors
    /// The first thing that could not be opened.
    pub fn open(snapshot: &'a Snapshot, openings: &[Opening], queues: &Queues, top: i32) -> Result<Self, OpenError> {
        let terminals = Terminals::make(&snapshot.terminals, top)?;
        let (mut sockets, pipes) = (Sockets::make(snapshot, openings, top)?, Pipes::new(top));
        let connections = std::mem::take(&mut sockets.connections);
        let bpf_maps = BpfMaps::make(snapshot, top)?;
        let mut carriers = Self { terminals, pipes, bpf_maps, connections, ..Self::default() };
        for shared in &snapshot.shared_memory {
            match &shared.kind {
                SharedMemoryKind::Memfd { name, flags, seals: _, mode: _, uid: _, gid: _ } => {
                    let file = open::memfd(name, *flags).and_then(|file| open::lift(file, top));
                    let file = file.map_err(failed(format!("memfd {name}")))?;
                    file.set_len(shared.size).map_err(failed(format!("size of memfd {name}")))?;
                    carriers.memfds.insert(shared.id, file);
                }
                SharedMemoryKind::AnonymousHuge { page_size } => {
                    let file = file_map::huge(shared.size, *page_size).and_then(|file| open::lift(file, top));
                    carriers.memfds.insert(shared.id, file.map_err(failed("shared huge pages"))?);
                }
                SharedMemoryKind::Anonymous | SharedMemoryKind::SystemV(_) => {}
            }
        }
        let (last, first): (Vec<_>, Vec<_>) = openings.iter().partition(|opening| is_quiet(snapshot, opening));
        for opening in first {
            carriers.open_one(snapshot, opening, (&mut sockets, queues), top)?;
        }
        carriers.pipes.stop_writing();
        for opening in last {
            carriers.open_one(snapshot, opening, (&mut sockets, queues), top)?;
        }
        carriers.terminals.close_doors(&snapshot.terminals)?;
        // An end that nobody has is closed before anybody inherits it: its going would be an event for who watches the other one.
        (carriers.pipes, carriers.terminals) = Default::default();
        let numbers = openings.iter().filter_map(|opening| Some((opening.description?, opening.number)));
        let numbers: HashMap<DescriptionId, i32> = numbers.collect();
        carriers.loose = Loose::keep(snapshot, &numbers, top).map_err(failed("keeping what is on its way"))?;
        let (mut unix, number) = (sockets.unix(), |id| numbers.get(&id).copied());
        if unix.begin(&number)? {
            carriers.names = unix.finish(&number)?;
        } else {
            carriers.sockets = Some(unix);
        }
        Ok(carriers)
    }

    fn open_one(
        &mut self,
        snapshot: &Snapshot,
        opening: &Opening,
        (sockets, queues): (&mut Sockets<'_>, &Queues),
        top: i32,
    ) -> Result<(), OpenError> {
        let file = match &opening.source {
            Source::Path(path) => {
                let path = Path::new(OsStr::from_bytes(path));
                open::path(path, opening.flags).map_err(failed(path.display().to_string()))?
            }
            Source::Unlinked(id) => reopen(self.unlinked(snapshot, *id, top)?, opening.flags)?,
            Source::Pipe(id, write) => self.pipes.end(snapshot, *id, *write, opening.flags)?,
            Source::Memfd(id) => reopen(&self.memfds[id], opening.flags)?,
            Source::Eventfd { counter, semaphore } => open::eventfd(*counter, *semaphore).map_err(failed("eventfd"))?,
            Source::Inherited(fd) => open::duplicate(*fd, top).map_err(failed(format!("descriptor {fd} of snap")))?,
            Source::Another(fd) => open::duplicate(*fd, top).map_err(failed(format!("descriptor {fd}")))?,
            Source::Signalfd(mask) => open::signalfd(*mask).map_err(failed("signalfd"))?,
            Source::Master(id) => self.terminals.master(*id)?,
            Source::HungUp => terminals::hung_up(opening.flags)?,
            Source::Slave(id) => self.terminals.slave(*id, opening.flags)?,
            Source::Socket(id) => sockets.socket(*id)?,
            Source::Queue(id) => queues.open(snapshot, *id, opening.flags)?,
            Source::BpfMap(id) => self.bpf_maps.open(*id, opening.flags)?,
            Source::BpfTypes(id) => self.bpf_maps.open_types(*id)?,
            Source::Epoll(busy_poll) => make_epoll(*busy_poll).map_err(failed("epoll"))?,
            Source::Timerfd(clock) => event::timerfd(*clock).map_err(failed(format!("timerfd on clock {clock}")))?,
            Source::GoneTask(status) => event::pidfd_of_gone(*status, opening.flags & PIDFD_FLAGS)
                .map_err(failed("pidfd of a task that is gone"))?,
            Source::HandOver(id, taking) => self.hand_over(*id, *taking, top)?,
            Source::Inotify | Source::Fanotify => self.watching(snapshot, opening, top)?,
            Source::Tun(tun) => attach(snapshot, tun, opening.flags)?,
            Source::Late => return Ok(()),
            Source::OfDead(id) => open_of_dead(snapshot, *id, opening.flags)?,
        };
        let placed = open::place(file, opening.number).map_err(failed(format!("descriptor {}", opening.number)))?;
        // What somebody else has open is as that one wants it.
        let ours = !matches!(opening.source, Source::Inherited(_));
        if let Some(id) = opening.description.filter(|_| ours) {
            let description = &snapshot.descriptions[id.0 as usize];
            set_up(&placed, description)?;
            loose::lock(&placed, description, snapshot)?;
        }
        let placed = match &opening.source {
            Source::Socket(id) => self.connections.keep(&snapshot.sockets[id.0 as usize], placed),
            _ => Some(placed),
        };
        self.opened.extend(placed.map(OwnedFd::from));
        Ok(())
    }

    /// A file without a name, made when it is first asked for.
    fn unlinked(&mut self, snapshot: &Snapshot, id: FileId, top: i32) -> Result<&File, OpenError> {
        Ok(match self.files.entry(id) {
            Entry::Occupied(made) => made.into_mut(),
            Entry::Vacant(place) => place.insert(make_unlinked(snapshot, id, top)?),
        })
    }

    /// An inotify instance or a fanotify group that reports nothing yet.
    fn watching(&mut self, snapshot: &Snapshot, opening: &Opening, top: i32) -> Result<File, OpenError> {
        let id = opening.description.ok_or_else(|| failed("watching")(io::ErrorKind::InvalidInput.into()))?;
        for file in watches::nameless(snapshot, &snapshot.descriptions[id.0 as usize].object) {
            self.unlinked(snapshot, file, top)?;
            self.watchers.keep_nameless(file, &self.files[&file], top).map_err(failed("watching"))?;
        }
        match opening.source {
            Source::Fanotify => self.watchers.fanotify(snapshot, id, top),
            _ => self.watchers.inotify(snapshot, id, top),
        }
    }

    /// The giving end is asked for first.
    fn hand_over(&mut self, id: DescriptionId, taking: bool, top: i32) -> Result<File, OpenError> {
        let error = || failed(format!("handing on open file {id}"));
        if taking {
            return self.handovers.remove(&id).ok_or_else(|| error()(io::ErrorKind::NotFound.into()));
        }
        let (gives, takes) = event::datagram_pair().map_err(error())?;
        self.handovers.insert(id, open::lift(takes, top).map_err(error())?);
        Ok(gives)
    }

    /// Sets up what no process can, once all of these are what they were. Gives the names of UNIX sockets, which go with that unless they are kept.
    ///
    /// # Errors
    /// What could not be had.
    pub fn settle(&mut self, snapshot: &Snapshot) -> Result<Names, OpenError> {
        self.loose.open(snapshot)?;
        if let Some(sockets) = self.sockets.take() {
            self.names = sockets.finish(&|id| self.loose.number(id))?;
        }
        self.loose.settle(snapshot)?;
        Ok(std::mem::take(&mut self.names))
    }

    /// Connections that do not live yet.
    pub fn take_connections(&mut self) -> Reviving {
        std::mem::take(&mut self.connections)
    }

    /// Closes what `snap` must not keep open while the program runs; made files and memfds stay until they are filled.
    pub fn release(&mut self) {
        self.bpf_maps.release();
        self.opened.clear();
    }

    /// Seals memfds, and does what comes last to maps of bpf(2), once they are filled.
    ///
    /// # Errors
    /// The memfd that cannot be sealed, or the map that is not as it was.
    pub fn seal(&self, snapshot: &Snapshot) -> Result<(), OpenError> {
        self.bpf_maps.complete(snapshot)?;
        for shared in &snapshot.shared_memory {
            let SharedMemoryKind::Memfd { name, flags: _, seals, mode, uid, gid } = &shared.kind else { continue };
            let Some(file) = self.memfds.get(&shared.id) else { continue };
            let error = || failed(format!("memfd {name}"));
            open::own(file, *uid, *gid, *mode).map_err(error())?;
            open::add_seals(file, *seals).map_err(error())?;
        }
        Ok(())
    }
}

/// Whether this is to be opened when nobody has the FIFO open for writing any more.
fn is_quiet(snapshot: &Snapshot, opening: &Opening) -> bool {
    let description = opening.description.map(|id| &snapshot.descriptions[id.0 as usize]);
    description
        .is_some_and(|description| matches!(description.object, OpenObject::Pipe { pipe: _, write: _, quiet: true }))
}

/// Attaches to an interface, which is there.
fn attach(snapshot: &Snapshot, tun: &Tun, flags: u32) -> Result<File, OpenError> {
    let path = Path::new(OsStr::from_bytes(&snapshot.files[tun.file.0 as usize].path));
    let file = open::path(path, flags).map_err(failed(path.display().to_string()))?;
    if let Some(TunInterface { name, flags, header, send_buffer }) = &tun.interface {
        let error = || failed(format!("attaching to the interface {name}"));
        crate::sys::tun::attach(&file, name, flags & !crate::sys::tun::PERSIST).map_err(error())?;
        crate::sys::tun::set_sizes(&file, [*header, *send_buffer]).map_err(error())?;
    }
    Ok(file)
}

fn make_epoll(busy_poll: Option<BusyPoll>) -> io::Result<File> {
    let epoll = open::epoll()?;
    let fresh = event::epoll_params(epoll.as_fd());
    let wanted = busy_poll.map(|params| EpollParams::new(params.usecs, params.budget, params.prefer));
    if let Some(params) = wanted.filter(|_| wanted != fresh) {
        event::set_epoll_params(&epoll, params)?;
    }
    Ok(epoll)
}

/// A second description of the same object.
///
/// # Errors
/// As open(2).
pub fn reopen(file: &File, flags: u32) -> Result<File, OpenError> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // O_TMPFILE would make another file, and holds the bit of O_DIRECTORY.
    let making = if flags & libc::O_TMPFILE as u32 == libc::O_TMPFILE as u32 { libc::O_TMPFILE } else { 0 };
    open::path(Path::new(&path), flags & !((libc::O_NOFOLLOW | making) as u32)).map_err(failed(path))
}

/// A file of `/proc/PID` of a process that is made for that and ends at once.
fn open_of_dead(snapshot: &Snapshot, id: FileId, flags: u32) -> Result<File, OpenError> {
    let path = String::from_utf8_lossy(&snapshot.files[id.0 as usize].path).into_owned();
    let error = || failed(path.clone());
    let (pid, rest) =
        path.trim_start_matches("/proc/").split_once('/').unwrap_or((path.trim_start_matches("/proc/"), ""));
    let wanted = pid.parse().map_err(|_| io::ErrorKind::InvalidInput.into()).map_err(error())?;
    let task =
        PlainTask::with_id(Tid(wanted)).or_else(|_| PlainTask::start().map_err(io::Error::from)).map_err(error())?;
    let found = task.tid().to_string();
    if found != pid {
        tracing::warn!("pid {wanted} is taken: {path} is a file of a process {found} that has ended");
    }
    let rest = rest.replacen(&format!("task/{pid}"), &format!("task/{found}"), 1);
    open::path(Path::new(&format!("/proc/{found}/{rest}")), flags).map_err(error())
}

/// A file, directory or FIFO that has no name, on the file system where it was.
///
/// # Errors
/// What could not be made.
pub fn make_unlinked(snapshot: &Snapshot, id: FileId, top: i32) -> Result<File, OpenError> {
    let file = &snapshot.files[id.0 as usize];
    let path = Path::new(OsStr::from_bytes(&file.path));
    let error = || failed(format!("making {} (deleted) again", path.display()));
    let old = path.parent().filter(|parent| parent.is_dir());
    let parent = old.unwrap_or(Path::new("/tmp"));
    let made = match file.mode & libc::S_IFMT {
        // `..` leads there.
        libc::S_IFDIR => old.ok_or(io::ErrorKind::NotFound.into()).and_then(open::nameless_directory),
        libc::S_IFIFO => open::nameless_fifo(parent),
        _ => open::nameless_file(parent).and_then(|made| made.set_len(file.size).map(|()| made)),
    };
    let made = made.and_then(|made| open::lift(made, top)).map_err(error())?;
    open::own(&made, file.uid, file.gid, file.mode & 0o7777).map_err(error())?;
    Ok(made)
}

/// Position, and status flags that open(2) ignores.
///
/// # Errors
/// As lseek(2) and fcntl(2).
pub fn set_up(mut file: &File, description: &Description) -> Result<(), OpenError> {
    let error = || failed(format!("setting up open file {}", description.id));
    let path_only = description.flags & libc::O_PATH as u32 != 0;
    if path_only {
        return Ok(());
    }
    if description.position != 0 {
        file.seek(SeekFrom::Start(description.position)).map_err(error())?;
    }
    open::set_flags(file, description.flags as i32).map_err(error())
}
