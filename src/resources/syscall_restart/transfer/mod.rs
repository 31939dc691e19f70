//! Transfers of which a part was done when the stop came: a write(2) or send(2) that waits for room, a receive with MSG_WAITALL.
//!
//! The kernel ends them with the count of that part, like after any signal. Whoever had not been stopped would have gone on: so do these threads
//! (`tracer::Remainder`), and return the count of the whole.
//!
//! A count may be short for another reason than our stop. To make the rest is harmless then where the kernel comes to the same end at once: the other end is
//! closed, the buffer has a hole, the descriptor does not block. Where it would not, the transfer is left alone.

mod call;
mod file;
mod socket;

use call::{Begun, Buffer, Carried, Message, Transfer};
use file::{Found, Kind};

use super::{Left as TimeLeft, Sample, Samples};
use crate::image::model::address::Addr;
use crate::image::model::id::{Fd, Pid, Tid};
use crate::proc::TaskDir;
use crate::resources::{CollectError, process};
use crate::sys::process_vm;
use crate::tracer::{
    FrozenTree, MESSAGE_LEN, MOST_COUNT, Rest, Stop, StoppedThread, Stream, StreamPart, StreamPlace, Vector, Way,
};
use std::time::Instant;

/// Why the rest is not made.
enum Left {
    /// It was not our stop that ended it, or that cannot be known.
    Ended,
    /// The user should know.
    Cut(String),
}

/// Has every thread whose transfer our stop has cut short go on with the rest. Says which do not, and why. In its sample is noted whose timeout begins anew.
///
/// # Errors
/// What could not be asked of a thread, or done to it.
pub fn go_on(tree: &mut FrozenTree, samples: &mut Samples, frozen_at: Instant) -> Result<Vec<String>, CollectError> {
    let mut warnings = Vec::new();
    let is_cut = |thread: &&StoppedThread| thread.stop() == Stop::Interrupted && Transfer::of(thread.regs()).is_some();
    let cut: Vec<(Pid, Tid)> = tree.threads().iter().filter(is_cut).map(|t| (t.pid(), t.tid())).collect();
    for (pid, tid) in cut {
        let Some((thread, transfer)) = tree.thread(tid).and_then(|t| Some((t, Transfer::of(t.regs())?))) else {
            continue;
        };
        let progress = transfer.progress(tid, thread.regs().rax);
        let Some((total, done)) = progress.filter(|(total, done)| done < total) else { continue };
        let left = match plan(tree, pid, thread, transfer, (total, done)) {
            Ok(plan) => match plan.carry_out(tree, tid)? {
                Ok(()) => {
                    if plan.has_timeout {
                        let anew = Sample { left: Some(TimeLeft::Unknown), ..Sample::awake(frozen_at) };
                        samples.insert(tid, anew);
                    }
                    continue;
                }
                Err(why) => Left::Cut(why),
            },
            Err(left) => left,
        };
        if let Left::Cut(why) = left {
            let unit = if transfer.counts_messages() { "messages" } else { "bytes" };
            warnings.push(format!("tid {tid}: {}(2) of {total} {unit} returns after {done}: {why}", transfer.name));
        }
    }
    Ok(warnings)
}

fn remote(tid: Tid) -> impl FnOnce(crate::tracer::Error) -> CollectError {
    move |source| CollectError::Remote { tid, action: "having it go on with a transfer", source }
}

/// How the rest of a transfer is made.
struct Plan {
    rest: Rest,
    /// If there is no room for that.
    otherwise: Option<Rest>,
    /// Whether it has a timeout, which begins anew.
    has_timeout: bool,
}

impl Plan {
    /// Has the thread go on. The inner error is why it does not.
    fn carry_out(&self, tree: &mut FrozenTree, tid: Tid) -> Result<Result<(), String>, CollectError> {
        let first = tree.go_on(tid, &self.rest).map_err(remote(tid))?;
        match (&self.otherwise, first) {
            (Some(otherwise), Err(_)) => tree.go_on(tid, otherwise).map_err(remote(tid)),
            (_, first) => Ok(first),
        }
    }
}

