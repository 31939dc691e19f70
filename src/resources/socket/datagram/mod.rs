//! Sockets of IPv4 and IPv6 without connections: UDP, UDP-Lite, ICMP, raw.

pub mod groups;
pub mod queue;

use super::Refusal;
use crate::image::model::socket::datagram::Datagram;
use crate::image::model::socket::inet;
use crate::proc::tcp_table::Tables;
use crate::sys::socket;
use std::io;
use std::os::fd::BorrowedFd;

/// UDP-Lite's number.
pub const UDP_LITE: i32 = 136;

/// What such a socket is called, if this is one.
#[must_use]
pub fn name((domain, kind, protocol): (i32, i32, i32)) -> Option<&'static str> {
    match (domain, kind, protocol) {
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP) => Some("UDP"),
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM, UDP_LITE) => Some("UDP-Lite"),
        (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP) => Some("ICMP"),
        (libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_ICMPV6) => Some("ICMPv6"),
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_RAW, _) => Some("raw"),
        _ => None,
    }
}

/// The tables of /proc/net that have the sockets of a type and protocol.
#[must_use]
pub fn table(kind: i32, protocol: i32) -> Option<&'static str> {
    match (kind, protocol) {
        (libc::SOCK_RAW, _) => Some("raw"),
        (_, libc::IPPROTO_TCP) => Some("tcp"),
        (_, libc::IPPROTO_UDP) => Some("udp"),
        (_, UDP_LITE) => Some("udplite"),
        (_, libc::IPPROTO_ICMP | libc::IPPROTO_ICMPV6) => Some("icmp"),
        _ => None,
    }
}

/// What is known of it, or why it cannot be saved.
///
/// # Errors
/// As getsockname(2) and its like.
pub fn collect(
    ino: u64,
    fd: BorrowedFd<'_>,
    what: (i32, i32, i32),
    tables: &mut Tables,
) -> io::Result<Result<Datagram, Refusal>> {
    let local = socket::own_address(fd)?;
    let peer = match socket::peer_address(fd) {
        Ok(peer) => Some(peer),
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => peer_without_port(ino, fd, what, &local, tables)?,
        Err(error) => return Err(error),
    };
    let seen = socket::waiting(fd)?;
    if seen & libc::POLLERR != 0 {
        return Ok(Err(Refusal::passing(
            "it has an error that was not told yet, which cannot be read without taking it away",
        )));
    }
    // Of UDP, memory that it has sent and the device still holds, or what UDP_CORK and MSG_MORE hold back.
    if socket::unsent(fd)? > 0 {
        return Ok(Err(Refusal::passing(
            "it holds back what it is to send (UDP_CORK, MSG_MORE), which cannot be read",
        )));
    }
    let shutdown = shutdown(seen);
    let mut queue = Vec::new();
    if seen & libc::POLLIN != 0 && shutdown & 1 == 0 {
        let (_, kind, protocol) = what;
        if kind != libc::SOCK_DGRAM || !matches!(protocol, libc::IPPROTO_UDP | UDP_LITE) {
            return Ok(Err(Refusal::passing(
                "packets wait in it that nobody has read, and that it would not get alone",
            )));
        }
        queue = queue::collect(fd)?;
    }
    Ok(Ok(Datagram { local, peer, groups: groups::collect(fd)?, queue, shutdown }))
}

/// A peer to whose port 0 it is connected, as raw sockets are: getpeername(2) does not tell it (net/ipv4/af_inet.c, `inet_getname`).
fn peer_without_port(
    ino: u64,
    fd: BorrowedFd<'_>,
    (domain, kind, protocol): (i32, i32, i32),
    local: &[u8],
    tables: &mut Tables,
) -> io::Result<Option<Vec<u8>>> {
    /// TCP_ESTABLISHED, of whatever protocol.
    const CONNECTED: u8 = 1;
    // Who has the largest packet of a route is connected; of raw sockets, some that are have lost their route (SO_MARK).
    let (level, mtu) = if domain == libc::AF_INET { (libc::IPPROTO_IP, 14) } else { (libc::IPPROTO_IPV6, 24) };
    let Some(table) =
        table(kind, protocol).filter(|_| kind == libc::SOCK_RAW || socket::option(fd, level, mtu).is_ok())
    else {
        return Ok(None);
    };
    let row = tables.row(table, ino).map_err(io::Error::other)?;
    Ok(row.filter(|row| row.state == CONNECTED).map(|row| inet::like(local, row.peer)))
}

/// `sk_shutdown` as far as poll(2) tells: sending alone it does not (net/core/datagram.c, `datagram_poll`).
fn shutdown(seen: i16) -> u8 {
    if seen & libc::POLLHUP != 0 { 3 } else { u8::from(seen & libc::POLLRDHUP != 0) }
}
