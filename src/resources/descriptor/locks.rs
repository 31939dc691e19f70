//! Locks of files, as `fdinfo` shows them: those of a description at each of its holders, those of a table at the descriptor they were made
//! through.

use super::{Findings, Seen};
use crate::image::model::file::{Description, DescriptionLock, DescriptionLockKind, LockRange, PosixLock};
use crate::image::model::id::Tid;
use crate::proc::locks::{Lock, LockClass};

/// The locks of F_SETLK that a descriptor shows.
pub(super) fn of_table(fd: &Seen, posix: &mut Vec<PosixLock>) {
    for lock in fd.info.locks.iter().filter(|lock| !lock.waiting && lock.class == LockClass::Posix) {
        note_once(posix, PosixLock { fd: fd.fd, exclusive: is_exclusive(lock), range: range(lock) });
    }
}

/// The locks of the description itself.
pub(super) fn of_description(tid: Tid, fd: &Seen, description: Option<&mut Description>, findings: &mut Findings) {
    let mut held = Vec::new();
    for lock in fd.info.locks.iter().filter(|lock| !lock.waiting) {
        let kind = match lock.class {
            LockClass::Posix => continue,
            LockClass::Flock => DescriptionLockKind::Flock,
            LockClass::OpenFile => DescriptionLockKind::OpenDescription,
            LockClass::Lease | LockClass::Delegation | LockClass::Layout | LockClass::Access | LockClass::Unknown => {
                refuse(tid, fd, lock, findings);
                continue;
            }
        };
        note_once(&mut held, DescriptionLock { kind, exclusive: is_exclusive(lock), range: range(lock) });
    }
    if let Some(description) = description {
        description.locks = held;
    }
}

fn is_exclusive(lock: &Lock) -> bool {
    lock.access == "WRITE"
}

fn range(lock: &Lock) -> LockRange {
    LockRange { start: lock.start, end: lock.end }
}

fn note_once<T: PartialEq>(locks: &mut Vec<T>, lock: T) {
    if !locks.contains(&lock) {
        locks.push(lock);
    }
}

fn refuse(tid: Tid, fd: &Seen, lock: &Lock, findings: &mut Findings) {
    findings.block(
        format!("pid {tid}"),
        fd.shown(),
        format!("it holds a {:?} lock, which is not supported yet", lock.class),
        "release it before the dump",
    );
}