fn plan(
    tree: &FrozenTree,
    pid: Pid,
    thread: &StoppedThread,
    transfer: Transfer,
    progress: (u64, u64),
) -> Result<Plan, Left> {
    let found = found(tree, pid, thread, transfer, progress)?;
    if may_cancel(tree, pid, thread) {
        return Err(cut("its program cancels threads (pthread_cancel(3)), which must find them in their own code"));
    }
    let (way, address) = way(thread, found, transfer)?;
    let (regs, kind) = (thread.regs(), found.kind);
    let otherwise = if let Way::Vector(vector) = &way
        && kind != Kind::Packets
        && !vector.carries()
    {
        transfer.left(thread.tid(), regs.rax).map(Way::Pieces)
    } else {
        None
    };
    // What has done something itself goes on in smaller parts, and loses the error of one that does nothing.
    let tells_errors = matches!(kind, Kind::Tcp) && !transfer.is_file();
    let rest = |way: Way| {
        let (number, flags) = call(thread, kind, transfer, &way);
        Rest { number: number as u64, flags, address, tells_errors, way }
    };
    // Those that are received have a timeout of their own, which is looked at when one has come.
    let has_timeout = found.has_timeout || transfer.is_of_messages() && transfer.receives && regs.r8 != 0;
    Ok(Plan { rest: rest(way), otherwise: otherwise.map(rest), has_timeout })
}

/// What there is behind its descriptors.
fn found(
    tree: &FrozenTree,
    pid: Pid,
    thread: &StoppedThread,
    transfer: Transfer,
    progress: (u64, u64),
) -> Result<Found, Left> {
    let regs = thread.regs();
    let open = |fd: u64| file::open(tree, pid, thread.tid(), Fd(fd as i32));
    let source = Found { kind: Kind::Source, end: progress.0, has_timeout: false };
    match transfer.buffer {
        Buffer::Random { total: _ } => Ok(source),
        Buffer::Pipe { total: _ } => {
            let (from, to) = (open(regs.rdi)?, open(regs.rdx)?);
            if from.metadata().is_ok_and(|metadata| file::is_source(&metadata)) && file::is_pipe(&to) {
                return Ok(source);
            }
            // It ends when the pipe is empty. What a pipe or a file takes is taken at once.
            match file::is_pipe_with_bytes(&from).then(|| file::look(&to, transfer, progress)) {
                Some(Ok(Found { kind: Kind::File, end: _, has_timeout: _ })) | None => Err(Left::Ended),
                Some(found) => found,
            }
        }
        Buffer::Range { total: _ } => file::look(&open(regs.rdx)?, transfer, progress),
        Buffer::Plain { .. }
        | Buffer::Vector { .. }
        | Buffer::Message(_)
        | Buffer::Messages { .. }
        | Buffer::File { .. } => file::look(&open(regs.rdi)?, transfer, progress),
    }
}

/// By which call the rest is made, and with which flags.
fn call(thread: &StoppedThread, kind: Kind, transfer: Transfer, way: &Way) -> (i64, u64) {
    const NOSIGNAL: u64 = libc::MSG_NOSIGNAL as u64;
    const WAITALL: u64 = libc::MSG_WAITALL as u64;
    let regs = thread.regs();
    let same = regs.orig_rax.cast_signed();
    match (kind, way) {
        // One that has done something does not wait for room in its pipe. To a socket, it would not wait for that either.
        (Kind::Source, Way::Length) => (same, regs.r9 | u64::from(libc::SPLICE_F_NONBLOCK)),
        (_, Way::Length) => (same, regs.r9),
        (_, Way::First | Way::Count | Way::Messages | Way::Stream(_)) => (same, regs.r10),
        (Kind::Source, _) if transfer.receives => (libc::SYS_read, regs.r10),
        (Kind::Source | Kind::Pipe | Kind::Packets | Kind::Terminal, Way::Pieces(_)) => (libc::SYS_write, regs.r10),
        (Kind::Source | Kind::Pipe | Kind::Packets | Kind::Terminal, Way::Vector(_)) => (libc::SYS_writev, regs.r10),
        (Kind::Source | Kind::Pipe | Kind::Packets | Kind::Terminal | Kind::File | Kind::Messages, _) => {
            (same, regs.r10)
        }
        (Kind::Unix | Kind::Tcp, _) if transfer.receives => (libc::SYS_recvfrom, transfer.flags & NOSIGNAL | WAITALL),
        // A send that has done something raises no SIGPIPE.
        (Kind::Unix | Kind::Tcp, Way::Vector(_)) => (libc::SYS_sendmsg, transfer.flags | NOSIGNAL),
        (Kind::Unix | Kind::Tcp, _) => (libc::SYS_sendto, transfer.flags | NOSIGNAL),
    }
}

