//! The options that are read of a socket and set again: one table for both.

mod base;
mod datagram;
mod filter;
mod ip;
mod row;
pub mod tcp;

pub use row::{Moment, Row};

use crate::image::model::socket::SocketOption;
use crate::sys::socket;
use base::{SO_ATTACH_FILTER, SO_BUF_LOCK, SO_INCOMING_CPU, SO_LINGER, SO_RCVBUF, SO_SNDBUF};
use std::io;
use std::os::fd::BorrowedFd;

/// Every table, in the order in which options are set within one [`Moment`].
const TABLES: &[&[Row]] = &[
    ip::V4_TABLE,
    ip::V6_TABLE,
    datagram::UDP_TABLE,
    datagram::UDP_LITE_TABLE,
    datagram::RAW_TABLE,
    datagram::PACKET_TABLE,
    datagram::NETLINK_TABLE,
    tcp::TABLE,
    base::TABLE,
];

/// Whether a socket of this family, type and protocol can have options of this level at all. Asking others for them could be answered by chance: levels are
/// numbers of protocols.
fn has_level(level: i32, (domain, kind, protocol): (i32, i32, i32)) -> bool {
    let internet = matches!(domain, libc::AF_INET | libc::AF_INET6);
    match level {
        libc::SOL_SOCKET => true,
        libc::IPPROTO_IP => internet,
        libc::IPPROTO_IPV6 => domain == libc::AF_INET6,
        libc::SOL_UDP => internet && kind == libc::SOCK_DGRAM && matches!(protocol, libc::IPPROTO_UDP | 136),
        136 => internet && kind == libc::SOCK_DGRAM && protocol == 136,
        255 => domain == libc::AF_INET && kind == libc::SOCK_RAW && protocol == libc::IPPROTO_ICMP,
        libc::IPPROTO_ICMPV6 => domain == libc::AF_INET6 && kind == libc::SOCK_RAW && protocol == level,
        libc::SOL_PACKET => domain == libc::AF_PACKET,
        libc::SOL_NETLINK => domain == libc::AF_NETLINK,
        libc::IPPROTO_TCP => internet && kind == libc::SOCK_STREAM && protocol == level,
        _ => false,
    }
}

/// Reads the options of a socket of this family, type and protocol; or why one of them cannot be had.
///
/// # Errors
/// As getsockopt(2). What this kernel or this socket does not have is left out.
pub fn collect(fd: BorrowedFd<'_>, kind: (i32, i32, i32)) -> io::Result<Result<Vec<SocketOption>, String>> {
    Ok(read(fd, kind, |_| true)?.map(|values| values.options()))
}

/// What a socket has, in one piece: for each option the number of its row and the length of its value, two bytes each, and the value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Values(Vec<u8>);

impl Values {
    /// More than most sockets take.
    const ROOM: usize = 1 << 10;

    fn push(&mut self, row: usize, value: &[u8]) {
        self.0.extend((row as u16).to_ne_bytes());
        self.0.extend((value.len() as u16).to_ne_bytes());
        self.0.extend(value);
    }

    /// One by one.
    #[must_use]
    pub fn options(&self) -> Vec<SocketOption> {
        let rows: Vec<&Row> = TABLES.iter().copied().flatten().collect();
        let (mut rest, mut options) = (self.0.as_slice(), Vec::new());
        while let Some((&[a, b, c, d], after)) = rest.split_first_chunk() {
            let (value, after) = after.split_at(u16::from_ne_bytes([c, d]).into());
            let row = rows[usize::from(u16::from_ne_bytes([a, b]))];
            options.push(SocketOption { level: row.level, name: row.name, value: value.to_vec() });
            rest = after;
        }
        options
    }
}

/// As [`collect`], those that are wanted.
///
/// # Errors
/// As [`collect`].
pub fn read(
    fd: BorrowedFd<'_>,
    kind: (i32, i32, i32),
    is_wanted: impl Fn(&Row) -> bool,
) -> io::Result<Result<Values, String>> {
    let mut values = Values(Vec::with_capacity(Values::ROOM));
    let mut buffer = [0u8; socket::VALUE_MAX];
    let rows = TABLES.iter().copied().flatten().enumerate();
    for (number, row) in rows.filter(|(_, row)| has_level(row.level, kind) && is_wanted(row)) {
        if (row.level, row.name) == (libc::SOL_SOCKET, SO_ATTACH_FILTER) {
            match filter::collect(fd)? {
                Ok(program) => values.push(number, &program),
                Err(reason) => return Ok(Err(reason)),
            }
            continue;
        }
        match socket::option_into(fd, row.level, row.name, &mut buffer) {
            Ok(value) => values.push(number, value),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Ok(values))
}

/// Sets, of the options of one moment, what the socket does not have already.
///
/// # Errors
/// As setsockopt(2), with the name of the option and what it takes; `InvalidData` where the kernel has taken another value.
pub fn apply(fd: BorrowedFd<'_>, options: &[SocketOption], moment: Moment) -> io::Result<()> {
    due(options, moment).try_for_each(|due| give(fd, due, options).map(drop))
}

/// An option that is to be set, of all that a socket is to have.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// Its row.
    pub row: &'static Row,
    /// Its place among them.
    pub at: usize,
}

