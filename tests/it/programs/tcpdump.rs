//! tcpdump, which has its packets from a ring (TPACKET_V3) and chooses them by a filter.

use crate::support::network::own_network;
use crate::support::{Room, isolated, require_root, wait};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use std::fs::File;
use std::net::UdpSocket;
use std::process::{Command, Stdio};

/// What it is to capture; of what is sent to other ports it sees nothing.
const PORT: u16 = 4799;

/// Sends datagrams that it captures, and as many that it does not.
struct Sender {
    socket: UdpSocket,
    sent: u32,
}

impl Sender {
    fn send(&mut self, count: u32) {
        for _ in 0..count {
            for port in [PORT, PORT + 1] {
                let text = format!("datagram {:>6} to {port}", self.sent);
                self.socket.send_to(text.as_bytes(), ("127.0.0.1", port)).expect("a datagram");
            }
            self.sent += 1;
        }
    }
}

fn start(room: &Room, interface: &str) -> i32 {
    let log = File::create(room.path("log")).expect("a log");
    #[allow(clippy::zombie_processes, reason = "reaped by its pid, under which a restore brings it back")]
    let child = Command::new("tcpdump")
        .args(["-i", interface, "-Z", "root", "-s", "200", "-U", "-w"])
        .arg(room.path("packets"))
        .args(["udp", "and", "dst", "port", &PORT.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("tcpdump");
    let listens = || std::fs::read_to_string(room.path("log")).ok().filter(|log| log.contains("listening on"));
    wait::until("tcpdump to listen", listens);
    child.id() as i32
}

/// The numbers of the datagrams in the file.
fn captured(room: &Room) -> Vec<u32> {
    let output = Command::new("tcpdump").arg("-A").arg("-r").arg(room.path("packets")).output().expect("tcpdump");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "the file cannot be read: {}", String::from_utf8_lossy(&output.stderr));
    let numbers = text.split("datagram ").skip(1).map(|rest| {
        let (number, port) = rest[..14].split_once(" to ").expect("a number and a port");
        assert_eq!(port.trim(), PORT.to_string(), "it was not to be captured: {text}");
        number.trim().parse().expect("a number")
    });
    numbers.collect()
}

#[test]
fn tcpdump_goes_on_to_capture() {
    require_root!("tcpdump sets its groups");
    isolated(|room| captures_all(room, "lo"));
}

#[test]
fn tcpdump_goes_on_to_capture_everywhere() {
    require_root!("tcpdump sets its groups");
    isolated(|room| captures_all(room, "any"));
}

fn captures_all(room: &Room, interface: &str) {
    own_network();
    // Somebody is there, so that nothing is answered.
    let _there = [PORT, PORT + 1].map(|port| UdpSocket::bind(("127.0.0.1", port)).expect("a port"));
    let mut sender = Sender { socket: UdpSocket::bind("127.0.0.1:0").expect("a socket"), sent: 0 };
    let pid = start(room, interface);
    sender.send(100);
    room.dump(pid, "running.snap", &[]);
    sender.send(50);
    for _ in 0..3 {
        // These are in its ring, or in its memory, or in the file.
        sender.send(40);
        let image = room.dump(pid, "killed.snap", &["--kill"]);
        wait::gone(pid);
        assert_eq!(room.restore(&image, &[]), pid);
        sender.send(20);
    }
    // It reads no more once it is told to end.
    let all = || (captured(room).len() as u32 >= sender.sent).then_some(());
    wait::until("the last datagram to be in the file", all);
    kill(Pid::from_raw(pid), Signal::SIGINT).expect("kill");
    let end = wait::gone(pid);
    let log = std::fs::read_to_string(room.path("log")).expect("the log");
    assert!(matches!(end, Some(WaitStatus::Exited(_, 0))), "ended with {end:?}: {log}");
    assert_eq!(captured(room), (0..sender.sent).collect::<Vec<_>>(), "{log}");
}
