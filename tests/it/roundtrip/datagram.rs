//! Sockets without connections: UDP, UDP-Lite.

use crate::support::network::own_network;
use crate::support::{isolated, wait};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn exam_16_udp_sockets_of_every_kind() {
    isolated(|room| {
        own_network();
        room.survives(room.victim("datagram", &["plain"]));
    });
}

#[test]
fn raw_and_icmp_sockets() {
    isolated(|room| {
        own_network();
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").expect("ping_group_range");
        room.survives(room.victim("datagram", &["raw"]));
    });
}

#[test]
fn exam_16_datagrams_that_nobody_has_read_and_their_senders() {
    isolated(|room| {
        own_network();
        room.survives(room.victim("datagram", &["queued"]));
    });
}

#[test]
fn exam_16_empty_datagrams_that_nobody_has_read() {
    isolated(|room| {
        own_network();
        let mut victim = room.victim("datagram", &["queued-empty"]);
        let image = room.dump_and_kill(&mut victim, "killed.snap");
        assert_eq!(room.restore(&image, &[]), victim.pid());
        victim.check();
        victim.ask("final");
        victim.end();
    });
}

#[test]
fn exam_16_datagrams_that_arrive_during_a_dump_are_not_lost() {
    isolated(|room| {
        own_network();
        let victim = room.victim("datagram", &["counts"]);
        let port: u16 = victim.ask("port").parse().expect("a port");
        let running = AtomicBool::new(true);
        let sent = std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
                let mut number = 0u32;
                while running.load(Ordering::SeqCst) {
                    socket.send_to(&number.to_ne_bytes(), ("127.0.0.1", port)).expect("send");
                    number += 1;
                    // Not more than its buffer takes while it stands still.
                    std::thread::sleep(Duration::from_millis(5));
                }
                number
            });
            (0..5).for_each(|_| drop(room.dump(victim.pid(), "again.snap", &[])));
            running.store(false, Ordering::SeqCst);
            sender.join().expect("the sender")
        });
        wait::until("every datagram to be counted", || (victim.ask("count") == sent.to_string()).then_some(()));
    });
}

#[test]
fn options_of_sockets() {
    isolated(|room| {
        own_network();
        room.survives(room.victim("datagram", &["options"]));
    });
}

#[test]
fn multicast_groups() {
    isolated(|room| {
        own_network();
        room.survives(room.victim("datagram", &["groups"]));
    });
}

#[test]
fn exam_21_a_datagram_that_is_held_back_is_named() {
    isolated(|room| {
        own_network();
        room.refuses(room.victim("datagram", &["more"]), &["socket:[", "UDP_CORK", "holds back"]);
    });
}

#[test]
fn exam_21_an_error_that_was_not_told_is_named_and_stays() {
    isolated(|room| {
        own_network();
        room.refuses(room.victim("datagram", &["error"]), &["socket:[", "an error that was not told"]);
    });
}

#[test]
fn an_udp_port_that_is_taken_is_named_with_its_holder_before_anything_runs() {
    isolated(|room| {
        own_network();
        let mut victim = room.victim("datagram", &["more-soon"]);
        let port: u16 = victim.ask("port").parse().expect("a port");
        let image = room.dump_and_kill(&mut victim, "killed.snap");
        let holder = UdpSocket::bind(("127.0.0.1", port)).expect("a free port");
        let run = room.snap(["restore", "--detach"]).arg(&image).run().expect(3);
        let run = run.says(&format!("UDP socket bound to 127.0.0.1:{port}"));
        let run = run.says(&format!("it is taken by pid {} (", std::process::id()));
        assert_eq!(victim.state(), None, "something runs: {run}");
        drop(holder);
        assert_eq!(room.restore(&image, &[]), victim.pid());
        victim.ask("final");
        victim.end();
    });
}
