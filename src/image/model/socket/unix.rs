//! Sockets of the UNIX domain (unix(7)).

use super::super::id::{DescriptionId, SocketId};
use serde::{Deserialize, Serialize};

/// A socket of AF_UNIX.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unix {
    /// `sun_path` as bind(2) was given it, without a closing zero: empty for none, with a leading zero for an abstract name.
    pub name: Vec<u8>,
    /// Whether accept(2) gave it this name, which is that of the listener, rather than bind(2).
    pub accepted: bool,
    /// The file of the name, if that is a path.
    pub file: Option<SocketFile>,
    /// What it is connected to.
    pub link: Link,
    /// Bit 0 when nothing can be received any more, bit 1 when nothing can be sent (shutdown(2)).
    pub shutdown: u8,
    /// Whether ECONNRESET waits to be told.
    pub reset: bool,
    /// SO_PEERCRED: of whom is at the other end, or of whom has called listen(2).
    pub credentials: Option<PeerCredentials>,
    /// What waits to be received, oldest first.
    pub queue: Vec<Message>,
}

/// The file by which a socket is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketFile {
    /// Where it is, from the root directory.
    pub path: Vec<u8>,
    /// `st_dev`.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a socket is connected to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Link {
    /// Nothing.
    None,
    /// It listens.
    Listening {
        /// As listen(2) was told.
        backlog: u32,
        /// Connections that nobody has accepted yet, oldest first: whose they are, `None` when that one was closed.
        pending: Vec<Option<SocketId>>,
    },
    /// A socket of the image. A datagram socket need not be connected to this one in turn.
    Peer(SocketId),
    /// One that waits to be accepted by this listener of the image.
    Pending(SocketId),
    /// One that was closed, which had this name.
    Closed(Vec<u8>),
    /// A datagram socket outside.
    Outside {
        /// Its name as getpeername(2) gives it.
        name: Vec<u8>,
        /// The path that leads there, for a name that is one.
        path: Option<Vec<u8>>,
    },
}

/// Who is, or was, at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerCredentials {
    /// The process, 0 when it is of another pid namespace.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// Its supplementary groups (SO_PEERGROUPS).
    pub groups: Vec<u32>,
}

/// Something that was sent in one piece and waits to be received, in a stream too: there it cannot be told apart from others, but fills the
/// sender's buffer like this, and something may have come along with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The name of a datagram's sender, empty for none.
    pub sender: Vec<u8>,
    /// SCM_RIGHTS: open files that come along.
    pub files: Vec<DescriptionId>,
    /// SCM_CREDENTIALS: process, user and group, if they come along.
    pub credentials: Option<[u32; 3]>,
    /// Whether it is a byte of urgent data.
    pub urgent: Urgent,
}

/// Urgent data of a stream (MSG_OOB), of which the kernel keeps the last byte apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Urgent {
    /// It is none.
    No,
    /// A byte that nobody has taken yet.
    Waiting,
    /// The place of one that was taken: without bytes. A read ends there (SIOCATMARK).
    Taken,
}
