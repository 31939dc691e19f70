//! redis: a client that holds its connection, a benchmark at work, and equal data.

use super::client::{self, Client, connect};
use super::{PORT, ended, start};
use crate::programs::dialogue::Dialogue;
use crate::support::network::own_network;
use crate::support::{Room, isolated, require_root, wait};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

const KEYS: usize = 20_000;

fn server(room: &Room) -> i32 {
    let mut command = Command::new("redis-server");
    command.args(["--port", &PORT.to_string(), "--save", "", "--appendonly", "no", "--enable-debug-command", "yes"]);
    start(room, command)
}

/// 20 MB.
fn fill() {
    let value = "v".repeat(1000);
    let mut stream = BufReader::new(connect(PORT));
    let commands: String = (0..KEYS).map(|key| format!("SET key:{key} {value}{key}\r\n")).collect();
    let mut writer = stream.get_ref().try_clone().expect("dup");
    let writing = std::thread::spawn(move || writer.write_all(commands.as_bytes()));
    let mut line = String::new();
    for _ in 0..KEYS {
        line.clear();
        stream.read_line(&mut line).expect("an answer");
        assert_eq!(line, "+OK\r\n");
    }
    writing.join().expect("a writer").expect("commands");
}

/// `redis-cli` that stays connected.
fn cli() -> Dialogue {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &PORT.to_string()]);
    Dialogue::start(command)
}

#[test]
fn redis_with_its_data_and_the_connections_of_its_clients() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        let pid = server(room);
        fill();
        let mut cli = cli();
        assert_eq!(cli.ask("INCR counter"), "1");
        let digest = cli.ask("DEBUG DIGEST");
        let id = cli.ask("CLIENT ID");
        let clients: Vec<Client> = (0..2).map(|_| Client::start(PORT, client::redis)).collect();
        room.dump(pid, "first.snap", &[]);
        clients.iter().for_each(|client| client.await_more(10));
        let image = room.dump(pid, "killed.snap", &["--kill"]);
        wait::gone(pid);
        assert_eq!(room.restore(&image, &[]), pid);
        clients.iter().for_each(|client| client.await_more(100));
        clients.into_iter().for_each(Client::finish);
        assert_eq!(cli.ask("CLIENT ID"), id, "it has connected anew");
        assert_eq!(cli.ask("GET counter"), "1");
        // What the clients have set goes.
        let keys = cli.ask("EVAL \"local k = redis.call('KEYS', 'key-*') for _, n in ipairs(k) do redis.call('DEL', n) end return #k\" 0");
        assert_eq!(keys, "2");
        assert_eq!(cli.ask("DEBUG DIGEST"), digest);
        assert_eq!(cli.ask("DBSIZE"), (KEYS + 1).to_string());
        ended(pid);
    });
}

#[test]
fn redis_benchmark_while_the_server_is_dumped() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        let pid = server(room);
        let mut command = Command::new("redis-benchmark");
        command.args(["-p", &PORT.to_string(), "-n", "40000", "-c", "20", "-q", "-t", "set,get,incr"]);
        let mut load = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("redis-benchmark");
        let mut dumps = 0;
        while load.try_wait().expect("the benchmark").is_none() || dumps < 3 {
            room.dump(pid, "x.snap", &[]);
            dumps += 1;
        }
        let output = load.wait_with_output().expect("its end");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said.contains("requests per second"), "{said}");
        assert!(!said.contains("rror"), "{said}");
        ended(pid);
    });
}
