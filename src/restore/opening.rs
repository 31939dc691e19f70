//! What the plan of a restore has opened, and under which numbers.

use crate::image::model::event::BusyPoll;
use crate::image::model::id::{
    BpfMapId, BpfTypesId, DescriptionId, FileId, PipeId, QueueId, ShmId, SocketId, TerminalId,
};
use crate::image::model::tun::Tun;

/// One thing to open, and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The descriptor number.
    pub number: i32,
    /// What is opened.
    pub source: Source,
    /// open(2) flags.
    pub flags: u32,
    /// The description of the image that this is, if any.
    pub description: Option<DescriptionId>,
}

/// Where a description comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A path.
    Path(Vec<u8>),
    /// A file without a name, made again.
    Unlinked(FileId),
    /// One end of a pipe.
    Pipe(PipeId, bool),
    /// A memfd.
    Memfd(ShmId),
    /// eventfd(2).
    Eventfd {
        /// Its counter.
        counter: u64,
        /// EFD_SEMAPHORE.
        semaphore: bool,
    },
    /// A descriptor of `snap`.
    Inherited(i32),
    /// What was opened before under another of our numbers.
    Another(i32),
    /// signalfd(2) for these signals.
    Signalfd(u64),
    /// The master end of a terminal.
    Master(TerminalId),
    /// The slave end.
    Slave(TerminalId),
    /// The slave end of a terminal that has hung up.
    HungUp,
    /// A socket.
    Socket(SocketId),
    /// A POSIX message queue.
    Queue(QueueId),
    /// A map of bpf(2).
    BpfMap(BpfMapId),
    /// Descriptions of types of bpf(2).
    BpfTypes(BpfTypesId),
    /// A file of `/proc/PID` of a process that has ended.
    OfDead(FileId),
    /// An epoll instance that watches nothing yet: its items are added by the process, whose numbers they name.
    Epoll(Option<BusyPoll>),
    /// A timer on this clock that is not armed yet.
    Timerfd(i32),
    /// A pidfd of a task that has ended with this wait status and was reaped.
    GoneTask(i32),
    /// One end of a pair of sockets by which this description is handed on: the one that takes, or the one that gives.
    HandOver(DescriptionId, bool),
    /// An inotify instance.
    Inotify,
    /// A fanotify group.
    Fanotify,
    /// /dev/net/tun.
    Tun(Tun),
    /// Nothing yet: a process opens it.
    Late,
}
