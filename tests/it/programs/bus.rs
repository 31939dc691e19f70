//! dbus-daemon with its clients in one tree.

use super::interpreters::{RESTLESS, script};
use crate::support::isolated;
use crate::tree::survives;

#[test]
fn dbus_with_clients_that_pass_descriptors() {
    // The name of a socket is short, and so must be that of the test.
    isolated(|room| survives(room, script(room, "/usr/bin/python3", "bus.py"), RESTLESS));
}
