//! Packet sockets (packet(7)).

use super::datagram::Device;
use serde::{Deserialize, Serialize};

/// A socket of AF_PACKET.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// ETH_P_*: what it receives; 0 for nothing.
    pub protocol: u16,
    /// What it is bound to.
    pub bound: Bound,
    /// Whether packets come to it: not without a protocol, nor while its device is down.
    pub running: bool,
    /// Multicast groups, promiscuous mode and the like, as PACKET_ADD_MEMBERSHIP takes them, newest first.
    pub memberships: Vec<PacketMembership>,
    /// The ring in which it receives (PACKET_RX_RING).
    pub ring: Option<Ring>,
    /// The ring from which it sends (PACKET_TX_RING). In memory it lies behind the other one.
    pub send_ring: Option<SendRing>,
}

impl Packet {
    /// Bytes of both rings, as they are mapped; nothing where it has none.
    #[must_use]
    pub fn mapped(&self) -> Option<u64> {
        let (receives, sends) = (self.ring.as_ref().map(Ring::bytes), self.send_ring.as_ref().map(SendRing::bytes));
        (receives.is_some() || sends.is_some()).then(|| receives.unwrap_or(0) + sends.unwrap_or(0))
    }
}

/// Where packets come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bound {
    /// All devices.
    Anywhere,
    /// This one.
    Device(Device),
    /// One that is gone.
    Gone,
}

/// A ring that the kernel fills and that the program has mapped (Documentation/networking/packet_mmap.rst). Its slots are frames with TPACKET_V1 and
/// TPACKET_V2, blocks with TPACKET_V3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// TPACKET_V1 0, TPACKET_V2 1, TPACKET_V3 2.
    pub version: u32,
    /// How it is laid out.
    pub layout: Layout,
    /// The slot that the kernel fills next.
    pub next: u32,
    /// What stands in it, ascending.
    pub kept: Vec<Kept>,
}

/// A ring of frames that the program fills and has the kernel send, one after the other (Documentation/networking/packet_mmap.rst).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendRing {
    /// TPACKET_V1 0, TPACKET_V2 1, TPACKET_V3 2.
    pub version: u32,
    /// How it is laid out.
    pub layout: Layout,
    /// The frame that the kernel looks at next.
    pub next: u32,
    /// What stands in its memory, ascending: of each block that is not all zeros the bytes up to the last one that is not zero. A slot is a block here.
    pub kept: Vec<Kept>,
}

/// How a ring is laid out, as the program has asked for it (`struct tpacket_req3` of include/uapi/linux/if_packet.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Bytes of a block.
    pub block_size: u32,
    /// How many there are.
    pub blocks: u32,
    /// Bytes of a frame.
    pub frame_size: u32,
    /// How many there are.
    pub frames: u32,
    /// With TPACKET_V3, after how many milliseconds the kernel hands over a block that is not full.
    pub retire_timeout: u32,
    /// With TPACKET_V3, bytes in each block that are the program's own.
    pub private: u32,
    /// With TPACKET_V3, TP_FT_REQ_*.
    pub features: u32,
}

/// Bytes in a slot of a ring: from the beginning of one that is handed over and that the program has not given back, the program's own bytes in others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The slot.
    pub slot: u32,
    /// Bytes from its beginning.
    pub start: u32,
    /// What stands there.
    #[serde(with = "crate::image::model::bytes")]
    pub bytes: Vec<u8>,
}

impl Layout {
    /// Bytes of all blocks.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.block_size as u64 * self.blocks as u64
    }

    /// Where a frame begins: it lies in one block.
    #[must_use]
    pub const fn frame_at(&self, frame: u32) -> usize {
        let in_block = self.block_size / self.frame_size;
        (frame / in_block) as usize * self.block_size as usize + (frame % in_block) as usize * self.frame_size as usize
    }
}

impl SendRing {
    /// Bytes of all blocks.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.layout.bytes()
    }
}

/// Most bytes of a ring that is saved: all that stands in it may have to be held in memory at once.
pub const RING_MAX: u64 = 256 << 20;

/// TPACKET_V3.
pub const BLOCKS: u32 = 2;

impl Ring {
    /// Bytes of all blocks.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.layout.bytes()
    }

    /// How many slots there are.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        if self.version == BLOCKS { self.layout.blocks } else { self.layout.frames }
    }

    /// Bytes of a slot.
    #[must_use]
    pub const fn slot_size(&self) -> u32 {
        if self.version == BLOCKS { self.layout.block_size } else { self.layout.frame_size }
    }

    /// Where a slot begins: a frame lies in one block.
    #[must_use]
    pub const fn at(&self, slot: u32) -> usize {
        if self.version == BLOCKS {
            return slot as usize * self.layout.block_size as usize;
        }
        self.layout.frame_at(slot)
    }
}

/// What a packet socket has asked a device for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketMembership {
    /// The device.
    pub device: Device,
    /// PACKET_MR_MULTICAST 0, PACKET_MR_PROMISC 1, PACKET_MR_ALLMULTI 2, PACKET_MR_UNICAST 3.
    pub kind: u16,
    /// The hardware address, empty where none was given.
    pub address: Vec<u8>,
    /// How often it was asked for.
    pub count: u32,
}
