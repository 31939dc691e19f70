//! Mapping a whole file for reading, and files of huge pages, which take no write(2).
#![allow(unsafe_code)]

use memmap2::{Mmap, MmapOptions};
use nix::sys::statfs::fstatfs;
use std::fs::File;
use std::io;

/// Maps an image for [`Image::open`](crate::image::Image::open).
///
/// An image appears under its name by rename(2) and is never changed afterwards. Whoever cuts the file off while it is
/// mapped makes this process end with SIGBUS; whoever writes into it makes a checksum fail.
///
/// # Errors
/// mmap(2).
pub fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapping is private and read-only. Rust wants bytes behind a slice not to change; nothing but bytes is
    // read from it, no value has an invalid bit pattern, and what was checked is read again at most to be copied.
    unsafe { Mmap::map(file) }
}

/// Bytes of a page of a file in hugetlbfs, which the memfds of MFD_HUGETLB are; `None` for any other file.
#[must_use]
pub fn huge_page(file: &File) -> Option<u64> {
    const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;
    let system = fstatfs(file).ok()?;
    (system.filesystem_type().0 == HUGETLBFS_MAGIC).then(|| system.block_size().cast_unsigned())
}

/// Makes shared anonymous memory of huge pages, reserved where they can be, and opens it: nothing but a mapping of it shows as this does.
///
/// # Errors
/// mmap(2): ENOMEM without free huge pages. EPERM without CAP_CHECKPOINT_RESTORE, of `map_files` (proc(5)).
pub fn huge(len: u64, page: u64) -> io::Result<File> {
    let size = page.trailing_zeros() as i32;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | size << libc::MAP_HUGE_SHIFT;
    let (len, prot) = (len as usize, libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: without MAP_FIXED no memory that is in use is taken.
    let map = |reserve: i32| unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags | reserve, -1, 0) };
    // What cannot be reserved can have been made with that alone.
    let at = match map(0) {
        libc::MAP_FAILED => map(libc::MAP_NORESERVE),
        at => at,
    };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let path = format!("/proc/self/map_files/{:x}-{:x}", at as usize, at as usize + len);
    let file = File::options().read(true).write(true).open(path);
    // SAFETY: the mapping is ours, and nothing refers to it.
    unsafe { libc::munmap(at, len) };
    file
}

/// Writes into a file of huge pages, within its size. The kernel reserves the pages before, so that none is missing when it is written to.
///
/// # Errors
/// mmap(2): ENOMEM without free huge pages.
pub fn write_huge(file: &File, page: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let start = offset - offset % page;
    let len = (offset - start + bytes.len() as u64).next_multiple_of(page);
    // SAFETY: the file is a memfd of ours that nobody else has written to or will cut off; the mapping is gone when this returns.
    let mut map = unsafe { MmapOptions::new().offset(start).len(len as usize).map_mut(file) }?;
    let at = (offset - start) as usize;
    map[at..at + bytes.len()].copy_from_slice(bytes);
    Ok(())
}
