//! Each option of the tables, set on a socket and had again on another.

use super::*;
use std::collections::HashSet;
use std::os::fd::AsFd;

#[test]
fn no_option_stands_twice() {
    let mut seen = HashSet::new();
    for row in TABLES.iter().copied().flatten() {
        assert!(seen.insert((row.level, row.name)), "{} stands twice", row.title);
    }
}

#[test]
fn every_level_belongs_to_some_socket() {
    let kinds = [
        (libc::AF_INET6, libc::SOCK_DGRAM, 136),
        (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP),
        (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        (libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6),
        (libc::AF_PACKET, libc::SOCK_RAW, 0),
        (libc::AF_NETLINK, libc::SOCK_RAW, 0),
    ];
    for row in TABLES.iter().copied().flatten() {
        assert!(kinds.iter().any(|kind| has_level(row.level, *kind)), "no socket has {}", row.title);
    }
}

/// Domain, type, protocol.
type Kind = (i32, i32, i32);

const KINDS: &[Kind] = &[
    (libc::AF_UNIX, libc::SOCK_STREAM, 0),
    (libc::AF_UNIX, libc::SOCK_DGRAM, 0),
    (libc::AF_INET, libc::SOCK_DGRAM, 17),
    (libc::AF_INET6, libc::SOCK_DGRAM, 17),
    (libc::AF_INET6, libc::SOCK_DGRAM, 136),
    (libc::AF_INET, libc::SOCK_STREAM, 6),
    (libc::AF_INET6, libc::SOCK_STREAM, 6),
    (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
    (libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6),
    (libc::AF_INET6, libc::SOCK_RAW, 253),
    (libc::AF_PACKET, libc::SOCK_RAW, 0),
    (libc::AF_NETLINK, libc::SOCK_RAW, 0),
];

/// What cannot be set here: it takes a packet socket that is bound, a memory cgroup that counts sockets.
const UNTOUCHED: &[&str] = &["PACKET_FANOUT", "SO_RESERVE_MEM"];

/// Other values than a new socket has, one of which each option takes.
fn candidates(row: &Row) -> Vec<Vec<u8>> {
    let int = |value: i32| value.to_ne_bytes().to_vec();
    let pair = |a: i32, b: i32| [int(a), int(b)].concat();
    let long = |a: i64, b: i64| [a.to_ne_bytes(), b.to_ne_bytes()].concat();
    match row.title {
        "SO_ATTACH_FILTER" => vec![[6u16.to_ne_bytes().to_vec(), vec![0, 0], int(0x4_0000)].concat()],
        "SO_BINDTODEVICE" => vec![b"lo\0".to_vec()],
        "TCP_CONGESTION" => vec![b"reno".to_vec(), b"cubic".to_vec()],
        "SO_LINGER" => vec![pair(1, 7)],
        "SO_RCVTIMEO" | "SO_SNDTIMEO" => vec![long(3, 500_000)],
        "SO_TIMESTAMPING" | "SO_TIMESTAMPING_NEW" => vec![pair(0x18, 0)],
        "SO_TXTIME" => vec![pair(1, 1)],
        "SO_MAX_PACING_RATE" => vec![0x1_2345_6789u64.to_ne_bytes().to_vec()],
        "SO_SNDBUF" | "SO_RCVBUF" => vec![int(20_000)],
        "SO_PASSRIGHTS" => vec![int(0)],
        "IP_OPTIONS" => vec![vec![1, 1, 1, 0]],
        "IP_MULTICAST_IF" => vec![vec![127, 0, 0, 1]],
        "IP_UNICAST_IF" | "IPV6_UNICAST_IF" => vec![1i32.to_be_bytes().to_vec()],
        "IP_LOCAL_PORT_RANGE" => vec![int(0xc350_9c40_u32.cast_signed())],
        "UDP_ENCAP" => vec![int(3)],
        "ICMP_FILTER" => vec![int(0x30)],
        "ICMPV6_FILTER" => vec![int(0x55).repeat(8)],
        "IPV6_HOPOPTS" | "IPV6_DSTOPTS" | "IPV6_RTHDRDSTOPTS" => vec![vec![0, 0, 1, 4, 0, 0, 0, 0]],
        "IPV6_RTHDR" => vec![[vec![0, 2, 4, 0, 0, 0, 0, 0], vec![0x20; 16]].concat()],
        "PACKET_VNET_HDR_SZ" => vec![int(12)],
        "IPV6_ADDR_PREFERENCES" => vec![int(1)],
        _ => [1, 0, 2, 4, 64, 4096].map(int).to_vec(),
    }
}

fn value(fd: BorrowedFd<'_>, row: &Row) -> io::Result<Vec<u8>> {
    if row.title == "SO_ATTACH_FILTER" { socket::filter(fd) } else { socket::option(fd, row.level, row.name) }
}

fn change(fd: BorrowedFd<'_>, row: &Row, to: &[u8]) -> bool {
    let before = value(fd, row);
    let set = match row.title {
        "SO_ATTACH_FILTER" => socket::attach_filter(fd, to),
        _ => socket::set_option(fd, row.level, row.name, to),
    };
    set.is_ok() && value(fd, row).ok() != before.ok()
}

/// Every option of every kind of socket that can have another value than a new socket's is set alone, read, and set on a new socket.
#[test]
fn each_option_that_can_be_set_can_be_had_again() {
    let mut moved = HashSet::new();
    for kind in KINDS {
        let make = || socket::make(kind.0, kind.1, kind.2);
        let Ok(_) = make() else { continue };
        for row in TABLES.iter().copied().flatten().filter(|row| has_level(row.level, *kind)) {
            let old = make().expect("a socket");
            if !candidates(row).iter().any(|to| change(old.as_fd(), row, to)) {
                continue;
            }
            moved.insert(row.title);
            let new = make().expect("a socket");
            let options = collect(old.as_fd(), *kind).expect("getsockopt").expect("options");
            for moment in [Moment::Made, Moment::Named, Moment::Filled] {
                apply(new.as_fd(), &options, moment).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
            }
            let again = collect(new.as_fd(), *kind).expect("getsockopt").expect("options");
            assert_eq!(options, again, "{kind:?} {}", row.title);
        }
    }
    let still: Vec<_> =
        TABLES.iter().copied().flatten().map(|row| row.title).filter(|it| !moved.contains(it)).collect();
    // An ordinary user has not all kinds of sockets, and may not set all options.
    if nix::unistd::geteuid().is_root() {
        assert_eq!(still, UNTOUCHED);
    }
}
