//! Transfers of which a part was done when the stop came: a write(2) or send(2) that waits for room, a receive with MSG_WAITALL.
//!
//! The kernel ends them with the count of that part, like after any signal. Whoever had not been stopped would have gone on: so do these threads
//! (`tracer::Remainder`), and return the count of the whole.
//!
//! A count may be short for another reason than our stop. To make the rest is harmless then where the kernel comes to the same end at once: the other end is
//! closed, the buffer has a hole, the descriptor does not block. Where it would not, the transfer is left alone.

use crate::image::model::address::Addr;
use crate::image::model::id::{Fd, Pid, Tid};
use crate::resources::CollectError;
use crate::sys::kcmp::{self, Object};
use crate::sys::regset::UserRegs;
use crate::sys::{descriptor, pidfd, process_vm, socket, terminal};
use crate::tracer::{FrozenTree, Rest, Stop, StoppedThread};
use std::cmp::Ordering;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;

/// What one call transfers at most (MAX_RW_COUNT).
const MOST: u64 = 0x7fff_f000;

/// A call that moves bytes and that has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Transfer {
    name: &'static str,
    receives: bool,
    /// Flags of send(2) and recv(2).
    flags: u64,
    /// What it was to move.
    buffer: Buffer,
}

/// Where the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Buffer {
    /// In one piece of so many bytes. With an address of the other side, if it is not null.
    Plain { total: u64, address: u64 },
    /// In pieces: an array of so many `struct iovec`.
    Pieces { at: Addr, count: u64 },
    /// In pieces, as a `struct msghdr` says.
    Message(Addr),
}

/// Why the rest is not made.
enum Left {
    /// It was not our stop that ended it, or that cannot be known.
    Ended,
    /// The user should know.
    Cut(String),
}

/// Has every thread whose transfer our stop has cut short go on with the rest. Says which do not, and why.
///
/// # Errors
/// What could not be asked of a thread, or done to it.
pub fn go_on(tree: &mut FrozenTree) -> Result<Vec<String>, CollectError> {
    let mut warnings = Vec::new();
    let is_cut = |thread: &&StoppedThread| thread.stop() == Stop::Interrupted && Transfer::of(thread.regs()).is_some();
    let cut: Vec<(Pid, Tid)> = tree.threads().iter().filter(is_cut).map(|t| (t.pid(), t.tid())).collect();
    for (pid, tid) in cut {
        let Some((thread, transfer)) = tree.thread(tid).and_then(|t| Some((t, Transfer::of(t.regs())?))) else {
            continue;
        };
        let done = thread.regs().rax;
        let Some(total) = transfer.total(tid).filter(|total| done < *total) else { continue };
        let left = match rest(tree, pid, thread, transfer) {
            Ok(rest) => match tree.go_on(tid, rest).map_err(remote(tid))? {
                Ok(()) => continue,
                Err(why) => Left::Cut(why),
            },
            Err(left) => left,
        };
        if let Left::Cut(why) = left {
            let name = transfer.name;
            warnings.push(format!("tid {tid}: {name}(2) of {total} bytes returns after {done}: {why}"));
        }
    }
    Ok(warnings)
}

fn remote(tid: Tid) -> impl FnOnce(crate::tracer::Error) -> CollectError {
    move |source| CollectError::Remote { tid, action: "having it go on with a transfer", source }
}

impl Transfer {
    /// The call that a thread has just come out of, if it is one that goes on until all is done and that has done something.
    fn of(regs: &UserRegs) -> Option<Self> {
        const WAITALL: u64 = libc::MSG_WAITALL as u64;
        if regs.orig_rax.cast_signed() < 0 || !(1..MOST).contains(&regs.rax) {
            return None;
        }
        let plain = |address| Buffer::Plain { total: regs.rdx, address };
        let pieces = Buffer::Pieces { at: Addr(regs.rsi), count: regs.rdx };
        let (name, receives, flags, buffer) = match regs.orig_rax.cast_signed() {
            libc::SYS_write => ("write", false, 0, plain(0)),
            libc::SYS_writev => ("writev", false, 0, pieces),
            libc::SYS_sendto => ("sendto", false, regs.r10, plain(regs.r8)),
            libc::SYS_sendmsg => ("sendmsg", false, regs.rdx, Buffer::Message(Addr(regs.rsi))),
            libc::SYS_recvfrom if regs.r10 & WAITALL != 0 => ("recvfrom", true, regs.r10, plain(regs.r8)),
            libc::SYS_recvmsg if regs.rdx & WAITALL != 0 => {
                ("recvmsg", true, regs.rdx, Buffer::Message(Addr(regs.rsi)))
            }
            _ => return None,
        };
        let is_short = !matches!(buffer, Buffer::Plain { total, address: _ } if regs.rax >= total);
        is_short.then_some(Self { name, receives, flags, buffer })
    }

    /// Bytes that it was to move.
    fn total(self, tid: Tid) -> Option<u64> {
        match self.buffer {
            Buffer::Plain { total, address: _ } => Some(total),
            Buffer::Pieces { at, count } => length_of_pieces(tid, at, count),
            Buffer::Message(at) => {
                // `msg_iov` and `msg_iovlen`.
                let [pieces, count] = words(tid, at.add(16))?;
                length_of_pieces(tid, Addr(pieces), count)
            }
        }
    }
}

fn length_of_pieces(tid: Tid, at: Addr, count: u64) -> Option<u64> {
    let count = (count <= libc::UIO_MAXIOV as u64).then_some(count)?;
    (0..count).try_fold(0u64, |sum, index| words(tid, at.add(index * 16)).map(|[_, len]| sum.saturating_add(len)))
}

