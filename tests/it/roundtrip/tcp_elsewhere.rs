//! Restores that give connections up (`--tcp-close`), and restores on a host with other addresses (`--map-address`).

use crate::support::network::{ip, own_network};
use crate::support::{Room, Victim, isolated, require_root, wait};
use fixtures::inet::stream;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};

/// A connection from the test to the machine, and the port of the listener, which stays.
fn connected(machine: &Victim, host: &str) -> (TcpStream, String) {
    let port = machine.ask(&format!("listen listener {host}:0"));
    let peer = TcpStream::connect(format!("{host}:{port}")).expect("the machine listens");
    machine.ask("accept listener outside");
    peer.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout");
    (peer, port)
}

/// What the program sees of a connection that was reset, with what it has still to read.
fn assert_reset(machine: &Victim, name: &str) {
    machine.ask(&format!("receive {name} 1 0 100"));
    assert_eq!(machine.ask(&format!("send {name} 1 0 100")), "errno 104");
    assert_eq!(machine.ask(&format!("send {name} 1 0 100")), "errno 32");
}

fn assert_no_lock(room: &Room) {
    let locks = room.snap(["net", "unlock", "--all"]).run().expect(0);
    assert!(locks.stdout.starts_with("0 locks"), "{locks}");
}

#[test]
fn connections_that_were_kept_are_closed_by_the_restore() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        let mut machine = room.victim("machine", &[]);
        let (mut peer, port) = connected(&machine, "127.0.0.1");
        peer.write_all(&stream(1, 0, 100)).expect("a write");
        machine.ask(&format!("connect inside 127.0.0.1:{port}"));
        machine.ask("accept listener other");
        let image = room.dump_and_kill(&mut machine, "kept.snap");
        let dry = room.snap(["restore", "--dry-run", "--tcp-close"]).arg(&image).run().expect(0);
        assert_eq!(dry.stdout.matches(" is restored as reset").count(), 1, "{dry}");
        assert_eq!(room.restore(&image, &["--tcp-close"]), machine.pid());
        assert_reset(&machine, "outside");
        // The other side learns it when it asks.
        peer.write_all(b"x").expect("a write");
        let end = peer.read(&mut [0]);
        assert!(matches!(&end, Err(error) if error.kind() == ErrorKind::ConnectionReset), "{end:?}");
        // Both ends inside, and listeners, are as they were.
        machine.ask("send inside 2 0 5000");
        machine.ask("receive other 2 0 5000");
        drop(TcpStream::connect(format!("127.0.0.1:{port}")).expect("the machine listens"));
        assert_no_lock(room);
        machine.end();
    });
}

fn another_address(room: &Room, old: &str, new: &str) {
    let [host, other] = [old, new].map(|ip| if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() });
    let add = |ip: &str| {
        let more = if ip.contains(':') { "/128 dev lo nodad" } else { "/32 dev lo" };
        crate::support::network::ip(&format!("address add {ip}{more}"));
    };
    own_network();
    add(old);
    let mut machine = room.victim("machine", &[]);
    let (mut peer, port) = connected(&machine, &host);
    peer.write_all(&stream(1, 0, 100)).expect("a write");
    machine.ask(&format!("connect inside {host}:{port}"));
    machine.ask("accept listener other");
    let udp = machine.ask(&format!("udp datagrams {host}:0"));
    let image = room.dump_and_kill(&mut machine, "kept.snap");
    ip(&format!("address del {old} dev lo"));
    add(new);

    let mapped = format!("{old}={new}");
    let plain = room.snap(["restore", "--detach"]).arg(&image).run().expect(3);
    assert!(plain.stderr.contains("this host does not have that address"), "{plain}");
    let kept = room.snap(["restore", "--detach", "--map-address", &mapped]).arg(&image).run().expect(3);
    assert!(kept.stderr.contains("knows it by its address") && kept.stderr.contains("--tcp-close"), "{kept}");
    let unknown = ["--tcp-close", "--map-address", &mapped, "--map-address", "10.200.0.1=10.200.0.2"];
    let unknown = room.snap(["restore", "--detach"]).args(unknown).arg(&image).run().expect(3);
    assert!(unknown.stderr.contains("no socket of the image has 10.200.0.1"), "{unknown}");
    assert_eq!(machine.state(), None, "something runs");

    assert_eq!(room.restore(&image, &["--tcp-close", "--map-address", &mapped]), machine.pid());
    assert_reset(&machine, "outside");
    machine.ask("send inside 2 0 5000");
    machine.ask("receive other 2 0 5000");
    machine.ask("send other 3 0 5000");
    machine.ask("receive inside 3 0 5000");
    let new_peer = TcpStream::connect(format!("{other}:{port}")).expect("the machine listens");
    machine.ask("accept listener new");
    machine.ask("send new 4 0 10");
    let mut bytes = [0; 10];
    (&new_peer).read_exact(&mut bytes).expect("bytes of the machine");
    assert_eq!(bytes[..], stream(4, 0, 10));
    let sender = UdpSocket::bind(format!("{other}:0")).expect("a port");
    sender.send_to(b"seven..", format!("{other}:{udp}")).expect("a datagram");
    wait::until("a datagram", || machine.ask("read datagrams").starts_with("7 bytes").then_some(()));
    assert_no_lock(room);
    machine.end();
}

#[test]
fn a_tree_is_restored_where_the_host_has_another_address() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        another_address(room, "10.7.0.1", "10.7.0.2");
    });
}

#[test]
fn a_tree_is_restored_where_the_host_has_another_address_of_ipv6() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        another_address(room, "fd07::1", "fd07::2");
    });
}
