//! Packets of ours for a packet socket that receives nothing else yet.
//!
//! They come by the loopback interface. The socket is bound to that and to a protocol of no one's, and its filter lets nothing through but what bears a
//! mark. Whoever captures on that interface sees them too.

use super::place;
use crate::sys::{sched, socket, tcp};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

// include/uapi/linux/if_packet.h
const PACKET_STATISTICS: i32 = 6;
/// Local experimental ethertype 1 (IEEE 802).
pub const ETHERTYPE: u16 = 0x88b5;
/// Bytes of a header of Ethernet, and of the mark behind it.
const HEADER: usize = 14;
const MARK: usize = 16;
/// Bytes of a packet that the kernel need not look for, and what it writes before one in a block.
const PACKET_MAX: usize = 16 << 10;
const BEFORE: usize = 512;
/// How long one is waited for, and how often it is sent once more: the kernel drops what comes faster than it can take in.
pub const PATIENCE: Duration = Duration::from_millis(300);
const TRIES: u32 = 5;

/// Sends them.
pub struct Feeder<'a> {
    fd: BorrowedFd<'a>,
    sender: File,
    packet: Vec<u8>,
    to: Vec<u8>,
}

impl<'a> Feeder<'a> {
    /// Packets that take as much as they can of `room` bytes. The socket is closed to all else, and bound, until it is bound and has a filter anew.
    ///
    /// # Errors
    /// As socket(2), bind(2); ENETDOWN where the loopback interface is down.
    pub fn new(fd: BorrowedFd<'a>, room: u32) -> io::Result<Self> {
        let marks = RandomState::new();
        let mark: Vec<u8> = [0u8, 1].iter().flat_map(|half| marks.hash_one(half).to_be_bytes()).collect();
        let index = nix::net::if_::if_nametoindex("lo")?;
        let to = place(ETHERTYPE, index);
        socket::attach_filter(fd, &passes(&mark))?;
        socket::bind(fd, &to).map_err(on_loopback)?;
        let mut packet = [&[0; HEADER - 2][..], &ETHERTYPE.to_be_bytes(), &mark].concat();
        packet.resize((room as usize).saturating_sub(BEFORE).clamp(HEADER + MARK, PACKET_MAX), 0);
        let sender = socket::make(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
        Ok(Self { fd, sender, packet, to })
    }

    /// Sends one, and waits until the socket has received or dropped it.
    ///
    /// # Errors
    /// As sendto(2); `TimedOut` where none comes.
    pub fn send(&mut self) -> io::Result<()> {
        for _ in 0..TRIES {
            match tcp::send_to(self.sender.as_fd(), &self.packet, &self.to) {
                // The interface takes no longer ones.
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) && self.packet.len() > HEADER + MARK => {
                    self.packet.truncate((self.packet.len() / 2).max(HEADER + MARK));
                    continue;
                }
                sent => sent.map_err(on_loopback)?,
            }
            let since = Instant::now();
            while since.elapsed() < PATIENCE {
                if self.received()? != 0 {
                    return Ok(());
                }
                sched::yield_now();
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "packets sent on the loopback interface do not come"))
    }

    /// How many have come since this was asked last, those included that were dropped.
    fn received(&self) -> io::Result<u32> {
        let counted = socket::option(self.fd, libc::SOL_PACKET, PACKET_STATISTICS)?;
        counted.first_chunk().map(|count| u32::from_ne_bytes(*count)).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// Says where it failed.
pub fn on_loopback(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("loopback interface: {error}"))
}

/// A filter (`struct sock_filter`) that lets through what has this behind its header.
fn passes(mark: &[u8]) -> Vec<u8> {
    // include/uapi/linux/filter.h: BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ, BPF_RET; SKF_NET_OFF.
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const NET: u32 = 0xfff0_0000;
    let (words, _) = mark.as_chunks();
    let mut code = Vec::new();
    for (at, word) in (0..).zip(words) {
        code.push((LOAD, 0, NET + 4 * at));
        let behind = (words.len() as u32 - 1 - at) * 2 + 1;
        code.push((EQUAL, behind as u8, u32::from_be_bytes(*word)));
    }
    code.extend([(RETURN, 0, u32::MAX), (RETURN, 0, 0)]);
    let instruction = |(code, otherwise, value): (u16, u8, u32)| {
        [&code.to_ne_bytes()[..], &[0, otherwise], &value.to_ne_bytes()].concat()
    };
    code.into_iter().flat_map(instruction).collect()
}
