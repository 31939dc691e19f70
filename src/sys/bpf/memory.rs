//! The memory of maps of bpf(2) that can be mapped.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// A part of a map's memory in our own.
struct Mapping {
    start: *mut libc::c_void,
    len: usize,
}

impl Mapping {
    fn new(map: BorrowedFd<'_>, (offset, len): (u64, usize), prot: i32) -> io::Result<Self> {
        let (fd, offset) = (map.as_raw_fd(), offset.cast_signed());
        // SAFETY: without MAP_FIXED no memory that is in use is taken.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, prot, libc::MAP_SHARED, fd, offset) };
        if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { start, len }) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more.
        unsafe { libc::munmap(self.start, self.len) };
    }
}

/// A copy of the memory of a map that can be mapped.
///
/// # Errors
/// As mmap(2).
pub fn read_memory(map: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let (mapping, mut bytes) = (Mapping::new(map, (offset, len), libc::PROT_READ)?, vec![0u8; len]);
    // SAFETY: the mapping has so many bytes, and so has `bytes`. A program of the kernel may write to them meanwhile; any byte is valid.
    unsafe { ptr::copy_nonoverlapping(mapping.start.cast::<u8>(), bytes.as_mut_ptr(), len) };
    Ok(bytes)
}

/// Writes to the memory of a map that can be mapped and is not frozen.
///
/// # Errors
/// As mmap(2).
pub fn write_memory(map: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mapping = Mapping::new(map, (0, bytes.len()), libc::PROT_READ | libc::PROT_WRITE)?;
    // SAFETY: the mapping has so many bytes, to which no reference exists.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), mapping.start.cast::<u8>(), bytes.len()) };
    Ok(())
}

/// Calls `look` with the address at which a page of the map is mapped, for as long as it runs.
///
/// # Errors
/// As mmap(2).
pub fn with_page<T>(map: BorrowedFd<'_>, offset: u64, look: impl FnOnce(u64) -> T) -> io::Result<T> {
    let mapping = Mapping::new(map, (offset, 4096), libc::PROT_READ)?;
    Ok(look(mapping.start as u64))
}
