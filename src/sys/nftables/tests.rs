//! Tables in a network namespace of the test.
#![allow(unsafe_code)]

use super::*;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

/// Runs in a thread of its own, in a network namespace of its own, if we may have one.
fn apart(body: impl FnOnce() + Send + 'static) {
    let run = move || {
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_ok() {
            assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
            body();
        }
    };
    std::thread::spawn(run).join().unwrap();
}

/// Whether nothing comes for so long.
fn is_mute(stream: &TcpStream, other: &TcpStream, milliseconds: u64) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(milliseconds))).unwrap();
    (&*other).write_all(b"x").unwrap();
    let mut byte = [0];
    match (&*stream).read_exact(&mut byte) {
        Ok(()) => false,
        Err(error) if error.kind() == ErrorKind::WouldBlock => true,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn packets_of_a_connection_are_dropped_until_the_owner_goes() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        apart(move || {
            let listener = TcpListener::bind(address).unwrap();
            let pair = || {
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                (client, listener.accept().unwrap().0)
            };
            let ((one, other), (free, freed)) = (pair(), pair());
            let connection = (other.local_addr().unwrap(), other.peer_addr().unwrap());
            let table = own("snap-test", &[connection]).unwrap();
            assert_eq!(names().unwrap(), ["snap-test"]);
            assert!(is_mute(&one, &other, 100) && !is_mute(&free, &freed, 20_000));
            drop(table);
            assert_eq!(names().unwrap(), [""; 0]);
            one.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            (&one).read_exact(&mut [0]).unwrap();
        });
    }
}

#[test]
fn a_table_that_stays_is_removed_by_its_name() {
    apart(|| {
        let many: Vec<Connection> =
            (1..=3000).map(|port| (([10, 0, 0, 1], port).into(), ([10, 0, 0, 2], 80).into())).collect();
        leave("snap-test", &many).unwrap();
        assert_eq!(leave("snap-test", &many).unwrap_err().raw_os_error(), Some(libc::EEXIST));
        assert_eq!(names().unwrap(), ["snap-test"]);
        assert!(remove("snap-test").unwrap());
        assert!(!remove("snap-test").unwrap());
    });
}
