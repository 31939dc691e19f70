//! nginx, alone or with a master and workers, and slow downloads, which go on to their end.

use super::client::connect;
use super::{PORT, ended, start};
use crate::support::network::own_network;
use crate::support::{Room, isolated, require_root, wait};
use fixtures::inet::stream;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

const SIZE: usize = 24 << 20;

/// One process, or a master with so many workers.
fn nginx(room: &Room, workers: Option<u32>) -> Command {
    let root = room.path("");
    let root = root.to_str().expect("text").trim_end_matches('/');
    fs::write(room.path("large"), stream(7, 0, SIZE)).expect("a file");
    let processes = match workers {
        None => "master_process off; worker_processes 1;".into(),
        Some(count) => format!("worker_processes {count};"),
    };
    let configuration = format!(
        "daemon off; {processes} pid {root}/pid; error_log {root}/error.log; user root;
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
    let pid = start(room, nginx(room, None));
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

/// curl, which takes so many bytes each second of the file.
fn curl(room: &Room, name: &str, rate: &str) -> Child {
    let url = format!("http://127.0.0.1:{PORT}/large");
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--max-time", "120", "--limit-rate", rate, "-o"]);
    command.arg(room.path(name)).arg(url).stderr(Stdio::piped()).spawn().expect("curl")
}

fn begun(room: &Room, name: &str, least: u64) {
    let size = || fs::metadata(room.path(name)).map_or(0, |file| file.len());
    wait::until("some of the download", || (size() > least).then_some(()));
    assert!(size() < SIZE as u64, "the download is over before the dump");
}

fn whole(room: &Room, name: &str, client: Child) {
    let output = client.wait_with_output().expect("the end of curl");
    assert!(output.status.success(), "curl: {}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::read(room.path(name)).expect("what curl has had") == stream(7, 0, SIZE), "{name}: other bytes");
}

/// Starts a master with two workers; the pids of these too.
fn two_workers(room: &Room) -> (i32, Vec<i32>) {
    let master = start(room, nginx(room, Some(2)));
    let workers = wait::until("two workers", || {
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).ok()?;
        let pids: Vec<i32> = children.split_whitespace().flat_map(str::parse).collect();
        (pids.len() == 2).then_some(pids)
    });
    (master, workers)
}

#[test]
fn nginx_with_two_workers_and_slow_downloads() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        let (master, workers) = two_workers(room);
        let clients = [("one", "7M"), ("other", "6M")].map(|(name, rate)| (name, curl(room, name, rate)));
        clients.iter().for_each(|(name, _)| begun(room, name, 100_000));
        room.dump(master, "first.snap", &[]);
        clients.iter().for_each(|(name, _)| begun(room, name, 200_000));
        let image = room.dump(master, "killed.snap", &["--kill"]);
        wait::gone(master);
        for worker in workers {
            wait::gone(worker);
        }
        assert_eq!(room.restore(&image, &[]), master);
        for (name, client) in clients {
            whole(room, name, client);
        }
        whole(room, "again", curl(room, "again", "1G"));
        ended(master);
    });
}

/// Each request is answered, by connections that are kept and by new ones, while the tree is dumped twenty times.
#[test]
fn nginx_under_load_while_it_is_dumped_twenty_times() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        let (master, _) = two_workers(room);
        fs::write(room.path("small"), "hello").expect("a file");
        let load = |header: &str| {
            let url = format!("http://127.0.0.1:{PORT}/small");
            let mut command = Command::new("wrk");
            command.args(["-t1", "-c8", "-d60s", "--timeout", "60s", "-H", header, &url]);
            command.stdout(Stdio::piped()).spawn().expect("wrk")
        };
        let loads = [load("Connection: keep-alive"), load("Connection: close")];
        for _ in 0..20 {
            room.dump(master, "x.snap", &[]);
        }
        for load in loads {
            // It sums up when it is interrupted.
            kill(Pid::from_raw(load.id() as i32), Signal::SIGINT).expect("kill");
            let output = load.wait_with_output().expect("the end of wrk");
            let text = String::from_utf8_lossy(&output.stdout);
            let line = text.lines().find(|line| line.contains("requests in"));
            let requests = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
            assert!(output.status.success() && requests > Some(200), "{text}");
            assert!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "{text}");
        }
        ended(master);
    });
}
