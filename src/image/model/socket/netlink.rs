//! Netlink sockets (netlink(7)).

use serde::{Deserialize, Serialize};

/// A socket of AF_NETLINK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Netlink {
    /// Its port id, 0 as long as it has none.
    pub port: u32,
    /// Numbers of the multicast groups that it is in, from 1 on.
    pub groups: Vec<u32>,
    /// To whom it sends what it gives no address to: port id and mask of groups; zeros for the kernel.
    pub peer: [u32; 2],
}
