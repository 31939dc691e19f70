//! Options of level IPPROTO_TCP (tcp(7), include/uapi/linux/tcp.h, net/ipv4/tcp.c), in the order in which they are set.

use super::row::{Moment, Row, row};

const LEVEL: i32 = libc::IPPROTO_TCP;

/// The largest segment; of a connection, what was agreed on.
pub const TCP_MAXSEG: i32 = 2;
/// The largest window; of a connection, what follows from its buffer.
pub const TCP_WINDOW_CLAMP: i32 = 10;

/// Left out, because they are
/// - facts, not settings: TCP_INFO, TCP_CC_INFO, TCP_SAVED_SYN, TCP_IS_MPTCP, TCP_ZEROCOPY_RECEIVE;
/// - of repair mode: TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_REPAIR_OPTIONS, TCP_REPAIR_WINDOW, TCP_TIMESTAMP;
/// - refused where they are in use: TCP_ULP;
/// - not to be read: docs/unsupported.md.
pub const TABLE: &[Row] = &[
    // It brings its own defaults along.
    row(LEVEL, 13, "TCP_CONGESTION").restless().takes("CAP_NET_ADMIN, beyond net.ipv4.tcp_allowed_congestion_control"),
    row(LEVEL, TCP_MAXSEG, "TCP_MAXSEG").restless(),
    row(LEVEL, 1, "TCP_NODELAY"),
    row(LEVEL, 4, "TCP_KEEPIDLE"),
    row(LEVEL, 5, "TCP_KEEPINTVL"),
    row(LEVEL, 6, "TCP_KEEPCNT"),
    row(LEVEL, 7, "TCP_SYNCNT"),
    row(LEVEL, 8, "TCP_LINGER2"),
    row(LEVEL, 9, "TCP_DEFER_ACCEPT"),
    row(LEVEL, TCP_WINDOW_CLAMP, "TCP_WINDOW_CLAMP").restless(),
    row(LEVEL, 16, "TCP_THIN_LINEAR_TIMEOUTS"),
    row(LEVEL, 18, "TCP_USER_TIMEOUT"),
    row(LEVEL, 25, "TCP_NOTSENT_LOWAT"),
    row(LEVEL, 27, "TCP_SAVE_SYN"),
    row(LEVEL, 34, "TCP_FASTOPEN_NO_COOKIE"),
    row(LEVEL, 36, "TCP_INQ"),
    row(LEVEL, 37, "TCP_TX_DELAY"),
    row(LEVEL, 44, "TCP_RTO_MAX_MS"),
    row(LEVEL, 45, "TCP_RTO_MIN_US"),
    row(LEVEL, 46, "TCP_DELACK_MAX_US"),
    // What connects would wait for the first bytes.
    row(LEVEL, 30, "TCP_FASTOPEN_CONNECT").at(Moment::Named),
    row(LEVEL, 23, "TCP_FASTOPEN").at(Moment::Named),
    row(LEVEL, 12, "TCP_QUICKACK").restless().at(Moment::Filled),
    row(LEVEL, 3, "TCP_CORK").restless().at(Moment::Filled),
];
