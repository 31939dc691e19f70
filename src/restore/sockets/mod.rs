//! Makes the sockets of an image.

mod datagram;
mod netlink;
mod packet;
mod settings;
pub mod taken;
mod tcp;
mod unix;

pub use unix::{Making as UnixSockets, Names};

use super::descriptors::{OpenError, failed};
use super::opening::{Opening, Source};
use crate::image::model::Snapshot;
use crate::image::model::id::SocketId;
use crate::image::model::socket::tcp::Role;
use crate::image::model::socket::{Socket, State};
use crate::resources::socket::tcp::tree::may_repair;
use crate::sys::{open, socket};
use settings::{Point, Settings};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::LazyLock;
use tcp::anew;
pub use tcp::reviving::Reviving;

/// The sockets while they are made.
#[derive(Debug)]
pub struct Sockets<'a> {
    unix: unix::Making<'a>,
    others: HashMap<SocketId, File>,
    /// Connections that do not live yet.
    pub connections: Reviving,
}

impl<'a> Sockets<'a> {
    /// Makes all of them, those that depend on no other under their numbers: there may be as many as `snap` may have open. Numbers from `top` on are free for our own use.
    ///
    /// # Errors
    /// What could not be had.
    pub fn make(snapshot: &'a Snapshot, openings: &[Opening], top: i32) -> Result<Self, OpenError> {
        let number = |opening: &Opening| match opening.source {
            Source::Socket(id) => Some((id, opening.number)),
            _ => None,
        };
        let settings = Settings::new(snapshot);
        let numbers: HashMap<SocketId, i32> = openings.iter().filter_map(number).collect();
        let named = |wanted: &Socket| failed(format!("socket:[{}]", wanted.ino));
        let mut rings = HashMap::new();
        for wanted in &snapshot.sockets {
            let made = packet::with_ring(wanted, &settings, top).map_err(named(wanted))?;
            rings.extend(made.map(|made| (wanted.id, made)));
        }
        let mut order: Vec<&Socket> = snapshot.sockets.iter().collect();
        // Those who share a port form a group in the order in which they join it: inodes are numbered by age.
        order.sort_by_key(|socket| (turn(&socket.state), socket.ino));
        let place = |id: SocketId, made: File| match numbers.get(&id) {
            Some(number) => open::place(made, *number).map_err(failed(format!("descriptor {number}"))),
            None => Ok(made),
        };
        let mut others = HashMap::new();
        let repairs = may_repair().map_err(failed("TCP_REPAIR"))?;
        let connections =
            Reviving::prepare(snapshot, top, repairs).map_err(failed("holding back packets (nf_tables)"))?;
        // Before any other socket of TCP takes a port of theirs.
        let pairs = anew::pairs(snapshot, repairs).map_err(|(socket, error)| named(socket)(error))?;
        for pair in &pairs {
            let made = anew::make(*pair, &settings, top).map_err(named(pair[0]))?;
            for (socket, made) in pair.iter().zip(made) {
                others.insert(socket.id, place(socket.id, made)?);
            }
        }
        for socket in snapshot.sockets.iter().filter(|socket| anew::is_alone(socket)) {
            let made = anew::make_alone(socket, &settings, top).map_err(named(socket))?;
            others.insert(socket.id, place(socket.id, made)?);
        }
        let ports = anew::ports(snapshot, repairs);
        for socket in order {
            if others.contains_key(&socket.id) {
                continue;
            }
            let made =
                make(socket, rings.remove(&socket.id), &settings, top, (&ports, repairs)).map_err(named(socket))?;
            let Some(made) = made else { continue };
            others.insert(socket.id, place(socket.id, made)?);
        }
        Ok(Self { unix: unix::Making::make(snapshot, settings, top)?, others, connections })
    }

    /// One of them: there is one description of it, and so it is given away.
    ///
    /// # Errors
    /// As dup(2).
    pub fn socket(&mut self, id: SocketId) -> Result<File, OpenError> {
        let made = self.others.remove(&id).map_or_else(|| self.unix.socket(id), Ok);
        made.map_err(failed(format!("socket {id}")))
    }

