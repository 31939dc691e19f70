//! Sockets.

use super::{ensure, unix_socket};
use crate::image::error::Error;
use crate::image::model::Snapshot;
use crate::image::model::socket::datagram::{Datagram, Membership, Waiting};
use crate::image::model::socket::netlink::Netlink;
use crate::image::model::socket::packet::{Packet, PacketMembership};
use crate::image::model::socket::tcp::{Connection, Ended, Role, Tcp};
use crate::image::model::socket::{Socket, State};

/// Most bytes of an option.
const VALUE_MAX: usize = 64 << 10;

/// Bytes of `struct sockaddr_storage`.
const ADDRESS_MAX: usize = 128;

/// Of RFC 7323.
const SCALE_MAX: u8 = 14;

/// Bytes of the longest datagram, with those that were joined (UDP_GRO).
const DATAGRAM_MAX: usize = 1 << 20;

/// `MAX_ADDR_LEN` of include/linux/netdevice.h.
const HARDWARE_MAX: usize = 32;
/// How often one socket asks for the same, at most: each takes a call at the restore.
const MEMBERSHIPS_MAX: u32 = 1 << 16;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

pub fn socket(socket: &Socket, snapshot: &Snapshot) -> Result<(), Error> {
    let object = || format!("socket {}", socket.id);
    let sane = socket.options.iter().all(|option| option.value.len() <= VALUE_MAX);
    ensure(sane, object, "has an impossible option")?;
    match &socket.state {
        State::Unix(state) => unix_socket::unix(socket, state, snapshot),
        State::Tcp(state) => tcp(socket, state),
        State::Datagram(state) => datagram(state, object),
        State::Netlink(Netlink { port: _, groups, peer: _ }) => {
            ensure(!groups.contains(&0), object, "is in an impossible group")
        }
        State::Packet(Packet { protocol: _, device: _, running: _, memberships }) => {
            let sane = |asked: &PacketMembership| asked.address.len() <= HARDWARE_MAX && asked.count <= MEMBERSHIPS_MAX;
            ensure(memberships.iter().all(sane), object, "has asked a device for something impossible")
        }
    }
}

fn tcp(socket: &Socket, Tcp { local, role }: &Tcp) -> Result<(), Error> {
    let object = || format!("socket {}", socket.id);
    let address = |address: &[u8]| ensure(address.len() <= ADDRESS_MAX, object, "has an impossible address");
    address(local)?;
    match role {
        Role::Unconnected | Role::Listening { backlog: _ } => Ok(()),
        Role::Ended(Ended { unread: _, failed: _ }) => Ok(()),
        Role::Connecting { peer } => address(peer),
        Role::Connected(connection) => {
            let Connection { peer, inside: _, incoming: _, outgoing, window: _, agreed } = &**connection;
            address(peer)?;
            let sane = outgoing.unsent as usize <= outgoing.bytes.len();
            ensure(sane, object, "has more bytes to send than bytes")?;
            let sane = agreed.scales.is_none_or(|(sent, received)| sent <= SCALE_MAX && received <= SCALE_MAX);
            ensure(sane, object, "has an impossible window scale")
        }
    }
}

fn datagram(state: &Datagram, object: impl Fn() -> String) -> Result<(), Error> {
    let Datagram { local, peer, groups, queue, shutdown } = state;
    let own = [Some(local), peer.as_ref()].into_iter().flatten();
    let of_groups = groups
        .iter()
        .flat_map(|Membership { group, device: _, exclude: _, sources }| std::iter::once(group).chain(sources));
    let of_queue = queue.iter().map(|Waiting { sender, bytes: _ }| sender);
    let mut addresses = own.chain(of_groups).chain(of_queue);
    ensure(addresses.all(|address| is_internet(address)), &object, "has an impossible address")?;
    let fits = queue.iter().all(|unread| unread.bytes.len() <= DATAGRAM_MAX);
    ensure(fits, &object, "holds an impossible datagram")?;
    ensure(*shutdown <= 3, object, "is shut down in an impossible way")
}

/// Whether this is a whole `struct sockaddr_in` or `struct sockaddr_in6`.
fn is_internet(address: &[u8]) -> bool {
    let family = address.first_chunk().map(|family| u16::from_ne_bytes(*family));
    matches!((family, address.len()), (Some(AF_INET), 16) | (Some(AF_INET6), 28))
}
