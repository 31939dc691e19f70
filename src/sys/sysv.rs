//! System V IPC: shmget(2), semget(2), msgget(2) and what belongs to them.
#![allow(unsafe_code)]

use super::{Result, checked};
use crate::image::model::address::{Addr, PageRange};
use nix::errno::Errno;
use std::mem::MaybeUninit;

/// MSG_COPY of linux/msg.h: a look at the message with this number.
const MSG_COPY: libc::c_int = 0o40000;
/// SHM_HUGE_SHIFT, as MAP_HUGE_SHIFT.
const HUGE_SHIFT: u32 = 26;

/// One of the three kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// shmget(2).
    Segment,
    /// semget(2).
    Semaphores,
    /// msgget(2).
    Queue,
}

impl Kind {
    /// Where the identifier of the next object is chosen (Documentation/admin-guide/sysctl/kernel.rst).
    #[must_use]
    pub const fn next_id(self) -> &'static str {
        match self {
            Self::Segment => "/proc/sys/kernel/shm_next_id",
            Self::Semaphores => "/proc/sys/kernel/sem_next_id",
            Self::Queue => "/proc/sys/kernel/msg_next_id",
        }
    }

    /// What it is called, with the identifier behind it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Segment => "System V shared memory",
            Self::Semaphores => "System V semaphores",
            Self::Queue => "System V message queue",
        }
    }

    /// The option of ipcrm(1) that removes one.
    #[must_use]
    pub const fn remover(self) -> &'static str {
        match self {
            Self::Segment => "ipcrm -m",
            Self::Semaphores => "ipcrm -s",
            Self::Queue => "ipcrm -q",
        }
    }
}

/// `struct sembuf`: one operation on one semaphore of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its number.
    pub semaphore: u16,
    /// What is added.
    pub change: i16,
    /// IPC_NOWAIT, SEM_UNDO.
    pub flags: i16,
}

impl Operation {
    /// As it lies in memory.
    #[must_use]
    pub fn bytes(self) -> [u8; 6] {
        let mut bytes = [0; 6];
        bytes[..2].copy_from_slice(&self.semaphore.to_ne_bytes());
        bytes[2..4].copy_from_slice(&self.change.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.flags.to_ne_bytes());
        bytes
    }
}

const _: () = assert!(size_of::<libc::sembuf>() == 6);

/// The values of all semaphores of a set.
///
/// # Errors
/// EACCES without the right to read it, EINVAL or EIDRM when it is gone.
pub fn values(id: i32, count: usize) -> Result<Vec<u16>> {
    let mut values = vec![0u16; count];
    // SAFETY: GETALL writes one u16 for each semaphore, of which a set keeps its number for life.
    checked(unsafe { libc::syscall(libc::SYS_semctl, id, 0, libc::GETALL, values.as_mut_ptr()) })?;
    Ok(values)
}

/// The process that has operated on a semaphore last.
///
/// # Errors
/// As [`values`].
pub fn last_operator(id: i32, semaphore: u16) -> Result<i32> {
    // SAFETY: GETPID takes no pointer.
    checked(unsafe { libc::syscall(libc::SYS_semctl, id, libc::c_int::from(semaphore), libc::GETPID, 0) })
        .map(|pid| pid as i32)
}

/// SETVAL.
///
/// # Errors
/// As semctl(2).
pub fn set_value(id: i32, semaphore: u16, value: u16) -> Result<()> {
    // SAFETY: SETVAL takes the value itself.
    let done = unsafe {
        libc::syscall(libc::SYS_semctl, id, libc::c_int::from(semaphore), libc::SETVAL, libc::c_long::from(value))
    };
    checked(done).map(drop)
}

/// A copy of the message with this number: its type and its bytes. `None` behind the last one.
///
/// # Errors
/// EACCES without the right to read the queue, ENOSYS on a kernel without MSG_COPY.
pub fn message(queue: i32, number: i64, room: usize) -> Result<Option<(i64, Vec<u8>)>> {
    let mut buffer = vec![0u8; 8 + room];
    let flags = MSG_COPY | libc::IPC_NOWAIT;
    // SAFETY: the kernel writes a word and at most `room` bytes.
    let taken = checked(unsafe {
        libc::syscall(libc::SYS_msgrcv, queue, buffer.as_mut_ptr(), room, number, libc::c_long::from(flags))
    });
    match taken {
        Err(Errno::ENOMSG) => Ok(None),
        Err(error) => Err(error),
        Ok(length) => {
            let kind = i64::from_ne_bytes(*buffer.first_chunk().ok_or(Errno::EFAULT)?);
            Ok(Some((kind, buffer[8..8 + length].to_vec())))
        }
    }
}

