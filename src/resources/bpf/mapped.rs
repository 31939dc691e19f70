//! Which map a mapping is of. All of them have one inode (fs/anon_inodes.c), and no interface tells; but a page of a map stands in one frame of memory, whoever maps it.

use crate::image::model::address::{Addr, PAGE_SIZE, PageRange};
use crate::image::model::id::Pid;
use crate::sys::bpf;
use crate::sys::pagemap::{self, Entry};
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

/// What such a mapping is called in /proc/PID/maps.
pub const NAME: &[u8] = b"anon_inode:bpf-map";

/// A page of a mapping: its offset in the map, and the frame in which it stands.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    offset: u64,
    frame: Entry,
}

impl Page {
    /// The first page of a mapping that is there.
    ///
    /// # Errors
    /// As open(2), pread(2); `NotFound` where no page is there; `PermissionDenied` without CAP_SYS_ADMIN, for then no frames are told.
    pub fn of(pid: Pid, range: PageRange, offset: u64) -> io::Result<Self> {
        const TOGETHER: u64 = 512;
        let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at.add(TOGETHER * PAGE_SIZE));
            let entries = pagemap::entries(&pagemap, PageRange { start: at, end })?;
            if let Some(place) = entries.iter().position(|entry| entry.contains(Entry::PRESENT)) {
                let frame = entries[place] & Entry::FRAME;
                let offset = offset + (at.0 - range.start.0) + place as u64 * PAGE_SIZE;
                return if frame.is_empty() {
                    Err(io::ErrorKind::PermissionDenied.into())
                } else {
                    Ok(Self { offset, frame })
                };
            }
            at = end;
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Whether it is one of this map.
    ///
    /// # Errors
    /// As pread(2). Where the map has no such page, it is not.
    pub fn is_of(self, map: BorrowedFd<'_>) -> io::Result<bool> {
        let look = |at| {
            let range = PageRange { start: Addr(at), end: Addr(at + PAGE_SIZE) };
            pagemap::entries(&File::open("/proc/self/pagemap")?, range)
        };
        match bpf::with_page(map, self.offset, look) {
            Err(_) => Ok(false),
            Ok(entries) => Ok(entries?.iter().any(|entry| *entry & Entry::FRAME == self.frame)),
        }
    }
}
