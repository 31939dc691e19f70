//! Descriptors that this process was born with.
#![allow(unsafe_code)]

use super::{Result, checked};

/// Closes every descriptor but the three standard streams (close_range(2)).
///
/// The caller must own none of them: this is for the first line of a program.
///
/// # Errors
/// ENOSYS before kernel 5.9.
pub fn close() -> Result<()> {
    // SAFETY: as the caller promises, nothing in this process holds one of these numbers.
    checked(unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) }).map(drop)
}
