//! Sockets of one process that nobody is connected to.

use crate::support::isolated;

#[test]
fn that_nobody_is_connected_to() {
    isolated(|room| room.survives(room.victim("socket", &[])));
}
