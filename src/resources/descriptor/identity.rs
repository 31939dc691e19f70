//! Which descriptors, of whichever tables, share an open file description.
//!
//! kcmp(2) gives descriptions an order: they are searched for in sorted sets, never compared in pairs. What two descriptions can never
//! have in common (the inode, the offset, the flags) is looked at first.

use crate::image::model::id::{DescriptionId, Fd, Tid};
use crate::sys::kcmp::{self, Object};
use nix::errno::Errno;
use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

/// What descriptors that share a description have in common: device, inode, offset and flags.
pub(super) type Likeness = (u64, u64, i64, u32);

/// The descriptions of a tree. `None` stands for those that were refused.
#[derive(Debug, Default)]
pub(super) struct Identities {
    known: HashMap<Likeness, BTreeMap<Holder, Option<DescriptionId>>>,
}

/// A descriptor of a stopped task, in the order of the descriptions.
#[derive(Clone, Copy, Debug)]
struct Holder {
    tid: Tid,
    fd: Fd,
}

thread_local! {
    /// Why a comparison was not possible; a sorted set has no way to tell.
    static FAILURE: Cell<Option<Errno>> = const { Cell::new(None) };
}

impl Identities {
    /// The description behind a descriptor, if another descriptor of it was noted.
    ///
    /// # Errors
    /// As kcmp(2).
    pub fn find(&self, like: Likeness, tid: Tid, fd: Fd) -> Result<Option<Option<DescriptionId>>, Errno> {
        let found = self.known.get(&like).and_then(|alike| alike.get(&Holder { tid, fd }).copied());
        FAILURE.take().map_or(Ok(found), Err)
    }

    /// Notes what stands behind a descriptor.
    ///
    /// # Errors
    /// As kcmp(2).
    pub fn note(&mut self, like: Likeness, tid: Tid, fd: Fd, description: Option<DescriptionId>) -> Result<(), Errno> {
        self.known.entry(like).or_default().insert(Holder { tid, fd }, description);
        FAILURE.take().map_or(Ok(()), Err)
    }
}

impl Ord for Holder {
    fn cmp(&self, other: &Self) -> Ordering {
        if (self.tid, self.fd) == (other.tid, other.fd) {
            return Ordering::Equal;
        }
        match kcmp::compare(self.tid, other.tid, Object::File, self.fd.0 as u32, other.fd.0 as u32) {
            Ok(Some(order)) => order,
            Ok(None) => (self.tid, self.fd).cmp(&(other.tid, other.fd)),
            Err(error) => {
                FAILURE.set(Some(error));
                (self.tid, self.fd).cmp(&(other.tid, other.fd))
            }
        }
    }
}

impl PartialOrd for Holder {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Holder {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Holder {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    const LIKE: Likeness = (1, 3, 0, 0);

    #[test]
    fn duplicates_are_found_among_many_that_look_alike() {
        let tid = crate::sys::task::own_tid();
        let files: Vec<File> = (0..50).map(|_| File::open("/dev/null").unwrap()).collect();
        let copies: Vec<File> = files.iter().map(|file| file.try_clone().unwrap()).collect();
        let fd = |file: &File| Fd(file.as_raw_fd());
        let mut identities = Identities::default();
        for (number, file) in files.iter().enumerate() {
            assert_eq!(identities.find(LIKE, tid, fd(file)), Ok(None));
            identities.note(LIKE, tid, fd(file), Some(DescriptionId(number as u32))).unwrap();
        }
        for (number, copy) in copies.iter().enumerate() {
            assert_eq!(identities.find(LIKE, tid, fd(copy)), Ok(Some(Some(DescriptionId(number as u32)))));
        }
        assert_eq!(identities.find(LIKE, tid, Fd(100_000)), Err(Errno::EBADF));
    }
}
