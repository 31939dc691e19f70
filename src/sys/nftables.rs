//! The few messages of nf_tables (include/uapi/linux/netfilter/nf_tables.h) that it takes to drop the packets of certain TCP connections, and
//! to let them pass again. No other program is needed.
//!
//! A table has one set for each family, whose elements are pairs of addresses, and two chains, one for what comes and one for what goes.
#![allow(unsafe_code)]

use super::{open, socket};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

/// What names of our tables begin with.
pub const PREFIX: &str = "snap-";

const NETLINK_NETFILTER: i32 = 12;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;
const APPEND: u16 = 0x800;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const INPUT: u32 = 1;
const OUTPUT: u32 = 3;
/// Before connection tracking and everything else of the user's.
const PRIORITY: i32 = -350;
/// NFT_TABLE_F_OWNER: the table goes when the socket that has made it is closed.
const OWNER: u32 = 2;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// NFT_REG32_00, the first register of four bytes.
const REGISTER: u32 = 8;
/// Elements in one message, whose attributes are at most 64 KiB long.
const ELEMENTS: usize = 1000;

/// A connection by its own address and that of the other side.
pub type Connection = (SocketAddr, SocketAddr);

/// A table that lasts as long as this.
#[derive(Debug)]
pub struct Owned {
    socket: File,
}

impl Owned {
    /// The same under a descriptor number from `lowest` on.
    ///
    /// # Errors
    /// As fcntl(2).
    pub fn lift(self, lowest: i32) -> io::Result<Self> {
        Ok(Self { socket: open::lift(self.socket, lowest)? })
    }
}

/// Makes a table that drops the packets of these connections until what is returned is dropped, or until we die.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN in the network namespace; EOPNOTSUPP, `EPROTONOSUPPORT` and the like on a kernel without nf_tables.
pub fn own(name: &str, connections: &[Connection]) -> io::Result<Owned> {
    let mut socket = connected()?;
    make(&mut socket, name, connections, OWNER)?;
    Ok(Owned { socket })
}

/// Makes a table that stays until [`remove`] takes it away.
///
/// # Errors
/// As [`own`].
pub fn leave(name: &str, connections: &[Connection]) -> io::Result<()> {
    make(&mut connected()?, name, connections, 0)
}

/// Takes a table away; whether there was one.
///
/// # Errors
/// As [`own`].
pub fn remove(name: &str) -> io::Result<bool> {
    match batch(&mut connected()?, vec![message(DEL_TABLE, 0, NFPROTO_INET, &text(1, name))]) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What takes a table away when it is written to its socket, by whoever has that.
#[derive(Debug)]
pub struct Remover {
    /// The socket.
    pub socket: File,
    /// The message.
    pub message: Vec<u8>,
}

/// See [`Remover`].
///
/// # Errors
/// As [`own`].
pub fn remover(name: &str) -> io::Result<Remover> {
    let message = batch_of(vec![message(DEL_TABLE, 0, NFPROTO_INET, &text(1, name))]);
    Ok(Remover { socket: connected()?, message })
}

/// The names of our tables in this network namespace.
///
/// # Errors
/// As [`own`].
pub fn names() -> io::Result<Vec<String>> {
    let mut socket = connected()?;
    let mut request = message(GET_TABLE, DUMP, NFPROTO_INET, &[]);
    finish(&mut request, 1);
    socket.write_all(&request)?;
    let mut names = Vec::new();
    loop {
        for answer in receive(&mut socket)? {
            match answer {
                Answer::Done => return Ok(names),
                Answer::Error(error) => return Err(error),
                Answer::Acknowledged => {}
                Answer::Other(payload) => names.extend(name_in(&payload).filter(|name| name.starts_with(PREFIX))),
            }
        }
    }
}

fn connected() -> io::Result<File> {
    let socket = socket::make(libc::AF_NETLINK, libc::SOCK_RAW, NETLINK_NETFILTER)?;
    let mut address = [0u8; 12];
    address[..2].copy_from_slice(&(libc::AF_NETLINK as u16).to_ne_bytes());
    socket::bind(socket.as_fd(), &address)?;
    // One batch is one datagram.
    let size = (1i32 << 20).to_ne_bytes();
    let forced = socket::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &size);
    forced.or_else(|_| socket::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, &size))?;
    Ok(socket)
}

