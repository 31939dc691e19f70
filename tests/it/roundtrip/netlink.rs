//! Netlink sockets.

use crate::support::isolated;
use crate::support::network::own_network;

/// A port id that somebody else wants too.
const PORT: &str = "2054815745";

#[test]
fn exam_16_netlink_sockets() {
    isolated(|room| {
        own_network();
        room.survives(room.victim("netlink", &["plain"]));
    });
}

#[test]
fn sockets_for_what_is_to_be_audited() {
    isolated(|room| {
        own_network();
        room.survives(room.victim("netlink", &["audit"]));
    });
}

#[test]
fn exam_21_messages_that_the_kernel_has_sent_are_named_and_stay() {
    isolated(|room| {
        own_network();
        room.refuses(room.victim("netlink", &["unread"]), &["socket:[", "messages wait in it"]);
        room.refuses(room.victim("netlink", &["list"]), &["socket:[", "reads a list from the kernel"]);
    });
}

#[test]
fn a_port_id_that_is_taken_ends_the_restore_before_anything_runs() {
    isolated(|room| {
        own_network();
        let mut victim = room.victim("netlink", &["plain", PORT]);
        let image = room.dump_and_kill(&mut victim, "killed.snap");
        let mut other = room.victim("netlink", &["plain", PORT]);
        let run = room.snap(["restore", "--detach"]).arg(&image).run().expect(7);
        let run = run.says(&format!("netlink port {PORT}"));
        assert_eq!(victim.state(), None, "something runs: {run}");
        other.end();
        assert_eq!(room.restore(&image, &[]), victim.pid());
        victim.check();
        victim.end();
    });
}
