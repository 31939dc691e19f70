//! System V IPC: shared memory segments, sets of semaphores, message queues. They live until somebody removes them, whoever uses them.

use super::id::Pid;
use serde::{Deserialize, Serialize};

/// The System V objects of a tree besides its segments, which stand with the shared memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipc {
    /// Sets of semaphores, by ascending identifier.
    pub semaphores: Vec<SemaphoreSet>,
    /// Message queues, by ascending identifier.
    pub queues: Vec<MessageQueue>,
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
