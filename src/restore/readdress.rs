//! `--tcp-close` and `--map-address`: an image whose connections to the outside are closed, or that has moved to a host with other addresses. Pure.

use super::Pages;
use super::rewritten::Rewritten;
use crate::blocker::Blocker;
use crate::image::model::Snapshot;
use crate::image::model::socket::datagram::Datagram;
use crate::image::model::socket::tcp::{Connection, Ended, Other, Role, Tcp};
use crate::image::model::socket::{Socket, State, inet};
use crate::resources::socket::tcp::lock::lock_of;
use std::net::IpAddr;

/// What becomes of the addresses of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Connections whose other end is outside are restored as reset.
    pub close: bool,
    /// Own addresses of the host of the dump, and those of this one in their place.
    pub mapped: Vec<(IpAddr, IpAddr)>,
}

impl Addresses {
    fn of(&self, address: IpAddr) -> Option<IpAddr> {
        let address = address.to_canonical();
        self.mapped.iter().find(|(old, _)| old.to_canonical() == address).map(|(_, new)| *new)
    }

    fn map(&self, address: &mut Vec<u8>) {
        if let Some(new) = inet::parse(address).and_then(|old| self.of(old.ip())) {
            *address = inet::with_ip(address, new);
        }
    }

    fn socket(&self, socket: &mut Socket) {
        match &mut socket.state {
            State::Unix(_) | State::Netlink(_) | State::Packet(_) => {}
            State::Datagram(Datagram { local, peer, groups: _, queue: _, shutdown: _ }) => {
                self.map(local);
                peer.iter_mut().for_each(|peer| self.map(peer));
            }
            State::Tcp(Tcp { local, role }) => {
                match role {
                    Role::Unconnected | Role::Listening { backlog: _ } | Role::Ended(_) => self.map(local),
                    Role::Connecting { peer } => {
                        self.map(local);
                        self.map(peer);
                    }
                    Role::Connected(connection) if connection.other != Other::Outside => {
                        self.map(local);
                        self.map(&mut connection.peer);
                    }
                    Role::Connected(connection) if self.close => {
                        self.map(local);
                        let unread = std::mem::take(&mut connection.incoming.unread);
                        *role = Role::Ended(Ended { unread, failed: true });
                    }
                    // The other side knows it by its address.
                    Role::Connected(_) => {}
                }
            }
        }
    }

    /// What follows for a restore of this image.
    #[must_use]
    pub fn consequences(&self, snapshot: &Snapshot) -> Consequences {
        let closed = snapshot.sockets.iter().filter(|_| self.close).filter_map(|socket| Some(outside(socket)?.0));
        let notices = closed.map(|name| format!("{name} is restored as reset")).collect();
        let unlock = if self.close { lock_of(&snapshot.sockets).map(|(name, _)| name) } else { None };
        Consequences { blockers: self.blockers(snapshot), notices, unlock }
    }

    /// What cannot have another address, and addresses that no socket has.
    fn blockers(&self, snapshot: &Snapshot) -> Vec<Blocker> {
        let kept = snapshot.sockets.iter().filter_map(|socket| self.kept(socket));
        let unknown = self.mapped.iter().filter(|(old, _)| !snapshot.sockets.iter().any(|socket| has(socket, *old)));
        let unknown = unknown.map(|(old, new)| Blocker {
            task: "--map-address".into(),
            object: format!("{old}={new}"),
            reason: format!("no socket of the image has {old}"),
            remedy: "see which there are: snap inspect FILE fds".into(),
        });
        kept.chain(unknown).collect()
    }

    fn kept(&self, socket: &Socket) -> Option<Blocker> {
        let (object, own) = outside(socket).filter(|_| !self.close)?;
        let new = self.of(own)?;
        Some(Blocker {
            task: format!("socket:[{}]", socket.ino),
            object,
            reason: format!("it cannot go on from {new}: its other side is outside, and knows it by its address"),
            remedy: "restore it as closed (--tcp-close), or give this host the old address".into(),
        })
    }
}

/// What follows from [`Addresses`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consequences {
    /// What does not go.
    pub blockers: Vec<Blocker>,
    /// What the user should know.
    pub notices: Vec<String>,
    /// The lock that is to be taken away, though nothing is left that it holds.
    pub unlock: Option<String>,
}

/// A connection whose other end is outside: how it is called, and its own address.
fn outside(socket: &Socket) -> Option<(String, IpAddr)> {
    let State::Tcp(Tcp { local, role: Role::Connected(connection) }) = &socket.state else { return None };
    let Connection { peer, other, incoming: _, outgoing: _, window: _, agreed: _ } = connection.as_ref();
    let name = format!("TCP connection of {} with {}", inet::Shown(local), inet::Shown(peer));
    Some((name, inet::parse(local)?.ip())).filter(|_| *other == Other::Outside)
}

/// Whether a socket is bound to an address, or talks to it.
fn has(socket: &Socket, wanted: IpAddr) -> bool {
    let is = |address: &[u8]| {
        inet::parse(address).is_some_and(|address| address.ip().to_canonical() == wanted.to_canonical())
    };
    match &socket.state {
        State::Unix(_) | State::Netlink(_) | State::Packet(_) => false,
        State::Datagram(Datagram { local, peer, groups: _, queue: _, shutdown: _ }) => {
            is(local) || peer.as_deref().is_some_and(is)
        }
        State::Tcp(Tcp { local, role }) => {
            is(local)
                || match role {
                    Role::Unconnected | Role::Listening { backlog: _ } | Role::Ended(_) => false,
                    Role::Connecting { peer } => is(peer),
                    Role::Connected(connection) => connection.other != Other::Outside && is(&connection.peer),
                }
        }
    }
}

/// The image with other addresses; none where nothing is changed.
#[must_use]
pub fn where_changed<'a>(pages: &'a dyn Pages, addresses: &Addresses) -> Option<Rewritten<'a>> {
    (addresses.close || !addresses.mapped.is_empty()).then(|| {
        Rewritten::new(pages, |snapshot| snapshot.sockets.iter_mut().for_each(|socket| addresses.socket(socket)))
    })
}