/// Where its rest is, and the address of the other side if its call has one in its fifth argument.
fn way(thread: &StoppedThread, found: Found, transfer: Transfer) -> Result<(Way, u64), Left> {
    let (tid, done, kind) = (thread.tid(), thread.regs().rax, found.kind);
    if found.end > MOST_COUNT && !transfer.is_of_messages() {
        return Err(cut("it was to transfer more than one call can"));
    }
    let mut control = (Addr::NULL, 0);
    match transfer.buffer {
        Buffer::Plain { total: _, address } if transfer.receives && address != 0 => {
            return Err(cut("it asks for the address of the other side"));
        }
        Buffer::Plain { total: _, address } => return Ok((Way::Bytes { end: found.end }, address)),
        Buffer::Random { total: _ } => return Ok((Way::First, 0)),
        Buffer::Pipe { total: _ } => return Ok((Way::Length, 0)),
        Buffer::Messages { at, count, begun } => {
            is_not_over(thread, transfer)?;
            let behind = (at.add(begun * MESSAGE_LEN), transfer.most(count) - begun);
            return messages(tid, kind, transfer, behind).map(|way| (way, 0));
        }
        Buffer::Message(at) => {
            control = beside(&Message::at(tid, at).ok_or(Left::Ended)?, tid, kind, transfer.receives)?
        }
        // Each piece that the rest of a file is sent in may meet the end of the connection first, and so may each of the whole.
        Buffer::File { total: _ } if matches!(kind, Kind::Unix | Kind::Tcp) && !ignores_sigpipe(thread) => {
            return Err(cut("its program does not ignore SIGPIPE, which the rest might raise and the whole might not"));
        }
        Buffer::File { .. } | Buffer::Range { .. } if kind == Kind::File && limits_files(thread) => {
            return Err(cut(
                "the size of its files is limited (RLIMIT_FSIZE), and the rest might raise a SIGXFSZ that the whole does not",
            ));
        }
        Buffer::File { total: _ } => return Ok((Way::Count, 0)),
        Buffer::Range { total: _ } => return Ok((Way::Length, 0)),
        Buffer::Vector { .. } => {}
    }
    if transfer.progress(tid, done).is_none_or(|(total, _)| found.end < total) {
        return Err(cut("it fills several pieces, and is done before all of them are full"));
    }
    let pieces = || transfer.left(tid, done).map(|pieces| (Way::Pieces(pieces), 0)).ok_or(Left::Ended);
    if transfer.receives {
        return pieces();
    }
    let left = transfer.left_to_send(tid, done).ok_or(Left::Ended)?;
    match Vector::new(&left, control) {
        Some(vector) => Ok((Way::Vector(vector), 0)),
        None if kind == Kind::Packets => {
            Err(cut("more pieces are left than there is room for, and the pipe has packets of them"))
        }
        None if control.1 != 0 => Err(cut("more pieces are left than there is room for, and each has credentials")),
        None => pieces(),
    }
}

/// Messages that are left: those that are not begun are sent or received by themselves, and on a stream so is what is left of one.
fn messages(tid: Tid, kind: Kind, transfer: Transfer, behind: (Addr, u64)) -> Result<Way, Left> {
    let last = transfer.last(tid).ok_or(Left::Ended)?;
    let is_whole = last.done == last.total;
    if !matches!(kind, Kind::Unix | Kind::Tcp) {
        return match transfer.receives || is_whole {
            true => Ok(Way::Messages),
            false => {
                Err(cut("a part of one of its messages is sent, and what its socket does with the rest is not known"))
            }
        };
    }
    let part = if is_whole { None } else { Some(part(tid, kind, transfer, &last)?) };
    if part.is_none() && behind.1 == 0 {
        return Err(Left::Ended);
    }
    let most = if transfer.receives { 0 } else { transfer.most_pieces(tid).ok_or(Left::Ended)? };
    Ok(Way::Stream(Stream { part, behind, most: most as usize }))
}

