//! Files by path, open file descriptions, and tables of descriptors.

use super::event::{Epoll, Pidfd, Timerfd};
use super::id::{
    BpfMapId, BpfTypesId, DescriptionId, Fd, FdTableId, FileId, Pid, PipeId, QueueId, ShmId, SocketId, TerminalId, Tid,
};
use super::tun::Tun;
use super::watch::{Fanotify, Watch};
use serde::{Deserialize, Serialize};

/// An inode that the tree maps, holds open, runs, or stands in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its place in [`super::Snapshot::files`].
    pub id: FileId,
    /// Path as the kernel names it, without ` (deleted)`, in the mount namespace and root of the target. Raw bytes.
    pub path: Vec<u8>,
    /// Whether the path still names this inode.
    pub link: Link,
    /// Device number (`st_dev`).
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// `st_mode` with the type bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Modification time in nanoseconds since the epoch.
    pub mtime: i64,
    /// `st_rdev` of devices.
    pub rdev: u64,
    /// GNU build id, for mapped programs and libraries that have one.
    pub build_id: Option<Vec<u8>>,
    /// For a file of tmpfs that is shared memory: what tells whether its content has changed. That is in the image under
    /// [`super::memory::ContentOwner::File`], for it goes with the machine; of several files that are one inode, under the first.
    pub in_memory: Option<u32>,
    /// Robust futexes in it that threads of the tree hold: when these die, the kernel marks them.
    pub held: Vec<HeldFutex>,
}

/// A robust futex that somebody holds (set_robust_list(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldFutex {
    /// Where it is in the file.
    pub offset: u64,
    /// What it was.
    pub word: u32,
    /// Whether it inherits priorities (FUTEX_LOCK_PI).
    pub inherits: bool,
}

/// Whether a file can be opened by a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Link {
    /// Its path names it.
    Named,
    /// Its path is gone, but this other name of the inode is left.
    OtherName(Vec<u8>),
    /// No name is left; the content is in the image under [`super::memory::ContentOwner::File`].
    Unlinked,
}

/// An open file description: what dup(2), fork(2) and SCM_RIGHTS share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Its place in [`super::Snapshot::descriptions`].
    pub id: DescriptionId,
    /// What is open.
    pub object: OpenObject,
    /// Access mode and status flags: F_GETFL, O_CLOEXEC left out.
    pub flags: u32,
    /// Offset in bytes, or directory position.
    pub position: u64,
    /// F_SETOWN, F_SETSIG.
    pub owner: Option<AsyncOwner>,
    /// Locks that belong to the description, whoever holds it.
    pub locks: Vec<DescriptionLock>,
}

/// A lock that lives as long as a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptionLock {
    /// Which kind.
    pub kind: DescriptionLockKind,
    /// F_WRLCK or LOCK_EX rather than F_RDLCK or LOCK_SH.
    pub exclusive: bool,
    /// Which bytes.
    pub range: LockRange,
    /// Who took it, if the kernel tells and it lives in our pid namespace.
    pub holder: Option<Pid>,
}

/// Kinds of locks on a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DescriptionLockKind {
    /// flock(2).
    Flock,
    /// F_OFD_SETLK.
    OpenDescription,
    /// F_SETLEASE.
    Lease,
}

/// A lock of F_SETLK, which belongs to a table of descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PosixLock {
    /// A descriptor of the file.
    pub fd: Fd,
    /// F_WRLCK rather than F_RDLCK.
    pub exclusive: bool,
    /// Which bytes.
    pub range: LockRange,
}

/// The bytes that a lock covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRange {
    /// First byte.
    pub start: u64,
    /// Last byte; `None` for all that may come.
    pub end: Option<u64>,
}

/// What a description is open on. Closed: every use matches each kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpenObject {
    /// A regular file.
    Regular(FileId),
    /// A directory.
    Directory(FileId),
    /// A file opened with O_PATH.
    PathOnly(FileId),
    /// A memory device without state: null, zero, full, random, urandom.
    MemoryDevice(FileId),
    /// A file of /proc or /sys, opened again by its path.
    Pseudo(FileId),
    /// One end of a pipe or FIFO; both where the flags say O_RDWR.
    Pipe {
        /// The pipe.
        pipe: PipeId,
        /// Whether this end writes, and does nothing else.
        write: bool,
        /// Of a FIFO that was opened for reading (O_NONBLOCK) while nobody wrote, and nobody has since: poll(2) does not say
        /// POLLHUP, as it does once a writer is gone.
        quiet: bool,
    },
    /// A terminal outside the tree, replaced by that of `snap restore`.
    OutsideTerminal(FileId),
    /// A terminal that has hung up: its master was closed, or the leader of its session has ended (vhangup(2)).
    HungUpTerminal(FileId),
    /// /dev/tty: the controlling terminal, whichever that is.
    ControllingTerminal(FileId),
    /// A memfd.
    Memfd(ShmId),
    /// eventfd(2).
    Eventfd {
        /// What a read would give.
        counter: u64,
        /// EFD_SEMAPHORE.
        semaphore: bool,
    },
    /// epoll_create(2), with what it watches.
    Epoll(Epoll),
    /// timerfd_create(2).
    Timerfd(Timerfd),
    /// pidfd_open(2).
    Pidfd(Pidfd),
    /// inotify_init(2), with its watches.
    Inotify(Vec<Watch>),
    /// fanotify_init(2), with its marks.
    Fanotify(Fanotify),
    /// /dev/net/tun.
    Tun(Tun),
    /// A file of `/proc/PID/ns` for the namespace that the tree is in: `uts`, `net` and the like.
    Namespace(String),
    /// Something outside that the user has named (`--external`), as the link of /proc/PID/fd names it: a restore is given another in its place.
    External(String),
    /// signalfd(2), with the signals that it takes: bit N-1 for signal N.
    Signalfd(u64),
    /// The master end of a terminal.
    TerminalMaster(TerminalId),
    /// A socket.
    Socket(SocketId),
    /// A POSIX message queue.
    Queue(QueueId),
    /// A map of bpf(2).
    BpfMap(BpfMapId),
    /// Descriptions of types (BTF) that were loaded by bpf(2).
    BpfTypes(BpfTypesId),
    /// The slave end of a terminal whose master is in the tree.
    TerminalSlave(TerminalId),
    /// The same as /dev/tty.
    OwnTerminal(TerminalId),
}

/// Who receives SIGIO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsyncOwner {
    /// The target, 0 for none.
    pub target: OwnerTarget,
    /// F_GETSIG, 0 for SIGIO.
    pub signal: i32,
}

/// F_SETOWN_EX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnerTarget {
    /// Nobody.
    None,
    /// One thread.
    Thread(Tid),
    /// A process.
    Process(Pid),
    /// A process group.
    Group(Pid),
}

/// CLONE_FILES: one table of descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdTable {
    /// Its place in [`super::Snapshot::fd_tables`].
    pub id: FdTableId,
    /// Open descriptors in ascending order.
    pub entries: Vec<FdEntry>,
    /// Locks of F_SETLK that its tasks hold.
    pub locks: Vec<PosixLock>,
}

/// One descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdEntry {
    /// Its number.
    pub fd: Fd,
    /// What it refers to.
    pub description: DescriptionId,
    /// FD_CLOEXEC.
    pub close_on_exec: bool,
}