/// Receives any message, without waiting.
///
/// # Errors
/// As msgrcv(2).
pub fn receive(queue: i32) -> Result<()> {
    let mut buffer = [0u8; 16];
    let flags = libc::c_long::from(libc::IPC_NOWAIT | libc::MSG_NOERROR);
    // SAFETY: the kernel writes a word and at most 8 bytes.
    checked(unsafe { libc::syscall(libc::SYS_msgrcv, queue, buffer.as_mut_ptr(), 8, 0, flags) }).map(drop)
}

/// Sends a message, whose type stands before its bytes, without waiting.
///
/// # Errors
/// As msgsnd(2).
pub fn send(queue: i32, message: &[u8]) -> Result<()> {
    let length = message.len().checked_sub(8).ok_or(Errno::EINVAL)?;
    // SAFETY: the kernel reads a word and `length` bytes.
    checked(unsafe { libc::syscall(libc::SYS_msgsnd, queue, message.as_ptr(), length, libc::IPC_NOWAIT) }).map(drop)
}

/// `msg_qbytes` of a queue.
///
/// # Errors
/// As msgctl(2).
pub fn capacity(queue: i32) -> Result<u64> {
    let mut status = MaybeUninit::<libc::msqid_ds>::zeroed();
    // SAFETY: IPC_STAT fills the struct.
    checked(unsafe { libc::syscall(libc::SYS_msgctl, queue, libc::IPC_STAT, status.as_mut_ptr()) })?;
    // SAFETY: zeroed before, and filled.
    Ok(unsafe { status.assume_init() }.msg_qbytes)
}

/// Owner and permission bits, as IPC_SET takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the kernel's own names")]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

/// IPC_SET; `capacity` is for queues alone.
///
/// # Errors
/// As shmctl(2), semctl(2), msgctl(2).
pub fn set_owner(kind: Kind, id: i32, owner: Owner, capacity: Option<u64>) -> Result<()> {
    let Owner { uid, gid, mode } = owner;
    match kind {
        Kind::Segment => {
            // SAFETY: all of its fields are numbers.
            let mut status: libc::shmid_ds = unsafe { std::mem::zeroed() };
            (status.shm_perm.uid, status.shm_perm.gid, status.shm_perm.mode) = (uid, gid, mode as _);
            // SAFETY: the kernel reads the struct.
            checked(unsafe { libc::syscall(libc::SYS_shmctl, id, libc::IPC_SET, &raw const status) })
        }
        Kind::Semaphores => {
            // SAFETY: as above.
            let mut status: libc::semid_ds = unsafe { std::mem::zeroed() };
            (status.sem_perm.uid, status.sem_perm.gid, status.sem_perm.mode) = (uid, gid, mode as _);
            // SAFETY: as above.
            checked(unsafe { libc::syscall(libc::SYS_semctl, id, 0, libc::IPC_SET, &raw const status) })
        }
        Kind::Queue => {
            // SAFETY: as above.
            let mut status: libc::msqid_ds = unsafe { std::mem::zeroed() };
            (status.msg_perm.uid, status.msg_perm.gid, status.msg_perm.mode) = (uid, gid, mode as _);
            status.msg_qbytes = match capacity {
                Some(capacity) => capacity,
                None => self::capacity(id)?,
            };
            // SAFETY: as above.
            checked(unsafe { libc::syscall(libc::SYS_msgctl, id, libc::IPC_SET, &raw const status) })
        }
    }
    .map(drop)
}

/// IPC_RMID.
///
/// # Errors
/// As shmctl(2), semctl(2), msgctl(2).
pub fn remove(kind: Kind, id: i32) -> Result<()> {
    // SAFETY: IPC_RMID takes no pointer.
    checked(unsafe {
        match kind {
            Kind::Segment => libc::syscall(libc::SYS_shmctl, id, libc::IPC_RMID, 0),
            Kind::Semaphores => libc::syscall(libc::SYS_semctl, id, 0, libc::IPC_RMID, 0),
            Kind::Queue => libc::syscall(libc::SYS_msgctl, id, libc::IPC_RMID, 0),
        }
    })
    .map(drop)
}

/// SHM_LOCK.
///
/// # Errors
/// As shmctl(2).
pub fn lock(id: i32) -> Result<()> {
    // SAFETY: SHM_LOCK takes no pointer.
    checked(unsafe { libc::syscall(libc::SYS_shmctl, id, libc::SHM_LOCK, 0) }).map(drop)
}

