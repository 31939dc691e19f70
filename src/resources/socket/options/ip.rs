//! Options of levels IPPROTO_IP (ip(7), net/ipv4/ip_sockglue.c) and IPPROTO_IPV6 (ipv6(7), net/ipv6/ipv6_sockglue.c), in the order in which they are
//! set. A socket of AF_INET6 has both.

use super::row::{Moment, Row, row};

const V4: i32 = libc::IPPROTO_IP;
const V6: i32 = libc::IPPROTO_IPV6;
const RAW: &str = "CAP_NET_RAW";
const RAW_OR_ADMIN: &str = "CAP_NET_RAW or CAP_NET_ADMIN";

/// Left out: IP_MTU and IP_PROTOCOL, which are facts; IP_PKTOPTIONS, which is what was received; groups, which are not one value but a list
/// (IP_ADD_MEMBERSHIP and its like); and what cannot be read, see docs/unsupported.md.
pub const V4_TABLE: &[Row] = &[
    row(V4, 15, "IP_FREEBIND"),
    row(V4, 19, "IP_TRANSPARENT").takes(RAW_OR_ADMIN),
    row(V4, 24, "IP_BIND_ADDRESS_NO_PORT"),
    row(V4, 51, "IP_LOCAL_PORT_RANGE"),
    row(V4, 4, "IP_OPTIONS"),
    row(V4, 3, "IP_HDRINCL"),
    row(V4, 22, "IP_NODEFRAG"),
    row(V4, 1, "IP_TOS").restless(),
    row(V4, 2, "IP_TTL"),
    row(V4, 21, "IP_MINTTL"),
    row(V4, 10, "IP_MTU_DISCOVER"),
    row(V4, 50, "IP_UNICAST_IF"),
    row(V4, 32, "IP_MULTICAST_IF").restless(),
    row(V4, 33, "IP_MULTICAST_TTL"),
    row(V4, 34, "IP_MULTICAST_LOOP"),
    row(V4, 49, "IP_MULTICAST_ALL"),
    row(V4, 8, "IP_PKTINFO"),
    row(V4, 12, "IP_RECVTTL"),
    row(V4, 13, "IP_RECVTOS"),
    row(V4, 6, "IP_RECVOPTS"),
    row(V4, 7, "IP_RETOPTS"),
    row(V4, 18, "IP_PASSSEC"),
    row(V4, 20, "IP_RECVORIGDSTADDR"),
    row(V4, 23, "IP_CHECKSUM"),
    row(V4, 25, "IP_RECVFRAGSIZE"),
    // While queues are filled, errors would be queued too.
    row(V4, 11, "IP_RECVERR").at(Moment::Filled),
    row(V4, 26, "IP_RECVERR_RFC4884").at(Moment::Filled),
];

/// Left out: IPV6_ADDRFORM, which is no setting; IPV6_PATHMTU, which is a fact; IPV6_2292PKTOPTIONS, which is what was received; groups; and what
/// cannot be read, see docs/unsupported.md.
pub const V6_TABLE: &[Row] = &[
    row(V6, 26, "IPV6_V6ONLY").restless(),
    row(V6, 78, "IPV6_FREEBIND"),
    row(V6, 75, "IPV6_TRANSPARENT").takes(RAW_OR_ADMIN),
    row(V6, 16, "IPV6_UNICAST_HOPS").restless(),
    row(V6, 17, "IPV6_MULTICAST_IF").restless(),
    row(V6, 18, "IPV6_MULTICAST_HOPS").restless(),
    row(V6, 19, "IPV6_MULTICAST_LOOP"),
    row(V6, 29, "IPV6_MULTICAST_ALL"),
    row(V6, 76, "IPV6_UNICAST_IF"),
    row(V6, 23, "IPV6_MTU_DISCOVER"),
    row(V6, 62, "IPV6_DONTFRAG"),
    row(V6, 67, "IPV6_TCLASS").restless(),
    row(V6, 70, "IPV6_AUTOFLOWLABEL"),
    row(V6, 33, "IPV6_FLOWINFO_SEND"),
    row(V6, 72, "IPV6_ADDR_PREFERENCES"),
    row(V6, 73, "IPV6_MINHOPCOUNT"),
    row(V6, 7, "IPV6_CHECKSUM"),
    row(V6, 36, "IPV6_HDRINCL"),
    row(V6, 54, "IPV6_HOPOPTS").takes(RAW),
    row(V6, 55, "IPV6_RTHDRDSTOPTS").takes(RAW),
    row(V6, 57, "IPV6_RTHDR"),
    row(V6, 59, "IPV6_DSTOPTS").takes(RAW),
    row(V6, 49, "IPV6_RECVPKTINFO"),
    row(V6, 2, "IPV6_2292PKTINFO"),
    row(V6, 51, "IPV6_RECVHOPLIMIT"),
    row(V6, 8, "IPV6_2292HOPLIMIT"),
    row(V6, 53, "IPV6_RECVHOPOPTS"),
    row(V6, 3, "IPV6_2292HOPOPTS"),
    row(V6, 56, "IPV6_RECVRTHDR"),
    row(V6, 5, "IPV6_2292RTHDR"),
    row(V6, 58, "IPV6_RECVDSTOPTS"),
    row(V6, 4, "IPV6_2292DSTOPTS"),
    row(V6, 60, "IPV6_RECVPATHMTU"),
    row(V6, 66, "IPV6_RECVTCLASS"),
    row(V6, 11, "IPV6_FLOWINFO"),
    row(V6, 74, "IPV6_RECVORIGDSTADDR"),
    row(V6, 77, "IPV6_RECVFRAGSIZE"),
    row(V6, 30, "IPV6_ROUTER_ALERT_ISOLATE"),
    row(V6, 25, "IPV6_RECVERR").at(Moment::Filled),
    row(V6, 31, "IPV6_RECVERR_RFC4884").at(Moment::Filled),
];
