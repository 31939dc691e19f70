//! Packet sockets.

use crate::support::network::{ip, own_network};
use crate::support::{Room, isolated, require_root};

/// A network with loopback, and a device that is down.
fn network() {
    own_network();
    ip("link add asleep type veth peer name other");
}

#[test]
fn exam_16_packet_sockets() {
    isolated(|room| {
        network();
        room.survives(room.victim("packet", &["plain"]));
    });
}

#[test]
fn exam_16_a_packet_socket_whose_device_is_gone() {
    isolated(|room| {
        require_root!("/dev/net/tun is root's");
        network();
        room.survives(room.victim("packet", &["gone"]));
    });
}

#[test]
fn exam_21_packets_that_cannot_be_had_again_are_named_and_stay() {
    isolated(|room| {
        network();
        room.refuses(room.victim("packet", &["unread"]), &["socket:[", "packets wait in it"]);
        room.refuses(room.victim("packet", &["group"]), &["socket:[", "PACKET_FANOUT_DATA"]);
    });
}

#[test]
fn a_packet_socket_whose_device_is_gone_ends_the_restore_before_anything_runs() {
    isolated(|room: &Room| {
        network();
        let mut victim = room.victim("packet", &["plain"]);
        let image = room.dump_and_kill(&mut victim, "killed.snap");
        ip("link del asleep");
        let run = room.snap(["restore", "--detach"]).arg(&image).run().expect(7);
        let run = run.says("device asleep");
        assert_eq!(victim.state(), None, "something runs: {run}");
        ip("link add asleep type veth peer name other");
        assert_eq!(room.restore(&image, &[]), victim.pid());
        // The device has another number than before, which the program is told.
        victim.end();
    });
}
