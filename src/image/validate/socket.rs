//! Sockets.

use super::{ensure, unix_socket};
use crate::image::error::Error;
use crate::image::model::Snapshot;
use crate::image::model::socket::datagram::{Datagram, Membership, Waiting};
use crate::image::model::socket::netlink::Netlink;
use crate::image::model::socket::packet::{BLOCKS, Kept, Layout, Packet, PacketMembership, RING_MAX, Ring, SendRing};
use crate::image::model::socket::tcp::{Connection, Ended, Role, Tcp};
use crate::image::model::socket::{Socket, SocketOption, State};

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

/// Bytes of a page.
const PAGE: u32 = 4096;
/// Bytes of the header of a frame; that of a block is longer.
const FRAME_MIN: u32 = 32;
/// The smallest frame of a ring for sending, by version: what is less than TPACKET_HDRLEN, TPACKET2_HDRLEN, TPACKET3_HDRLEN, or no multiple of
/// TPACKET_ALIGNMENT, is refused.
const SEND_FRAME_MIN: [u32; 3] = [64, 64, 80];

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// A set of options.
pub fn options(options: &[SocketOption]) -> Result<(), Error> {
    let sane = |option: &SocketOption| option.value.len() <= VALUE_MAX;
    ensure(options.iter().all(sane), || "a set of options of sockets".into(), "has an impossible value")
}

pub fn socket(socket: &Socket, snapshot: &Snapshot) -> Result<(), Error> {
    let object = || format!("socket {}", socket.id);
    let has_options = (socket.options.0 as usize) < snapshot.socket_options.len();
    ensure(has_options, object, "has options that are not in the image")?;
    match &socket.state {
        State::Unix(state) => unix_socket::unix(socket, state, snapshot),
        State::Tcp(state) => tcp(socket, state),
        State::Datagram(state) => datagram(state, object),
        State::Netlink(Netlink { port: _, groups, peer: _ }) => {
            ensure(!groups.contains(&0), object, "is in an impossible group")
        }
        State::Packet(Packet { protocol: _, bound: _, running: _, memberships, ring, send_ring }) => {
            let sane = |asked: &PacketMembership| asked.address.len() <= HARDWARE_MAX && asked.count <= MEMBERSHIPS_MAX;
            ensure(memberships.iter().all(sane), object, "has asked a device for something impossible")?;
            ensure(ring.as_ref().is_none_or(ring_is_sane), object, "has an impossible ring")?;
            let fits = |sends: &SendRing| {
                send_ring_is_sane(sends) && ring.as_ref().is_none_or(|ring| ring.version == sends.version)
            };
            ensure(send_ring.as_ref().is_none_or(fits), object, "has an impossible ring for sending")
        }
    }
}

/// Whether its slots are where they can be, as `packet_set_ring` of net/packet/af_packet.c has it.
fn ring_is_sane(ring: &Ring) -> bool {
    let Ring { version, layout, next, kept } = ring;
    let shaped = *version <= BLOCKS && layout.private <= layout.block_size && is_shaped(layout);
    let inside = |kept: &Kept| {
        let end = (kept.start as usize).saturating_add(kept.bytes.len());
        kept.slot < ring.slots() && end <= ring.slot_size() as usize
    };
    shaped
        && *next < ring.slots()
        && kept.is_sorted_by(|one, other| one.slot < other.slot)
        && kept.iter().all(|kept| inside(kept) && (kept.start != 0 || kept.bytes.len() >= FRAME_MIN as usize))
}

/// Whether blocks and frames are of sizes that the kernel takes, and not more than are saved.
fn is_shaped(layout: &Layout) -> bool {
    let Layout { block_size: block, blocks, frame_size: frame, frames, retire_timeout: _, private: _, features: _ } =
        *layout;
    block != 0
        && block.is_multiple_of(PAGE)
        && frame >= FRAME_MIN
        && (block / frame).checked_mul(blocks) == Some(frames)
        && layout.bytes() <= RING_MAX
}

/// Whether its frames are where they can be, and have room for a packet of ours.
fn send_ring_is_sane(SendRing { version, layout, next, kept }: &SendRing) -> bool {
    let Layout { block_size: block, blocks, frame_size, frames, retire_timeout, private, features } = *layout;
    *version <= BLOCKS
        && is_shaped(layout)
        && frame_size >= SEND_FRAME_MIN[*version as usize]
        && (retire_timeout, private, features) == (0, 0, 0)
        && *next < frames
        && kept.is_sorted_by(|one, other| one.slot < other.slot)
        && kept.iter().all(|kept| kept.slot < blocks && kept.start == 0 && kept.bytes.len() <= block as usize)
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
            let Connection { peer, other: _, incoming: _, outgoing, window: _, agreed } = &**connection;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::sample;

    #[test]
    fn rings_must_be_possible() {
        fn is_sane(break_it: fn(&mut Packet, &mut SendRing)) -> bool {
            let mut snapshot = sample::snapshot();
            let at = snapshot.sockets.iter().position(|socket| matches!(socket.state, State::Packet(_)));
            let mut broken = snapshot.sockets[at.expect("a packet socket")].clone();
            if let State::Packet(packet) = &mut broken.state {
                let mut ring = packet.send_ring.take().expect("a ring for sending");
                break_it(packet, &mut ring);
                packet.send_ring = Some(ring);
            }
            snapshot.sockets[at.expect("a packet socket")] = broken.clone();
            socket(&broken, &snapshot).is_ok()
        }
        assert!(is_sane(|_, _| {}));
        assert!(is_sane(|packet, _| packet.ring = None));
        // Blocks of two pages, with four frames each.
        fn with_blocks(layout: &mut Layout, blocks: u32) {
            (layout.blocks, layout.frames) = (blocks, 4 * blocks);
        }
        const MOST: u32 = (RING_MAX / 8192) as u32;
        assert!(is_sane(|packet, ring| {
            with_blocks(&mut ring.layout, MOST);
            with_blocks(&mut packet.ring.as_mut().expect("a ring").layout, MOST);
        }));
        let broken: [fn(&mut Packet, &mut SendRing); 16] = [
            |_, ring| ring.version = 1,
            |packet, ring| (packet.ring, ring.version) = (None, 3),
            |_, ring| ring.next = ring.layout.frames,
            |_, ring| ring.layout.frames += 1,
            |_, ring| ring.layout.block_size = 0,
            |_, ring| ring.layout.block_size = 4097,
            |_, ring| ring.layout.blocks = u32::MAX,
            |_, ring| with_blocks(&mut ring.layout, MOST + 1),
            |packet, _| with_blocks(&mut packet.ring.as_mut().expect("a ring").layout, MOST + 1),
            |_, ring| (ring.layout.frame_size, ring.layout.frames) = (64, 256),
            |_, ring| ring.layout.retire_timeout = 1,
            |_, ring| ring.layout.private = 8,
            |_, ring| ring.kept[0].slot = 2,
            |_, ring| ring.kept[0].start = 1,
            |_, ring| ring.kept[0].bytes = vec![1; 8193],
            |_, ring| ring.kept = vec![ring.kept[0].clone(); 2],
        ];
        for (number, break_it) in broken.into_iter().enumerate() {
            assert!(!is_sane(break_it), "{number}");
        }
    }
}
