//! socket(2), getsockopt(2), setsockopt(2) with values as plain bytes.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};

/// More than any option's value takes but those that are lists.
const VALUE_MAX: usize = 512;

/// A new socket, close-on-exec.
///
/// # Errors
/// As socket(2).
pub fn make(domain: i32, kind: i32, protocol: i32) -> io::Result<File> {
    // SAFETY: socket takes integers.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) };
    // SAFETY: the descriptor is new and nobody else's.
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { File::from_raw_fd(fd) }) }
}

/// The value of an option.
///
/// # Errors
/// As getsockopt(2): ENOPROTOOPT for one that the socket or the kernel does not have.
pub fn option(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<Vec<u8>> {
    let mut value = vec![0u8; VALUE_MAX];
    let mut length = VALUE_MAX as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to the buffer, which has so many.
    let rc = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    value.truncate(length as usize);
    Ok(value)
}

/// The value of an option that is an int.
///
/// # Errors
/// As getsockopt(2); `InvalidData` where it is none.
pub fn number(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<i32> {
    let value = option(fd, level, name)?;
    let word = value.as_slice().try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(i32::from_ne_bytes(word))
}

/// Sets an option.
///
/// # Errors
/// As setsockopt(2).
pub fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let length = value.len() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes from the buffer, which has so many.
    let rc = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The address that a call of the kind of getsockname(2) gives, `sa_family` first.
fn address(
    fd: BorrowedFd<'_>,
    call: unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int,
) -> io::Result<Vec<u8>> {
    let mut value = vec![0u8; size_of::<libc::sockaddr_storage>()];
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to the buffer, which has so many.
    let rc = unsafe { call(fd.as_raw_fd(), value.as_mut_ptr().cast(), &raw mut length) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    value.truncate(length as usize);
    Ok(value)
}

/// getsockname(2): the whole `struct sockaddr` of the family.
///
/// # Errors
/// As getsockname(2).
pub fn own_address(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    address(fd, libc::getsockname)
}

/// getpeername(2): the whole `struct sockaddr` of the family.
///
/// # Errors
/// As getpeername(2): ENOTCONN without a peer.
pub fn peer_address(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    address(fd, libc::getpeername)
}

/// bind(2) to a whole `struct sockaddr`.
///
/// # Errors
/// As bind(2).
pub fn bind(fd: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads the length of the buffer from it.
    let rc = unsafe { libc::bind(fd.as_raw_fd(), address.as_ptr().cast(), address.len() as libc::socklen_t) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
