//! process_vm_readv(2) and process_vm_writev(2). Reading unshares pages that a fork shares: exclusive memory only.
#![allow(unsafe_code)]

use super::{Result, checked};
use crate::image::model::address::Addr;
use crate::image::model::id::Pid;

/// Most iovecs that one call takes (UIO_MAXIOV).
pub const MAX_VECTORS: usize = 1024;

/// Reads from `at` into `into`; returns the number of bytes, short where the memory ends.
///
/// # Errors
/// EFAULT when nothing could be read, EPERM, ESRCH.
pub fn read(pid: Pid, at: Addr, into: &mut [u8]) -> Result<usize> {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = libc::iovec { iov_base: at.0 as *mut _, iov_len: into.len() };
    // SAFETY: `local` describes `into`; the remote addresses are only checked against the other address space.
    checked(unsafe { libc::process_vm_readv(pid.0, &raw const local, 1, &raw const remote, 1, 0) } as _)
}

/// Reads many ranges, one after the other, into one buffer; at most [`MAX_VECTORS`] of them.
///
/// # Errors
/// As [`read`]; EINVAL for too many ranges. A short count ends at a range that could not be read.
pub fn read_scattered(pid: Pid, ranges: &[(Addr, usize)], into: &mut [u8]) -> Result<usize> {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote: Vec<_> =
        ranges.iter().map(|(at, len)| libc::iovec { iov_base: at.0 as *mut _, iov_len: *len }).collect();
    // SAFETY: as in `read`; the kernel writes no more than `into` holds.
    checked(unsafe { libc::process_vm_readv(pid.0, &raw const local, 1, remote.as_ptr(), remote.len() as _, 0) } as _)
}

/// Writes all of `from` to `at`.
///
/// # Errors
/// As [`write()`]; what lies before the memory that could not be written is written.
pub fn write_all(pid: Pid, at: Addr, from: &[u8]) -> Result<()> {
    let mut done = 0;
    while done < from.len() {
        match write(pid, at.add(done as u64), &from[done..])? {
            0 => return Err(nix::errno::Errno::EFAULT),
            written => done += written,
        }
    }
    Ok(())
}

/// Writes `from` to `at`; only where the target itself may write.
///
/// # Errors
/// EFAULT when nothing could be written, EPERM, ESRCH.
pub fn write(pid: Pid, at: Addr, from: &[u8]) -> Result<usize> {
    let local = libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: from.len() };
    let remote = libc::iovec { iov_base: at.0 as *mut _, iov_len: from.len() };
    // SAFETY: `local` describes `from`, which is only read.
    checked(unsafe { libc::process_vm_writev(pid.0, &raw const local, 1, &raw const remote, 1, 0) } as _)
}
