//! UNIX sockets between processes of a tree, and between the tree and others.

use super::survives;
use crate::support::network::own_network;
use crate::support::{Facts, Victim, isolated};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};

#[test]
fn exam_12_peers_are_told_who_has_connected() {
    isolated(|room| survives(room, room.victim("unix_family", &[]), &[]));
}

#[test]
fn exam_18_a_socket_with_its_other_end_outside_is_named() {
    isolated(|room| {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let number = |socket: &UnixStream| {
            File::from(OwnedFd::from(socket.try_clone().expect("dup"))).metadata().expect("an inode").ino()
        };
        let (own, other) = (number(&theirs), number(&ours));
        let directory = Victim::directory_in(room, "socket");
        let mut command = Command::new(crate::support::victim::program("c-dynamic"));
        command.arg(&directory).stdin(Stdio::from(OwnedFd::from(theirs)));
        let mut victim = Victim::start_with_stdin(command, directory);
        let before = Facts::of(victim.pid());
        let mut run = room.snap(["dump", &victim.pid().to_string(), "-o", "leak.snap"]).run().expect(3);
        let held = format!("socket:[{other}], held by pid {} (", std::process::id());
        let fd = format!(") fd {}", ours.as_raw_fd());
        let external = format!("--external 'socket:[{own}]'");
        for word in
            [&format!("fd 0: socket:[{own}]"), "its other end is outside", &held, &fd, &external, "--allow-leak"]
        {
            run = run.says(word);
        }
        let check = room.snap(["check", &victim.pid().to_string()]).run().expect(3);
        assert!(check.stdout.contains("its other end is outside") && check.stdout.contains(&held), "{check}");
        before.assert_same(&Facts::of(victim.pid()), "after a refused dump");
        victim.check();
        let image = room.dump(victim.pid(), "closed.snap", &["--allow-leak", "--kill"]);
        victim.killed();
        drop(ours);
        room.restore(&image, &[]);
        victim.check();
        victim.end();
    });
}

#[test]
fn exam_16_a_datagram_socket_is_connected_to_somebody_outside_again() {
    isolated(|room| {
        let path = room.path("outside");
        let outside = UnixDatagram::bind(&path).expect("a datagram socket");
        let told = || {
            let mut buffer = [0; 16];
            let length = outside.recv(&mut buffer).expect("a message");
            assert_eq!(&buffer[..length], b"check");
        };
        let mut victim = room.victim("unix_edges", &["outwards", path.to_str().expect("text")]);
        victim.check();
        told();
        let image = room.dump_and_kill(&mut victim, "outwards.snap");
        room.restore(&image, &[]);
        victim.check();
        told();
        victim.end();
        drop(outside);
        room.snap(["restore", "--detach"]).arg(&image).run().expect(7).says("outside");
    });
}

#[test]
fn exam_21_what_cannot_be_seen_or_had_again_is_named() {
    isolated(|room| {
        for (kind, words) in [
            ("unaccepted", "has not accepted it yet cannot be seen"),
            ("closed", "whose other end was closed"),
            ("error", "an error waits in it before its messages"),
            ("taken", "of the tree has now"),
        ] {
            let mut victim = room.victim("unix_edges", &[kind]);
            let before = Facts::of(victim.pid());
            room.snap(["dump", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(3).says(words);
            before.assert_same(&Facts::of(victim.pid()), "after a refused dump");
            victim.check();
            super::end(&mut victim);
        }
    });
}

#[test]
fn a_name_that_somebody_has_is_refused_before_anything_runs() {
    isolated(|room| {
        own_network();
        let mut victim = room.victim("unix", &[]);
        victim.check();
        let names = std::fs::read_to_string("/proc/thread-self/net/unix").expect("names of sockets");
        let abstract_name =
            names.lines().find_map(|line| line.split_once(" @")).expect("an abstract name").1.to_owned();
        let image = room.dump_and_kill(&mut victim, "names.snap");
        let path = victim.directory().join("listener");
        std::fs::remove_file(&path).expect("the old socket");
        let listing = || {
            let entries = std::fs::read_dir(victim.directory()).expect("the directory");
            let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
            names.sort();
            names
        };
        let holder = UnixListener::bind(&path).expect("a listener");
        let before = listing();
        let refused = || room.snap(["restore", "--detach"]).arg(&image).run().expect(3);
        let run = refused().says(&format!("UNIX socket bound to {}", path.display()));
        run.says(&format!("another socket is bound to it, of pid {} (", std::process::id()));
        assert_eq!(listing(), before, "something is left of a refused restore");
        drop(holder);
        std::fs::remove_file(&path).expect("the other socket");
        std::fs::write(&path, "text").expect("a file");
        refused().says("there is a file that is not a socket");
        std::fs::remove_file(&path).expect("the file");
        let abstract_name = SocketAddr::from_abstract_name(&abstract_name).expect("a name");
        let holder = UnixDatagram::bind_addr(&abstract_name).expect("the name is free");
        refused().says("another socket is bound to it");
        drop(holder);
        room.restore(&image, &[]);
        victim.check();
        victim.ask("final");
        victim.end();
    });
}
