//! OpenJDK: an http server with several threads and a heap that is collected all the time, whose clients hold their connections.

use super::client::{self, Client};
use super::{PORT, ended, script, serves_from, start};
use crate::support::network::own_network;
use crate::support::{Room, isolated, require_root};
use std::fs;
use std::process::{Command, Stdio};

/// What a virtual machine shows of itself lies in a file named after its pid, which other tests have too.
fn own_performance_data(room: &Room) {
    let (place, own) = ("/tmp/hsperfdata_root", room.path("performance"));
    fs::create_dir_all(place).expect("a directory");
    fs::create_dir(&own).expect("a directory");
    let status = Command::new("mount").arg("--bind").arg(own).arg(place).status().expect("mount");
    assert!(status.success(), "mounting over {place}");
}

/// Clients see nothing but delays, and the image from before they came serves others later.
fn serves(room: &Room, options: &[&str]) {
    own_performance_data(room);
    let mut command = Command::new("java");
    command.args(options).arg(script("Web.java"));
    let pid = start(room, command);
    Client::start(PORT, client::http).finish();
    let idle = room.dump(pid, "idle.snap", &[]);
    serves_from(room, pid, client::http);
    ended(pid);
    // Another one takes away what is left of those that are dead.
    let other = Command::new("java").arg("-version").stderr(Stdio::null()).status();
    assert!(other.expect("java").success());
    assert!(!room.path("performance").join(pid.to_string()).exists(), "it has left the file");
    assert_eq!(room.restore(&idle, &[]), pid);
    assert!(room.path("performance").join(pid.to_string()).exists(), "the file was not made again");
    let client = Client::start(PORT, client::http);
    client.await_more(5);
    client.finish();
    ended(pid);
}

#[test]
fn java_with_keep_alive_clients() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        serves(room, &[]);
    });
}

/// ZGC has its heap in a memfd, which it maps three times at addresses that it takes far apart.
#[test]
fn java_with_keep_alive_clients_and_a_heap_that_is_mapped_many_times() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        serves(room, &["-XX:+UseZGC"]);
    });
}

#[test]
fn java_with_keep_alive_clients_and_another_collector() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        serves(room, &["-XX:+UseSerialGC"]);
    });
}
