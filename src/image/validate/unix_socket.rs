//! Sockets of the UNIX domain.

use super::ensure;
use crate::image::error::Error;
use crate::image::model::Snapshot;
use crate::image::model::id::SocketId;
use crate::image::model::socket::unix::{Link, Unix, Urgent};
use crate::image::model::socket::{Socket, State};

/// SOCK_STREAM.
const STREAM: i32 = 1;

/// SOCK_DGRAM.
const DGRAM: i32 = 2;

/// Bytes of `sun_path`.
const NAME_MAX: usize = 108;

/// A UNIX socket of the image.
fn get(snapshot: &Snapshot, id: SocketId) -> Option<(i32, &Unix)> {
    let socket = snapshot.sockets.get(id.0 as usize)?;
    match &socket.state {
        State::Unix(state) => Some((socket.kind, state)),
        State::Tcp(_) | State::Datagram(_) | State::Netlink(_) | State::Packet(_) => None,
    }
}

/// What is said of it must be true of both ends.
pub fn unix(socket: &Socket, state: &Unix, snapshot: &Snapshot) -> Result<(), Error> {
    let object = || format!("socket {}", socket.id);
    let Unix { name, accepted, file, link, shutdown, reset: _, credentials: _, queue } = state;
    ensure(name.len() <= NAME_MAX, object, "has an impossible name")?;
    ensure(*shutdown <= 3, object, "is closed in an impossible way")?;
    let is_path = |path: &[u8]| path.first() == Some(&b'/') && !path.contains(&0);
    ensure(file.as_ref().is_none_or(|file| is_path(&file.path)), object, "has an impossible path")?;
    let is = |id: &SocketId, link: &dyn Fn(&Unix) -> bool| {
        get(snapshot, *id).is_some_and(|(kind, other)| kind == socket.kind && link(other))
    };
    let (connected, sane) = match link {
        Link::None => (false, true),
        Link::Listening { backlog: _, pending } => {
            let waits = |id: &SocketId| is(id, &|other| other.link == Link::Pending(socket.id));
            (false, !name.is_empty() && pending.iter().flatten().all(waits))
        }
        Link::Peer(id) => {
            // Others than datagram sockets are connected with each other.
            let mutual = |other: &Unix| socket.kind == DGRAM || other.link == Link::Peer(socket.id);
            (true, is(id, &|other| mutual(other) && !(*accepted && other.accepted)))
        }
        Link::Pending(id) => {
            let listens = |other: &Unix| match &other.link {
                Link::Listening { backlog: _, pending } => pending.contains(&Some(socket.id)),
                Link::None | Link::Peer(_) | Link::Pending(_) | Link::Closed(_) | Link::Outside { .. } => false,
            };
            (false, is(id, &listens))
        }
        Link::Closed(name) => (true, name.len() <= NAME_MAX),
        Link::Outside { name, path } => {
            (false, socket.kind == DGRAM && name.len() <= NAME_MAX && path.as_ref().is_none_or(|path| is_path(path)))
        }
    };
    ensure(sane, object, "is connected in an impossible way")?;
    ensure(!accepted || connected && !name.is_empty(), object, "was accepted without a connection")?;
    for message in queue {
        let known = message.files.iter().all(|id| (id.0 as usize) < snapshot.descriptions.len());
        ensure(known, object, "carries a description that is not in the image")?;
        ensure(message.sender.len() <= NAME_MAX, object, "has a message with an impossible sender")?;
        let is_possible = match message.urgent {
            Urgent::No => true,
            Urgent::Waiting => socket.kind == STREAM && message.bytes.len() == 1,
            Urgent::Taken => socket.kind == STREAM && message.bytes.is_empty() && message.files.is_empty(),
        };
        ensure(is_possible, object, "has impossible urgent data")?;
    }
    Ok(())
}
