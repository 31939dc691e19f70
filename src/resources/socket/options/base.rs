//! Options of level SOL_SOCKET (socket(7), include/uapi/asm-generic/socket.h, net/core/sock.c), in the order in which they are set.

use super::row::{Moment, Row, row};

const LEVEL: i32 = libc::SOL_SOCKET;
const ADMIN: &str = "CAP_NET_ADMIN";
const RAW_OR_ADMIN: &str = "CAP_NET_RAW or CAP_NET_ADMIN";

pub const SO_SNDBUF: i32 = 7;
pub const SO_RCVBUF: i32 = 8;
pub const SO_LINGER: i32 = 13;
pub const SO_BINDTODEVICE: i32 = 25;
pub const SO_ATTACH_FILTER: i32 = 26;
pub const SO_INCOMING_CPU: i32 = 49;
pub const SO_BUF_LOCK: i32 = 72;

/// Left out, because they are
/// - facts, not settings: SO_TYPE, SO_ERROR (reading it takes the error away), SO_PEERCRED, SO_SNDLOWAT (always 1), SO_PEERNAME,
///   SO_ACCEPTCONN, SO_PEERSEC, SO_PROTOCOL, SO_DOMAIN, SO_BPF_EXTENSIONS, SO_MEMINFO, SO_INCOMING_NAPI_ID, SO_COOKIE, SO_PEERGROUPS,
///   SO_NETNS_COOKIE, SO_PEERPIDFD;
/// - others by another name: SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_BINDTOIFINDEX, SO_RCVTIMEO_NEW, SO_SNDTIMEO_NEW (the same on x86-64);
/// - without effect: SO_BSDCOMPAT, SO_SECURITY_*;
/// - not to be read: docs/unsupported.md.
pub const TABLE: &[Row] = &[
    row(LEVEL, 1, "SO_DEBUG").takes(ADMIN),
    row(LEVEL, 2, "SO_REUSEADDR").restless(),
    row(LEVEL, 15, "SO_REUSEPORT"),
    row(LEVEL, 5, "SO_DONTROUTE"),
    row(LEVEL, 6, "SO_BROADCAST"),
    row(LEVEL, 9, "SO_KEEPALIVE"),
    row(LEVEL, 10, "SO_OOBINLINE"),
    row(LEVEL, 11, "SO_NO_CHECK"),
    row(LEVEL, SO_BINDTODEVICE, "SO_BINDTODEVICE").restless().takes("CAP_NET_RAW"),
    row(LEVEL, 36, "SO_MARK").restless().takes(RAW_OR_ADMIN),
    row(LEVEL, SO_ATTACH_FILTER, "SO_ATTACH_FILTER").restless(),
    row(LEVEL, 16, "SO_PASSCRED"),
    row(LEVEL, 34, "SO_PASSSEC"),
    row(LEVEL, 76, "SO_PASSPIDFD"),
    row(LEVEL, 83, "SO_PASSRIGHTS"),
    row(LEVEL, 40, "SO_RXQ_OVFL"),
    row(LEVEL, 41, "SO_WIFI_STATUS"),
    row(LEVEL, 43, "SO_NOFCS"),
    row(LEVEL, 45, "SO_SELECT_ERR_QUEUE"),
    row(LEVEL, 46, "SO_BUSY_POLL").takes(ADMIN),
    row(LEVEL, 69, "SO_PREFER_BUSY_POLL").takes(ADMIN),
    row(LEVEL, 60, "SO_ZEROCOPY"),
    row(LEVEL, 61, "SO_TXTIME").takes("CAP_NET_ADMIN, but with CLOCK_MONOTONIC"),
    row(LEVEL, 74, "SO_TXREHASH"),
    row(LEVEL, 73, "SO_RESERVE_MEM"),
    row(LEVEL, 75, "SO_RCVMARK").takes(RAW_OR_ADMIN),
    row(LEVEL, 82, "SO_RCVPRIORITY"),
    row(LEVEL, 20, "SO_RCVTIMEO"),
    row(LEVEL, 21, "SO_SNDTIMEO"),
    // A size locks itself against the kernel's own tuning: the locks as they were come after it.
    row(LEVEL, SO_SNDBUF, "SO_SNDBUF").restless().takes("CAP_NET_ADMIN, beyond net.core.wmem_max"),
    row(LEVEL, SO_RCVBUF, "SO_RCVBUF").restless().takes("CAP_NET_ADMIN, beyond net.core.rmem_max"),
    row(LEVEL, SO_BUF_LOCK, "SO_BUF_LOCK").restless(),
    // TCP caps it by SO_RCVBUF, and raises SO_RCVBUF by it.
    row(LEVEL, 18, "SO_RCVLOWAT").restless().at(Moment::Named),
    row(LEVEL, SO_LINGER, "SO_LINGER"),
    // IP_TOS sets it too.
    row(LEVEL, 12, "SO_PRIORITY").restless().at(Moment::Named).takes(RAW_OR_ADMIN),
    row(LEVEL, 47, "SO_MAX_PACING_RATE"),
    // The kernel writes it for each packet of a connection.
    row(LEVEL, SO_INCOMING_CPU, "SO_INCOMING_CPU").restless().at(Moment::Named),
    // The new forms share one flag with which the old ones read as 0; TCP takes SOF_TIMESTAMPING_OPT_ID when it is connected.
    row(LEVEL, 37, "SO_TIMESTAMPING").at(Moment::Named),
    row(LEVEL, 65, "SO_TIMESTAMPING_NEW").at(Moment::Named),
    row(LEVEL, 29, "SO_TIMESTAMP").at(Moment::Named),
    row(LEVEL, 35, "SO_TIMESTAMPNS").at(Moment::Named),
    row(LEVEL, 63, "SO_TIMESTAMP_NEW").at(Moment::Named),
    row(LEVEL, 64, "SO_TIMESTAMPNS_NEW").at(Moment::Named),
    row(LEVEL, 42, "SO_PEEK_OFF").restless().at(Moment::Filled),
    // From here on the filter stays.
    row(LEVEL, 44, "SO_LOCK_FILTER").at(Moment::Filled),
];
