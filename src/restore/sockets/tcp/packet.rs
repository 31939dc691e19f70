//! The one segment that the kernel does not send for us: the other side's end (FIN) of a connection, which it has sent before and does not send again.
//!
//! It comes from a raw socket, by the loopback interface, in the name of the other side; the kernel answers it with an acknowledgement that says nothing new.

use crate::image::model::socket::inet;
use crate::sys::{socket, tcp};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

const TCP: u8 = libc::IPPROTO_TCP as u8;
/// Bytes of a TCP header without options.
const HEADER: usize = 20;
/// FIN and ACK.
const FLAGS: u8 = 0x11;
/// What the other side would take: enough, until its next segment tells.
const WINDOW: u16 = 1024;

/// Ends one direction: `from` and `to` are whole `struct sockaddr`s.
///
/// # Errors
/// As socket(2): EPERM without CAP_NET_RAW; as sendto(2).
pub fn send_end(from: &[u8], to: &[u8], sequence: u32, acknowledged: u32) -> io::Result<()> {
    let address = |bytes: &[u8]| inet::parse(bytes).map(inet::canonical).ok_or(io::ErrorKind::InvalidInput);
    let (from, to) = (address(from)?, address(to)?);
    let packet = packet(from, to, sequence, acknowledged);
    let domain = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let raw = socket::make(domain, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
    tcp::send_to(raw.as_fd(), &packet, &destination(to))
}

/// Where a raw packet goes: the port of such an address must be 0.
fn destination(to: SocketAddr) -> Vec<u8> {
    match to.ip() {
        IpAddr::V4(ip) => [&(libc::AF_INET as u16).to_ne_bytes()[..], &[0; 2], &ip.octets(), &[0; 8]].concat(),
        IpAddr::V6(ip) => {
            let scope = match to {
                SocketAddr::V6(to) => to.scope_id(),
                SocketAddr::V4(_) => 0,
            };
            let family = (libc::AF_INET6 as u16).to_ne_bytes();
            [&family[..], &[0; 6], &ip.octets(), &scope.to_ne_bytes()].concat()
        }
    }
}

/// Both headers.
fn packet(from: SocketAddr, to: SocketAddr, sequence: u32, acknowledged: u32) -> Vec<u8> {
    let mut segment = [
        &from.port().to_be_bytes()[..],
        &to.port().to_be_bytes(),
        &sequence.to_be_bytes(),
        &acknowledged.to_be_bytes(),
        &[(HEADER as u8 / 4) << 4, FLAGS],
        &WINDOW.to_be_bytes(),
        &[0; 4],
    ]
    .concat();
    let length = segment.len() as u16;
    let (header, addresses) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            // The kernel fills in the identification and the sum (raw(7)).
            let head = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, TCP, 0, 0];
            let mut header = [&head[..], &addresses].concat();
            header[2..4].copy_from_slice(&(length + 20).to_be_bytes());
            (header, addresses)
        }
        (from, to) => {
            let octets = |ip| match ip {
                IpAddr::V4(ip) => std::net::Ipv4Addr::to_ipv6_mapped(&ip).octets(),
                IpAddr::V6(ip) => ip.octets(),
            };
            let addresses = [octets(from), octets(to)].concat();
            let head = [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[TCP, 64]].concat();
            ([&head[..], &addresses].concat(), addresses)
        }
    };
    let summed = [&addresses[..], &[0, TCP], &length.to_be_bytes(), &segment].concat();
    segment[16..18].copy_from_slice(&checksum(&summed).to_be_bytes());
    [header, segment].concat()
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_over_all_of_a_segment_is_zero() {
        let packet = packet("10.0.0.1:80".parse().unwrap(), "10.0.0.2:4711".parse().unwrap(), 1, 2);
        assert_eq!((packet.len(), packet[3]), (40, 40));
        let pseudo = [&packet[12..20], &[0, TCP, 0, 20], &packet[20..]].concat();
        assert_eq!(checksum(&pseudo), 0);
        let packet = super::packet("[::1]:80".parse().unwrap(), "[::2]:4711".parse().unwrap(), 1, 2);
        let pseudo = [&packet[8..40], &[0, TCP, 0, 20], &packet[40..]].concat();
        assert_eq!(checksum(&pseudo), 0);
    }
}
