//! One connection: both queues, sequence numbers, windows, and what the two sides have agreed on.
//!
//! Sequence numbers, windows and what is to be sent can be read in repair mode alone. A connection in that mode goes on to receive; but what it
//! would begin to send meanwhile counts as sent and is sent only once the other side misses it. So it is held for microseconds.

use super::tree::Step;
use crate::image::model::socket::tcp::{Agreed, Connection, Incoming, Other, Outgoing, Window};
use crate::sys::tcp::{self, Info, Queue, State};
use crate::sys::undo::{Held, Undo};
use crate::sys::{descriptor, socket};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How often it is read again when packets change it meanwhile.
const TRIES: u32 = 50;
/// More than what is read of the send queue may exceed what is unacknowledged: the acknowledged beginning of its first segment.
const SLACK: usize = 1 << 17;

/// Longest wait for what is on its way: an acknowledgement is put off for 200 ms at most (include/net/tcp.h, `TCP_DELACK_MAX`), and a segment for
/// which there was no room is sent again after as long.
const DELIVERY: Duration = Duration::from_millis(300);
/// How often is looked meanwhile.
const GLANCE: Duration = Duration::from_millis(1);
/// Most unread bytes of a connection that is made anew: what its two buffers take by themselves (`net.ipv4.tcp_wmem`).
const ROOM: usize = 4 << 20;

/// Why a connection or what is left of one is refused whose bytes have a mark.
pub const URGENT: &str = "it has received urgent data (MSG_OOB), which cannot be put back";

/// Why a connection was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It cannot be had.
    Refused(String),
    /// It may be had in a moment.
    Passing(String),
}

/// Enters repair mode, and leaves it when what is returned ends or when we die, with SO_REUSEADDR as it was.
///
/// # Errors
/// As setsockopt(2): EPERM without CAP_NET_ADMIN.
pub fn repair<'a>(fd: BorrowedFd<'a>, undo: &'a Undo) -> io::Result<[Held<'a>; 2]> {
    let reuse = socket::option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    let mode = (1i32.to_ne_bytes(), tcp::OFF_SILENTLY.to_ne_bytes());
    let address = undo.set(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &reuse, &reuse)?;
    let repair = undo.set(fd, tcp::LEVEL, tcp::REPAIR, &mode.0, &mode.1)?;
    // Ended in this order: leaving the mode takes SO_REUSEADDR away.
    Ok([repair, address])
}

/// Has it end by a reset when it is closed, as a connection that leaves nothing behind; until what is returned ends or we die.
///
/// # Errors
/// As setsockopt(2).
pub fn end_at_once<'a>(fd: BorrowedFd<'a>, undo: &'a Undo) -> io::Result<[Held<'a>; 2]> {
    const ON: [u8; 4] = 1i32.to_ne_bytes();
    let level = libc::SOL_SOCKET;
    let before = socket::option(fd, level, libc::SO_LINGER)?;
    let time = before.get(ON.len()..).unwrap_or_default();
    let (at_once, as_long) = ([ON, [0; 4]].concat(), [&ON[..], time].concat());
    let off = undo.set(fd, level, libc::SO_LINGER, &before, &before)?;
    // Ended in this order: the time is taken only with the flag (net/core/sock.c, `SO_LINGER`).
    Ok([undo.set(fd, level, libc::SO_LINGER, &at_once, &as_long)?, off])
}

/// Waits, for a moment, until all that these have sent has been acknowledged. Their programs stand still.
///
/// # Errors
/// As ioctl(2).
pub fn await_delivery(files: &[&File]) -> io::Result<()> {
    let end = Instant::now() + DELIVERY;
    for file in files {
        while tcp::unacknowledged(file.as_fd())? != 0 && Instant::now() < end {
            std::thread::sleep(GLANCE);
        }
    }
    Ok(())
}

/// Has reads of the target's socket begin at its first byte, and move nothing, as they do where a program has not set SO_PEEK_OFF, until what is returned ends
/// or we die. Since Linux 6.10 streams of TCP have it.
///
/// # Errors
/// As setsockopt(2).
pub fn peek_from_the_start<'a>(fd: BorrowedFd<'a>, undo: &'a Undo) -> io::Result<Option<Held<'a>>> {
    const OFF: [u8; 4] = (-1i32).to_ne_bytes();
    match peek_offset(fd) {
        Some(offset) => undo.set(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, &OFF, &offset.to_ne_bytes()).map(Some),
        None => Ok(None),
    }
}

/// Where MSG_PEEK begins, if the program has set that: looking moves it.
#[must_use]
pub fn peek_offset(fd: BorrowedFd<'_>) -> Option<i32> {
    socket::number(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF).ok().filter(|offset| *offset >= 0)
}

/// Why what is left of a connection is not read.
pub const PEEKS: &str = "its connection has ended, and it looks at what it has not read from an offset on (SO_PEEK_OFF), which our looking would move";

/// Reads a connection. `repairs` is called in repair mode; without it is not repaired, and must have nothing that waits to be acknowledged.
///
/// # Errors
/// A kernel interface that failed.
pub fn read(
    fd: BorrowedFd<'_>,
    peer: Vec<u8>,
    other: Other,
    undo: &Undo,
    repairs: Option<fn(Step) -> io::Result<()>>,
) -> io::Result<Result<Connection, Trouble>> {
    let polled = tcp::polled(fd)?;
    if polled.failed {
        let reason =
            "an error, or a message in its error queue, waits in it, which cannot be read without taking it away";
        return Ok(Err(Trouble::Passing(reason.into())));
    }
    if polled.urgent || tcp::at_mark(fd)? {
        return Ok(Err(Trouble::Refused(URGENT.into())));
    }
    let peeking = peek_from_the_start(fd, undo)?;
    let repaired = repairs.map(|_| repair(fd, undo)).transpose()?;
    repairs.map_or(Ok(()), |passed| passed(Step::Repairing))?;
    let read = settled(fd, peer, other, polled.shut, repaired.is_some());
    for held in repaired.into_iter().flatten().chain(peeking) {
        held.end()?;
    }
    read
}

