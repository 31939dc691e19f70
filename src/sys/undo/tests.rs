//! What is put back, and when.
#![allow(unsafe_code)]

use super::*;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

fn offset(socket: &UnixDatagram) -> i32 {
    socket::number(socket.as_fd(), libc::SOL_SOCKET, libc::SO_PEEK_OFF).unwrap()
}

fn hold<'a>(undo: &'a Undo, socket: &'a UnixDatagram, value: i32, back: i32) -> Held<'a> {
    let (value, back) = (value.to_ne_bytes(), back.to_ne_bytes());
    undo.set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_PEEK_OFF, &value, &back).unwrap()
}

#[test]
fn an_option_is_put_back_when_what_holds_it_ends() {
    let (one, other) = UnixDatagram::pair().unwrap();
    let undo = Undo::default();
    let first = hold(&undo, &one, 5, -1);
    let second = hold(&undo, &other, 7, 3);
    assert_eq!([offset(&one), offset(&other)], [5, 7]);
    drop(first);
    assert_eq!([offset(&one), offset(&other)], [-1, 7]);
    second.end().unwrap();
    assert_eq!([offset(&one), offset(&other)], [-1, 3]);
}

#[test]
fn a_promise_is_kept_when_its_process_is_killed_and_not_else() {
    let (one, other) = UnixDatagram::pair().unwrap();
    other.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for (ends, expected) in [("killed", &b"died"[..]), ("forgotten", b"lives")] {
        // SAFETY: the child ends itself by a signal.
        let ForkResult::Parent { child } = unsafe { fork() }.unwrap() else {
            let undo = Undo::default();
            drop(undo.promise(one.as_fd(), b"not this"));
            let _promise = undo.promise(one.as_fd(), b"died").unwrap();
            let _held = hold(&undo, &one, 5, -1);
            if ends == "forgotten" {
                undo.forget();
                one.send(b"lives").unwrap();
            }
            loop {
                let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
            }
        };
        waitpid(child, None).unwrap();
        let mut bytes = [0; 16];
        let count = other.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..count], expected);
        assert_eq!(offset(&one), if ends == "killed" { -1 } else { 5 });
    }
}

#[test]
fn options_are_put_back_when_their_process_is_killed() {
    let (one, other) = UnixDatagram::pair().unwrap();
    // SAFETY: the child ends itself by a signal.
    let ForkResult::Parent { child } = unsafe { fork() }.unwrap() else {
        let undo = Undo::default();
        let _held = [hold(&undo, &one, 5, -1), hold(&undo, &one, 6, 5), hold(&undo, &other, 7, 3)];
        drop(hold(&undo, &other, 9, 7));
        loop {
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        }
    };
    let killed = waitpid(child, None).unwrap();
    assert!(matches!(killed, WaitStatus::Signaled(..)), "{killed:?}");
    let end = Instant::now() + Duration::from_secs(20);
    while [offset(&one), offset(&other)] != [-1, 3] {
        assert!(Instant::now() < end, "{:?}", [offset(&one), offset(&other)]);
        std::thread::yield_now();
    }
}

/// Whoever kills it does so from outside, at any instant: while it starts what undoes, in between, and while it ends that.
#[test]
fn options_are_put_back_whenever_their_process_is_killed() {
    for turn in 0..400u64 {
        let (one, other) = UnixDatagram::pair().unwrap();
        // SAFETY: the child makes system calls alone until it is killed.
        let ForkResult::Parent { child } = unsafe { fork() }.unwrap() else {
            loop {
                let undo = Undo::default();
                for value in 0..20 {
                    let _held = [hold(&undo, &one, 5 + value, -1), hold(&undo, &other, 7, 3)];
                }
            }
        };
        std::thread::sleep(Duration::from_micros(200 + turn * 7919 % 3000));
        nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
        waitpid(child, None).unwrap();
        // Who undoes has the sockets too, until it has done so.
        drop(other);
        one.set_nonblocking(true).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while one.send(b"x").map_err(|error| error.kind()) != Err(ErrorKind::ConnectionRefused) {
            assert!(Instant::now() < end, "turn {turn}: who undoes does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(offset(&one), -1, "turn {turn}");
    }
}

#[test]
fn who_is_doomed_is_killed_and_nothing_is_undone() {
    let (one, _other) = UnixDatagram::pair().unwrap();
    // SAFETY: the child waits for a signal.
    let ForkResult::Parent { child: doomed } = unsafe { fork() }.unwrap() else {
        loop {
            nix::unistd::pause();
        }
    };
    let pidfd = crate::sys::pidfd::open(crate::image::model::id::Pid(doomed.as_raw())).unwrap();
    // SAFETY: the child ends itself by a signal.
    let ForkResult::Parent { child } = unsafe { fork() }.unwrap() else {
        let undo = Undo::default();
        let _held = hold(&undo, &one, 5, -1);
        undo.kill_instead([pidfd.as_fd()].into_iter()).unwrap();
        loop {
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        }
    };
    waitpid(child, None).unwrap();
    let end = waitpid(doomed, None).unwrap();
    assert!(matches!(end, WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGKILL, _)), "{end:?}");
    assert_eq!(offset(&one), 5);
}
