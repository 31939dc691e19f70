//! Addresses of IPv4 and IPv6 in the form of `struct sockaddr`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// `sa_family` of IPv4.
pub const AF_INET: i32 = 2;
/// `sa_family` of IPv6.
pub const AF_INET6: i32 = 10;

/// What a whole `struct sockaddr` names, if it is of one of these families.
#[must_use]
pub fn parse(address: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(address.first_chunk().copied()?));
    let port = u16::from_be_bytes(address.get(2..4)?.try_into().ok()?);
    match family {
        AF_INET => {
            let ip: [u8; 4] = address.get(4..8)?.try_into().ok()?;
            Some(SocketAddrV4::new(Ipv4Addr::from(ip), port).into())
        }
        AF_INET6 => {
            let word = |at: usize| address.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
            let ip: [u8; 16] = address.get(8..24)?.try_into().ok()?;
            Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, word(4)?, word(24)?).into())
        }
        _ => None,
    }
}

/// The same address with its IPv6 form taken off, if IPv4 packets carry it (`::ffff:192.0.2.1`).
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A whole `struct sockaddr` that names another socket than `address` does, in the same family and interface.
#[must_use]
pub fn like(address: &[u8], other: SocketAddr) -> Vec<u8> {
    let mut changed = with_ip(address, other.ip());
    if let Some(port) = changed.get_mut(2..4) {
        port.copy_from_slice(&other.port().to_be_bytes());
    }
    changed
}

/// A whole `struct sockaddr` with another address and the same port.
#[must_use]
pub fn with_ip(address: &[u8], ip: IpAddr) -> Vec<u8> {
    let mut changed = address.to_vec();
    match (ip, changed.len()) {
        (IpAddr::V4(ip), 16) => changed[4..8].copy_from_slice(&ip.octets()),
        (IpAddr::V4(ip), 28..) => changed[8..24].copy_from_slice(&ip.to_ipv6_mapped().octets()),
        (IpAddr::V6(ip), 28..) => changed[8..24].copy_from_slice(&ip.octets()),
        _ => {}
    }
    changed
}

/// An address for people to read.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match parse(self.0) {
            Some(address) => canonical(address).fmt(f),
            None => f.write_str("an address of another family"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_read_and_written() {
        let mut four = vec![0u8; 16];
        four[..8].copy_from_slice(&[2, 0, 0x1f, 0x90, 127, 0, 0, 1]);
        assert_eq!(parse(&four), Some("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(parse(&with_ip(&four, [10, 1, 2, 3].into())), Some("10.1.2.3:8080".parse().unwrap()));
        let mut six = vec![0u8; 28];
        six[..4].copy_from_slice(&[10, 0, 0, 80]);
        six[23] = 1;
        assert_eq!(Shown(&six).to_string(), "[::1]:80");
        let mapped = with_ip(&six, [10, 1, 2, 3].into());
        assert_eq!(Shown(&mapped).to_string(), "10.1.2.3:80");
        assert_eq!(parse(&[2, 0]), None);
        assert_eq!(parse(&[1, 0, 0, 0, 0]), None);
    }
}
