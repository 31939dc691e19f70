//! What waits in a UNIX socket: looked at with MSG_PEEK, never consumed.

use super::name_of;
use crate::image::model::socket::unix::Urgent;
use crate::sys::descriptor::{is_at_mark, unread};
use crate::sys::socket;
use crate::sys::socket_message::{self, Fence, Seen};
use crate::sys::undo::{Held, Undo};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

/// What recvmsg(2) tells of a message that carries no credentials: the overflow ids (include/net/scm.h, `scm_set_cred`).
const NO_CREDENTIALS: [u32; 3] = [0, 65534, 65534];
// include/uapi/asm-generic/socket.h
const SO_PASSRIGHTS: i32 = 83;
/// Where a buffer for datagrams begins.
const BUFFER: usize = 1 << 16;

/// A message, with duplicates of what it carries.
#[derive(Debug)]
pub struct Waiting {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Name of its sender.
    pub sender: Vec<u8>,
    /// Duplicates of its descriptors.
    pub files: Vec<File>,
    /// Its credentials.
    pub credentials: Option<[u32; 3]>,
    /// Whether it is urgent data.
    pub urgent: Urgent,
}

/// What a socket has to tell before anybody asks for its messages.
#[derive(Clone, Copy, Debug)]
pub struct Signs {
    /// A message, or that there will be none.
    pub readable: bool,
    /// An error waits to be told.
    pub error: bool,
    /// A byte was sent with MSG_OOB.
    pub urgent: bool,
}

/// What poll(2) says.
///
/// # Errors
/// As poll(2).
pub fn signs(fd: BorrowedFd<'_>) -> io::Result<Signs> {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN | PollFlags::POLLPRI)];
    poll(&mut fds, PollTimeout::ZERO)?;
    let events = fds[0].revents().unwrap_or(PollFlags::empty());
    let has = |flag| events.contains(flag);
    Ok(Signs { readable: has(PollFlags::POLLIN), error: has(PollFlags::POLLERR), urgent: has(PollFlags::POLLPRI) })
}

/// The messages of a socket, oldest first, or why they cannot be seen. Options of it are changed meanwhile; `changed` is
/// told when they are.
///
/// # Errors
/// As recvmsg(2) and its like.
pub fn look(
    fd: BorrowedFd<'_>,
    kind: i32,
    undo: &Undo,
    changed: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<Result<Vec<Waiting>, String>> {
    let signs = signs(fd)?;
    if socket::number(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? != 0 {
        return Ok(Ok(Vec::new()));
    }
    let count = unread(fd)?;
    let stream = kind == libc::SOCK_STREAM;
    let mark = Mark { waits: stream && signs.urgent, is_next: stream && is_at_mark(fd) };
    // To look for messages where an error waits would take that away (net/core/datagram.c, `__skb_try_recv_datagram`).
    if signs.error && !stream && count > 0 {
        return Ok(Err(
            "an error waits in it before its messages, which cannot be seen without taking that away".into()
        ));
    }
    if !signs.readable || signs.error && count == 0 || stream && count == 0 && !mark.is_next {
        return Ok(Ok(Vec::new()));
    }
    let offset = Offset::hold(fd, undo)?;
    let credentials = hold(fd, undo, libc::SO_PASSCRED, 1)?;
    // Where it is forbidden now, it may be allowed again when they are received. Kernels before 6.16 do not have it.
    let forbidden = socket::number(fd, libc::SOL_SOCKET, SO_PASSRIGHTS).is_ok_and(|allowed| allowed == 0);
    let rights = if forbidden { Some(hold(fd, undo, SO_PASSRIGHTS, 1)?) } else { None };
    // A look from the beginning would pass urgent data over.
    let inline = if mark.waits { Some(hold(fd, undo, libc::SO_OOBINLINE, 1)?) } else { None };
    changed()?;
    let found = if stream { look_at_stream(&offset, count, mark)? } else { Ok(look_at_messages(&offset)?) };
    inline.map_or(Ok(()), Held::end)?;
    rights.map_or(Ok(()), Held::end)?;
    credentials.end()?;
    offset.held.end()?;
    Ok(found)
}

fn hold<'a>(fd: BorrowedFd<'a>, undo: &'a Undo, name: i32, value: i32) -> io::Result<Held<'a>> {
    let old = socket::option(fd, libc::SOL_SOCKET, name)?;
    undo.set(fd, libc::SOL_SOCKET, name, &value.to_ne_bytes(), &old)
}

/// SO_PEEK_OFF of a socket while we look.
struct Offset<'a> {
    fd: BorrowedFd<'a>,
    held: Held<'a>,
}

impl<'a> Offset<'a> {
    fn hold(fd: BorrowedFd<'a>, undo: &'a Undo) -> io::Result<Self> {
        Ok(Self { fd, held: hold(fd, undo, libc::SO_PEEK_OFF, 0)? })
    }

    fn set(&self, offset: usize) -> io::Result<()> {
        let offset = i32::try_from(offset).map_err(io::Error::other)?;
        socket::set_option(self.fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, &offset.to_ne_bytes())
    }

    /// What begins at an offset.
    fn peek(&self, offset: usize, buffer: &mut [u8]) -> io::Result<Seen> {
        self.set(offset)?;
        socket_message::peek(self.fd, buffer)
    }
}

fn waiting(bytes: &[u8], seen: Seen) -> Waiting {
    Waiting {
        bytes: bytes.to_vec(),
        sender: name_of(&seen.sender),
        files: seen.files,
        credentials: seen.credentials.filter(|credentials| *credentials != NO_CREDENTIALS),
        urgent: Urgent::No,
    }
}

/// What is known of urgent data before anything is looked at.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// A byte waits that nobody has taken.
    waits: bool,
    /// It is the next one; or one was taken of which the place is next.
    is_next: bool,
}