/// Those of one moment, in the order in which they are set.
pub fn due(options: &[SocketOption], moment: Moment) -> impl Iterator<Item = Due> {
    let rows = TABLES.iter().copied().flatten().filter(move |row| row.moment == moment);
    let place = |row: &Row| options.iter().position(|option| (option.level, option.name) == (row.level, row.name));
    rows.filter_map(move |row| Some(Due { row, at: place(row)? }))
}

/// Sets one of all the options of a socket, unless it has it already; whether it had.
///
/// # Errors
/// As [`apply`].
pub fn give(fd: BorrowedFd<'_>, due: Due, all: &[SocketOption]) -> io::Result<bool> {
    set(fd, &all[due.at], all).map_err(|error| named(due.row, &error))
}

/// Whether a socket has it.
#[must_use]
pub fn has(fd: BorrowedFd<'_>, option: &SocketOption) -> bool {
    value(fd, option).is_ok_and(|now| now == option.value)
}

/// The value of an option among others, if it is an int.
#[must_use]
pub fn number(options: &[SocketOption], level: i32, name: i32) -> Option<i32> {
    let option = options.iter().find(|option| (option.level, option.name) == (level, name))?;
    option.value.as_slice().try_into().ok().map(i32::from_ne_bytes)
}

/// What a socket has in place of an option.
fn value(fd: BorrowedFd<'_>, option: &SocketOption) -> io::Result<Vec<u8>> {
    match (option.level, option.name) {
        (libc::SOL_SOCKET, SO_ATTACH_FILTER) => socket::filter(fd),
        (level, name) => socket::option(fd, level, name),
    }
}

fn set(fd: BorrowedFd<'_>, option: &SocketOption, all: &[SocketOption]) -> io::Result<bool> {
    let SocketOption { level, name, value: wanted } = option;
    if value(fd, option).is_ok_and(|now| now == *wanted) {
        return Ok(true);
    }
    let mut is_checked = true;
    match (*level, *name) {
        (libc::SOL_SOCKET, SO_SNDBUF) => {
            size_buffer(fd, option, libc::SO_SNDBUFFORCE, !is_locked(all, 1))?;
            is_checked = false;
        }
        (libc::SOL_SOCKET, SO_RCVBUF) => {
            size_buffer(fd, option, libc::SO_RCVBUFFORCE, !is_locked(all, 2))?;
            is_checked = false;
        }
        (libc::SOL_SOCKET, SO_ATTACH_FILTER) => socket::attach_filter(fd, wanted)?,
        (libc::SOL_SOCKET, SO_LINGER) => linger(fd, wanted)?,
        (libc::SOL_SOCKET, SO_INCOMING_CPU) => {
            // The kernel writes it for each packet that comes.
            socket::set_option(fd, *level, *name, wanted)?;
            is_checked = false;
        }
        _ => socket::set_option(fd, *level, *name, wanted)?,
    }
    let is = if is_checked { value(fd, option)? } else { return Ok(false) };
    let kind = io::ErrorKind::InvalidData;
    if is == *wanted { Ok(false) } else { Err(io::Error::new(kind, other_value(&is, wanted))) }
}

/// Whether a program has fixed the size of its buffer (SOCK_SNDBUF_LOCK 1, SOCK_RCVBUF_LOCK 2); otherwise the kernel changes it as it likes.
fn is_locked(options: &[SocketOption], bit: i32) -> bool {
    number(options, libc::SOL_SOCKET, SO_BUF_LOCK).is_none_or(|locks| locks & bit != 0)
}

/// The kernel doubles what it is given (socket(7)). Beyond the limit of the system it takes CAP_NET_ADMIN; a size that is the kernel's own is then left to it.
fn size_buffer(fd: BorrowedFd<'_>, option: &SocketOption, force: i32, free: bool) -> io::Result<()> {
    let SocketOption { level, name, value } = option;
    let size = value.as_slice().try_into().map(i32::from_ne_bytes);
    let half = (size.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))? / 2).to_ne_bytes();
    let forced = socket::set_option(fd, *level, force, &half);
    let plain = if forced.is_ok() { forced } else { socket::set_option(fd, *level, *name, &half) };
    if free {
        return Ok(());
    }
    plain?;
    let is = socket::option(fd, *level, *name)?;
    let kind = io::ErrorKind::PermissionDenied;
    if is == *value { Ok(()) } else { Err(io::Error::new(kind, other_value(&is, value))) }
}

/// A time that is not in use is taken only when it is.
fn linger(fd: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
    let on = [&1i32.to_ne_bytes()[..], value.get(4..).unwrap_or_default()].concat();
    socket::set_option(fd, libc::SOL_SOCKET, SO_LINGER, &on)?;
    socket::set_option(fd, libc::SOL_SOCKET, SO_LINGER, value)
}

fn other_value(is: &[u8], wanted: &[u8]) -> String {
    let text = |value: &[u8]| match <[u8; 4]>::try_from(value) {
        Ok(word) => i32::from_ne_bytes(word).to_string(),
        Err(_) => format!("{value:02x?}"),
    };
    format!("the kernel makes it {}, and it was {}", text(is), text(wanted))
}

fn named(row: &Row, error: &io::Error) -> io::Error {
    let refused = matches!(error.kind(), io::ErrorKind::PermissionDenied);
    let hint = if refused && !row.takes.is_empty() { format!(" (it takes {})", row.takes) } else { String::new() };
    io::Error::new(error.kind(), format!("{}: {error}{hint}", row.title))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP | libc::EINVAL))
}

#[cfg(test)]
mod tests;
