//! Connections whose two ends are both in the image, where connections may not be repaired, or were not when they were read: the two connect once more,
//! by a listener that is there for that moment alone, and each sends what the other had not read.
//!
//! Until the program runs they end by a reset, so that nothing has their names should anything fail (TIME-WAIT).

use super::connection::{self, doing};
use super::ended::await_that;
use crate::image::model::Snapshot;
use crate::image::model::socket::tcp::{Connection, Role, Tcp};
use crate::image::model::socket::{Socket, State, inet};
use crate::proc::tcp_table::{self, Row};
use crate::resources::socket::tcp::tree::Ends;
use crate::restore::sockets::settings::{Point, Settings};
use crate::sys::sched::yield_now;
use crate::sys::{descriptor, open, socket, tcp};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// After so long without another byte the receiver takes no more.
const STALLED: Duration = Duration::from_millis(300);
const NODELAY: i32 = 1;

/// Who connects, and whom.
pub type Pair<'a> = [&'a Socket; 2];

/// The connections that are made anew; the one that accepts is in second place.
///
/// # Errors
/// A socket whose other end is not in the image.
pub fn pairs(snapshot: &Snapshot, repairs: bool) -> Result<Vec<Pair<'_>>, (&Socket, io::Error)> {
    let all = snapshot.sockets.iter().filter(|socket| is_anew(socket, repairs));
    let all: Vec<(Ends, &Socket)> = all.filter_map(|socket| Some((ends(socket)?, socket))).collect();
    let places: HashMap<Ends, &Socket> = all.iter().copied().collect();
    let listening: HashSet<u16> = snapshot.sockets.iter().filter_map(listens_at).collect();
    let mut pairs = Vec::new();
    for ((own, peer), socket) in all {
        let Some(other) = places.get(&(peer, own)).copied().filter(|other| other.id != socket.id) else {
            let reason = format!("the other end of its connection of {own} with {peer} is not in the image");
            return Err((socket, io::Error::new(io::ErrorKind::NotFound, reason)));
        };
        let accepts = |port: u16| listening.contains(&port);
        let connects = match (accepts(own.port()), accepts(peer.port())) {
            (true, false) => false,
            (false, true) => true,
            // Who connects is older.
            (false, false) | (true, true) => socket.ino < other.ino,
        };
        if connects {
            pairs.push([socket, other]);
        }
    }
    Ok(pairs)
}

/// Whether a socket is an end of such a connection.
#[must_use]
pub fn is_anew(socket: &Socket, repairs: bool) -> bool {
    parts(socket).is_some_and(|(_, connection)| connection.is_anew(repairs))
}

/// All ports of these.
#[must_use]
pub fn ports(pairs: &[Pair<'_>]) -> HashSet<u16> {
    pairs.iter().flatten().filter_map(|socket| Some(ends(socket)?.0.port())).collect()
}

/// Has what is left of earlier connections with these names end (TIME-WAIT), which would keep the names for a minute: a connection from the other side,
/// which nobody listens to, is answered with what that side takes for a mistake, and its reset ends it (net/ipv4/tcp_minisocks.c; RFC 1337 says why
/// `net.ipv4.tcp_rfc1337` might forbid it).
pub fn clear(snapshot: &Snapshot, repairs: bool, settings: &Settings<'_>) {
    // Which has no other end will be said when it is made.
    let pairs = pairs(snapshot, repairs).unwrap_or_default();
    if pairs.is_empty() {
        return;
    }
    let sockets: HashMap<Ends, &Socket> =
        pairs.iter().flatten().filter_map(|socket| Some((ends(socket)?, *socket))).collect();
    let rows = tcp_table::read(&mut Vec::new()).unwrap_or_default();
    let state = |row: &Row| tcp::State::from(row.state);
    let listened: HashSet<u16> =
        rows.iter().filter(|row| state(row) == tcp::State::Listen).map(|row| row.local.port()).collect();
    for row in rows.iter().filter(|row| state(row) == tcp::State::TimeWait && !listened.contains(&row.local.port())) {
        let opposite = (inet::canonical(row.peer), inet::canonical(row.local));
        if let Some(socket) = sockets.get(&opposite)
            && let Err(error) = knock(socket, settings)
        {
            tracing::info!("ending what is left of {} with {}: {error}", row.local, row.peer);
        }
    }
}

fn knock(wanted: &Socket, settings: &Settings<'_>) -> io::Result<()> {
    let Some((_, connection)) = parts(wanted) else { return Ok(()) };
    let made = bound(wanted, settings)?;
    match tcp::connect(made.as_fd(), &connection.peer) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        other => return other,
    }
    // Its next attempt is refused, by nobody any more.
    let since = Instant::now();
    while tcp::info(made.as_fd())?.state == tcp::State::SynSent && since.elapsed() < STALLED {
        yield_now();
    }
    Ok(())
}

/// A new socket that is bound to the address of an end.
///
/// # Errors
/// As socket(2), setsockopt(2), bind(2).
pub fn bound(wanted: &Socket, settings: &Settings<'_>) -> io::Result<File> {
    let made = socket::make(wanted.domain, wanted.kind | libc::SOCK_NONBLOCK, wanted.protocol)?;
    let fd = made.as_fd();
    settings.set(fd, wanted, Point::Unfiltered)?;
    // All have these until the program runs: it finds what it had set.
    socket::set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1i32.to_ne_bytes())?;
    let at_once = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
    socket::set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &at_once)?;
    tcp::set(fd, NODELAY, 1)?;
    let Some((local, _)) = parts(wanted) else { return Err(io::ErrorKind::InvalidInput.into()) };
    socket::bind(fd, local)?;
    Ok(made)
}

