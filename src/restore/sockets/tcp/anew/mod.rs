//! Connections whose two ends are both in the image, where connections may not be repaired, or were not when they were read: the two connect once more,
//! by a listener that is there for that moment alone, and each sends what the other had not read. Where nobody has the other end any more, one of ours ends.
//!
//! Until the program runs they end by a reset, so that nothing has their names should anything fail (TIME-WAIT).

pub mod link;

use super::connection::{self, doing};
use super::ended::await_that;
use crate::image::model::Snapshot;
use crate::image::model::socket::tcp::{Connection, Other, Role, Tcp};
use crate::image::model::socket::{Socket, State, inet};
use crate::proc::tcp_table::{self, Row};
use crate::resources::socket::tcp::tree::Ends;
use crate::restore::sockets::settings::Settings;
use crate::sys::sched::yield_now;
use crate::sys::{descriptor, open, socket, tcp};
use link::End;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// After so long without another byte the receiver takes no more.
const STALLED: Duration = Duration::from_millis(300);

/// Who connects, and whom.
pub type Pair<'a> = [&'a Socket; 2];

/// The connections that are made anew; the one that accepts is in second place.
///
/// # Errors
/// A socket whose other end is not in the image.
pub fn pairs(snapshot: &Snapshot, repairs: bool) -> Result<Vec<Pair<'_>>, (&Socket, io::Error)> {
    let is_of_pair = |socket: &&Socket| is_anew(socket, repairs) && !is_alone(socket);
    let all = snapshot.sockets.iter().filter(is_of_pair);
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

/// Whether a socket is a connection whose other end is gone.
#[must_use]
pub fn is_alone(socket: &Socket) -> bool {
    parts(socket).is_some_and(|(_, connection)| connection.other == Other::Gone)
}

/// All ports of these.
#[must_use]
pub fn ports(snapshot: &Snapshot, repairs: bool) -> HashSet<u16> {
    let all = snapshot.sockets.iter().filter(|socket| is_anew(socket, repairs));
    all.filter_map(|socket| Some(ends(socket)?.0.port())).collect()
}

/// Has what is left of earlier connections with these names end, which would keep the names for a minute (TIME-WAIT).
pub fn clear(snapshot: &Snapshot, repairs: bool, settings: &Settings<'_>) {
    let all = snapshot.sockets.iter().filter(|socket| is_anew(socket, repairs));
    // From either side: both have the same kind of name.
    let both = |socket| {
        let (local, connection) = parts(socket)?;
        let (own, peer) = ends(socket)?;
        Some([((own, peer), (socket, local, &*connection.peer)), ((peer, own), (socket, &*connection.peer, local))])
    };
    let ways: HashMap<Ends, (&Socket, &[u8], &[u8])> = all.filter_map(both).flatten().collect();
    if ways.is_empty() {
        return;
    }
    let rows = tcp_table::read(&mut Vec::new()).unwrap_or_default();
    let state = |row: &Row| tcp::State::from(row.state);
    let listened: HashSet<u16> =
        rows.iter().filter(|row| state(row) == tcp::State::Listen).map(|row| row.local.port()).collect();
    for row in rows.iter().filter(|row| state(row) == tcp::State::TimeWait && !listened.contains(&row.local.port())) {
        let opposite = (inet::canonical(row.peer), inet::canonical(row.local));
        if let Some((socket, from, to)) = ways.get(&opposite)
            && let Err(error) = link::knock(socket, from, to, settings)
        {
            tracing::info!("ending what is left of {} with {}: {error}", row.local, row.peer);
        }
    }
}

/// Whether an end can have its name: by bind(2), or if the other end can, by connecting with that.
///
/// # Errors
/// As [`link::bound`].
pub fn trial(wanted: &Socket, settings: &Settings<'_>) -> io::Result<()> {
    let Some((local, connection)) = parts(wanted) else { return Ok(()) };
    match link::bound(wanted, local, settings) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            link::bound(wanted, &connection.peer, settings).map(drop).map_err(|_| error)
        }
        other => other.map(drop),
    }
}

/// Makes both ends of a connection, with what waits in them.
///
/// # Errors
/// As socket(2), bind(2), connect(2), send(2) and the like; `TimedOut` where packets do not come.
pub fn make(pair: Pair<'_>, settings: &Settings<'_>, top: i32) -> io::Result<[File; 2]> {
    let [connecting, accepting] = pair;
    let (Some((local, one)), Some((named, other))) = (parts(connecting), parts(accepting)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let streams = [stream(other, one), stream(one, other)];
    let client = End { wanted: connecting, local, peer: &one.peer, unread: streams[0].len() };
    let served = End { wanted: accepting, local: named, peer: &other.peer, unread: streams[1].len() };
    let [client, served] = link::join(client, served, settings)?;
    let made = [open::lift(client, top)?, open::lift(served, top)?];
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

/// Makes a connection whose other end is gone, with what that has sent before.
///
/// # Errors
/// As [`make`].
pub fn make_alone(wanted: &Socket, settings: &Settings<'_>, top: i32) -> io::Result<File> {
    let Some((local, own)) = parts(wanted) else { return Err(io::ErrorKind::InvalidInput.into()) };
    let unread = &own.incoming.unread;
    let this = End { wanted, local, peer: &own.peer, unread: unread.len() };
    let [made, other] = link::join(this, End { wanted, local: &own.peer, peer: local, unread: 0 }, settings)?;
    let made = open::lift(made, top)?;
    fill(&other, &made, unread).map_err(doing("sending once more what was not read"))?;
    // It goes on to send by itself what found no room.
    let all = descriptor::unread(made.as_fd())? == unread.len();
    socket::set_option(other.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &[0; 8])?;
    drop(other);
    await_that(|| Ok(!all || tcp::info(made.as_fd())?.state == tcp::State::CloseWait))?;
    open::set_flags(&made, 0)?;
    super::super::give(&made, wanted)?;
    Ok(made)
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
