//! Network namespaces of a test's own: ports and addresses that nobody else has, in which root of a user namespace may do everything.

use std::process::Command;

/// Puts this thread, and whatever it starts, into a network namespace of its own with a loopback interface.
pub fn own_network() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
    ip("link set lo up");
}

/// ip(8).
pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip of iproute2");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
