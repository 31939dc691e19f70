//! Datagrams that nobody has read: looked at where they are, and put back by sending them once more, from whom they came.

use crate::image::model::socket::datagram::Waiting;
use crate::image::model::socket::{SocketOption, inet};
use crate::resources::socket::datagram::UDP_LITE;
use crate::sys::undo::Undo;
use crate::sys::{socket, socket_message};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

/// More than any datagram takes, those that UDP_GRO has joined too.
const LONGEST: usize = 1 << 17;
/// SO_PEEK_OFF of a socket that does not have it.
const NOWHERE: i32 = -1;
/// The mark (SO_MARK) of what we send, by which the filter of a socket that is being filled knows it.
const MARK: u32 = 0x736e_6170;
/// More than the queues of a program are long.
const ROOM: i32 = 1 << 28;

/// Options that tell of a datagram what a second sending does not keep: IP_PKTINFO, IP_RECVORIGDSTADDR, and those of IPv6.
const TELL_DESTINATION: [(i32, i32); 5] = [
    (libc::IPPROTO_IP, 8),
    (libc::IPPROTO_IP, 20),
    (libc::IPPROTO_IPV6, 49),
    (libc::IPPROTO_IPV6, 2),
    (libc::IPPROTO_IPV6, 74),
];

/// Everything that waits in a socket, oldest first. Nothing is taken away: SO_PEEK_OFF leads from one to the next, and is put back.
///
/// # Errors
/// As recvmsg(2) and setsockopt(2).
pub fn collect(fd: BorrowedFd<'_>) -> io::Result<Vec<Waiting>> {
    let undo = Undo::default();
    let was = socket::number(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF)?.to_ne_bytes();
    let start = 0i32.to_ne_bytes();
    let held = undo.set(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, &start, &was)?;
    let seen = look(fd)?;
    held.end()?;
    Ok(seen)
}

fn look(fd: BorrowedFd<'_>) -> io::Result<Vec<Waiting>> {
    let mut seen = Vec::new();
    let mut buffer = vec![0; LONGEST];
    loop {
        match socket_message::peek(fd, &mut buffer) {
            Ok(message) => {
                seen.push(Waiting { sender: message.sender, bytes: buffer[..message.len].to_vec() });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(seen),
            Err(error) => return Err(error),
        }
    }
}

/// Why what waits in a socket could not be put back, if it could not.
pub fn obstacle(local: &[u8], queue: &[Waiting], options: &[SocketOption]) -> Option<String> {
    let is_set = |(level, name): (i32, i32)| {
        let found = options.iter().find(|option| (option.level, option.name) == (level, name));
        found.is_some_and(|option| option.value.iter().any(|byte| *byte != 0))
    };
    let device = options.iter().find(|option| (option.level, option.name) == (libc::SOL_SOCKET, libc::SO_BINDTODEVICE));
    let local = inet::parse(local)?;
    if raw(&Ipv4Addr::LOCALHOST.into()).is_err() {
        return Some("to put them back takes CAP_NET_RAW".into());
    }
    if device.is_some_and(|device| !device.value.is_empty() && device.value != b"lo\0") {
        return Some("it is bound to a device, from which they would have to come".into());
    }
    if is_set((libc::SOL_SOCKET, libc::SO_REUSEPORT)) {
        return Some("it shares its port (SO_REUSEPORT), and another could get them".into());
    }
    if local.ip().is_unspecified() && TELL_DESTINATION.into_iter().any(is_set) {
        return Some("it asks for the address to which they came".into());
    }
    for Waiting { sender, bytes: _ } in queue {
        let Some(sender) = inet::parse(sender) else { return Some("one of them has no sender".into()) };
        let to = destination(local, sender);
        let near = |address: IpAddr| matches!(address, IpAddr::V6(six) if six.is_unicast_link_local());
        if near(sender.ip()) || near(to.ip()) {
            return Some("one of them came from the neighbourhood of a device (a link-local address)".into());
        }
        if !is_here(to) {
            return Some(format!("{} is no address of this host", to.ip()));
        }
    }
    None
}

/// Sends all of it once more to a socket that has its names by now. Whatever else arrives meanwhile is left out by its filter.
///
/// # Errors
/// As sendmsg(2); `Other` where not all have arrived.
pub fn fill(fd: BorrowedFd<'_>, protocol: i32, local: &[u8], queue: &[Waiting]) -> io::Result<()> {
    let local = inet::parse(local).ok_or(io::ErrorKind::InvalidData)?;
    for Waiting { sender, bytes } in queue {
        let from = inet::canonical(inet::parse(sender).ok_or(io::ErrorKind::InvalidData)?);
        let to = destination(local, from);
        if !is_here(to) {
            return Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                format!("{} is no address of this host", to.ip()),
            ));
        }
        let raw = raw(&to.ip()).map_err(|error| {
            let text = format!("to put back the datagrams that wait in it takes CAP_NET_RAW: {error}");
            io::Error::new(error.kind(), text)
        })?;
        let packet = packet(protocol, from, to, bytes);
        socket_message::send(raw.as_fd(), &packet, Some(&whole(to)), &[], None)?;
    }
    let start = 0i32.to_ne_bytes();
    socket::set_option(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, &start)?;
    let arrived = look(fd)?;
    socket::set_option(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, &NOWHERE.to_ne_bytes())?;
    if arrived == queue {
        return Ok(());
    }
    Err(io::Error::other(format!("of the {} datagrams that waited in it, {} have arrived", queue.len(), arrived.len())))
}

