//! TCP connections whose other end is outside of the tree: it sees nothing but a delay.

use crate::support::half_closed::HalfClosed;
use crate::support::network::{own_network, received};
use crate::support::{Room, Victim, isolated, require_root, wait};
use fixtures::inet::stream;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// A connection from the test to the machine, which has it under this name.
fn connected(machine: &Victim, name: &str, host: &str) -> TcpStream {
    let port = machine.ask(&format!("listen {name}-listener {host}:0"));
    let stream = TcpStream::connect(format!("{host}:{port}")).expect("the machine listens");
    machine.ask(&format!("accept {name}-listener {name}"));
    machine.ask(&format!("close {name}-listener"));
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Nothing has come, neither bytes nor an end nor a reset.
fn assert_silent(stream: &TcpStream) {
    stream.set_nonblocking(true).expect("O_NONBLOCK");
    let seen = stream.peek(&mut [0]);
    assert!(matches!(&seen, Err(error) if error.kind() == ErrorKind::WouldBlock), "the other side sees {seen:?}");
    stream.set_nonblocking(false).expect("O_NONBLOCK");
}

/// Dumps with `--kill` and restores; meanwhile the others do what they like.
fn moved(room: &Room, machine: &mut Victim, meanwhile: impl FnOnce()) {
    let image = room.dump_and_kill(machine, "moved.snap");
    meanwhile();
    assert_eq!(room.restore(&image, &[]), machine.pid());
}

fn the_other_side_notices_nothing(room: &Room, host: &str) {
    own_network();
    let mut machine = room.victim("machine", &[]);
    let (quiet, busy) = (connected(&machine, "quiet", host), connected(&machine, "busy", host));
    // Bytes that the machine does not read, and more than the test's side takes.
    (&busy).write_all(&stream(1, 0, 100_000)).expect("a write");
    let stuffed: usize = machine.ask("stuff busy 2 0 8000000").parse().expect("a number");
    assert!(stuffed > 500_000, "the kernel takes {stuffed} bytes only");

    room.dump(machine.pid(), "first.snap", &[]);
    (&busy).write_all(&stream(1, 100_000, 1000)).expect("a write");
    machine.ask("receive busy 1 0 50000");
    assert_eq!(received(&busy, 10_000), stream(2, 0, 10_000));
    assert_silent(&quiet);

    moved(room, &mut machine, || {
        assert_silent(&quiet);
        // Sent while nobody is there.
        (&quiet).write_all(&stream(3, 0, 5000)).expect("a write");
        (&busy).write_all(&stream(1, 101_000, 20_000)).expect("a write");
        assert_eq!(received(&busy, 20_000), stream(2, 10_000, 20_000));
    });
    machine.ask("receive quiet 3 0 5000");
    machine.ask("receive busy 1 50000 71000");
    assert_eq!(received(&busy, stuffed - 30_000), stream(2, 30_000, stuffed - 30_000));
    machine.ask("send quiet 4 0 7000");
    assert_eq!(received(&quiet, 7000), stream(4, 0, 7000));
    assert_silent(&busy);
    machine.ask("close busy");
    assert_eq!((&busy).read(&mut [0]).expect("the end"), 0);
    quiet.shutdown(Shutdown::Write).expect("shutdown");
    machine.ask("end quiet");
    assert_eq!(machine.ask("state quiet"), "8");
    let locks = room.snap(["net", "unlock", "--all"]).run().expect(0);
    assert!(locks.stdout.starts_with("0 locks"), "{locks}");
    machine.end();
}

#[test]
fn exam_16_an_end_outside_notices_nothing_over_ipv4() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        the_other_side_notices_nothing(room, "127.0.0.1");
    });
}

#[test]
fn exam_16_an_end_outside_notices_nothing_over_ipv6() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        the_other_side_notices_nothing(room, "[::1]");
    });
}

