//! The memory of maps of bpf(2) that can be mapped.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// A part of a map's memory in our own. No child of ours inherits it.
#[derive(Debug)]
pub struct MapMemory {
    start: *mut libc::c_void,
    len: usize,
}

// SAFETY: it is memory that is shared with others anyway, and no reference to it is given out.
unsafe impl Send for MapMemory {}
// SAFETY: see above; whoever reads what another writes finds bytes of before or after.
unsafe impl Sync for MapMemory {}

impl MapMemory {
    /// The first bytes of it.
    ///
    /// # Errors
    /// As mmap(2).
    pub fn new(map: BorrowedFd<'_>, len: u64, write: bool) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        Self::part(map, (0, len), if write { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ })
    }

    fn part(map: BorrowedFd<'_>, (offset, len): (u64, usize), prot: i32) -> io::Result<Self> {
        let (fd, offset) = (map.as_raw_fd(), offset.cast_signed());
        // SAFETY: without MAP_FIXED no memory that is in use is taken.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, prot, libc::MAP_SHARED, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = Self { start, len };
        // SAFETY: the mapping is ours.
        match unsafe { libc::madvise(start, len, libc::MADV_DONTFORK) } {
            0 => Ok(memory),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// How many bytes there are.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len as u64
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads bytes.
    ///
    /// # Errors
    /// `UnexpectedEof` for bytes that are not there.
    pub fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let from = self.place(at, buf.len())?;
        // SAFETY: the mapping has so many bytes there. A program of the kernel may write to them meanwhile; any byte is valid.
        unsafe { ptr::copy_nonoverlapping(from, buf.as_mut_ptr(), buf.len()) };
        Ok(())
    }

    /// Writes bytes to memory that was mapped for that.
    ///
    /// # Errors
    /// `UnexpectedEof` for bytes that are not there.
    pub fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let to = self.place(at, bytes.len())?;
        // SAFETY: the mapping has so many bytes there, to which no reference exists.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    fn place(&self, at: u64, len: usize) -> io::Result<*mut u8> {
        let end = at.checked_add(len as u64).filter(|end| *end <= self.len());
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        // SAFETY: it lies within the mapping.
        Ok(unsafe { self.start.cast::<u8>().add(at as usize) })
    }
}

impl Drop for MapMemory {
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
    let (memory, mut bytes) = (MapMemory::part(map, (offset, len), libc::PROT_READ)?, vec![0u8; len]);
    memory.read(0, &mut bytes)?;
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
    MapMemory::new(map, bytes.len() as u64, true)?.write(0, bytes)
}

/// Calls `look` with the address at which a page of the map is mapped, for as long as it runs.
///
/// # Errors
/// As mmap(2).
pub fn with_page<T>(map: BorrowedFd<'_>, offset: u64, look: impl FnOnce(u64) -> T) -> io::Result<T> {
    let memory = MapMemory::part(map, (offset, 4096), libc::PROT_READ)?;
    Ok(look(memory.start as u64))
}
