//! What fcntl(2), ioctl(2) and poll(2) tell of an open file description through any descriptor of it.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct f_owner_ex` of fcntl(2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnerEx {
    /// F_OWNER_TID 0, F_OWNER_PID 1, F_OWNER_PGRP 2.
    pub kind: i32,
    /// The id, 0 for none.
    pub pid: i32,
}

const _: () = assert!(size_of::<OwnerEx>() == 8);

// include/uapi/asm-generic/fcntl.h
const F_SETSIG: libc::c_int = 10;
const F_GETSIG: libc::c_int = 11;
const F_SETOWN_EX: libc::c_int = 15;
const F_GETOWN_EX: libc::c_int = 16;

/// F_GETOWN_EX.
///
/// # Errors
/// As fcntl(2); EBADF for descriptors of O_PATH.
pub fn get_owner(fd: BorrowedFd<'_>) -> io::Result<OwnerEx> {
    let mut owner = OwnerEx::default();
    // SAFETY: F_GETOWN_EX writes one f_owner_ex to the pointer, which is valid for it.
    let rc = unsafe { libc::fcntl(fd.as_raw_fd(), F_GETOWN_EX, &raw mut owner) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(owner) }
}

/// F_SETOWN_EX.
///
/// # Errors
/// As fcntl(2).
pub fn set_owner(fd: BorrowedFd<'_>, owner: OwnerEx) -> io::Result<()> {
    // SAFETY: F_SETOWN_EX reads one f_owner_ex from the pointer, which is valid for it.
    let rc = unsafe { libc::fcntl(fd.as_raw_fd(), F_SETOWN_EX, &raw const owner) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// F_GETSIG: 0 stands for SIGIO without a siginfo.
///
/// # Errors
/// As fcntl(2).
pub fn get_signal(fd: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: F_GETSIG takes no argument.
    let rc = unsafe { libc::fcntl(fd.as_raw_fd(), F_GETSIG) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

/// F_SETSIG.
///
/// # Errors
/// As fcntl(2).
pub fn set_signal(fd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: F_SETSIG takes an int.
    let rc = unsafe { libc::fcntl(fd.as_raw_fd(), F_SETSIG, signal) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// F_GETFL: access mode and status flags.
///
/// # Errors
/// As fcntl(2).
pub fn status_flags(fd: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: F_GETFL takes no argument.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 { Err(io::Error::last_os_error()) } else { Ok(flags) }
}

/// O_ASYNC: whether whoever owns a description is sent signals for it.
///
/// # Errors
/// As fcntl(2).
pub fn set_async(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let flags = status_flags(fd)? & !libc::O_ASYNC | if on { libc::O_ASYNC } else { 0 };
    // SAFETY: F_SETFL takes an int.
    let rc = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// SIOCATMARK: whether urgent data comes next in a stream, or was there and was taken. Not on a kernel that has none.
#[must_use]
pub fn is_at_mark(fd: BorrowedFd<'_>) -> bool {
    const SIOCATMARK: libc::c_ulong = 0x8905;
    let mut answer: libc::c_int = 0;
    // SAFETY: SIOCATMARK writes one int to the pointer, which is valid for it.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), SIOCATMARK, &raw mut answer) };
    rc == 0 && answer != 0
}

/// FIONREAD: unread bytes.
///
/// # Errors
/// As ioctl(2).
pub fn unread(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int to the pointer, which is valid for it.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(count.max(0) as usize) }
}