#[test]
fn exam_16_every_state_with_an_end_outside() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        let mut machine = room.victim("machine", &[]);
        let make = |name: &str| connected(&machine, name, "127.0.0.1");
        let half_closed = HalfClosed::between(&machine, make);
        let (last, deaf) = (make("last"), make("deaf"));
        // Both sides have ended, the machine behind bytes for which there is no room: LAST-ACK.
        let more: usize = machine.ask("stuff last 4 0 8000000").parse().expect("a number");
        last.shutdown(Shutdown::Write).expect("shutdown");
        machine.ask("shut last wr");
        machine.ask("shut deaf rd");
        // Nobody answers: SYN-SENT. The queue of the listener is full.
        let target = full_listener();
        let port = target.local_addr().expect("an address").port();
        let filling: Vec<TcpStream> = (0..1).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("room")).collect();
        assert_eq!(machine.ask(&format!("begin syn 127.0.0.1:{port}")), "errno 115");
        let states = ["closed", "shut", "stuck", "last", "deaf", "syn"]
            .map(|name| (name, machine.ask(&format!("state {name}"))));
        assert_eq!(states.clone().map(|(_, state)| state), ["8", "5", "4", "9", "1", "2"]);

        moved(room, &mut machine, || assert_silent(&deaf));
        for (name, state) in states {
            wait::until(&format!("{name} to be in state {state}"), || {
                (machine.ask(&format!("state {name}")) == state).then_some(())
            });
        }
        half_closed.go_on(&machine);
        (&half_closed.stuck).write_all(&stream(7, 0, 100)).expect("a write");
        machine.ask("receive stuck 7 0 100");
        assert_eq!(received(&last, more), stream(4, 0, more));
        assert_eq!((&last).read(&mut [0]).expect("the end"), 0);
        machine.ask("end last");
        machine.ask("end deaf");
        machine.ask("send deaf 8 0 10");
        assert_eq!(received(&deaf, 10), stream(8, 0, 10));
        drop(filling);
        drop(target.accept().expect("the first"));
        let served = target.accept().expect("the second").0;
        machine.ask("send syn 9 0 10");
        served.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        assert_eq!(received(&served, 10), stream(9, 0, 10));
        machine.end();
    });
}

/// A listener that holds one connection and drops what else comes.
fn full_listener() -> TcpListener {
    use std::os::fd::{FromRawFd, OwnedFd};
    let address = fixtures::inet::loopback("v4", 0);
    let fd = fixtures::inet::listener(&address, 0);
    // SAFETY: it is new and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }.into()
}

#[test]
fn exam_16_a_packet_that_comes_during_the_freeze_is_not_lost() {
    isolated(|room| {
        own_network();
        let machine = room.victim("machine", &[]);
        let peer = connected(&machine, "peer", "127.0.0.1");
        room.dump(machine.pid(), "stopped.snap", &["--leave-stopped"]);
        (&peer).write_all(&stream(1, 0, 3000)).expect("a write");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(machine.pid()), nix::sys::signal::Signal::SIGCONT)
            .expect("kill");
        machine.ask("receive peer 1 0 3000");
        machine.ask("send peer 2 0 3000");
        assert_eq!(received(&peer, 3000), stream(2, 0, 3000));
    });
}

/// They belong to no descriptor: a dump that ends the tree says that they are lost, and one that does not leaves them alone.
#[test]
fn connections_that_nobody_has_accepted_are_named() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        let mut machine = room.victim("machine", &[]);
        let port = machine.ask("listen listener 127.0.0.1:0");
        let to = format!("127.0.0.1:{port}");
        let peers: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(&to).expect("the machine listens")).collect();
        machine.ask(&format!("connect inside {to}"));
        let pid = machine.pid().to_string();
        let running = room.snap(["dump", &pid, "-o", "x.snap"]).run().expect(0);
        assert!(!running.stdout.contains("not accepted"), "{running}");
        let told = format!("TCP listener of {to}");
        let refused = room.snap(["dump", &pid, "-o", "x.snap", "--kill", "--tcp", "refuse"]).run().expect(3);
        let what = "2 connections from outside that it has not accepted";
        assert!(refused.stderr.contains(&told) && refused.stderr.contains(what), "{refused}");
        let killed = room.snap(["dump", &pid, "-o", "killed.snap", "--kill"]).run().expect(0);
        assert!(killed.stdout.contains(&told) && killed.stdout.contains(what), "{killed}");
        machine.killed();
        assert_eq!(room.restore(&room.path("killed.snap"), &[]), machine.pid());
        for mut peer in peers {
            peer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            let end = peer.read(&mut [0]);
            assert!(matches!(&end, Err(error) if error.kind() == ErrorKind::ConnectionReset), "{end:?}");
        }
        // The one from inside has connected again.
        machine.ask("accept listener accepted");
        machine.ask("send inside 1 0 100");
        machine.ask("receive accepted 1 0 100");
        machine.end();
    });
}