/// Makes a segment, readable and writable for its owner until [`set_owner`].
///
/// # Errors
/// As shmget(2): `EEXIST` when the key is taken.
pub fn make_segment(key: i32, size: u64, huge_page: Option<u64>) -> Result<i32> {
    let huge = huge_page.map_or(0, |page| libc::SHM_HUGETLB | (page.trailing_zeros() << HUGE_SHIFT) as i32);
    let flags = libc::IPC_CREAT | libc::IPC_EXCL | 0o600 | huge;
    // SAFETY: shmget takes no pointer.
    checked(unsafe { libc::syscall(libc::SYS_shmget, key, size, flags) }).map(|id| id as i32)
}

/// Makes a set of semaphores.
///
/// # Errors
/// As semget(2): `EEXIST` when the key is taken.
pub fn make_semaphores(key: i32, count: usize) -> Result<i32> {
    let flags = libc::IPC_CREAT | libc::IPC_EXCL | 0o600;
    // SAFETY: semget takes no pointer.
    checked(unsafe { libc::syscall(libc::SYS_semget, key, count, flags) }).map(|id| id as i32)
}

/// Makes a message queue.
///
/// # Errors
/// As msgget(2): `EEXIST` when the key is taken.
pub fn make_queue(key: i32) -> Result<i32> {
    let flags = libc::IPC_CREAT | libc::IPC_EXCL | 0o600;
    // SAFETY: msgget takes no pointer.
    checked(unsafe { libc::syscall(libc::SYS_msgget, key, flags) }).map(|id| id as i32)
}

/// A segment attached to this process; detached here when it is dropped.
#[derive(Debug)]
pub struct Attachment {
    range: PageRange,
}

impl Attachment {
    /// Attaches it where the kernel likes, for reading alone. `len` is its size in whole pages.
    ///
    /// # Errors
    /// As shmat(2).
    pub fn reading(id: i32, len: u64) -> Result<Self> {
        Self::attach(id, Addr::NULL, len, libc::SHM_RDONLY)
    }

    /// Attaches it at `range`, which must be free.
    ///
    /// # Errors
    /// As shmat(2).
    pub fn at(id: i32, range: PageRange, read_only: bool) -> Result<Self> {
        let flags = if read_only { libc::SHM_RDONLY } else { 0 };
        Self::attach(id, range.start, range.len(), flags)
    }

    fn attach(id: i32, at: Addr, len: u64, flags: libc::c_int) -> Result<Self> {
        // SAFETY: without SHM_REMAP no memory in use is taken.
        let start = checked(unsafe { libc::syscall(libc::SYS_shmat, id, at.0, flags) })? as u64;
        Ok(Self { range: PageRange::new(start, start + len) })
    }

    /// Where it is.
    #[must_use]
    pub const fn range(&self) -> PageRange {
        self.range
    }

    /// For each page whether it is in memory (mincore(2)).
    ///
    /// # Errors
    /// As mincore(2).
    pub fn resident(&self) -> Result<Vec<bool>> {
        let mut pages = vec![0u8; (self.range.len() / 4096) as usize];
        // SAFETY: the kernel writes a byte for each page of the range, which is mapped.
        checked(unsafe { libc::syscall(libc::SYS_mincore, self.range.start.0, self.range.len(), pages.as_mut_ptr()) })?;
        Ok(pages.into_iter().map(|page| page & 1 == 1).collect())
    }

    /// Copies memory from `offset` on.
    ///
    /// # Errors
    /// EFAULT when that is not inside.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let from = self.place(offset, into.len())?;
        // SAFETY: `place` has checked the range; it is shared memory to which no reference exists.
        unsafe { std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    /// Copies `bytes` to `offset`. The attachment must not be for reading alone.
    ///
    /// # Errors
    /// EFAULT when that is not inside.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let to = self.place(offset, bytes.len())?;
        // SAFETY: `place` has checked the range; it is shared memory to which no reference exists.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    fn place(&self, offset: u64, len: usize) -> Result<*mut u8> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.range.len() => {
                Ok(std::ptr::with_exposed_provenance_mut((self.range.start.0 + offset) as usize))
            }
            _ => Err(Errno::EFAULT),
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // SAFETY: the attachment is ours and no reference into it exists.
        unsafe { libc::syscall(libc::SYS_shmdt, self.range.start.0) };
    }
}
