//! Connections that are no more: made by a connection to ourselves that is reset.

use crate::image::model::socket::tcp::Ended;
use crate::sys::sched::yield_now;
use crate::sys::{socket, tcp};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Longest wait for what the loopback interface does at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes of a new socket one whose connection has ended, with what was still to be read.
pub fn again(made: &File, Ended { unread, failed }: &Ended) -> io::Result<()> {
    let other = other_side(made)?;
    let mut rest = unread.as_slice();
    await_that(|| {
        if !rest.is_empty() {
            match tcp::append(other.as_fd(), rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(rest.is_empty() && tcp::unacknowledged(other.as_fd())? == 0)
    })?;
    // Closed so, it sends a reset (socket(7)).
    let at_once = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
    socket::set_option(other.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &at_once)?;
    drop(other);
    await_that(|| Ok(tcp::info(made.as_fd())?.state == tcp::State::Close))?;
    if !failed {
        // Reading the error takes it away.
        socket::number(made.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR)?;
    }
    Ok(())
}

/// Connects it to ourselves and gives the other side.
fn other_side(made: &File) -> io::Result<File> {
    let domain = socket::number(made.as_fd(), libc::SOL_SOCKET, libc::SO_DOMAIN)?;
    let listener = socket::make(domain, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, libc::IPPROTO_TCP)?;
    socket::bind(listener.as_fd(), &loopback(domain))?;
    tcp::listen(listener.as_fd(), 1)?;
    tcp::connect(made.as_fd(), &socket::own_address(listener.as_fd())?)?;
    let mut other = None;
    await_that(|| match tcp::accept(listener.as_fd()) {
        Ok(file) => {
            other = Some(file);
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    })?;
    other.ok_or_else(|| io::ErrorKind::NotConnected.into())
}

/// Any port of the loopback interface as a whole `struct sockaddr`.
fn loopback(domain: i32) -> Vec<u8> {
    let family = (domain as u16).to_ne_bytes();
    match domain {
        libc::AF_INET => [&family[..], &[0, 0, 127, 0, 0, 1], &[0; 8]].concat(),
        _ => [&family[..], &[0; 21], &[1], &[0; 4]].concat(),
    }
}

/// Waits until something holds that the loopback interface does at once.
pub fn await_that(mut holds: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    while !holds()? {
        if Instant::now() > end {
            let reason =
                "a connection to ourselves, as it is made for what has connected within the tree, does not get on";
            return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
        }
        yield_now();
    }
    Ok(())
}
