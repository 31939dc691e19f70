//! sock_diag(7) of packet sockets: what getsockopt(2) does not tell of them.

use super::sock_diag::{self, attribute};
use crate::image::model::socket::packet::Layout;
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
    /// ETH_P_*: what it receives.
    pub protocol: u16,
    /// Number of the device that it is bound to; 0 for all of them, -1 for one that is gone.
    pub index: i32,
    /// Whether packets come to it.
    pub running: bool,
    /// What it has asked devices for.
    pub memberships: Vec<Membership>,
    /// Its ring for receiving (PACKET_RX_RING).
    pub receives: Option<Layout>,
    /// Its ring for sending (PACKET_TX_RING).
    pub sends: Option<Layout>,
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
    let protocol = u16::from_ne_bytes(*body.get(2..)?.first_chunk()?);
    let mut socket = PacketSocket { ino: word(body, 4)?.into(), protocol, ..PacketSocket::default() };
    let mut rest = body.get(MESSAGE..)?;
    while let Some((kind, value, after)) = attribute(rest) {
        match kind {
            INFO => {
                socket.index = word(value, 0)?.cast_signed();
                socket.running = word(value, 20)? & RUNNING != 0;
            }
            MEMBERSHIPS => socket.memberships = value.chunks_exact(MEMBERSHIP).filter_map(membership).collect(),
            RECEIVE_RING => socket.receives = Some(layout(value)?),
            SEND_RING => socket.sends = Some(layout(value)?),
            FANOUT => socket.has_fanout = true,
            _ => {}
        }
        rest = after;
    }
    Some(socket)
}

/// `struct packet_diag_ring`.
fn layout(bytes: &[u8]) -> Option<Layout> {
    let (words, _) = bytes.as_chunks();
    let words: Vec<u32> = words.iter().map(|word| u32::from_ne_bytes(*word)).collect();
    let [block_size, blocks, frame_size, frames, retire_timeout, private, features, ..] = words[..] else {
        return None;
    };
    Some(Layout { block_size, blocks, frame_size, frames, retire_timeout, private, features })
}

/// `struct packet_diag_mclist`: device, count, kind, length of the address, address.
fn membership(bytes: &[u8]) -> Option<Membership> {
    let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let half = |at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let address = bytes.get(12..12 + usize::from(half(10)?))?.to_vec();
    Some(Membership { index: word(0)?, count: word(4)?, kind: half(8)?, address })
}