    /// Those that are filled once everything else is open, for that may be on its way through them.
    pub fn unix(self) -> UnixSockets<'a> {
        self.unix
    }
}

/// See [`tcp::turn`].
fn turn(state: &State) -> u8 {
    match state {
        State::Unix(_) | State::Datagram(_) | State::Netlink(_) | State::Packet(_) => 0,
        State::Tcp(tcp) => tcp::turn(&tcp.role),
    }
}

/// Says what it takes to make such a socket at all.
fn needs(wanted: &Socket, error: io::Error) -> io::Error {
    let hint = match wanted.kind {
        _ if error.kind() != io::ErrorKind::PermissionDenied => return error,
        _ if wanted.domain == libc::AF_PACKET => "it takes CAP_NET_RAW",
        libc::SOCK_RAW => "it takes CAP_NET_RAW",
        _ => "the groups that may are in net.ipv4.ping_group_range",
    };
    io::Error::new(error.kind(), format!("{error} ({hint})"))
}

/// Its options are set once it lives.
fn is_connection(state: &State) -> bool {
    match state {
        State::Tcp(tcp) => matches!(tcp.role, Role::Connected(_)),
        State::Unix(_) | State::Datagram(_) | State::Netlink(_) | State::Packet(_) => false,
    }
}

/// The user and group that our sockets have.
static OWN: LazyLock<(u32, u32)> = LazyLock::new(|| (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()));

/// A new one that has no name yet.
fn begin(wanted: &Socket, settings: &Settings<'_>, top: i32) -> io::Result<File> {
    let made =
        socket::make(wanted.domain, wanted.kind, packet::protocol(wanted)).map_err(|error| needs(wanted, error))?;
    let made = open::lift(made, top)?;
    settings.set(made.as_fd(), wanted, Point::New)?;
    Ok(made)
}

/// One that depends on no other. A packet socket with a ring was begun before.
fn make(
    wanted: &Socket,
    begun: Option<File>,
    settings: &Settings<'_>,
    top: i32,
    (ports, repairs): (&HashSet<u16>, bool),
) -> io::Result<Option<File>> {
    let begin = || begun.map_or_else(|| begin(wanted, settings, top), Ok);
    let made = match &wanted.state {
        State::Unix(_) => return Ok(None),
        State::Tcp(state) => {
            let made = begin()?;
            tcp::set_up(&made, state, ports, repairs)?;
            made
        }
        State::Datagram(state) => {
            let made = begin()?;
            datagram::set_up(&made, wanted, state, settings)?;
            made
        }
        State::Netlink(state) => {
            let made = begin()?;
            netlink::set_up(&made, state)?;
            made
        }
        State::Packet(state) => {
            let made = begin()?;
            packet::set_up(&made, wanted, settings.of(wanted), state)?;
            made
        }
    };
    if !is_connection(&wanted.state) {
        settings.set(made.as_fd(), wanted, Point::Ready)?;
    }
    give(&made, wanted)?;
    Ok(Some(made))
}

/// What is set at the end, of a UNIX socket all of it: buffers are larger until it is filled, and nothing may come along that was not there.
fn settle(made: &File, wanted: &Socket, settings: &Settings<'_>) -> io::Result<()> {
    settings.set(made.as_fd(), wanted, Point::Settled)?;
    own(made, wanted)
}

/// A new one is ours.
fn give(made: &File, wanted: &Socket) -> io::Result<()> {
    if *OWN == (wanted.uid, wanted.gid) { Ok(()) } else { own(made, wanted) }
}

fn own(made: &File, wanted: &Socket) -> io::Result<()> {
    if nix::unistd::geteuid().is_root() {
        nix::unistd::fchown(made, Some(wanted.uid.into()), Some(wanted.gid.into()))?;
    }
    Ok(())
}
