//! Packet sockets with rings.

use crate::support::network::own_network;
use crate::support::{Room, isolated};

#[test]
fn exam_16_rings_of_packet_sockets() {
    isolated(|room| {
        own_network();
        room.survives_with_children(room.victim("packet_ring", &["all"]));
    });
}

#[test]
fn exam_21_rings_in_which_nobody_knows_where_the_kernel_stands_are_named_and_stay() {
    isolated(|room: &Room| {
        own_network();
        room.refuses(room.victim("packet_ring", &["send"]), &["socket:[", "PACKET_TX_RING"]);
        room.refuses(room.victim("packet_ring", &["part"]), &["mapping ", "a part of the ring"]);
        room.refuses(room.victim("packet_ring", &["closed"]), &["mapping ", "no descriptor of the tree leads to"]);
        room.refuses(
            room.victim("packet_ring", &["wiped"]),
            &["socket:[", "the program has changed headers of frames"],
        );
    });
}
