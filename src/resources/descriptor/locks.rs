//! Locks of files, as `fdinfo` shows them: those of a description at each of its holders, those of a table at the descriptor they were made
//! through.

use super::{Findings, Seen};
use crate::image::model::file::{Description, DescriptionLock, DescriptionLockKind, LockRange, PosixLock};
use crate::image::model::id::{Pid, Tid};
use crate::proc::locks::{Lock, LockClass};
use std::os::unix::fs::MetadataExt;

/// The locks of F_SETLK that a descriptor shows.
pub(super) fn of_table(fd: &Seen, posix: &mut Vec<PosixLock>) {
    for lock in fd.info.locks.iter().filter(|lock| !lock.waiting && lock.class == LockClass::Posix) {
        note_once(posix, PosixLock { fd: fd.fd, exclusive: is_exclusive(lock), range: range(lock) });
    }
}

/// Why a lock that shows at a descriptor cannot be kept, if it cannot.
pub(super) fn refusal(fd: &Seen) -> Option<String> {
    let mut held = fd.info.locks.iter().filter(|lock| !lock.waiting);
    held.find_map(|lock| match lock.class {
        LockClass::Posix | LockClass::Flock | LockClass::OpenFile => None,
        // To read what is in it, or to have it open for filling it, would break the lease.
        LockClass::Lease if fd.meta.nlink() == 0 => Some("it is leased, and has no name any more".into()),
        LockClass::Lease => None,
        LockClass::Delegation | LockClass::Layout | LockClass::Access | LockClass::Unknown => {
            Some(format!("it holds a {:?} lock, which is the kernel's own", lock.class))
        }
    })
}

/// The locks of the description itself. A lease that somebody waits for is refused for as long as that lasts.
pub(super) fn of_description(tid: Tid, fd: &Seen, description: Option<&mut Description>, findings: &mut Findings) {
    let mut held = Vec::new();
    for lock in fd.info.locks.iter().filter(|lock| !lock.waiting) {
        let kind = match lock.class {
            LockClass::Flock => DescriptionLockKind::Flock,
            LockClass::OpenFile => DescriptionLockKind::OpenDescription,
            LockClass::Lease => DescriptionLockKind::Lease,
            LockClass::Posix | LockClass::Delegation | LockClass::Layout | LockClass::Access | LockClass::Unknown => {
                continue;
            }
        };
        if lock.state == "BREAKING" {
            let reason = "its lease is being broken: somebody waits to open the file";
            findings.pass(format!("pid {tid}"), fd.shown(), reason, "try again when the lease is given up");
        }
        let holder = (lock.pid > 0).then_some(Pid(lock.pid));
        note_once(&mut held, DescriptionLock { kind, exclusive: is_exclusive(lock), range: range(lock), holder });
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