/// Sends a byte of urgent data.
fn urgent(stream: &TcpStream) {
    use std::os::fd::AsRawFd;
    // SAFETY: the kernel reads one byte.
    assert_eq!(unsafe { libc::send(stream.as_raw_fd(), c"!".as_ptr().cast(), 1, libc::MSG_OOB) }, 1);
}

/// Beside the other bytes or among them, as the next to be read or behind others: a dump is refused until it was read.
#[test]
fn urgent_data_is_refused_by_name() {
    const SO_OOBINLINE: i32 = libc::SO_OOBINLINE;
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        let mut machine = room.victim("machine", &[]);
        let pid = machine.pid().to_string();
        for (inline, before, after) in [(0, 0, 0), (0, 5, 5), (0, 5, 0), (1, 0, 0), (1, 5, 5), (1, 0, 5), (1, 5, 0)] {
            let case = format!("inline {inline}, {before} bytes before and {after} after it");
            let peer = connected(&machine, "peer", "127.0.0.1");
            machine.ask(&format!("set peer {} {SO_OOBINLINE} {inline}", libc::SOL_SOCKET));
            (&peer).write_all(&stream(1, 0, before)).expect("a write");
            urgent(&peer);
            (&peer).write_all(&stream(1, before, after)).expect("a write");
            for more in [&["--leave-running"][..], &["--kill"], &["--kill", "--tcp", "close"]] {
                let run = room.snap(["dump", &pid, "-o", "x.snap"]).args(more).run().expect(3);
                assert!(run.stderr.contains("urgent data (MSG_OOB)"), "{case}: {run}");
            }
            // A read ends at the mark. Who sends more moves it on.
            machine.ask("read peer");
            machine.ask("read peer");
            (&peer).write_all(&stream(1, 0, 10)).expect("a write");
            machine.ask("receive peer 1 0 10");
            room.dump(machine.pid(), "x.snap", &[]);
            machine.ask("close peer");
        }
        machine.end();
    });
}

#[test]
fn connections_are_closed_or_refused_on_request() {
    isolated(|room| {
        own_network();
        let mut machine = room.victim("machine", &[]);
        let peer = connected(&machine, "peer", "127.0.0.1");
        (&peer).write_all(&stream(1, 0, 100)).expect("a write");
        let pid = machine.pid().to_string();
        let run = room.snap(["dump", &pid, "-o", "refused.snap", "--tcp", "refuse"]).run().expect(3);
        assert!(run.stderr.contains("TCP connection of 127.0.0.1:") && run.stderr.contains("--tcp refuse"), "{run}");
        let image = room.dump(machine.pid(), "closed.snap", &["--kill", "--tcp", "close"]);
        machine.killed();
        assert_eq!(room.restore(&image, &[]), machine.pid());
        machine.ask("receive peer 1 0 100");
        assert_eq!(machine.ask("send peer 1 0 100"), "errno 104");
        assert_eq!(machine.ask("send peer 1 0 100"), "errno 32");
        machine.end();
    });
}

#[test]
fn the_lock_of_an_image_that_is_not_restored_is_taken_away() {
    isolated(|room| {
        own_network();
        let mut machine = room.victim("machine", &[]);
        let peer = connected(&machine, "peer", "127.0.0.1");
        let image = room.dump_and_kill(&mut machine, "x.snap");
        assert_silent(&peer);
        let path = image.to_str().expect("text");
        assert!(room.snap(["net", "unlock", path]).run().expect(0).stdout.starts_with("1 lock taken"));
        assert!(room.snap(["net", "unlock", path]).run().expect(0).stdout.starts_with("0 locks"));
        // Now it learns that nobody is there.
        (&peer).write_all(b"x").expect("a write");
        let end = (&peer).read(&mut [0]);
        assert!(matches!(&end, Err(error) if error.kind() == ErrorKind::ConnectionReset), "{end:?}");
        room.snap(["net", "lock", path]).run().expect(0);
        room.snap(["net", "lock", path]).run().expect(2);
        assert!(room.snap(["net", "unlock", "--all"]).run().expect(0).stdout.starts_with("1 lock taken"));
    });
}