/// Makes both ends of a connection, with what waits in them.
///
/// # Errors
/// As socket(2), bind(2), connect(2), send(2) and the like; `TimedOut` where packets do not come.
pub fn make(pair: Pair<'_>, settings: &Settings<'_>, top: i32) -> io::Result<[File; 2]> {
    let [connecting, accepting] = pair;
    let (Some((local, one)), Some((_, other))) = (parts(connecting), parts(accepting)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let streams = [stream(other, one), stream(one, other)];
    let named = |local| {
        move |error: io::Error| io::Error::new(error.kind(), format!("bind to {}: {error}", inet::Shown(local)))
    };
    let client = open::lift(bound(connecting, settings).map_err(named(local))?, top)?;
    let listener = bound(accepting, settings).map_err(named(&one.peer))?;
    // A window is never wider than what was agreed on first.
    for (file, bytes) in [&client, &listener].into_iter().zip(&streams) {
        if !bytes.is_empty() {
            connection::make_room(file, libc::SO_RCVBUF, libc::SO_RCVBUFFORCE, bytes.len())?;
        }
    }
    let served = open::lift(connected(&client, local, &listener, &one.peer)?, top)?;
    drop(listener);
    let made = [client, served];
    for (at, (wanted, own)) in [(connecting, one), (accepting, other)].into_iter().enumerate() {
        let (from, to) = (&made[at], &made[1 - at]);
        fill(from, to, &streams[1 - at]).map_err(doing("sending once more what was not read"))?;
        let unsent = &own.outgoing.bytes[own.outgoing.bytes.len() - own.outgoing.unsent as usize..];
        connection::cork(from, settings.of(wanted))?;
        connection::append(from, unsent).map_err(doing("sending what was not sent"))?;
        open::set_flags(from, 0)?;
        super::super::give(from, wanted)?;
    }
    Ok(made)
}

/// Connects and gives the other side: nobody else's who connects to that port at this moment.
fn connected(client: &File, local: &[u8], listener: &File, peer: &[u8]) -> io::Result<File> {
    let told = |error: io::Error| {
        let what = format!("connection of {} with {}", inet::Shown(local), inet::Shown(peer));
        io::Error::new(error.kind(), format!("{what}: {error}"))
    };
    tcp::listen(listener.as_fd(), 16).map_err(told)?;
    match tcp::connect(client.as_fd(), peer) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        other => other.map_err(told)?,
    }
    let own = inet::parse(local).map(inet::canonical);
    let mut served = None;
    await_that(|| match tcp::accept(listener.as_fd()) {
        Ok(file) => {
            let from = socket::peer_address(file.as_fd()).ok();
            served = Some(file).filter(|_| from.and_then(|from| inet::parse(&from)).map(inet::canonical) == own);
            Ok(served.is_some())
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    })
    .map_err(told)?;
    served.ok_or_else(|| io::ErrorKind::NotConnected.into())
}

/// What one has still to read: what has come, and what the other has sent that has not.
fn stream(from: &Connection, to: &Connection) -> Vec<u8> {
    let (sent, received) = (&from.outgoing, &to.incoming);
    let next = received.sequence.wrapping_add(received.unread.len() as u32);
    let there = next.wrapping_sub(sent.sequence).cast_signed().max(0) as usize;
    let on_its_way = sent.bytes.len() - sent.unsent as usize;
    [&received.unread[..], &sent.bytes[there.min(on_its_way)..on_its_way]].concat()
}

/// Sends these bytes. What the receiver has no room for waits at the sender.
fn fill(from: &File, to: &File, bytes: &[u8]) -> io::Result<()> {
    let (mut rest, mut there, mut since) = (bytes, 0, Instant::now());
    while there < bytes.len() {
        match tcp::append(from.as_fd(), rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let now = descriptor::unread(to.as_fd())?;
        if now > there {
            (there, since) = (now, Instant::now());
        } else if since.elapsed() > STALLED {
            break;
        }
        yield_now();
    }
    if rest.is_empty() {
        return Ok(());
    }
    let reason = format!("{} bytes of {} find no room in its buffers (net.core.rmem_max)", rest.len(), bytes.len());
    Err(io::Error::new(io::ErrorKind::OutOfMemory, reason))
}

fn parts(socket: &Socket) -> Option<(&[u8], &Connection)> {
    match &socket.state {
        State::Tcp(Tcp { local, role: Role::Connected(connection) }) => Some((local, connection)),
        State::Tcp(_) | State::Unix(_) | State::Datagram(_) | State::Netlink(_) | State::Packet(_) => None,
    }
}

fn ends(socket: &Socket) -> Option<Ends> {
    let (local, connection) = parts(socket)?;
    Some((inet::canonical(inet::parse(local)?), inet::canonical(inet::parse(&connection.peer)?)))
}

fn listens_at(socket: &Socket) -> Option<u16> {
    match &socket.state {
        State::Tcp(Tcp { local, role: Role::Listening { backlog: _ } }) => Some(inet::parse(local)?.port()),
        State::Tcp(_) | State::Unix(_) | State::Datagram(_) | State::Netlink(_) | State::Packet(_) => None,
    }
}
