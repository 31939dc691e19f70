//! Sockets as people read of them: family, type, addresses, state, queues.

use crate::image::model::socket::datagram::{Datagram, Membership};
use crate::image::model::socket::inet::Shown;
use crate::image::model::socket::netlink::Netlink;
use crate::image::model::socket::packet::{BLOCKS, Bound, Packet, PacketMembership, SendRing};
use crate::image::model::socket::tcp::{Connection, Role, Tcp};
use crate::image::model::socket::unix::{Link, Unix};
use crate::image::model::socket::{Socket, State};
use std::fmt::Write as _;

/// What a socket is.
#[must_use]
pub fn describe(socket: &Socket) -> String {
    let what = match &socket.state {
        State::Unix(state) => format!("UNIX {}{}", kind(socket.kind), unix(state)),
        State::Tcp(state) => format!("TCP {}", tcp(state)),
        State::Datagram(state) => format!("{} {}", protocol(socket), datagram(state)),
        State::Netlink(state) => format!("netlink protocol {} {}", socket.protocol, netlink(state)),
        State::Packet(state) => format!("packet {} {}", kind(socket.kind), packet(state)),
    };
    format!("socket:[{}] {what}", socket.ino)
}

fn unix(Unix { name: own, link, queue, shutdown, accepted: _, file: _, reset: _, credentials: _ }: &Unix) -> String {
    let mut text = name(own);
    match link {
        Link::None => {}
        Link::Listening { backlog, pending } => {
            let _ = write!(text, ", listening, backlog {backlog}, {} not accepted", pending.len());
        }
        Link::Peer(id) => {
            let _ = write!(text, " to socket {id}");
        }
        Link::Pending(id) => {
            let _ = write!(text, ", waits for socket {id} to accept it");
        }
        Link::Closed(_) => text.push_str(", its other end is closed"),
        Link::Outside { name: outside, path: _ } => {
            let _ = write!(text, " to{} outside", name(outside));
        }
    }
    if !queue.is_empty() {
        let bytes: usize = queue.iter().map(|message| message.bytes.len()).sum();
        let _ = write!(text, " ({} messages of {bytes} B unread)", queue.len());
    }
    if *shutdown != 0 {
        text.push_str(", shut down");
    }
    text
}

/// A name with what cannot be printed escaped; abstract ones begin with `@`.
fn name(name: &[u8]) -> String {
    match name.split_first() {
        None => String::new(),
        Some((0, rest)) => format!(" @{}", String::from_utf8_lossy(rest).escape_debug()),
        Some(_) => format!(" {}", String::from_utf8_lossy(name).escape_debug()),
    }
}

fn kind(kind: i32) -> &'static str {
    match kind {
        1 => "stream",
        2 => "datagram",
        3 => "raw",
        5 => "seqpacket",
        10 => "SOCK_PACKET",
        _ => "of another type",
    }
}

fn protocol(socket: &Socket) -> String {
    match (socket.kind, socket.protocol) {
        (3, protocol) => format!("raw protocol {protocol}"),
        (_, 17) => "UDP".into(),
        (_, 136) => "UDP-Lite".into(),
        (_, 1 | 58) => "ICMP".into(),
        (_, protocol) => format!("protocol {protocol}"),
    }
}

fn tcp(Tcp { local, role }: &Tcp) -> String {
    let state = match role {
        Role::Unconnected => "not connected".into(),
        Role::Listening { backlog } => format!("listening, backlog {backlog}"),
        Role::Connecting { peer } => format!("connecting to {}", Shown(peer)),
        Role::Ended(ended) => format!("ended ({} B unread)", ended.unread.len()),
        Role::Connected(connection) => {
            let Connection { peer, other: _, incoming, outgoing, window: _, agreed: _ } = &**connection;
            format!("to {} ({} B unread, {} B to send)", Shown(peer), incoming.unread.len(), outgoing.bytes.len())
        }
    };
    format!("{} {state}", Shown(local))
}

fn datagram(Datagram { local, peer, groups, queue, shutdown }: &Datagram) -> String {
    let mut text = Shown(local).to_string();
    if let Some(peer) = peer {
        let _ = write!(text, " to {}", Shown(peer));
    }
    for Membership { group, device, exclude: _, sources: _ } in groups {
        let _ = write!(text, ", in {} on {}", Shown(group), device.name);
    }
    if !queue.is_empty() {
        let bytes: usize = queue.iter().map(|waiting| waiting.bytes.len()).sum();
        let _ = write!(text, " ({} datagrams of {bytes} B unread)", queue.len());
    }
    if *shutdown != 0 {
        text.push_str(", shut down");
    }
    text
}

fn packet(Packet { protocol, bound, running, memberships, ring, send_ring }: &Packet) -> String {
    let name = match bound {
        Bound::Anywhere => "any device",
        Bound::Device(device) => &device.name,
        Bound::Gone => "a device that is gone",
    };
    let mut text = format!("protocol {protocol:#06x} on {name}");
    for PacketMembership { device, kind, address, count: _ } in memberships {
        let what = match kind {
            0 => "in a multicast group",
            1 => "promiscuous",
            2 => "in all multicast groups",
            3 => "under another address",
            _ => "with a membership",
        };
        let address: Vec<String> = address.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = write!(
            text,
            ", {what} {}{}{}",
            address.join(":"),
            if address.is_empty() { "on " } else { " on " },
            device.name
        );
    }
    if !running {
        text.push_str(", receives nothing");
    }
    if let Some(ring) = ring {
        let unread = ring.kept.iter().filter(|kept| kept.start == 0).count();
        let (slots, what) = (ring.slots(), if ring.version == BLOCKS { "blocks" } else { "frames" });
        let _ = write!(text, ", ring of {slots} {what} of {} B ({unread} unread)", ring.slot_size());
    }
    if let Some(SendRing { version: _, layout, next, kept: _ }) = send_ring {
        let (frames, size) = (layout.frames, layout.frame_size);
        let _ = write!(text, ", ring for sending of {frames} frames of {size} B (frame {next} comes next)");
    }
    text
}

fn netlink(Netlink { port, groups, peer: _ }: &Netlink) -> String {
    let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
    let groups = if groups.is_empty() { String::new() } else { format!(", in groups {}", groups.join(", ")) };
    format!("port {port}{groups}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::sample;

    #[test]
    fn sockets_say_what_they_are() {
        let text = |socket: Socket| describe(&socket);
        assert_eq!(
            text(sample::datagram(2)),
            "socket:[12] UDP 127.0.0.1:8080 to 127.0.0.2:8080, in 127.0.0.3:8080 on lo (1 datagrams of 8 B unread), shut down"
        );
        assert_eq!(text(sample::netlink(3)), "socket:[13] netlink protocol 0 port 77, in groups 1, 40");
        assert_eq!(
            text(sample::packet(4)),
            "socket:[14] packet raw protocol 0x0003 on lo, in a multicast group 01:00:5e:00:00:01 on lo, promiscuous on lo, ring of 2 blocks of 8192 B (1 unread), ring for sending of 8 frames of 2048 B (frame 5 comes next)"
        );
        assert_eq!(
            text(sample::socket(0)),
            "socket:[11] UNIX datagram name to /dev/log outside (1 messages of 7 B unread), shut down"
        );
    }
}
