//! System V IPC: shared memory segments, sets of semaphores, message queues; and POSIX message queues. They live until somebody removes them, whoever uses them.

use super::id::{Fd, Pid, QueueId};
use serde::{Deserialize, Serialize};

/// The System V objects and POSIX message queues of a tree besides its segments, which stand with the shared memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipc {
    /// Sets of semaphores, by ascending identifier.
    pub semaphores: Vec<SemaphoreSet>,
    /// Message queues, by ascending identifier.
    pub queues: Vec<MessageQueue>,
    /// POSIX message queues of which a descriptor is open.
    pub posix_queues: Vec<PosixQueue>,
}

/// mq_open(3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PosixQueue {
    /// Its place in [`Ipc::posix_queues`].
    pub id: QueueId,
    /// Its name without the slash.
    pub name: Vec<u8>,
    /// Whether the name still leads to it.
    pub named: bool,
    /// Device number (`st_dev`).
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// `mq_maxmsg`.
    pub max_messages: u64,
    /// `mq_msgsize`, in bytes.
    pub message_size: u64,
    /// What was in it, in the order in which it would have been received.
    pub messages: Vec<PosixMessage>,
    /// Who is to be told when a message comes to it while it is empty.
    pub notification: Option<Notification>,
    /// When something was last sent or received, a dump's look at the messages included, in nanoseconds since the epoch (`st_ctime`).
    pub changed: i64,
}

impl PosixQueue {
    /// Bytes of all messages.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.messages.iter().map(|message| message.text.len() as u64).sum()
    }
}

/// A message of a POSIX message queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PosixMessage {
    /// Its priority.
    pub priority: u32,
    /// The message itself.
    #[serde(with = "super::bytes")]
    pub text: Vec<u8>,
}

/// mq_notify(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Who is registered.
    pub pid: Pid,
    /// A descriptor of the queue that it has.
    pub fd: Fd,
    /// What happens.
    pub event: NotificationEvent,
}

/// What happens when a message comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotificationEvent {
    /// Nothing (SIGEV_NONE): nobody else can be registered.
    Nothing,
    /// A signal is sent (SIGEV_SIGNAL).
    Signal {
        /// Its number.
        signal: i32,
        /// `sigev_value`.
        value: u64,
    },
    /// A thread is started (SIGEV_THREAD): the kernel sends these bytes to a netlink socket.
    Thread {
        /// The socket.
        socket: Fd,
        /// What the C library makes a thread of; the kernel sets the last byte.
        cookie: [u8; 32],
    },
}

/// `struct ipc_perm`: what every System V object has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpcOwner {
    /// Its key, 0 for IPC_PRIVATE. A segment that is marked for destruction has lost it, and this is the key that it was made with.
    pub key: i32,
    /// Owner.
    pub uid: u32,
    /// Group of the owner.
    pub gid: u32,
    /// User who made it.
    pub creator_uid: u32,
    /// Group of who made it.
    pub creator_gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// shmget(2): what a segment is besides its memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its identifier.
    pub id: i32,
    /// Key, owner, permissions.
    pub owner: IpcOwner,
    /// Exact size in bytes; that of its memory is in whole pages.
    pub size: u64,
    /// IPC_RMID: it goes with the last attachment.
    pub destroyed: bool,
    /// SHM_LOCK.
    pub locked: bool,
    /// SHM_HUGETLB: bytes of a page.
    pub huge_page: Option<u64>,
    /// Process that made it.
    pub creator: Pid,
}

/// semget(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SemaphoreSet {
    /// Its identifier.
    pub id: i32,
    /// Key, owner, permissions.
    pub owner: IpcOwner,
    /// The semaphores, at least one.
    pub semaphores: Vec<Semaphore>,
}

/// One semaphore of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Semaphore {
    /// Its value, at most 32767.
    pub value: u16,
    /// Process that has operated on it last, 0 for none.
    pub last: Pid,
}

/// msgget(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageQueue {
    /// Its identifier.
    pub id: i32,
    /// Key, owner, permissions.
    pub owner: IpcOwner,
    /// `msg_qbytes`: the most bytes that it takes.
    pub capacity: u64,
    /// The messages, oldest first.
    pub messages: Vec<Message>,
    /// Process that has sent last, 0 for none.
    pub sender: Pid,
    /// Process that has received last, 0 for none.
    pub receiver: Pid,
}

/// One message of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its type, above 0.
    pub kind: i64,
    /// Its bytes.
    #[serde(with = "super::bytes")]
    pub text: Vec<u8>,
}

/// SEM_UNDO: what the end of a process adds to a semaphore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    /// Place of the set in [`Ipc::semaphores`].
    pub set: u32,
    /// Number of the semaphore in its set.
    pub semaphore: u16,
    /// `semadj`, never 0.
    pub adjustment: i16,
}