/// A look at a stream ends behind bytes with which descriptors came, where credentials change, and where urgent data is or was (net/unix/af_unix.c,
/// `manage_oob`).
fn look_at_stream(offset: &Offset<'_>, count: usize, mark: Mark) -> io::Result<Result<Vec<Waiting>, String>> {
    let fence = Fence::new(count)?;
    let mut buffer = vec![0; count];
    let mut found = Vec::<Waiting>::new();
    // Before which pieces a look has ended for no other reason, and before which it has for another.
    let (mut marks, mut hidden) = (Vec::new(), Vec::new());
    if mark.is_next {
        marks.push(0);
    }
    let mut at = 0;
    while at < count {
        let seen = match offset.peek(at, &mut buffer[at..]) {
            // A byte of urgent data that was passed over is counted for ever (Linux 6.17).
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            seen => seen?,
        };
        if seen.len == 0 {
            return Err(io::Error::other(format!("{count} bytes wait in the socket, {at} were seen")));
        }
        let borders = borders(offset, &fence, at, at + seen.len)?;
        at += seen.len;
        let credentials = seen.credentials.filter(|credentials| *credentials != NO_CREDENTIALS);
        if let Some(last) = found.last() {
            let is_end = last.files.is_empty() && last.credentials == credentials;
            if is_end { &mut marks } else { &mut hidden }.push(found.len());
        }
        let pieces = borders.windows(2).map(|ends| {
            let bytes = buffer[ends[0]..ends[1]].to_vec();
            Waiting { bytes, sender: Vec::new(), files: Vec::new(), credentials, urgent: Urgent::No }
        });
        found.extend(pieces);
        if let Some(last) = found.last_mut() {
            last.files = seen.files;
        }
    }
    if mark.waits {
        return Ok(note_urgent(found, &marks, &hidden));
    }
    for place in marks.into_iter().rev() {
        let credentials = found.get(place).and_then(|next| next.credentials);
        let taken =
            Waiting { bytes: Vec::new(), sender: Vec::new(), files: Vec::new(), credentials, urgent: Urgent::Taken };
        found.insert(place, taken);
    }
    Ok(Ok(found))
}

/// Which piece is the byte of urgent data: only one that is kept apart ends a look.
fn note_urgent(mut found: Vec<Waiting>, marks: &[usize], hidden: &[usize]) -> Result<Vec<Waiting>, String> {
    let is_byte = |place: &&usize| found.get(**place).is_some_and(|piece| piece.bytes.len() == 1);
    let mut places = if marks.is_empty() { hidden } else { marks }.iter().filter(is_byte).copied();
    match (places.next(), places.next()) {
        (Some(place), None) => {
            found[place].urgent = Urgent::Waiting;
            Ok(found)
        }
        _ => Err("a byte of urgent data (MSG_OOB) is in it, and where it stands cannot be seen".into()),
    }
}

