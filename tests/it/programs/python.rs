//! Servers of python in several processes: asyncio and multiprocessing, with clients inside, and with clients outside that hold their connections.

use super::interpreters::{RESTLESS, script};
use super::servers::{client, serves_from};
use crate::support::network::own_network;
use crate::support::{Room, Victim, isolated, require_root};
use crate::tree::{end, survives};
use std::path::Path;
use std::process::Command;

/// asyncio at a TCP port.
fn at_a_port(room: &Room) -> Victim {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/scripts/echo.py");
    let directory = Victim::directory_in(room, "echo.py");
    let mut command = Command::new("/usr/bin/python3");
    command.arg(script).arg(&directory).arg("tcp");
    Victim::start_command(command, directory)
}

#[test]
fn asyncio_at_a_unix_socket() {
    isolated(|room| survives(room, script(room, "/usr/bin/python3", "echo.py"), RESTLESS));
}

#[test]
fn asyncio_at_a_port() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        survives(room, at_a_port(room), RESTLESS);
    });
}

#[test]
fn asyncio_with_keep_alive_clients() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        let mut victim = at_a_port(room);
        serves_from(room, victim.pid(), client::http);
        victim.check();
        end(&mut victim);
    });
}

#[test]
fn multiprocessing_listener() {
    isolated(|room| survives(room, script(room, "/usr/bin/python3", "listener.py"), RESTLESS));
}
