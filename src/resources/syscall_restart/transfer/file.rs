//! What is behind the descriptor of a transfer, and whether one goes on there until all is done.

use super::call::Transfer;
use super::{Left, cut, socket};
use crate::image::model::id::{Fd, Pid, Tid};
use crate::sys::kcmp::{self, Object};
use crate::sys::{descriptor, pidfd, terminal};
use crate::tracer::FrozenTree;
use std::cmp::Ordering;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// A kind of file on which a transfer goes on until all is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A pipe or a FIFO.
    Pipe,
    /// The same in packet mode (O_DIRECT): what is written together stays together.
    Packets,
    Terminal,
    /// A device that is never at its end and looks for signals now and then: zeroes, random numbers.
    Source,
    /// A file that never waits, into which another one is copied: the kernel looks for signals meanwhile.
    File,
    Unix,
    Tcp,
    /// A socket of any kind to which or from which there are several messages.
    Messages,
}

/// What there is behind a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub kind: Kind,
    /// Bytes with which the transfer is done.
    pub end: u64,
    /// Whether it waits for a time that nobody knows what is left of.
    pub has_timeout: bool,
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

/// What is there, if that transfer, of `total` bytes of which so many are `done`, goes on there until all is done.
pub(super) fn look(file: &File, transfer: Transfer, (total, done): (u64, u64)) -> Result<Found, Left> {
    let ended = |_: io::Error| Left::Ended;
    let whole = |kind| Ok(Found { kind, end: total, has_timeout: false });
    let metadata = file.metadata().map_err(ended)?;
    let file_type = metadata.file_type();
    if transfer.is_file() && never_waits(&metadata) {
        return whole(Kind::File);
    }
    if is_source(&metadata) {
        return if transfer.is_file() { Err(Left::Ended) } else { whole(Kind::Source) };
    }
    let flags = descriptor::status_flags(file.as_fd()).map_err(ended)?;
    if file_type.is_socket() {
        return socket::look(file, transfer, (total, done), flags & libc::O_NONBLOCK != 0).map_err(ended)?;
    }
    if flags & libc::O_NONBLOCK != 0 {
        return Err(Left::Ended);
    }
    if file_type.is_char_device() && terminal::modes(file.as_fd()).is_ok() {
        let end = if transfer.is_read() { least_read(file, (total, done))? } else { total };
        return Ok(Found { kind: Kind::Terminal, end, has_timeout: false });
    }
    // Of a file, a pipe takes what it has room for.
    if !file_type.is_fifo() || transfer.is_file() || transfer.receives {
        return Err(Left::Ended);
    }
    whole(if flags & libc::O_DIRECT == 0 { Kind::Pipe } else { Kind::Packets })
}

/// With how many bytes a read of a terminal is done: it goes on until it has VMIN of them, or a buffer is full that the kernel has for it
/// (drivers/tty/tty_io.c, `iterate_tty_read`).
fn least_read(file: &File, (total, done): (u64, u64)) -> Result<u64, Left> {
    const BUFFER: u64 = 64;
    let ended = |_: io::Error| Left::Ended;
    // The modes are those of the other end, as a master tells them.
    if terminal::index(file.as_fd()).is_ok() {
        return Err(Left::Ended);
    }
    let modes = terminal::modes(file.as_fd()).map_err(ended)?;
    let least = u64::from(modes.characters[libc::VMIN]).min(total).min(BUFFER);
    if modes.flags[3] & libc::ICANON != 0 || done >= least {
        return Err(Left::Ended);
    }
    if modes.characters[libc::VTIME] != 0 {
        return Err(cut(
            "its terminal has a timeout from one byte to the next (VTIME), of which it is not known how much is left",
        ));
    }
    Ok(least)
}

/// Whether it is a pipe in which something waits.
pub(super) fn is_pipe_with_bytes(file: &File) -> bool {
    is_pipe(file) && descriptor::unread(file.as_fd()).is_ok_and(|count| count > 0)
}

/// Whether it is a pipe or a FIFO.
pub(super) fn is_pipe(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// /dev/zero, /dev/random, /dev/urandom.
pub(super) fn is_source(metadata: &Metadata) -> bool {
    is_memory_device(metadata, &[5, 8, 9])
}

/// A regular file, a block device, /dev/null.
fn never_waits(metadata: &Metadata) -> bool {
    metadata.is_file() || metadata.file_type().is_block_device() || is_memory_device(metadata, &[3])
}

fn is_memory_device(metadata: &Metadata, minors: &[u32]) -> bool {
    let is_meant = |minor: &u32| metadata.rdev() == libc::makedev(1, *minor);
    metadata.file_type().is_char_device() && minors.iter().any(is_meant)
}
