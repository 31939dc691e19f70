//! Which descriptors, of whichever tables, share an open file description.
//!
//! kcmp(2) gives descriptions an order: they are searched for in sorted sets, never compared in pairs. What two descriptions can never
//! have in common (the inode, the offset, the flags) is looked at first.

use crate::image::model::id::{DescriptionId, Fd, Tid};
use crate::sys::kcmp::{self, Object};
use nix::errno::Errno;
use std::cmp::Ordering;
use std::collections::HashMap;

/// What descriptors that share a description have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Likeness {
    /// Device of the inode.
    pub dev: u64,
    /// The inode.
    pub ino: u64,
    /// The offset.
    pub pos: i64,
    /// The flags of the description.
    pub flags: u32,
    /// Of those that share one inode without having anything in common (fs/anon_inodes.c): what they are, and which, where the kernel tells.
    pub anonymous: Vec<u8>,
}

/// The descriptions of a tree. `None` stands for those that were refused.
#[derive(Debug, Default)]
pub(super) struct Identities {
    /// Those that look alike, in the order of the descriptions.
    known: HashMap<Likeness, Vec<(Holder, Option<DescriptionId>)>>,
}

/// A descriptor of a stopped task.
#[derive(Clone, Copy, Debug)]
struct Holder {
    tid: Tid,
    fd: Fd,
}

/// Where a description is to be noted that was not found.
#[derive(Debug)]
pub(super) struct Place {
    like: Likeness,
    at: usize,
    holder: Holder,
}

/// What stands behind a descriptor.
#[derive(Debug)]
pub(super) enum Found {
    /// What was noted of another descriptor of it.
    Known(Option<DescriptionId>),
    /// Nothing yet. It must be noted before anything else is looked for.
    New(Place),
}

impl Identities {
    /// The description behind a descriptor, if another descriptor of it was noted.
    ///
    /// # Errors
    /// As kcmp(2).
    pub fn find(&self, like: Likeness, tid: Tid, fd: Fd) -> Result<Found, Errno> {
        let holder = Holder { tid, fd };
        let alike = self.known.get(&like).map_or(&[][..], Vec::as_slice);
        let (mut least, mut end) = (0, alike.len());
        while least < end {
            let middle = usize::midpoint(least, end);
            let (other, description) = &alike[middle];
            match other.compare(holder)? {
                Ordering::Equal => return Ok(Found::Known(*description)),
                Ordering::Less => least = middle + 1,
                Ordering::Greater => end = middle,
            }
        }
        Ok(Found::New(Place { like, at: least, holder }))
    }

    /// Notes what stands behind a descriptor that was just looked for.
    pub fn note(&mut self, Place { like, at, holder }: Place, description: Option<DescriptionId>) {
        self.known.entry(like).or_default().insert(at, (holder, description));
    }
}

impl Holder {
    /// The order of what stands behind two descriptors.
    fn compare(self, other: Self) -> Result<Ordering, Errno> {
        let numbers = || (self.tid, self.fd).cmp(&(other.tid, other.fd));
        if numbers().is_eq() {
            return Ok(Ordering::Equal);
        }
        let order = kcmp::compare(self.tid, other.tid, Object::File, self.fd.0 as u32, other.fd.0 as u32)?;
        Ok(order.unwrap_or_else(numbers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    fn like() -> Likeness {
        Likeness { dev: 1, ino: 3, ..Likeness::default() }
    }

    #[test]
    fn duplicates_are_found_among_many_that_look_alike() {
        let tid = crate::sys::task::own_tid();
        let files: Vec<File> = (0..50).map(|_| File::open("/dev/null").unwrap()).collect();
        let copies: Vec<File> = files.iter().map(|file| file.try_clone().unwrap()).collect();
        let fd = |file: &File| Fd(file.as_raw_fd());
        let mut identities = Identities::default();
        for (number, file) in files.iter().enumerate() {
            match identities.find(like(), tid, fd(file)) {
                Ok(Found::New(place)) => identities.note(place, Some(DescriptionId(number as u32))),
                other => panic!("{other:?}"),
            }
        }
        for (number, copy) in copies.iter().enumerate() {
            let found = identities.find(like(), tid, fd(copy)).unwrap();
            assert!(matches!(found, Found::Known(Some(id)) if id.0 == number as u32), "{number}: {found:?}");
        }
        assert_eq!(identities.find(like(), tid, Fd(100_000)).unwrap_err(), Errno::EBADF);
    }
}
