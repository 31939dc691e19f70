//! What is behind the descriptor of a transfer, and whether one goes on there until all is done.

use super::call::Transfer;
use super::{Left, cut};
use crate::image::model::id::{Fd, Pid, Tid};
use crate::sys::kcmp::{self, Object};
use crate::sys::{descriptor, pidfd, socket, terminal};
use crate::tracer::FrozenTree;
use std::cmp::Ordering;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// A kind of file on which a transfer goes on until all is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A pipe or a FIFO.
    Pipe,
    Terminal,
    /// A device that is never at its end and looks for signals now and then: zeroes, random numbers.
    Source,
    Unix,
    Tcp,
}

/// A duplicate of the thread's descriptor.
pub(super) fn open(tree: &FrozenTree, pid: Pid, tid: Tid, fd: Fd) -> Result<File, Left> {
    let process = tree.processes().iter().find(|process| process.pid() == pid).ok_or(Left::Ended)?;
    let is_common = tid == pid.leader()
        || matches!(kcmp::compare(pid.leader(), tid, Object::Files, 0, 0), Ok(Some(Ordering::Equal)));
    let file = if is_common && !process.dead_leader() {
        pidfd::get_fd(process.pidfd(), fd)
    } else {
        let thread = pidfd::open_thread(tid).map_err(|_| {
            cut("its descriptors are not those of the first thread of its process (Linux 6.9 can tell what they are)")
        })?;
        pidfd::get_fd(thread.as_fd(), fd)
    };
    file.map(File::from).map_err(|_| Left::Ended)
}

/// What kind of file it is, if that transfer goes on there until all is done.
pub(super) fn kind(file: &File, transfer: Transfer) -> Result<Kind, Left> {
    let ended = |_: io::Error| Left::Ended;
    let metadata = file.metadata().map_err(ended)?;
    if transfer.is_read() {
        return if is_source(&metadata) { Ok(Kind::Source) } else { Err(Left::Ended) };
    }
    let flags = descriptor::status_flags(file.as_fd()).map_err(ended)?;
    if flags & libc::O_NONBLOCK != 0 {
        return Err(Left::Ended);
    }
    let file_type = metadata.file_type();
    if file_type.is_fifo() {
        // Of a file, it takes what it has room for.
        return if transfer.is_file() { Err(Left::Ended) } else { Ok(Kind::Pipe) };
    }
    if file_type.is_char_device() && terminal::modes(file.as_fd()).is_ok() {
        return Ok(Kind::Terminal);
    }
    if file_type.is_socket() { socket_kind(file, transfer).map_err(ended)? } else { Err(Left::Ended) }
}

pub(super) fn is_pipe_with_bytes(file: &File) -> bool {
    let is_pipe = file.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
    is_pipe && descriptor::unread(file.as_fd()).is_ok_and(|count| count > 0)
}

/// /dev/zero, /dev/random, /dev/urandom.
fn is_source(metadata: &std::fs::Metadata) -> bool {
    let sources = [5, 8, 9].map(|minor| libc::makedev(1, minor));
    metadata.file_type().is_char_device() && sources.contains(&metadata.rdev())
}

fn socket_kind(file: &File, transfer: Transfer) -> io::Result<Result<Kind, Left>> {
    const SENDS: u64 = (libc::MSG_NOSIGNAL | libc::MSG_MORE) as u64;
    const RECEIVES: u64 = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL | libc::MSG_CMSG_CLOEXEC) as u64;
    let fd = file.as_fd();
    let number = |name| socket::number(fd, libc::SOL_SOCKET, name);
    let kind = match (number(libc::SO_DOMAIN)?, number(libc::SO_TYPE)?, number(libc::SO_PROTOCOL)?) {
        (libc::AF_UNIX, libc::SOCK_STREAM, _) => Kind::Unix,
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP) => Kind::Tcp,
        (_, libc::SOCK_STREAM, _) => return Ok(Err(cut("it is on a socket of another kind than UNIX and TCP"))),
        _ => return Ok(Err(Left::Ended)),
    };
    if transfer.flags & libc::MSG_DONTWAIT as u64 != 0 {
        return Ok(Err(Left::Ended));
    }
    if transfer.flags & !(if transfer.receives { RECEIVES } else { SENDS }) != 0 {
        return Ok(Err(Left::Cut(format!("its flags {:#x} are not known to allow that", transfer.flags))));
    }
    let timeout = if transfer.receives { libc::SO_RCVTIMEO } else { libc::SO_SNDTIMEO };
    if socket::option(fd, libc::SOL_SOCKET, timeout)?.iter().any(|byte| *byte != 0) {
        return Ok(Err(cut("its socket has a timeout, of which it is not known how much is left")));
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
