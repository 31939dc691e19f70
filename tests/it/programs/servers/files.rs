//! nginx and a slow download, which goes on to its end.

use super::client::connect;
use super::{PORT, ended, start};
use crate::support::network::own_network;
use crate::support::{Room, isolated, require_root, wait};
use fixtures::inet::stream;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;

const SIZE: usize = 24 << 20;

fn nginx(room: &Room) -> Command {
    let root = room.path("");
    let root = root.to_str().expect("text").trim_end_matches('/');
    fs::write(room.path("large"), stream(7, 0, SIZE)).expect("a file");
    let configuration = format!(
        "daemon off; master_process off; worker_processes 1; pid {root}/pid; error_log {root}/error.log; user root;
         events {{ worker_connections 64; }}
         http {{ access_log off; client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;
                 uwsgi_temp_path {root}/u; scgi_temp_path {root}/s; sendfile on;
                 server {{ listen 127.0.0.1:{PORT}; root {root}; }} }}"
    );
    fs::write(room.path("nginx.conf"), configuration).expect("a configuration");
    let mut command = Command::new("nginx");
    command.args(["-p", root, "-c"]).arg(room.path("nginx.conf"));
    command
}

/// Reads the head of an answer.
fn begin() -> BufReader<TcpStream> {
    let mut download = BufReader::with_capacity(4096, connect(PORT));
    download.get_mut().write_all(b"GET /large HTTP/1.0\r\n\r\n").expect("a request");
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        assert!(download.read_line(&mut line).expect("a head") > 0, "it ends in its head");
    }
    download
}

fn part(download: &mut BufReader<TcpStream>, from: usize, count: usize) {
    let mut bytes = vec![0; count];
    download.read_exact(&mut bytes).expect("the file");
    assert!(bytes == stream(7, from, count), "other bytes after {from}");
}

fn a_download_goes_on(room: &Room) {
    let pid = start(room, nginx(room));
    let (mut one, mut other) = (begin(), begin());
    part(&mut one, 0, 1_000_000);
    part(&mut other, 0, 1000);
    room.dump(pid, "first.snap", &[]);
    part(&mut one, 1_000_000, 1_000_000);
    let image = room.dump(pid, "killed.snap", &["--kill"]);
    wait::gone(pid);
    assert_eq!(room.restore(&image, &[]), pid);
    part(&mut one, 2_000_000, SIZE - 2_000_000);
    part(&mut other, 1000, SIZE - 1000);
    assert_eq!(one.read(&mut [0]).expect("the end"), 0);
    part(&mut begin(), 0, SIZE);
    ended(pid);
}

#[test]
fn nginx_with_one_process_and_slow_downloads() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        a_download_goes_on(room);
    });
}
