//! Options of UDP and UDP-Lite (udp(7), udplite(7)), raw and ICMP sockets (raw(7), icmp(7)), packet (packet(7)) and netlink sockets (netlink(7)).

use super::row::{Moment, Row, row};

const UDP: i32 = libc::SOL_UDP;
const UDP_LITE: i32 = 136;
const RAW: i32 = 255;
const ICMPV6: i32 = libc::IPPROTO_ICMPV6;
const PACKET: i32 = libc::SOL_PACKET;
const NETLINK: i32 = libc::SOL_NETLINK;

pub const UDP_TABLE: &[Row] = &[
    row(UDP, 100, "UDP_ENCAP"),
    row(UDP, 101, "UDP_NO_CHECK6_TX"),
    row(UDP, 102, "UDP_NO_CHECK6_RX"),
    row(UDP, 103, "UDP_SEGMENT"),
    row(UDP, 104, "UDP_GRO"),
    // What is sent from here on waits.
    row(UDP, 1, "UDP_CORK").at(Moment::Filled),
];

pub const UDP_LITE_TABLE: &[Row] =
    &[row(UDP_LITE, 10, "UDPLITE_SEND_CSCOV"), row(UDP_LITE, 11, "UDPLITE_RECV_CSCOV").at(Moment::Filled)];

pub const RAW_TABLE: &[Row] = &[row(RAW, 1, "ICMP_FILTER"), row(ICMPV6, 1, "ICMPV6_FILTER")];

pub const PACKET_TABLE: &[Row] = &[
    row(PACKET, 10, "PACKET_VERSION"),
    row(PACKET, 12, "PACKET_RESERVE"),
    row(PACKET, 14, "PACKET_LOSS"),
    // Packets of ours that fill its ring are not copied.
    row(PACKET, 7, "PACKET_COPY_THRESH").at(Moment::Named),
    row(PACKET, 8, "PACKET_AUXDATA"),
    row(PACKET, 9, "PACKET_ORIGDEV"),
    row(PACKET, 15, "PACKET_VNET_HDR"),
    row(PACKET, 24, "PACKET_VNET_HDR_SZ"),
    row(PACKET, 17, "PACKET_TIMESTAMP"),
    row(PACKET, 19, "PACKET_TX_HAS_OFF"),
    row(PACKET, 20, "PACKET_QDISC_BYPASS"),
    row(PACKET, 23, "PACKET_IGNORE_OUTGOING"),
    // Who is not bound is in no group; it reads as it is set.
    row(PACKET, 18, "PACKET_FANOUT").at(Moment::Named),
];

pub const NETLINK_TABLE: &[Row] = &[
    row(NETLINK, 3, "NETLINK_PKTINFO"),
    row(NETLINK, 4, "NETLINK_BROADCAST_ERROR"),
    row(NETLINK, 5, "NETLINK_NO_ENOBUFS"),
    row(NETLINK, 8, "NETLINK_LISTEN_ALL_NSID").takes("CAP_NET_BROADCAST"),
    row(NETLINK, 10, "NETLINK_CAP_ACK"),
    row(NETLINK, 11, "NETLINK_EXT_ACK"),
    row(NETLINK, 12, "NETLINK_GET_STRICT_CHK"),
];
