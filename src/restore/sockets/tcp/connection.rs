//! Connections: made in repair mode, in which nothing is sent, and brought to life when nothing can fail any more.

use super::anew::link::put_back;
use super::packet;
use crate::image::model::socket::tcp::{Connection, Incoming, Other, Outgoing, Tcp, Window};
use crate::image::model::socket::{Socket, SocketOption, inet};
use crate::resources::socket::options;
use crate::restore::sockets::settings::{Point, Settings};
use crate::sys::tcp::{self, Queue};
use crate::sys::{open, socket};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// Makes a new socket one end of a connection, mute until `Reviving::revive`. Closed before, it vanishes without a word.
pub fn set_up(made: &File, local: &[u8], connection: &Connection) -> io::Result<()> {
    let Connection { peer, other: _, incoming, outgoing, window, agreed } = connection;
    let fd = made.as_fd();
    tcp::set(fd, tcp::REPAIR, 1)?;
    tcp::choose(fd, Queue::Send)?;
    // Its end is sent once more, for no segment without it says that there was one.
    tcp::set_sequence(fd, outgoing.sequence.wrapping_sub(u32::from(outgoing.acknowledged)))?;
    tcp::choose(fd, Queue::Received)?;
    tcp::set_sequence(fd, incoming.sequence)?;
    let told = |what: &str, address: &[u8]| {
        let what = format!("{what} {}", inet::Shown(address));
        move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"))
    };
    socket::bind(fd, local).map_err(told("bind to", local))?;
    tcp::connect(fd, peer).map_err(told("repaired connection with", peer))?;
    if agreed.mss != 0 {
        tcp::agree(fd, *agreed).map_err(doing("setting what it has agreed on"))?;
    }
    let sent = outgoing.bytes.len() - outgoing.unsent as usize;
    if !outgoing.bytes.is_empty() {
        make_room(made, libc::SO_SNDBUF, libc::SO_SNDBUFFORCE, outgoing.bytes.len())?;
    }
    if !incoming.unread.is_empty() {
        let before = make_room(made, libc::SO_RCVBUF, libc::SO_RCVBUFFORCE, incoming.unread.len())?;
        tcp::choose(fd, Queue::Received)?;
        append(made, &incoming.unread).map_err(doing("filling what it has received"))?;
        // What it had no room for must not come now. The kernel doubles what it is told (socket(7)).
        socket::set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(before / 2).to_ne_bytes())?;
    }
    if sent > 0 {
        tcp::choose(fd, Queue::Send)?;
        append(made, &outgoing.bytes[..sent]).map_err(doing("filling what it has sent"))?;
    }
    tcp::choose(fd, Queue::None)?;
    set_window(made, *window, incoming).map_err(doing("setting its windows"))
}

/// For `map_err`: says what was done.
pub fn doing(what: &str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// The end that the other side has sent comes again later: until then nothing may stand behind it (net/ipv4/tcp.c, `tcp_repair_set_window`).
fn set_window(made: &File, window: Window, incoming: &Incoming) -> io::Result<()> {
    let Window { snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup } = window;
    if max_window == 0 {
        return Ok(());
    }
    let next = incoming.sequence.wrapping_add(incoming.unread.len() as u32);
    let beyond = |number: u32| number.wrapping_sub(next).cast_signed().max(0).cast_unsigned();
    let rcv_wnd = rcv_wnd.saturating_add(beyond(rcv_wup));
    let within = |number: u32| number.wrapping_sub(beyond(number));
    tcp::set_window(made.as_fd(), [within(snd_wl1), snd_wnd, max_window.max(snd_wnd), rcv_wnd, within(rcv_wup)])
}

/// Buffers that hold these bytes, until the options of the image are set: an overhead of the kernel's own counts too.
/// Gives the size of before.
pub fn make_room(made: &File, name: i32, force: i32, bytes: usize) -> io::Result<i32> {
    let now = socket::number(made.as_fd(), libc::SOL_SOCKET, name)?;
    let wanted = i32::try_from(bytes.saturating_mul(2) + (256 << 10)).unwrap_or(i32::MAX / 2);
    if wanted > now {
        match socket::set_option(made.as_fd(), libc::SOL_SOCKET, force, &wanted.to_ne_bytes()) {
            // As far as one may.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                socket::set_option(made.as_fd(), libc::SOL_SOCKET, name, &wanted.to_ne_bytes())?;
            }
            other => other?,
        }
    }
    Ok(now)
}

/// Appends all of these bytes to the chosen queue, or sends them.
pub fn append(made: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = tcp::append(made.as_fd(), bytes)?;
        bytes = &bytes[count..];
    }
    Ok(())
}

/// Lets a connection live: from here on it sends and is heard.
///
/// # Errors
/// As setsockopt(2), send(2).
pub fn wake(made: &File) -> io::Result<()> {
    // With a probe of the window, so that the other side tells what it has.
    tcp::set(made.as_fd(), tcp::REPAIR, 0)
}

/// Sends what was not sent yet, ends what had ended, and sets what is the program's own.
///
/// # Errors
/// As setsockopt(2), send(2), shutdown(2).
pub fn go_on(
    made: &File,
    wanted: &Socket,
    state: &Tcp,
    connection: &Connection,
    settings: &Settings<'_>,
    is_anew: bool,
) -> io::Result<()> {
    let fd = made.as_fd();
    let Connection { peer, other, incoming, outgoing, window: _, agreed: _ } = connection;
    let Incoming { sequence, unread, finished, shut } = incoming;
    let Outgoing { sequence: own, bytes, unsent, finished: ended, acknowledged: _ } = outgoing;
    if !is_anew {
        cork(made, settings.of(wanted))?;
        append(made, &bytes[bytes.len() - *unsent as usize..]).map_err(doing("sending what was not sent"))?;
    }
    if *finished && *other == Other::Outside {
        // Who is inside says so itself.
        let next = sequence.wrapping_add(unread.len() as u32);
        packet::send_end(peer, &state.local, next, *own)?;
    }
    if *ended {
        tcp::shut(fd, libc::SHUT_WR)?;
    }
    if *shut {
        tcp::shut(fd, libc::SHUT_RD)?;
    }
    settings.set(fd, wanted, Point::Alive)
}

/// Half a segment that waits for more must go on to wait.
pub fn cork(made: &File, all: &[SocketOption]) -> io::Result<()> {
    const CORK: i32 = 3;
    match options::number(all, tcp::LEVEL, CORK) {
        Some(corked @ 1..) => tcp::set(made.as_fd(), CORK, corked),
        _ => Ok(()),
    }
}

/// Begins to connect once more.
///
/// # Errors
/// As connect(2).
pub fn connect_again(made: &File, peer: &[u8], all: &[SocketOption]) -> io::Result<()> {
    let flags = nix::fcntl::fcntl(made, nix::fcntl::FcntlArg::F_GETFL)?;
    open::set_flags(made, flags | libc::O_NONBLOCK)?;
    let begun = match tcp::connect(made.as_fd(), peer) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        // Nobody listens any more: the program is told when it asks.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        other => other,
    };
    open::set_flags(made, flags)?;
    begun?;
    // Its port may have been given to it just now.
    put_back(made, all)
}