fn settled(
    fd: BorrowedFd<'_>,
    peer: Vec<u8>,
    other: Other,
    shut: bool,
    repaired: bool,
) -> io::Result<Result<Connection, Trouble>> {
    for _ in 0..TRIES {
        let before = tcp::info(fd)?;
        let Some(ends) = Ends::of(before.state) else {
            return Ok(Err(Trouble::Passing("its connection has just ended".into())));
        };
        let Some(incoming) = incoming(fd, ends, shut, repaired)? else { continue };
        if !repaired && incoming.unread.len() > ROOM {
            let reason = "more has come than a new connection has room for, and to keep this one takes CAP_NET_ADMIN";
            return Ok(Err(Trouble::Passing(reason.into())));
        }
        let Some(outgoing) = outgoing(fd, ends, repaired)? else {
            if repaired {
                continue;
            }
            let reason = "it has sent more than its other end takes, and to read that takes CAP_NET_ADMIN";
            return Ok(Err(Trouble::Passing(reason.into())));
        };
        let (window, agreed) = negotiated(fd, &before, repaired)?;
        if repaired {
            tcp::choose(fd, Queue::None)?;
        }
        if tcp::info(fd)?.state == before.state {
            return Ok(Ok(Connection { peer, other, incoming, outgoing, window, agreed }));
        }
    }
    Ok(Err(Trouble::Passing("packets change it faster than it can be read".into())))
}

/// Which directions have come to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    incoming: bool,
    outgoing: bool,
    acknowledged: bool,
}

impl Ends {
    fn of(state: State) -> Option<Self> {
        let ends = |incoming, outgoing, acknowledged| Some(Self { incoming, outgoing, acknowledged });
        match state {
            State::Established => ends(false, false, false),
            State::FinWait1 => ends(false, true, false),
            State::FinWait2 => ends(false, true, true),
            State::CloseWait => ends(true, false, false),
            State::LastAck | State::Closing => ends(true, true, false),
            State::SynSent | State::SynReceived | State::TimeWait | State::Close | State::Listen | State::Other(_) => {
                None
            }
        }
    }
}

/// What has come; none when more has come meanwhile.
fn incoming(fd: BorrowedFd<'_>, ends: Ends, shut: bool, repaired: bool) -> io::Result<Option<Incoming>> {
    let sequence = || if repaired { tcp::sequence(fd) } else { Ok(0) };
    if repaired {
        tcp::choose(fd, Queue::Received)?;
    }
    let next = sequence()?;
    let there = descriptor::unread(fd)?;
    let unread = tcp::peek(fd, there)?;
    if sequence()? != next || descriptor::unread(fd)? != there || unread.len() != there {
        return Ok(None);
    }
    let end = u32::from(ends.incoming);
    let sequence = next.wrapping_sub(end).wrapping_sub(unread.len() as u32);
    Ok(Some(Incoming { sequence, unread, finished: ends.incoming, shut: shut && !ends.incoming }))
}

/// What is to go; none when some of it has gone meanwhile.
fn outgoing(fd: BorrowedFd<'_>, ends: Ends, repaired: bool) -> io::Result<Option<Outgoing>> {
    let Ends { incoming: _, outgoing: finished, acknowledged } = ends;
    let waiting = tcp::unacknowledged(fd)?;
    let end = u32::from(finished && !acknowledged);
    if !repaired {
        let nothing = Outgoing { sequence: 0, bytes: Vec::new(), unsent: 0, finished, acknowledged };
        return Ok((waiting == end).then_some(nothing));
    }
    tcp::choose(fd, Queue::Send)?;
    let next = tcp::sequence(fd)?;
    let unsent = tcp::unsent(fd)?;
    let wanted = waiting.saturating_sub(end) as usize;
    let mut bytes = if wanted == 0 { Vec::new() } else { tcp::peek(fd, wanted + SLACK)? };
    let same = tcp::unacknowledged(fd)? == waiting && tcp::unsent(fd)? == unsent && tcp::sequence(fd)? == next;
    tcp::choose(fd, Queue::None)?;
    if !same || bytes.len() < wanted {
        return Ok(None);
    }
    bytes.drain(..bytes.len() - wanted);
    let unsent = unsent.saturating_sub(end).min(bytes.len() as u32);
    Ok(Some(Outgoing { sequence: next.wrapping_sub(waiting), bytes, unsent, finished, acknowledged }))
}

fn negotiated(fd: BorrowedFd<'_>, info: &Info, repaired: bool) -> io::Result<(Window, Agreed)> {
    let [snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup] = if repaired { tcp::window(fd)? } else { [0; 5] };
    let window = Window { snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup };
    let timestamp = if info.timestamps { Some(tcp::timestamp(fd)?) } else { None };
    let mss = if repaired { tcp::largest_segment(fd)? } else { 0 };
    Ok((window, Agreed { mss, scales: info.scales, sack: info.sack, timestamp }))
}