fn make(socket: &mut File, name: &str, connections: &[Connection], flags: u32) -> io::Result<()> {
    let table = text(1, name);
    let create = |kind: u16, flags: u16, rest: &[Vec<u8>]| {
        message(kind, CREATE | flags, NFPROTO_INET, &[table.clone(), rest.concat()].concat())
    };
    let mut messages = vec![create(NEW_TABLE, EXCLUSIVE, &[number(2, flags)])];
    for (chain, hook) in [("in", INPUT), ("out", OUTPUT)] {
        let hooked = nest(4, &[number(1, hook), number(2, PRIORITY.cast_unsigned())]);
        messages.push(create(NEW_CHAIN, 0, &[text(3, chain), hooked, number(5, 1), text(7, "filter")]));
    }
    for family in [Family::V4, Family::V6] {
        let size = number(5, family.key_length());
        let set = [text(2, family.set()), number(3, 0), number(4, 0), size, number(10, family.id())];
        messages.push(create(NEW_SET, 0, &set));
        for (chain, comes) in [("in", true), ("out", false)] {
            messages.push(create(NEW_RULE, APPEND, &[text(2, chain), nest(4, &family.expressions(comes))]));
        }
    }
    batch(socket, messages)?;
    let mut keys: [Vec<Vec<u8>>; 2] = [Vec::new(), Vec::new()];
    for (family, key) in connections.iter().filter_map(key) {
        keys[family.id() as usize - 1].push(nest(1, &[nest(1, &[attribute(1, &key)])]));
    }
    for (family, keys) in [Family::V4, Family::V6].iter().zip(&keys) {
        for some in keys.chunks(ELEMENTS) {
            batch(socket, vec![create(NEW_ELEMENTS, 0, &[text(2, family.set()), nest(3, some)])])?;
        }
    }
    Ok(())
}

/// What is different between the two families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn set(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }

    /// Number of its set within a batch.
    fn id(self) -> u32 {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
        }
    }

    fn address_length(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    /// Two addresses and two ports, each port in a register of its own.
    fn key_length(self) -> u32 {
        2 * (self.address_length() + 4)
    }

    /// Drops a packet whose other side and own side are in the set, in this order: source and destination of what comes.
    fn expressions(self, comes: bool) -> Vec<Vec<u8>> {
        let (protocol, source, destination) = match self {
            Self::V4 => (NFPROTO_IPV4, 12, 16),
            Self::V6 => (NFPROTO_IPV6, 8, 24),
        };
        let ((peer, peer_port), (own, own_port)) =
            if comes { ((source, 0), (destination, 2)) } else { ((destination, 2), (source, 0)) };
        let length = self.address_length();
        let registers = length / 4;
        let load = |register: u32, base: u32, offset: u32, length: u32| {
            let parts = [number(1, REGISTER + register), number(2, base), number(3, offset), number(4, length)];
            expression("payload", &parts)
        };
        let is = |key: u32, value: u8| {
            let loaded = expression("meta", &[number(2, key), number(1, REGISTER)]);
            let compared = nest(3, &[attribute(1, &[value])]);
            [loaded, expression("cmp", &[number(1, REGISTER), number(2, 0), compared])]
        };
        let mut all = Vec::new();
        all.extend(is(META_NFPROTO, protocol));
        all.extend(is(META_L4PROTO, libc::IPPROTO_TCP as u8));
        all.push(load(0, NETWORK_HEADER, peer, length));
        all.push(load(registers, TRANSPORT_HEADER, peer_port, 2));
        all.push(load(registers + 1, NETWORK_HEADER, own, length));
        all.push(load(2 * registers + 1, TRANSPORT_HEADER, own_port, 2));
        all.push(expression("lookup", &[text(1, self.set()), number(2, REGISTER), number(4, self.id())]));
        // NF_DROP is 0.
        all.push(expression("immediate", &[number(1, 0), nest(2, &[nest(2, &[number(1, 0)])])]));
        all
    }
}

