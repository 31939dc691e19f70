//! Transfers of which a part was done when the stop came: a write(2) or send(2) that waits for room, a receive with MSG_WAITALL.
//!
//! The kernel ends them with the count of that part, like after any signal. Whoever had not been stopped would have gone on: so do these threads
//! (`tracer::Remainder`), and return the count of the whole.
//!
//! A count may be short for another reason than our stop. To make the rest is harmless then where the kernel comes to the same end at once: the other end is
//! closed, the buffer has a hole, the descriptor does not block. Where it would not, the transfer is left alone.

mod call;
mod file;

use call::{Buffer, Message, Transfer};
use file::Kind;

use crate::image::model::id::{Fd, Pid, Tid};
use crate::resources::CollectError;
use crate::tracer::{FrozenTree, MOST_COUNT, Rest, Stop, StoppedThread, Vector, Way};

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
        let Some((total, done)) = transfer.progress(tid, done).filter(|(total, done)| done < total) else { continue };
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

/// How the rest of a transfer is made.
fn rest(tree: &FrozenTree, pid: Pid, thread: &StoppedThread, transfer: Transfer) -> Result<Rest, Left> {
    const NOSIGNAL: u64 = libc::MSG_NOSIGNAL as u64;
    const WAITALL: u64 = libc::MSG_WAITALL as u64;
    let regs = thread.regs();
    let open = |fd: u64| file::open(tree, pid, thread.tid(), Fd(fd as i32));
    let kind = match transfer.buffer {
        Buffer::Random { total: _ } => Kind::Source,
        // It ends when the pipe is empty.
        Buffer::Pipe { total: _ } if !file::is_pipe_with_bytes(&open(regs.rdi)?) => return Err(Left::Ended),
        Buffer::Pipe { total: _ } => file::kind(&open(regs.rdx)?, transfer)?,
        Buffer::Plain { .. }
        | Buffer::Vector { .. }
        | Buffer::Message(_)
        | Buffer::Messages { .. }
        | Buffer::File { .. } => file::kind(&open(regs.rdi)?, transfer)?,
    };
    if may_cancel(tree, pid, thread) {
        return Err(cut("its program cancels threads (pthread_cancel(3)), which must find them in their own code"));
    }
    let (way, address) = way(thread, kind, transfer)?;
    // A sendfile(2) that has done something goes on itself, in smaller parts, and loses the error of one that does nothing.
    let tells_errors = matches!(kind, Kind::Tcp) && !transfer.is_file();
    let rest = |number: i64, flags, address| Rest { number: number as u64, flags, address, tells_errors, way };
    let (is_file, same) = (matches!(way, Way::Count), regs.orig_rax.cast_signed());
    Ok(match (kind, transfer.receives) {
        (Kind::Source, _) if matches!(way, Way::First) => rest(same, regs.r10, regs.r8),
        (Kind::Source, _) => rest(libc::SYS_read, regs.r10, regs.r8),
        (Kind::Pipe | Kind::Terminal, _) => rest(same, regs.r10, regs.r8),
        (Kind::Unix | Kind::Tcp, _) if is_file => rest(same, 0, regs.r8),
        (Kind::Unix | Kind::Tcp, true) if address != 0 => return Err(cut("it asks for the address of the other side")),
        (Kind::Unix | Kind::Tcp, true) => rest(libc::SYS_recvfrom, transfer.flags & (NOSIGNAL | WAITALL), address),
        // A send that has done something raises no SIGPIPE.
        (Kind::Unix | Kind::Tcp, false) if matches!(way, Way::Vector(_)) => {
            rest(libc::SYS_sendmsg, transfer.flags | NOSIGNAL, 0)
        }
        (Kind::Unix | Kind::Tcp, false) => rest(libc::SYS_sendto, transfer.flags | NOSIGNAL, address),
    })
}

/// Where its rest is, and the address of the other side if its call has one in its fifth argument.
fn way(thread: &StoppedThread, kind: Kind, transfer: Transfer) -> Result<(Way, u64), Left> {
    let (tid, done) = (thread.tid(), thread.regs().rax);
    let (total, _) = transfer.progress(tid, done).ok_or(Left::Ended)?;
    if total > MOST_COUNT {
        return Err(cut("it was to transfer more than one call can"));
    }
    match transfer.buffer {
        Buffer::Plain { total: _, address } => return Ok((Way::Bytes, address)),
        Buffer::Random { total: _ } => return Ok((Way::First, 0)),
        Buffer::Pipe { total: _ } => return Err(cut("the rest is in a pipe")),
        Buffer::Messages { .. } => return Err(cut("it is one of several messages")),
        Buffer::Message(at) => {
            let message = Message::at(tid, at).ok_or(Left::Ended)?;
            if let Some(why) = beside(&message, tid, kind, transfer.receives) {
                return Err(cut(why));
            }
        }
        // Each piece that the rest of a file is sent in may meet the end of the connection first, and so may each of the whole.
        Buffer::File { total: _ } if matches!(kind, Kind::Unix | Kind::Tcp) && !ignores_sigpipe(thread) => {
            return Err(cut("its program does not ignore SIGPIPE, which the rest might raise and the whole might not"));
        }
        Buffer::File { total: _ } => return Ok((Way::Count, 0)),
        Buffer::Vector { .. } => {}
    }
    if transfer.receives {
        return transfer.left(tid, done).map(|pieces| (Way::Pieces(pieces), 0)).ok_or(Left::Ended);
    }
    let left = transfer.left_to_send(tid, done).ok_or(Left::Ended)?;
    let vector =
        Vector::new(&left).ok_or_else(|| cut("there is no room for a vector of so many pieces as are left"))?;
    Ok((Way::Vector(vector), 0))
}

/// What keeps the rest of a message from being moved as bytes: something that goes with these.
fn beside(message: &Message, tid: Tid, kind: Kind, receives: bool) -> Option<&'static str> {
    let (control, len) = message.control;
    match kind {
        // It has gone with the first byte. Only the credentials of a sender go with every one.
        Kind::Unix if !receives => (!message.carries_only_descriptors(tid).unwrap_or(false))
            .then_some("there is more in its control data than descriptors"),
        Kind::Unix => (control.0 != 0).then_some("there may be descriptors with the rest, for which it has room"),
        Kind::Tcp => (control.0 != 0 && len != 0).then_some("it has control data"),
        Kind::Pipe | Kind::Terminal | Kind::Source => None,
    }
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
