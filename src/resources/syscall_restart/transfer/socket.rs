//! Transfers through sockets: with how much one is done, and what ends it before.

use super::call::Transfer;
use super::file::{Found, Kind};
use super::{Left, cut};
use crate::sys::socket;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

const SENDS: u64 = (libc::MSG_NOSIGNAL | libc::MSG_MORE) as u64;
const RECEIVES: u64 = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL | libc::MSG_CMSG_CLOEXEC) as u64;

/// As [`super::file::look`].
pub(super) fn look(
    file: &File,
    transfer: Transfer,
    (total, done): (u64, u64),
    nonblocking: bool,
) -> io::Result<Result<Found, Left>> {
    let fd = file.as_fd();
    let number = |name| socket::number(fd, libc::SOL_SOCKET, name);
    let waits = !nonblocking && transfer.flags & libc::MSG_DONTWAIT as u64 == 0;
    // A receive is done with SO_RCVLOWAT bytes.
    let end = if transfer.is_read() && !transfer.is_of_messages() {
        total.min(number(libc::SO_RCVLOWAT)?.max(1).cast_unsigned().into())
    } else {
        total
    };
    if !waits || done >= end {
        return Ok(Err(Left::Ended));
    }
    let timeout = if transfer.receives { libc::SO_RCVTIMEO } else { libc::SO_SNDTIMEO };
    let has_timeout = socket::option(fd, libc::SOL_SOCKET, timeout)?.iter().any(|byte| *byte != 0);
    let kind = if transfer.is_of_messages() { messages(fd, transfer)? } else { stream(fd, transfer)? };
    Ok(kind.map(|kind| Found { kind, end, has_timeout }))
}

fn stream(fd: BorrowedFd<'_>, transfer: Transfer) -> io::Result<Result<Kind, Left>> {
    let number = |name| socket::number(fd, libc::SOL_SOCKET, name);
    let kind = match (number(libc::SO_DOMAIN)?, number(libc::SO_TYPE)?, number(libc::SO_PROTOCOL)?) {
        (libc::AF_UNIX, libc::SOCK_STREAM, _) => Kind::Unix,
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP) => Kind::Tcp,
        (_, libc::SOCK_STREAM, _) => return Ok(Err(cut("it is on a socket of another kind than UNIX and TCP"))),
        _ => return Ok(Err(Left::Ended)),
    };
    if transfer.flags & !(if transfer.receives { RECEIVES } else { SENDS }) != 0 {
        return Ok(Err(Left::Cut(format!("its flags {:#x} are not known to allow that", transfer.flags))));
    }
    // An error, or urgent data, ends a transfer that has done something, and is seen by the next call.
    if socket::waiting(fd)? & libc::POLLERR != 0 {
        return Ok(Err(Left::Ended));
    }
    Ok(match kind {
        Kind::Unix if transfer.receives && has_authors(number)? => {
            Err(cut("its socket tells who has sent what, and a receive ends where that changes"))
        }
        Kind::Tcp if transfer.receives && socket::is_at_mark(fd)? => Err(Left::Ended),
        Kind::Tcp if !socket::option(fd, libc::SOL_TCP, libc::TCP_ULP)?.is_empty() => {
            Err(cut("something stands between its socket and TCP (TCP_ULP)"))
        }
        kind => Ok(kind),
    })
}

/// Several messages. Whatever ends a sendmmsg(2) before all are sent does so again. A recvmmsg(2) that has received something leaves what has ended it to the next call
/// as an error of the socket (net/socket.c, `do_recvmmsg`), and does that with the code by which the kernel would restart it: the next call would return an
/// error 512 that no program knows. That is taken away.
fn messages(fd: BorrowedFd<'_>, transfer: Transfer) -> io::Result<Result<Kind, Left>> {
    const ERESTARTSYS: i32 = 512;
    const ENDS: u64 = (libc::MSG_WAITFORONE | libc::MSG_ERRQUEUE) as u64;
    let number = |name| socket::number(fd, libc::SOL_SOCKET, name);
    let is_stream = number(libc::SO_TYPE)? == libc::SOCK_STREAM;
    if !transfer.receives {
        // Whole ones can be sent in any case.
        let kind = if is_stream { stream(fd, transfer)?.unwrap_or(Kind::Messages) } else { Kind::Messages };
        return Ok(Ok(kind));
    }
    let is_filled = is_stream && transfer.flags & libc::MSG_WAITALL as u64 != 0;
    if is_filled && transfer.is_at_last() {
        return stream(fd, transfer);
    }
    if transfer.is_at_last() || transfer.flags & ENDS != 0 || socket::waiting(fd)? & libc::POLLERR == 0 {
        return Ok(Err(Left::Ended));
    }
    Ok(match number(libc::SO_ERROR)? {
        ERESTARTSYS | libc::EINTR if is_filled => stream(fd, transfer)?,
        ERESTARTSYS | libc::EINTR => Ok(Kind::Messages),
        0 => Err(Left::Ended),
        error => {
            let error = io::Error::from_raw_os_error(error);
            Err(Left::Cut(format!("its socket had an error, which the next call does not return any more: {error}")))
        }
    })
}

/// Whether one of the options is set under which messages of different senders are not put together.
fn has_authors(number: impl Fn(i32) -> io::Result<i32>) -> io::Result<bool> {
    /// Not declared by libc.
    const SO_PASSPIDFD: i32 = 76;
    for option in [libc::SO_PASSCRED, libc::SO_PASSSEC, SO_PASSPIDFD] {
        match number(option) {
            Ok(0) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}
