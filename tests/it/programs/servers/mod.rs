//! Servers with clients outside that hold their connections: across dumps, and across kill and restore.

pub mod client;
mod files;
mod java;
mod redis;
mod sshd;

use crate::support::network::own_network;
use crate::support::{Room, isolated, require_root, wait};
use client::{Ask, Client, connect};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The port of every server: each test has a network of its own.
const PORT: u16 = 8080;

/// Starts a server, alone in its session, and waits until it listens.
#[allow(clippy::zombie_processes, reason = "reaped by its pid, under which a restore brings it back as another child")]
fn start(room: &Room, mut command: Command) -> i32 {
    let output = || File::create(room.path("output")).expect("a file");
    command.current_dir(room.path("")).stdin(Stdio::null()).stdout(output()).stderr(output()).process_group(0);
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    drop(connect(PORT));
    child.id() as i32
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/scripts").join(name)
}

/// Three clients see nothing but delays while the server is dumped twice, and is killed and restored.
fn serves(room: &Room, command: Command, ask: Ask) -> i32 {
    let pid = start(room, command);
    serves_from(room, pid, ask);
    pid
}

/// The same of a server that listens already, with its tree.
pub fn serves_from(room: &Room, pid: i32, ask: Ask) {
    let clients: Vec<Client> = (0..3).map(|_| Client::start(PORT, ask)).collect();
    clients.iter().for_each(|client| client.await_more(5));
    for image in ["first.snap", "second.snap"] {
        room.dump(pid, image, &[]);
        clients.iter().for_each(|client| client.await_more(5));
    }
    let image = room.dump(pid, "killed.snap", &["--kill"]);
    wait::gone(pid);
    wait::alone();
    assert_eq!(room.restore(&image, &[]), pid);
    clients.iter().for_each(|client| client.await_more(20));
    Client::start(PORT, ask).finish();
    clients.into_iter().for_each(Client::finish);
}

fn ended(pid: i32) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    wait::gone(pid);
}

#[test]
fn node_with_keep_alive_clients() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        let mut command = Command::new("node");
        command.arg(script("http.js"));
        ended(serves(room, command, client::http));
    });
}

#[test]
fn python_with_keep_alive_clients() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script("web.py"));
        ended(serves(room, command, client::http));
    });
}

#[test]
fn go_with_keep_alive_clients() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        ended(serves(room, Command::new(crate::support::victim::program("go-http")), client::http));
    });
}

#[test]
fn memcached_with_clients() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        let mut command = Command::new("memcached");
        command.args(["-u", "root", "-U", "0", "-l", "127.0.0.1", "-m", "16", "-t", "2", "-p", &PORT.to_string()]);
        ended(serves(room, command, client::memcached));
    });
}

/// A load generator that would tell of every request that fails.
#[test]
fn wrk_while_its_server_is_dumped_again_and_again() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        let mut command = Command::new("node");
        command.arg(script("http.js"));
        let pid = start(room, command);
        let url = format!("http://127.0.0.1:{PORT}/");
        let load = Command::new("wrk")
            .args(["-t1", "-c16", "-d4s", "--timeout", "60s", &url])
            .stdout(Stdio::piped())
            .spawn()
            .expect("wrk");
        for _ in 0..5 {
            room.dump(pid, "x.snap", &[]);
        }
        let output = load.wait_with_output().expect("the end of wrk");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("requests in"), "{text}");
        assert!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "{text}");
        ended(pid);
    });
}
