//! sock_diag(7) of packet sockets: what getsockopt(2) does not tell of them.

use super::sock_diag::{self, attribute};
use std::io;

// include/uapi/linux/packet_diag.h
const SHOW_INFO: u32 = 1;
const SHOW_MEMBERSHIPS: u32 = 2;
const SHOW_RINGS: u32 = 4;
const SHOW_FANOUT: u32 = 8;
const INFO: u16 = 0;
const MEMBERSHIPS: u16 = 1;
const RECEIVE_RING: u16 = 2;
const SEND_RING: u16 = 3;
const FANOUT: u16 = 4;
const RUNNING: u32 = 1;
/// Bytes of `struct packet_diag_msg`, and of `struct packet_diag_mclist`.
const MESSAGE: usize = 16;
const MEMBERSHIP: usize = 44;

/// A packet socket of this network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketSocket {
    /// Its inode.
    pub ino: u64,
    /// Whether packets come to it.
    pub running: bool,
    /// What it has asked devices for.
    pub memberships: Vec<Membership>,
    /// Whether it has a ring for receiving or sending (PACKET_RX_RING, PACKET_TX_RING).
    pub has_ring: bool,
    /// Whether it is in a group among which packets are distributed (PACKET_FANOUT).
    pub has_fanout: bool,
}

/// One membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Number of the device.
    pub index: u32,
    /// How often it was asked for.
    pub count: u32,
    /// PACKET_MR_*.
    pub kind: u16,
    /// Hardware address.
    pub address: Vec<u8>,
}

/// All of them.
///
/// # Errors
/// As netlink(7); ENOENT where the kernel has no `packet_diag`.
pub fn read() -> io::Result<Vec<PacketSocket>> {
    let mut request = vec![libc::AF_PACKET as u8, 0, 0, 0];
    for word in [0, SHOW_INFO | SHOW_MEMBERSHIPS | SHOW_RINGS | SHOW_FANOUT, 0, 0] {
        request.extend_from_slice(&word.to_ne_bytes());
    }
    let mut sockets = Vec::new();
    sock_diag::ask(&request, |body| sockets.extend(socket(body)))?;
    Ok(sockets)
}

fn socket(body: &[u8]) -> Option<PacketSocket> {
    let word = |bytes: &[u8], at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let mut socket = PacketSocket { ino: word(body, 4)?.into(), ..PacketSocket::default() };
    let mut rest = body.get(MESSAGE..)?;
    while let Some((kind, value, after)) = attribute(rest) {
        match kind {
            INFO => socket.running = word(value, 20)? & RUNNING != 0,
            MEMBERSHIPS => socket.memberships = value.chunks_exact(MEMBERSHIP).filter_map(membership).collect(),
            RECEIVE_RING | SEND_RING => socket.has_ring = true,
            FANOUT => socket.has_fanout = true,
            _ => {}
        }
        rest = after;
    }
    Some(socket)
}

/// `struct packet_diag_mclist`: device, count, kind, length of the address, address.
fn membership(bytes: &[u8]) -> Option<Membership> {
    let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let half = |at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let address = bytes.get(12..12 + usize::from(half(10)?))?.to_vec();
    Some(Membership { index: word(0)?, count: word(4)?, kind: half(8)?, address })
}
