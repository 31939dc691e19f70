//! The options that are read of a socket and set again: one table for both.

use crate::image::model::socket::SocketOption;
use crate::sys::socket;
use std::io;
use std::os::fd::BorrowedFd;

// include/uapi/asm-generic/socket.h
const SO_BUF_LOCK: i32 = 72;

/// Options that every family has, in the order in which they are set: what a later one needs or changes comes first.
const COMMON: &[i32] = &[
    libc::SO_REUSEADDR,
    libc::SO_REUSEPORT,
    libc::SO_BROADCAST,
    libc::SO_KEEPALIVE,
    libc::SO_OOBINLINE,
    libc::SO_LINGER,
    libc::SO_SNDBUF,
    libc::SO_RCVBUF,
    SO_BUF_LOCK,
    libc::SO_RCVLOWAT,
    libc::SO_RCVTIMEO,
    libc::SO_SNDTIMEO,
    libc::SO_PRIORITY,
    libc::SO_PASSCRED,
    libc::SO_PASSSEC,
    libc::SO_TIMESTAMP,
    libc::SO_TIMESTAMPNS,
    libc::SO_TIMESTAMPING,
];

/// Reads the options of a socket.
///
/// # Errors
/// As getsockopt(2). What this kernel or this socket does not have is left out.
pub fn collect(fd: BorrowedFd<'_>) -> io::Result<Vec<SocketOption>> {
    let mut options = Vec::with_capacity(COMMON.len());
    for &name in COMMON {
        match socket::option(fd, libc::SOL_SOCKET, name) {
            Ok(value) => options.push(SocketOption { level: libc::SOL_SOCKET, name, value }),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(options)
}

/// Sets what a new socket does not have already.
///
/// # Errors
/// As setsockopt(2).
pub fn apply(fd: BorrowedFd<'_>, options: &[SocketOption]) -> io::Result<()> {
    for SocketOption { level, name, value } in options {
        if socket::option(fd, *level, *name).is_ok_and(|now| now == *value) {
            continue;
        }
        match (*level, *name) {
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => size_buffer(fd, libc::SO_SNDBUF, libc::SO_SNDBUFFORCE, value)?,
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => size_buffer(fd, libc::SO_RCVBUF, libc::SO_RCVBUFFORCE, value)?,
            _ => socket::set_option(fd, *level, *name, value)?,
        }
    }
    Ok(())
}

/// The kernel doubles what it is given (socket(7)). Beyond the limit of the system it takes CAP_NET_ADMIN.
fn size_buffer(fd: BorrowedFd<'_>, name: i32, force: i32, value: &[u8]) -> io::Result<()> {
    let size = value.try_into().map(i32::from_ne_bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let half = (size / 2).to_ne_bytes();
    socket::set_option(fd, libc::SOL_SOCKET, force, &half)
        .or_else(|_| socket::set_option(fd, libc::SOL_SOCKET, name, &half))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP | libc::EINVAL))
}
