//! Sockets. Each family has a file of its own; what all have in common is here.

pub mod datagram;
pub mod inet;
pub mod netlink;
pub mod packet;
pub mod tcp;
pub mod unix;

use super::id::{OptionsId, SocketId};
use serde::{Deserialize, Serialize};

/// A socket that tasks of the tree have open. There is one open file description of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// Its place in [`super::Snapshot::sockets`].
    pub id: SocketId,
    /// Inode number at the dump, as in `socket:[INO]`.
    pub ino: u64,
    /// SO_DOMAIN: AF_UNIX and the like.
    pub domain: i32,
    /// SO_TYPE: SOCK_STREAM and the like.
    pub kind: i32,
    /// SO_PROTOCOL.
    pub protocol: i32,
    /// Owner of the inode.
    pub uid: u32,
    /// Group of the inode.
    pub gid: u32,
    /// All its options.
    pub options: OptionsId,
    /// What its family knows of it.
    pub state: State,
}

/// One option of getsockopt(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketOption {
    /// SOL_SOCKET, IPPROTO_IP and the like.
    pub level: i32,
    /// The option.
    pub name: i32,
    /// Its value as the kernel gives it.
    pub value: Vec<u8>,
}

/// What a socket is, by family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// AF_UNIX.
    Unix(unix::Unix),
    /// TCP over AF_INET or AF_INET6.
    Tcp(tcp::Tcp),
    /// AF_INET and AF_INET6 without connections.
    Datagram(datagram::Datagram),
    /// AF_NETLINK.
    Netlink(netlink::Netlink),
    /// AF_PACKET.
    Packet(packet::Packet),
}
