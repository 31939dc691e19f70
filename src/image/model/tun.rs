//! Descriptors of /dev/net/tun.

use super::id::FileId;
use serde::{Deserialize, Serialize};

/// A descriptor of /dev/net/tun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tun {
    /// The device file.
    pub file: FileId,
    /// The interface that it is attached to.
    pub interface: Option<TunInterface>,
}

/// A persistent interface, as TUNSETIFF and its kin describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunInterface {
    /// Its name.
    pub name: String,
    /// IFF_TUN, IFF_TAP, IFF_NO_PI and the like.
    pub flags: u16,
    /// TUNSETVNETHDRSZ.
    pub header: i32,
    /// TUNSETSNDBUF.
    pub send_buffer: i32,
}
