//! Rings for sending of packet sockets: the kernel, which begins each at its first frame, is led to where it stood by packets of ours, and what stood there is written.

use super::feeder::{ETHERTYPE, PATIENCE, on_loopback};
use super::place;
use crate::image::model::socket::SocketOption;
use crate::image::model::socket::packet::SendRing;
use crate::resources::socket::options;
use crate::sys::packet_ring::{self, Memory, send};
use crate::sys::{sched, socket};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

// include/uapi/linux/if_packet.h
const PACKET_QDISC_BYPASS: i32 = 20;
const PACKET_VNET_HDR: i32 = 15;
const PACKET_VNET_HDR_SZ: i32 = 24;
/// Bytes of `struct virtio_net_hdr`.
const VNET_HDR: usize = 10;
/// Offset of the type in a header of Ethernet, and bytes of a packet of ours: the smallest frame has room for them.
const TYPE: usize = 12;
const PACKET: usize = 16;
/// Frames that are sent together: the loopback interface takes in some hundred.
const TOGETHER: u32 = 32;

/// A ring that is given its content.
pub struct Filling<'a> {
    /// The socket, of SOCK_RAW or SOCK_DGRAM.
    pub fd: BorrowedFd<'a>,
    pub kind: i32,
    /// All its options.
    pub options: &'a [SocketOption],
    pub ring: &'a SendRing,
    /// The memory of all its rings, and where this one begins in it.
    pub memory: &'a Memory,
    pub start: usize,
}

impl Filling<'_> {
    /// Leads the kernel to where it stood, and writes what stood in the ring.
    ///
    /// # Errors
    /// As sendto(2): ENETDOWN where the loopback interface is down. `TimedOut` where packets stay in it.
    pub fn fill(&self) -> io::Result<()> {
        if self.ring.next != 0 {
            self.lead()?;
        }
        let size = self.ring.layout.block_size as usize;
        // Packets of ours have left something in frames that were empty.
        let empty = vec![0; size];
        for block in 0..self.ring.layout.blocks {
            self.memory.write(self.start + block as usize * size, &empty)?;
        }
        let place = |slot: u32| self.start + slot as usize * size;
        self.ring.kept.iter().try_for_each(|kept| self.memory.write(place(kept.slot), &kept.bytes))
    }

    fn lead(&self) -> io::Result<()> {
        // Past whatever looks at packets that are sent (tc(8)) and might keep or redirect them.
        let before = socket::option(self.fd, libc::SOL_PACKET, PACKET_QDISC_BYPASS)?;
        socket::set_option(self.fd, libc::SOL_PACKET, PACKET_QDISC_BYPASS, &1_i32.to_ne_bytes())?;
        let to = place(ETHERTYPE, nix::net::if_::if_nametoindex("lo").map_err(|errno| on_loopback(errno.into()))?);
        let mut first = 0;
        while first < self.ring.next {
            let end = self.ring.next.min(first + TOGETHER);
            (first..end).try_for_each(|frame| self.hand_over(frame))?;
            self.send(first..end, &to)?;
            first = end;
        }
        socket::set_option(self.fd, libc::SOL_PACKET, PACKET_QDISC_BYPASS, &before)
    }

    /// Makes a frame one with a packet of ours.
    fn hand_over(&self, frame: u32) -> io::Result<()> {
        let at = self.at(frame);
        let send::Header { status, length, starts, packet } = self.header();
        let number = |name| options::number(self.options, libc::SOL_PACKET, name).unwrap_or(0);
        let before = match (number(PACKET_VNET_HDR_SZ), number(PACKET_VNET_HDR)) {
            (0, 0) => 0,
            (0, _) => VNET_HDR,
            (size, _) => size as usize,
        };
        if self.kind == libc::SOCK_RAW {
            self.memory.write(at + packet + before + TYPE, &ETHERTYPE.to_be_bytes())?;
        }
        for start in starts {
            self.memory.write(at + start, &(packet as u16).to_ne_bytes())?;
        }
        self.memory.set_word(at + length, (before + PACKET) as u32)?;
        self.memory.set_word(at + status, send::REQUEST)
    }

    /// Has frames sent, and waits until nobody has them any more.
    fn send(&self, frames: std::ops::Range<u32>, to: &[u8]) -> io::Result<()> {
        let since = Instant::now();
        loop {
            match packet_ring::send_frames(self.fd, to) {
                // It is full for a moment.
                Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN)) => {
                    return Err(on_loopback(error));
                }
                _ => {}
            }
            let is_gone = |frame| Ok::<_, io::Error>(self.status(frame)? & !send::TIMES == send::AVAILABLE);
            let mut left = 0;
            for frame in frames.clone() {
                left += u32::from(!is_gone(frame)?);
            }
            if left == 0 && socket::unsent(self.fd)? == 0 {
                return Ok(());
            }
            if since.elapsed() > PATIENCE {
                let reason = "packets sent on the loopback interface stay in it";
                return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
            }
            sched::yield_now();
        }
    }

    fn status(&self, frame: u32) -> io::Result<u32> {
        self.memory.word(self.at(frame) + self.header().status)
    }

    fn at(&self, frame: u32) -> usize {
        self.start + self.ring.layout.frame_at(frame)
    }

    fn header(&self) -> send::Header {
        send::HEADERS[(self.ring.version as usize).min(send::HEADERS.len() - 1)]
    }
}