/// The element of a set for a connection.
fn key((own, peer): &Connection) -> Option<(Family, Vec<u8>)> {
    let (own_port, peer_port) = (own.port().to_be_bytes(), peer.port().to_be_bytes());
    match (own.ip().to_canonical(), peer.ip().to_canonical()) {
        (IpAddr::V4(own), IpAddr::V4(peer)) => {
            let key = [&peer.octets()[..], &peer_port, &[0; 2], &own.octets(), &own_port, &[0; 2]];
            Some((Family::V4, key.concat()))
        }
        (IpAddr::V6(own), IpAddr::V6(peer)) => {
            let key = [&peer.octets()[..], &peer_port, &[0; 2], &own.octets(), &own_port, &[0; 2]];
            Some((Family::V6, key.concat()))
        }
        _ => None,
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = [&(value.len() as u16 + 4).to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

fn nest(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    const NESTED: u16 = 0x8000;
    attribute(kind | NESTED, &parts.concat())
}

fn expression(name: &str, parts: &[Vec<u8>]) -> Vec<u8> {
    nest(1, &[text(1, name), nest(2, parts)])
}

/// A message without its number: `struct nlmsghdr`, `struct nfgenmsg`, attributes.
fn message(kind: u16, flags: u16, family: u8, attributes: &[u8]) -> Vec<u8> {
    framed(NFNL_SUBSYS_NFTABLES << 8 | kind, REQUEST | flags, family, 0, attributes)
}

fn framed(kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) -> Vec<u8> {
    let head = [&[0; 4][..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8], &[family, 0], &resource.to_be_bytes()];
    [&head.concat()[..], attributes].concat()
}

/// Gives a message its length and number.
fn finish(message: &mut [u8], sequence: u32) {
    let length = (message.len() as u32).to_ne_bytes();
    message[..4].copy_from_slice(&length);
    message[8..12].copy_from_slice(&sequence.to_ne_bytes());
}

/// Has all of these done, or none. The last one is acknowledged when all are.
fn batch(socket: &mut File, messages: Vec<Vec<u8>>) -> io::Result<()> {
    socket.write_all(&batch_of(messages))?;
    loop {
        for answer in receive(socket)? {
            match answer {
                Answer::Acknowledged | Answer::Done => return Ok(()),
                Answer::Error(error) => return Err(error),
                Answer::Other(_) => {}
            }
        }
    }
}

fn batch_of(mut messages: Vec<Vec<u8>>) -> Vec<u8> {
    if let Some(last) = messages.last_mut() {
        let flags = u16::from_ne_bytes([last[6], last[7]]) | ACK;
        last[6..8].copy_from_slice(&flags.to_ne_bytes());
    }
    let border = |kind| framed(kind, REQUEST, 0, NFNL_SUBSYS_NFTABLES, &[]);
    let mut all = vec![border(BATCH_BEGIN)];
    all.extend(messages);
    all.push(border(BATCH_END));
    for (sequence, message) in all.iter_mut().enumerate() {
        finish(message, sequence as u32 + 1);
    }
    all.concat()
}

/// What the kernel answers.
enum Answer {
    Acknowledged,
    Error(io::Error),
    Done,
    Other(Vec<u8>),
}

fn receive(socket: &mut File) -> io::Result<Vec<Answer>> {
    let mut buffer = vec![0u8; 64 << 10];
    let count = socket.read(&mut buffer)?;
    let mut rest = &buffer[..count];
    let mut answers = Vec::new();
    while let Some((head, _)) = rest.split_first_chunk::<16>() {
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = u16::from_ne_bytes([head[4], head[5]]);
        let Some(payload) = rest.get(16..length) else { break };
        answers.push(match (kind, payload.first_chunk()) {
            (ERROR, Some(code)) if *code == [0; 4] => Answer::Acknowledged,
            (ERROR, Some(code)) => Answer::Error(io::Error::from_raw_os_error(-i32::from_ne_bytes(*code))),
            (DONE, _) => Answer::Done,
            _ => Answer::Other(payload.to_vec()),
        });
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(answers)
}

/// The name of a table in a message about it.
fn name_in(payload: &[u8]) -> Option<String> {
    const NAME: u16 = 1;
    let mut rest = payload.get(4..)?;
    while let Some((head, _)) = rest.split_first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = rest.get(4..length)?;
        if u16::from_ne_bytes([head[2], head[3]]) == NAME {
            return Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests;
