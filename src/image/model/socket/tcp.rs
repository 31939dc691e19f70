//! TCP, over IPv4 and IPv6.

use serde::{Deserialize, Serialize};

/// A TCP socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tcp {
    /// Its own address as a whole `struct sockaddr`; of a socket that is not bound, with port 0.
    pub local: Vec<u8>,
    /// What it does.
    pub role: Role,
}

/// What a TCP socket does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// It was never connected.
    Unconnected,
    /// listen(2).
    Listening {
        /// Its second argument.
        backlog: u32,
    },
    /// connect(2) has begun and nobody has answered.
    Connecting {
        /// The address to which, as a whole `struct sockaddr`.
        peer: Vec<u8>,
    },
    /// It was connected and is no longer, by both sides' consent or by a reset.
    Ended(Ended),
    /// It is connected, in one direction at least.
    Connected(Box<Connection>),
}

/// What is left of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Bytes that were received and not read.
    pub unread: Vec<u8>,
    /// Whether the program has yet to be told of a reset.
    pub failed: bool,
}

/// Both directions of a connection, and what the two sides have agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The other side's address as a whole `struct sockaddr`.
    pub peer: Vec<u8>,
    /// Where the other side is.
    pub other: Other,
    /// What has come.
    pub incoming: Incoming,
    /// What is to go.
    pub outgoing: Outgoing,
    /// Windows.
    pub window: Window,
    /// What was agreed on when it was made.
    pub agreed: Agreed,
}

/// Where the other side of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Other {
    /// Outside of the image.
    Outside,
    /// In the image too.
    Inside,
    /// On the same host, and nobody has it any more: it has ended, and this side has not yet. Told apart where connections are not repaired.
    Gone,
}

impl Connection {
    /// Whether a restore makes it anew, which then connect as others do: where connections cannot be repaired, or this one was not when it was read.
    #[must_use]
    pub const fn is_anew(&self, repairs: bool) -> bool {
        match self.other {
            Other::Outside => false,
            Other::Inside => !repairs || self.agreed.mss == 0,
            Other::Gone => true,
        }
    }
}

/// What has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incoming {
    /// Sequence number of the first byte that was not read.
    pub sequence: u32,
    /// Bytes that were received and not read.
    pub unread: Vec<u8>,
    /// Whether the other side has sent its end (FIN).
    pub finished: bool,
    /// shutdown(2) with SHUT_RD.
    pub shut: bool,
}

/// What is to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    /// Sequence number of the first byte that the other side has not acknowledged.
    pub sequence: u32,
    /// Bytes that were written and not acknowledged.
    pub bytes: Vec<u8>,
    /// How many of these were not sent yet.
    pub unsent: u32,
    /// Whether this side has ended it (FIN), as shutdown(2) with SHUT_WR does.
    pub finished: bool,
    /// Whether the other side has acknowledged that.
    pub acknowledged: bool,
}

/// `struct tcp_repair_window` of include/uapi/linux/tcp.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in the header")]
pub struct Window {
    pub snd_wl1: u32,
    pub snd_wnd: u32,
    pub max_window: u32,
    pub rcv_wnd: u32,
    pub rcv_wup: u32,
}

/// What was agreed on when the connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// Largest segment that the other side takes; 0 where it could not be read without privilege, and nor could sequence numbers and windows.
    pub mss: u32,
    /// Window scales of what is sent and of what is received, in bits.
    pub scales: Option<(u8, u8)>,
    /// Selective acknowledgements.
    pub sack: bool,
    /// The clock of the time stamps that are sent, as TCP_TIMESTAMP gives it.
    pub timestamp: Option<u32>,
}
