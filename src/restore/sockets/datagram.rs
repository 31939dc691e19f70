//! Sockets of IPv4 and IPv6 without connections.

use super::settings::{Point, Settings};
use crate::image::model::socket::Socket;
use crate::image::model::socket::datagram::Datagram;
use crate::resources::socket::datagram::{groups, queue};
use crate::resources::socket::options::{self, Moment};
use crate::sys::socket;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Gives it its addresses and groups.
pub fn set_up(made: &File, wanted: &Socket, state: &Datagram, settings: &Settings<'_>) -> io::Result<()> {
    let Datagram { local, peer, groups, queue, shutdown } = state;
    let fd = made.as_fd();
    if !queue.is_empty() {
        queue::prepare(fd)?;
    }
    groups.iter().try_for_each(|membership| groups::join(fd, membership))?;
    match peer {
        None => bind(fd, wanted, local)?,
        Some(peer) => {
            // connect(2) chooses an address for a socket that has none, and takes it away when it lets go of the peer.
            let any = without_address(local);
            let chosen = any != *local && trial(wanted, &any, peer, settings).is_ok_and(|address| address == *local);
            bind(fd, wanted, if chosen { &any } else { local })?;
            socket::connect(fd, peer).map_err(io::Error::from)?;
        }
    }
    if !queue.is_empty() {
        queue::fill(fd, wanted.protocol, local, queue)?;
        // Its own filter and size again.
        options::apply(fd, settings.of(wanted), Moment::Made)?;
    }
    match socket::shutdown(fd, *shutdown) {
        // What is not connected is shut down all the same (net/ipv4/af_inet.c, `inet_shutdown`).
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => Ok(()),
        done => done,
    }
}

/// The address that a socket like this one has when it is bound to `any` and connected.
fn trial(wanted: &Socket, any: &[u8], peer: &[u8], settings: &Settings<'_>) -> io::Result<Vec<u8>> {
    let made = socket::make(wanted.domain, wanted.kind, wanted.protocol)?;
    let fd = made.as_fd();
    settings.set(fd, wanted, Point::New)?;
    bind(fd, wanted, any)?;
    socket::connect(fd, peer)?;
    socket::own_address(fd)
}

fn bind(fd: BorrowedFd<'_>, wanted: &Socket, address: &[u8]) -> io::Result<()> {
    let port = address.get(2..4).is_some_and(|port| port != [0, 0]) && wanted.kind != libc::SOCK_RAW;
    if port || without_address(address) != address { socket::bind(fd, address) } else { Ok(()) }
}

/// The same port of every address.
fn without_address(address: &[u8]) -> Vec<u8> {
    let mut any = address.to_vec();
    any.iter_mut().skip(4).for_each(|byte| *byte = 0);
    any
}
