//! inotify(7), fanotify(7), open_by_handle_at(2).
#![allow(unsafe_code)]

use super::open::owned;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// IN_UNMOUNT alone: a watch that reports nothing of what is done to its file.
pub const QUIET: u32 = libc::IN_UNMOUNT;

/// inotify_init1(2), close-on-exec and without blocking.
///
/// # Errors
/// As inotify_init1(2).
pub fn inotify() -> io::Result<File> {
    // SAFETY: takes integers; the result is ours.
    owned(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) })
}

/// inotify_add_watch(2): the number of the watch.
///
/// # Errors
/// As inotify_add_watch(2).
pub fn watch(inotify: &File, path: &Path, mask: u32) -> io::Result<i32> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a string.
    let wd = unsafe { libc::inotify_add_watch(inotify.as_raw_fd(), path.as_ptr(), mask) };
    if wd < 0 { Err(io::Error::last_os_error()) } else { Ok(wd) }
}

/// inotify_rm_watch(2).
///
/// # Errors
/// As inotify_rm_watch(2).
pub fn unwatch(inotify: &File, wd: i32) -> io::Result<()> {
    // SAFETY: takes integers.
    let done = unsafe { libc::inotify_rm_watch(inotify.as_raw_fd(), wd) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// fanotify_init(2).
///
/// # Errors
/// As fanotify_init(2): EPERM without CAP_SYS_ADMIN for much of it.
pub fn fanotify(flags: u32, event_flags: u32) -> io::Result<File> {
    // SAFETY: takes integers; the result is ours.
    owned(unsafe { libc::fanotify_init(flags, event_flags) })
}

/// fanotify_mark(2) of a path.
///
/// # Errors
/// As fanotify_mark(2).
pub fn mark(fanotify: &File, flags: u32, mask: u64, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a string.
    let done = unsafe { libc::fanotify_mark(fanotify.as_raw_fd(), flags, mask, libc::AT_FDCWD, path.as_ptr()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// open_by_handle_at(2) with O_PATH, which nobody who watches the file sees.
///
/// # Errors
/// As open_by_handle_at(2): ESTALE when the file is gone, EPERM without CAP_DAC_READ_SEARCH.
pub fn by_handle(mount: BorrowedFd<'_>, kind: i32, handle: &[u8]) -> io::Result<File> {
    // `struct file_handle`: two words, then the bytes; MAX_HANDLE_SZ is 128.
    let mut buffer = [0_u32; 34];
    if handle.len() > 128 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    buffer[0] = handle.len() as u32;
    buffer[1] = kind.cast_unsigned();
    for (word, bytes) in buffer[2..].iter_mut().zip(handle.chunks(4)) {
        let mut padded = [0; 4];
        padded[..bytes.len()].copy_from_slice(bytes);
        *word = u32::from_ne_bytes(padded);
    }
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: the kernel reads a file_handle of the length in its first word, which the buffer holds.
    let fd = unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &raw const buffer, flags) };
    owned(fd as libc::c_int)
}
