//! A socket of each family.

use crate::image::model::id::*;
use crate::image::model::socket::datagram::{Datagram, Device, Membership, Waiting};
use crate::image::model::socket::netlink::Netlink;
use crate::image::model::socket::packet::{Bound, Kept, Layout, Packet, PacketMembership, Ring, SendRing};
use crate::image::model::socket::tcp::{Agreed, Connection, Incoming, Other, Outgoing, Role, Tcp, Window};
use crate::image::model::socket::unix::{Link, Message, PeerCredentials, SocketFile, Unix, Urgent};
use crate::image::model::socket::{Socket, State};

pub fn socket(id: u32) -> Socket {
    Socket {
        id: SocketId(id),
        ino: 11,
        domain: 1,
        kind: 2,
        protocol: 0,
        uid: 0,
        gid: 0,
        options: OptionsId(0),
        state: State::Unix(Unix {
            name: b"name".to_vec(),
            accepted: false,
            file: Some(SocketFile { path: b"/run/name".to_vec(), dev: 1, ino: 12, mode: 0o755, uid: 0, gid: 0 }),
            link: Link::Outside { name: b"/dev/log".to_vec(), path: Some(b"/run/log".to_vec()) },
            shutdown: 1,
            reset: false,
            credentials: Some(PeerCredentials { pid: 100, uid: 0, gid: 0, groups: vec![4] }),
            queue: vec![Message {
                bytes: b"message".to_vec(),
                sender: b"\0other".to_vec(),
                files: vec![DescriptionId(0)],
                credentials: Some([100, 0, 0]),
                urgent: Urgent::No,
            }],
        }),
    }
}

pub fn connection(id: u32) -> Socket {
    let address = |port: u16| [&[2, 0][..], &port.to_be_bytes(), &[127, 0, 0, 1], &[0; 8]].concat();
    let connection = Connection {
        peer: address(80),
        other: Other::Outside,
        incoming: Incoming { sequence: u32::MAX, unread: b"heard".to_vec(), finished: false, shut: false },
        outgoing: Outgoing { sequence: 7, bytes: b"said".to_vec(), unsent: 2, finished: true, acknowledged: false },
        window: Window { snd_wl1: 1, snd_wnd: 2, max_window: 3, rcv_wnd: 4, rcv_wup: 5 },
        agreed: Agreed { mss: 1460, scales: Some((7, 10)), sack: true, timestamp: Some(9) },
    };
    let state = State::Tcp(Tcp { local: address(4711), role: Role::Connected(Box::new(connection)) });
    Socket { domain: 2, kind: 1, protocol: 6, ino: 12, state, ..socket(id) }
}

pub fn datagram(id: u32) -> Socket {
    let address = |last: u8| vec![2, 0, 0x1f, 0x90, 127, 0, 0, last, 0, 0, 0, 0, 0, 0, 0, 0];
    let state = Datagram {
        local: address(1),
        peer: Some(address(2)),
        groups: vec![Membership {
            group: address(3),
            device: Device { index: 1, name: "lo".into() },
            exclude: false,
            sources: vec![address(4)],
        }],
        queue: vec![Waiting { sender: address(5), bytes: b"datagram".to_vec() }],
        shutdown: 2,
    };
    Socket { ino: 12, domain: 2, protocol: 17, state: State::Datagram(state), ..socket(id) }
}

pub fn netlink(id: u32) -> Socket {
    let state = Netlink { port: 77, groups: vec![1, 40], peer: [0, 2] };
    Socket { ino: 13, domain: 16, kind: 3, state: State::Netlink(state), ..socket(id) }
}

pub fn packet(id: u32) -> Socket {
    let device = Device { index: 1, name: "lo".into() };
    let asked = |kind, address| PacketMembership { device: device.clone(), kind, address, count: 1 };
    let memberships = vec![asked(0, vec![1, 0, 0x5e, 0, 0, 1]), asked(1, Vec::new())];
    let bytes = b"a header of a block and of a packet, and the packet".to_vec();
    let ring = Ring {
        version: 2,
        layout: Layout {
            block_size: 8192,
            blocks: 2,
            frame_size: 2048,
            frames: 8,
            retire_timeout: 100,
            private: 16,
            features: 1,
        },
        next: 1,
        kept: vec![Kept { slot: 0, start: 0, bytes }, Kept { slot: 1, start: 48, bytes: b"own".to_vec() }],
    };
    let layout = Layout { retire_timeout: 0, private: 0, features: 0, ..ring.layout };
    let kept = vec![Kept { slot: 1, start: 0, bytes: b"a frame".to_vec() }];
    let sends = SendRing { version: 2, layout, next: 5, kept };
    let (protocol, bound, running) = (3, Bound::Device(device), true);
    let state = Packet { protocol, bound, running, memberships, ring: Some(ring), send_ring: Some(sends) };
    Socket { ino: 14, domain: 17, kind: 3, state: State::Packet(state), ..socket(id) }
}
