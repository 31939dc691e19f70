//! Shared memory at a chosen address, which a child inherits: what the interpreter works from and reports into.
#![allow(unsafe_code)]

use crate::image::model::address::{Addr, PageRange};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

/// A MAP_SHARED|MAP_ANONYMOUS mapping of this process; unmapped here when it is dropped.
#[derive(Debug)]
pub struct Arena {
    range: PageRange,
}

impl Arena {
    /// Maps `range`, which must be free in this process.
    ///
    /// # Errors
    /// As mmap(2) with MAP_FIXED_NOREPLACE.
    pub fn map(range: PageRange, executable: bool) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE | if executable { libc::PROT_EXEC } else { 0 };
        let wanted = range.start.0 as *mut libc::c_void;
        let map = |reserve: i32| {
            let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE | reserve;
            // SAFETY: MAP_FIXED_NOREPLACE never takes memory that is in use.
            unsafe { libc::mmap(wanted, range.len() as usize, protection, flags, -1, 0) }
        };
        // A mapping keeps this attribute; only an object too large to be reserved can have been made with it.
        let got = match map(0) {
            libc::MAP_FAILED => map(libc::MAP_NORESERVE),
            got => got,
        };
        if got == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let arena = Self { range: PageRange::new(got as u64, got as u64 + range.len()) };
        // Kernels before 4.17 take the address for a hint.
        if got == wanted { Ok(arena) } else { Err(io::ErrorKind::AddrInUse.into()) }
    }

    /// Where it is, here and in the child.
    #[must_use]
    pub const fn range(&self) -> PageRange {
        self.range
    }

    /// Copies `bytes` to `addr`.
    ///
    /// # Errors
    /// When they do not lie inside.
    pub fn write(&self, addr: Addr, bytes: &[u8]) -> io::Result<()> {
        let to = self.place(addr, bytes.len())?;
        // SAFETY: `place` has checked the range; it is shared memory to which no reference exists.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    /// The `u64` at `addr`.
    ///
    /// # Errors
    /// When it does not lie inside.
    pub fn read(&self, addr: Addr) -> io::Result<u64> {
        let from = self.place(addr, 8)?;
        // SAFETY: `place` has checked the range.
        Ok(unsafe { ptr::read_unaligned(from.cast::<u64>()) })
    }

    /// Stores the aligned `u32` at `addr` and wakes all who wait for it.
    ///
    /// # Errors
    /// When it does not lie inside or is not aligned.
    pub fn release(&self, addr: Addr, value: u32) -> io::Result<()> {
        let word = self.place(addr, 4)?;
        if !addr.0.is_multiple_of(4) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: aligned, inside, and only ever used atomically by both sides.
        unsafe { AtomicU32::from_ptr(word.cast()) }.store(value, Ordering::SeqCst);
        // SAFETY: FUTEX_WAKE touches no memory.
        unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, i32::MAX, 0, 0, 0) };
        Ok(())
    }

    fn place(&self, addr: Addr, len: usize) -> io::Result<*mut u8> {
        let end = addr.0.checked_add(len as u64);
        match end {
            Some(end) if addr >= self.range.start && end <= self.range.end.0 => {
                Ok(ptr::with_exposed_provenance_mut(addr.0 as usize))
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no reference into it exists.
        unsafe { libc::munmap(self.range.start.0 as *mut libc::c_void, self.range.len() as usize) };
    }
}