fn words(tid: Tid, at: Addr) -> Option<[u64; 2]> {
    let mut bytes = [0; 16];
    let read = process_vm::read(Pid(tid.0), at, &mut bytes).ok()?;
    let word = |from: usize| bytes[from..from + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    (read == bytes.len()).then(|| [word(0), word(8)])
}

/// What is behind the descriptor.
enum Kind {
    /// A pipe, a FIFO, a terminal: only write(2) goes on until all is done.
    Stream,
    Unix,
    Tcp,
}

/// How the rest of a transfer is made.
fn rest(tree: &FrozenTree, pid: Pid, thread: &StoppedThread, transfer: Transfer) -> Result<Rest, Left> {
    let regs = thread.regs();
    let file = open_file(tree, pid, thread.tid(), Fd(regs.rdi as i32))?;
    let kind = kind(&file, transfer)?;
    if may_cancel(tree, pid, thread) {
        return Err(cut("its program cancels threads (pthread_cancel(3)), which must find them in their own code"));
    }
    let address = match transfer.buffer {
        Buffer::Plain { total, address } if total <= MOST => address,
        Buffer::Plain { .. } => return Err(cut("it was to transfer more than one call can")),
        Buffer::Pieces { .. } | Buffer::Message(_) => return Err(cut("its bytes are in pieces")),
    };
    let number = regs.orig_rax;
    match (kind, transfer.receives) {
        (Kind::Stream, _) => Ok(Rest { number, flags: regs.r10, address: regs.r8, tells_errors: false }),
        (Kind::Unix | Kind::Tcp, true) if address != 0 => Err(cut("it asks for the address of the other side")),
        (kind @ (Kind::Unix | Kind::Tcp), receives) => {
            let tells_errors = matches!(kind, Kind::Tcp);
            if receives {
                return Ok(Rest { number, flags: regs.r10, address: regs.r8, tells_errors });
            }
            // A send that has done something raises no SIGPIPE.
            let flags = transfer.flags | libc::MSG_NOSIGNAL as u64;
            Ok(Rest { number: libc::SYS_sendto as u64, flags, address, tells_errors })
        }
    }
}

fn cut(why: &str) -> Left {
    Left::Cut(why.to_owned())
}

/// A duplicate of the thread's descriptor. Only those of the process's first thread can be had.
fn open_file(tree: &FrozenTree, pid: Pid, tid: Tid, fd: Fd) -> Result<File, Left> {
    let process = tree.processes().iter().find(|process| process.pid() == pid).ok_or(Left::Ended)?;
    let is_common = tid == pid.leader()
        || matches!(kcmp::compare(pid.leader(), tid, Object::Files, 0, 0), Ok(Some(Ordering::Equal)));
    if process.dead_leader() || !is_common {
        return Err(cut("its descriptors are not those of the first thread of its process"));
    }
    pidfd::get_fd(process.pidfd(), fd).map(File::from).map_err(|_| Left::Ended)
}

/// What kind of file it is, if a transfer goes on there until all is done.
fn kind(file: &File, transfer: Transfer) -> Result<Kind, Left> {
    let ended = |_: io::Error| Left::Ended;
    let flags = descriptor::status_flags(file.as_fd()).map_err(ended)?;
    if flags & libc::O_NONBLOCK != 0 {
        return Err(Left::Ended);
    }
    let file_type = file.metadata().map_err(ended)?.file_type();
    if file_type.is_fifo() || file_type.is_char_device() && terminal::modes(file.as_fd()).is_ok() {
        return Ok(Kind::Stream);
    }
    if file_type.is_socket() { socket_kind(file, transfer).map_err(ended)? } else { Err(Left::Ended) }
}

fn socket_kind(file: &File, transfer: Transfer) -> io::Result<Result<Kind, Left>> {
    const SENDS: u64 = (libc::MSG_NOSIGNAL | libc::MSG_MORE) as u64;
    const RECEIVES: u64 = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u64;
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

/// Whether the GNU C library has begun to cancel threads: its handler unwinds from where the thread stands, or looks whether that is in a call that may be cancelled. It
/// has the first real-time signal for that, and sets it up when it is first needed (nptl/pthread_cancel.c).
fn may_cancel(tree: &FrozenTree, pid: Pid, thread: &StoppedThread) -> bool {
    const SIGCANCEL: i32 = 32;
    let caught = |signal: i32| thread.status().is_ok_and(|status| status.signals.caught & 1 << (signal - 1) != 0);
    tree.threads_of(pid).len() > 1 && caught(SIGCANCEL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::regset;

    fn returned(number: i64, result: i64, count: u64) -> UserRegs {
        let (orig_rax, rax) = (number as u64, result as u64);
        UserRegs { orig_rax, rax, rdx: count, ..regset::zeroed() }
    }

    #[test]
    fn only_a_call_that_has_done_a_part_is_a_cut_transfer() {
        let name = |number, result, count| Transfer::of(&returned(number, result, count)).map(|cut| cut.name);
        assert_eq!(name(libc::SYS_write, 5, 10), Some("write"));
        assert_eq!(name(libc::SYS_write, 10, 10), None);
        assert_eq!(name(libc::SYS_write, 0, 10), None);
        assert_eq!(name(libc::SYS_write, -512, 10), None);
        assert_eq!(name(libc::SYS_read, 5, 10), None);
        assert_eq!(name(-1, 5, 10), None);
    }

    #[test]
    fn a_receive_goes_on_only_with_waitall() {
        let mut regs = returned(libc::SYS_recvfrom, 5, 10);
        assert_eq!(Transfer::of(&regs), None);
        regs.r10 = libc::MSG_WAITALL as u64;
        assert_eq!(Transfer::of(&regs).map(|cut| cut.buffer), Some(Buffer::Plain { total: 10, address: 0 }));
    }
}