/// What is left of a message on a stream.
fn part(tid: Tid, kind: Kind, transfer: Transfer, last: &Begun) -> Result<StreamPart, Left> {
    let control = beside(&last.message, tid, kind, transfer.receives)?;
    let pieces = last.left().ok_or(Left::Ended)?;
    let (place, flags) = if transfer.receives {
        let [(at, _), rest @ ..] = &pieces[..] else { return Err(Left::Ended) };
        if rest.iter().any(|(_, len)| *len > 0) {
            return Err(cut("a part of one of its messages has come, and the rest is in several pieces"));
        }
        (StreamPlace::Filled(*at), transfer.flags & libc::MSG_NOSIGNAL as u64 | libc::MSG_WAITALL as u64)
    } else {
        let vector = Vector::new(&pieces, control).ok_or_else(|| cut("more pieces are left than there is room for"))?;
        // What has done something raises no SIGPIPE.
        (StreamPlace::Sent(vector), transfer.flags | libc::MSG_NOSIGNAL as u64)
    };
    let (noted, total, left) = (last.noted, last.total, last.total - last.done);
    if total > MOST_COUNT {
        return Err(cut("it was to transfer more than one call can"));
    }
    Ok(StreamPart { noted, total, left, place, flags })
}

/// Whether the timeout of messages that are received has not passed: the kernel has written what was left when the last one came.
fn is_not_over(thread: &StoppedThread, transfer: Transfer) -> Result<(), Left> {
    let (tid, regs) = (thread.tid(), thread.regs());
    let mut left = [0; 16];
    let has_passed = transfer.receives
        && regs.r8 != 0
        && process_vm::read(Pid(tid.0), Addr(regs.r8), &mut left).is_ok_and(|_| left.iter().all(|byte| *byte == 0));
    if has_passed { Err(Left::Ended) } else { Ok(()) }
}

/// Control data that goes with the rest of a message.
fn beside(message: &Message, tid: Tid, kind: Kind, receives: bool) -> Result<(Addr, u64), Left> {
    let (control, len) = message.control;
    let none = (Addr::NULL, 0);
    match kind {
        Kind::Unix if !receives => match message.carried(tid).unwrap_or(Carried::More) {
            Carried::Descriptors => Ok(none),
            Carried::Credentials(at, len) => Ok((at, len)),
            Carried::More => Err(cut("there is more in its control data than descriptors and credentials")),
        },
        // Its length is what has come.
        Kind::Unix if control.0 != 0 => {
            Err(cut("there may be descriptors with the rest, for which it has room, and nobody knows how much"))
        }
        Kind::Tcp if control.0 != 0 && len != 0 => Err(cut("it has control data")),
        Kind::Unix
        | Kind::Tcp
        | Kind::Pipe
        | Kind::Packets
        | Kind::Terminal
        | Kind::Source
        | Kind::File
        | Kind::Messages => Ok(none),
    }
}

fn limits_files(thread: &StoppedThread) -> bool {
    let limits = TaskDir::thread(thread.pid(), thread.tid()).ok().and_then(|task| process::limits(&task).ok());
    limits.is_none_or(|limits| limits.get(libc::RLIMIT_FSIZE as usize).is_none_or(|limit| limit[0] != u64::MAX))
}

fn ignores_sigpipe(thread: &StoppedThread) -> bool {
    thread.status().is_ok_and(|status| status.signals.ignored & 1 << (libc::SIGPIPE - 1) != 0)
}

fn cut(why: &str) -> Left {
    Left::Cut(why.to_owned())
}

/// Whether the GNU C library has begun to cancel threads: its handler unwinds from where the thread stands, or looks whether that is in a call that may be cancelled. It
/// has the first real-time signal for that, and sets it up when it is first needed (nptl/pthread_cancel.c).
fn may_cancel(tree: &FrozenTree, pid: Pid, thread: &StoppedThread) -> bool {
    const SIGCANCEL: i32 = 32;
    let caught = |signal: i32| thread.status().is_ok_and(|status| status.signals.caught & 1 << (signal - 1) != 0);
    tree.threads_of(pid).len() > 1 && caught(SIGCANCEL)
}
