//! Many descriptors of every kind in one process.

use crate::support::network::own_network;
use crate::support::{isolated, require_root};

#[test]
fn five_hundred_descriptors_of_every_kind() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        room.survives(room.victim("medley", &["500"]));
    });
}
