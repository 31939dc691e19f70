//! Open files that are on their way through sockets and that no process of the tree has.

use super::survives;
use crate::support::{isolated, require_root};

#[test]
fn open_files_of_every_kind_on_their_way() {
    isolated(|room| survives(room, room.victim("in_flight", &[]), &[]));
}

#[test]
fn packet_sockets_and_fanotify_groups_on_their_way() {
    require_root!("they take CAP_NET_RAW and CAP_SYS_ADMIN in the first user namespace");
    isolated(|room| survives(room, room.victim("in_flight", &["root"]), &[]));
}