/// Where the pieces begin and end in which the bytes from `start` to `end`, both of them borders, were sent.
///
/// MSG_PEEK goes on to the next piece even when nothing more is wanted, and gives the descriptors that came with it (net/unix/af_unix.c,
/// `unix_stream_read_generic`): so what came with which bytes cannot be told from these. But a piece that does not fit into memory is not seen at all.
fn borders(offset: &Offset<'_>, fence: &Fence, start: usize, end: usize) -> io::Result<Vec<usize>> {
    const WINDOW: usize = 4096;
    let mut borders = vec![end];
    let (mut last, mut window) = (end, WINDOW);
    while last > start {
        let from = start.max(last.saturating_sub(window));
        offset.set(from)?;
        let seen = fence.peek(offset.fd, last - from - 1)?;
        if seen == 0 && from > start {
            // It began before.
            window *= 2;
            continue;
        }
        last = from + seen;
        borders.push(last);
        window = WINDOW;
    }
    borders.reverse();
    Ok(borders)
}

fn look_at_messages(offset: &Offset<'_>) -> io::Result<Vec<Waiting>> {
    let mut buffer = vec![0; BUFFER];
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        // The kernel goes on behind what was seen; what is empty it passes over by itself.
        match socket_message::peek(offset.fd, &mut buffer) {
            Ok(seen) if seen.truncated => {
                buffer.resize(buffer.len() * 4, 0);
                offset.set(at)?;
            }
            // The end of SOCK_SEQPACKET; an empty message has credentials, if but of nobody.
            Ok(seen) if seen.len == 0 && seen.credentials.is_none() => return Ok(found),
            Ok(seen) => {
                at += seen.len;
                found.push(waiting(&buffer[..seen.len], seen));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(found),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket_message::{send, send_urgent, take_urgent};
    use std::io::Read;
    use std::os::fd::{AsFd, AsRawFd};

    fn pair(kind: i32) -> [File; 2] {
        socket::pair(kind).unwrap().map(socket::adopt)
    }

    fn looked(socket: &File, kind: i32) -> Vec<(Vec<u8>, usize)> {
        let found = look(socket.as_fd(), kind, &Undo::default(), &mut || Ok(())).unwrap().unwrap();
        found.into_iter().map(|waiting| (waiting.bytes, waiting.files.len())).collect()
    }

    #[test]
    fn descriptors_stay_with_the_bytes_they_came_with() {
        let [one, other] = pair(libc::SOCK_STREAM);
        let put = |bytes: &[u8], files: &[i32]| send(one.as_fd(), bytes, None, files, None).unwrap();
        put(b"before", &[]);
        put(b"with", &[one.as_raw_fd(), other.as_raw_fd()]);
        put(b"x", &[one.as_raw_fd()]);
        put(b"after", &[]);
        let expected = [(b"before".to_vec(), 0), (b"with".to_vec(), 2), (b"x".to_vec(), 1), (b"after".to_vec(), 0)];
        for _ in 0..2 {
            assert_eq!(looked(&other, libc::SOCK_STREAM), expected);
        }
        assert_eq!(socket::number(other.as_fd(), libc::SOL_SOCKET, libc::SO_PEEK_OFF).unwrap(), -1);
    }

    #[test]
    fn urgent_data_is_found_where_it_is_and_where_it_was() {
        let [one, other] = pair(libc::SOCK_STREAM);
        let put = |bytes: &[u8]| send(one.as_fd(), bytes, None, &[], None).unwrap();
        let found = || {
            let found = look(other.as_fd(), libc::SOCK_STREAM, &Undo::default(), &mut || Ok(())).unwrap().unwrap();
            found.into_iter().map(|waiting| (waiting.bytes, waiting.urgent)).collect::<Vec<_>>()
        };
        put(b"before");
        send_urgent(one.as_fd(), b'!', &[], None).unwrap();
        put(b"after");
        let [before, after] = [b"before".to_vec(), b"after".to_vec()].map(|bytes| (bytes, Urgent::No));
        for _ in 0..2 {
            assert_eq!(found(), [before.clone(), (b"!".to_vec(), Urgent::Waiting), after.clone()]);
        }
        take_urgent(other.as_fd()).unwrap();
        assert_eq!(found(), [before, (Vec::new(), Urgent::Taken), after.clone()]);
        (&other).read_exact(&mut [0; 6]).unwrap();
        assert_eq!(found(), [(Vec::new(), Urgent::Taken), after]);
    }

    #[test]
    fn messages_keep_their_borders() {
        for kind in [libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
            let [one, other] = pair(kind);
            let long = vec![7; 100_000];
            for bytes in [&b"a"[..], b"", &long, b"", b"b"] {
                send(one.as_fd(), bytes, None, &[], None).unwrap();
            }
            let expected = [&b"a"[..], b"", &long, b"", b"b"].map(|bytes| (bytes.to_vec(), 0));
            assert_eq!(looked(&other, kind), expected);
        }
    }
}
