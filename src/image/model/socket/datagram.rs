//! Sockets of IPv4 and IPv6 without connections: UDP, UDP-Lite, ICMP, raw.

use serde::{Deserialize, Serialize};

/// Such a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datagram {
    /// Its own address as a whole `struct sockaddr`; of one that is not bound, without address and port. The port of a raw socket is its protocol.
    pub local: Vec<u8>,
    /// The address that connect(2) was given, if any.
    pub peer: Option<Vec<u8>>,
    /// Multicast groups that it has joined.
    pub groups: Vec<Membership>,
    /// What has come and was not read, oldest first.
    pub queue: Vec<Waiting>,
    /// shutdown(2): bit 0 for receiving, bit 1 for sending.
    pub shutdown: u8,
}

/// A multicast group that a socket has joined on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The group as a whole `struct sockaddr`.
    pub group: Vec<u8>,
    /// The device.
    pub device: Device,
    /// Whether it hears all but these sources, instead of these alone.
    pub exclude: bool,
    /// Sources, each as a whole `struct sockaddr`.
    pub sources: Vec<Vec<u8>>,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its number at the dump.
    pub index: u32,
    /// Its name, by which it is found again.
    pub name: String,
}

/// A datagram that nobody has read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Who has sent it, as a whole `struct sockaddr`.
    pub sender: Vec<u8>,
    /// What it says.
    pub bytes: Vec<u8>,
}
