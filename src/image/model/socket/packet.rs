//! Packet sockets (packet(7)).

use super::datagram::Device;
use serde::{Deserialize, Serialize};

/// A socket of AF_PACKET.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// ETH_P_*: what it receives; 0 for nothing.
    pub protocol: u16,
    /// The device that it is bound to; `None` for all of them.
    pub device: Option<Device>,
    /// Whether packets come to it: not without a protocol, nor while its device is down.
    pub running: bool,
    /// Multicast groups, promiscuous mode and the like, as PACKET_ADD_MEMBERSHIP takes them, newest first.
    pub memberships: Vec<PacketMembership>,
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