/// Makes a socket ready to be filled before it has a name: it hears nothing but us, and has room.
///
/// # Errors
/// As setsockopt(2).
pub fn prepare(fd: BorrowedFd<'_>) -> io::Result<()> {
    /// SKF_AD_OFF + SKF_AD_MARK.
    const OF_MARK: u32 = (-0x1000i32 + 20).cast_unsigned();
    let code = [(0x20u16, 0u8, 0u8, OF_MARK), (0x15, 0, 1, MARK), (6, 0, 0, u32::MAX), (6, 0, 0, 0)];
    let bytes =
        code.iter().flat_map(|(code, jt, jf, k)| [&code.to_ne_bytes()[..], &[*jt, *jf], &k.to_ne_bytes()].concat());
    socket::attach_filter(fd, &bytes.collect::<Vec<u8>>())?;
    let _ = socket::set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &ROOM.to_ne_bytes());
    Ok(())
}

/// The address to which a datagram is sent to a socket of this one: one of the loopback interface, where the socket has every address.
fn destination(local: SocketAddr, sender: SocketAddr) -> SocketAddr {
    let ip = match (local.ip().to_canonical(), sender.ip().to_canonical()) {
        (ip, IpAddr::V4(_)) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        (ip, IpAddr::V6(_)) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        (ip, _) => ip,
    };
    SocketAddr::new(ip, local.port())
}

/// Whether what is sent there stays on this host.
fn is_here(address: SocketAddr) -> bool {
    std::net::UdpSocket::bind((address.ip(), 0)).is_ok()
}

/// A socket that sends whole packets, marked as ours.
fn raw(to: &IpAddr) -> io::Result<std::fs::File> {
    let (domain, level, name) = match to {
        IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_IP, libc::IP_HDRINCL),
        IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_IPV6, libc::IPV6_HDRINCL),
    };
    let raw = socket::make(domain, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
    socket::set_option(raw.as_fd(), level, name, &1i32.to_ne_bytes())?;
    socket::set_option(raw.as_fd(), libc::SOL_SOCKET, libc::SO_MARK, &MARK.to_ne_bytes())?;
    Ok(raw)
}

/// A packet with the heads of IP and UDP or UDP-Lite. The kernel adds the length, the identification and the checksum of IPv4's.
fn packet(protocol: i32, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    const TTL: u8 = 64;
    let length = (8 + bytes.len()) as u16;
    // A whole UDP-Lite packet is covered by its checksum where the field says 0 (RFC 3828).
    let field = if protocol == UDP_LITE { 0 } else { length };
    let mut body = [from.port(), to.port(), field, 0].iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    body.extend_from_slice(bytes);
    let (source, target) = (octets(from.ip()), octets(to.ip()));
    let pseudo = [&source[..], &target, &u32::from(length).to_be_bytes(), &[0, 0, 0, protocol as u8]].concat();
    let sum = match checksum([&pseudo[..], &body].into_iter()) {
        0 => 0xffff,
        sum => sum,
    };
    body[6..8].copy_from_slice(&sum.to_be_bytes());
    let head = match from.ip() {
        IpAddr::V4(_) => [&[0x45, 0, 0, 0, 0, 0, 0, 0, TTL, protocol as u8, 0, 0][..], &source, &target].concat(),
        IpAddr::V6(_) => {
            [&[0x60, 0, 0, 0], &length.to_be_bytes()[..], &[protocol as u8, TTL], &source, &target].concat()
        }
    };
    [head, body].concat()
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// RFC 1071, of parts of an even length but for the last.
fn checksum<'a>(parts: impl Iterator<Item = &'a [u8]>) -> u16 {
    let mut sum = 0u32;
    for pair in parts.flat_map(|part| part.chunks(2)) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A whole `struct sockaddr` without the port, which a raw socket takes for a protocol.
fn whole(address: SocketAddr) -> Vec<u8> {
    match address.ip() {
        IpAddr::V4(ip) => [&(libc::AF_INET as u16).to_ne_bytes()[..], &[0; 2], &ip.octets(), &[0; 8]].concat(),
        IpAddr::V6(ip) => [&(libc::AF_INET6 as u16).to_ne_bytes()[..], &[0; 6], &ip.octets(), &[0; 4]].concat(),
    }
}
