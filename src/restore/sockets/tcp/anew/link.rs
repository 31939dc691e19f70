//! Connects two new sockets, under the names that they are to have.

use crate::image::model::socket::{Socket, SocketOption, inet};
use crate::resources::socket::options;
use crate::restore::sockets::settings::{Point, Settings};
use crate::restore::sockets::tcp::connection::make_room;
use crate::restore::sockets::tcp::ended::await_that;
use crate::sys::{socket, tcp};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

const NODELAY: i32 = 1;
// include/uapi/linux/in.h
const IP_BIND_ADDRESS_NO_PORT: i32 = 24;
const IP_LOCAL_PORT_RANGE: i32 = 51;

/// One end of a connection that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Whose options it takes.
    pub wanted: &'a Socket,
    /// Its address, a whole `struct sockaddr`.
    pub local: &'a [u8],
    /// The other end's address in the same family, which need not be its own (IPv4 in IPv6).
    pub peer: &'a [u8],
    /// Bytes that it is to hold.
    pub unread: usize,
}

/// A new socket that is bound to an address of a connection, with what that takes of the options of an end.
///
/// # Errors
/// As socket(2), setsockopt(2), bind(2).
pub fn bound(wanted: &Socket, local: &[u8], settings: &Settings<'_>) -> io::Result<File> {
    let made = begin(wanted, settings)?;
    socket::bind(made.as_fd(), local)?;
    Ok(made)
}

fn begin(wanted: &Socket, settings: &Settings<'_>) -> io::Result<File> {
    let made = socket::make(wanted.domain, wanted.kind | libc::SOCK_NONBLOCK, wanted.protocol)?;
    let fd = made.as_fd();
    settings.set(fd, wanted, Point::Unfiltered)?;
    // All have these until the program runs: it finds what it had set.
    socket::set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1i32.to_ne_bytes())?;
    let at_once = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
    socket::set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &at_once)?;
    tcp::set(fd, NODELAY, 1)?;
    Ok(made)
}

/// Connects the two: the first with the second, or where a name cannot be had so, the other way round.
///
/// # Errors
/// As bind(2), connect(2); `TimedOut` where packets do not come.
pub fn join(one: End<'_>, other: End<'_>, settings: &Settings<'_>) -> io::Result<[File; 2]> {
    match one_way(one, other, settings) {
        Err(error) if is_taken(&error) => {
            let [other, one] = one_way(other, one, settings).map_err(|_| error)?;
            Ok([one, other])
        }
        done => done,
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

fn one_way(connecting: End<'_>, accepting: End<'_>, settings: &Settings<'_>) -> io::Result<[File; 2]> {
    let (from, to) = (inet::Shown(connecting.local), inet::Shown(accepting.local));
    let told = |error: io::Error| io::Error::new(error.kind(), format!("connection of {from} with {to}: {error}"));
    let listener = bound(accepting.wanted, accepting.local, settings).map_err(told)?;
    // A window is never wider than what was agreed on first.
    let widen = |file: &File, end: End<'_>| match end.unread {
        0 => Ok(()),
        bytes => make_room(file, libc::SO_RCVBUF, libc::SO_RCVBUFFORCE, bytes).map(drop),
    };
    widen(&listener, accepting)?;
    tcp::listen(listener.as_fd(), 16).map_err(told)?;
    let client = begin(connecting.wanted, settings)?;
    widen(&client, connecting)?;
    let shared = share(&client, connecting.local).and_then(|()| connect(&client, connecting.peer));
    let client = if shared.is_ok() && is_at(&client, connecting.local) {
        put_back(&client, &[])?;
        client
    } else {
        drop(client);
        let client = bound(connecting.wanted, connecting.local, settings).map_err(told)?;
        widen(&client, connecting)?;
        connect(&client, connecting.peer).map_err(told)?;
        client
    };
    let served = accepted(&listener, connecting.local).map_err(told)?;
    Ok([client, served])
}

/// Has a socket get the port of this address when it connects, as the kernel chooses ports: others may have it too, to other addresses. bind(2) asks for
/// one of its own. Since Linux 6.3, and within `net.ipv4.ip_local_port_range`.
///
/// # Errors
/// As setsockopt(2), bind(2).
pub fn share(made: &File, local: &[u8]) -> io::Result<()> {
    let Some(address) = inet::parse(local) else { return Err(io::ErrorKind::InvalidInput.into()) };
    let port = u32::from(address.port());
    let mut anywhere = local.to_vec();
    anywhere[2..4].fill(0);
    let set = |name: i32, value: u32| socket::set_option(made.as_fd(), libc::IPPROTO_IP, name, &value.to_ne_bytes());
    set(IP_LOCAL_PORT_RANGE, port | port << 16)?;
    set(IP_BIND_ADDRESS_NO_PORT, 1)?;
    socket::bind(made.as_fd(), &anywhere)
}

/// Takes away again what [`share`] has set, or sets what these options say.
///
/// # Errors
/// As setsockopt(2).
pub fn put_back(made: &File, all: &[SocketOption]) -> io::Result<()> {
    for name in [IP_LOCAL_PORT_RANGE, IP_BIND_ADDRESS_NO_PORT] {
        let value = options::number(all, libc::IPPROTO_IP, name).unwrap_or(0);
        // A kernel without the option has no other value of it.
        if socket::number(made.as_fd(), libc::IPPROTO_IP, name).is_ok_and(|now| now != value) {
            socket::set_option(made.as_fd(), libc::IPPROTO_IP, name, &value.to_ne_bytes())?;
        }
    }
    Ok(())
}

fn connect(client: &File, to: &[u8]) -> io::Result<()> {
    match tcp::connect(client.as_fd(), to) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        other => other,
    }
}

fn is_at(made: &File, local: &[u8]) -> bool {
    let own = socket::own_address(made.as_fd()).ok();
    own.and_then(|own| inet::parse(&own)) == inet::parse(local)
}

/// The other side of who connects from this address: nobody else's who connects at this moment.
fn accepted(listener: &File, from: &[u8]) -> io::Result<File> {
    let wanted = inet::parse(from).map(inet::canonical);
    let mut served = None;
    await_that(|| match tcp::accept(listener.as_fd()) {
        Ok(file) => {
            let peer = socket::peer_address(file.as_fd()).ok();
            served = Some(file).filter(|_| peer.and_then(|peer| inet::parse(&peer)).map(inet::canonical) == wanted);
            Ok(served.is_some())
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    })?;
    served.ok_or_else(|| io::ErrorKind::NotConnected.into())
}

/// Has what is left of an earlier connection end that keeps the name at `to` for a minute (TIME-WAIT), by one that comes from where that connection came
/// from and that nobody listens to: it is answered with what this side takes for a mistake, and its reset ends both (net/ipv4/tcp_minisocks.c;
/// RFC 1337 says why `net.ipv4.tcp_rfc1337` might forbid it).
///
/// # Errors
/// As bind(2), connect(2).
pub fn knock(wanted: &Socket, from: &[u8], to: &[u8], settings: &Settings<'_>) -> io::Result<()> {
    let made = bound(wanted, from, settings)?;
    connect(&made, to)?;
    // Its next attempt is refused, by nobody any more.
    let still = || tcp::info(made.as_fd()).map(|info| info.state == tcp::State::SynSent);
    let since = std::time::Instant::now();
    while still()? && since.elapsed() < super::STALLED {
        crate::sys::sched::yield_now();
    }
    Ok(())
}
