//! Rings of packet sockets (Documentation/networking/packet_mmap.rst): where the kernel stands in them, which it tells nobody, and what it has handed
//! over. Nothing in them is changed.
//!
//! The kernel goes on filling a ring while the program stands still. Without the program, which alone gives slots back, each slot is handed over at most
//! once: what is seen to be equal twice was so all the time in between.

use super::super::Refusal;
use super::{blocks, frames};
use crate::image::model::socket::packet::{BLOCKS, Kept, Layout, Ring};
use crate::sys::packet_ring::{self, Memory};
use crate::sys::socket;
use std::io;
use std::os::fd::BorrowedFd;

/// How often a ring is looked at that changes meanwhile.
const TRIES: usize = 20;

/// What came of a look.
pub enum Seen {
    /// The next slot of the kernel, and what stands in the others.
    Standing(u32, Vec<Kept>),
    /// It has changed meanwhile.
    Changed,
    /// It cannot be known where the kernel stands: now, or as long as the program treats it so.
    Unknown(Refusal),
}

/// A ring that is looked at.
pub struct Subject<'a> {
    /// The socket.
    pub fd: BorrowedFd<'a>,
    /// How it is laid out.
    pub ring: &'a Ring,
    /// All of it.
    pub memory: &'a Memory,
}

/// TPACKET_V1 0, TPACKET_V2 1, TPACKET_V3 2.
///
/// # Errors
/// As getsockopt(2).
pub fn version(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // include/uapi/linux/if_packet.h
    const PACKET_VERSION: i32 = 10;
    socket::number(fd, libc::SOL_PACKET, PACKET_VERSION).map(i32::cast_unsigned)
}

/// The ring of a socket, or why it cannot be saved. It begins where `memory` does.
///
/// # Errors
/// As getsockopt(2).
pub fn read(fd: BorrowedFd<'_>, layout: Layout, memory: &Memory) -> io::Result<Result<Ring, Refusal>> {
    let version = version(fd)?;
    let mut ring = Ring { version, layout, next: 0, kept: Vec::new() };
    if version > BLOCKS || layout.block_size == 0 || layout.frame_size == 0 {
        return Ok(Err(Refusal::Never(format!("its ring is of version {version}, which is not supported"))));
    }
    if !packet_ring::can_settle() {
        let reason = "where the kernel stands in its ring cannot be seen, for this kernel does not let wait until packets are whole (membarrier(2))";
        return Ok(Err(Refusal::Never(reason.into())));
    }
    for _ in 0..TRIES {
        let subject = Subject { fd, ring: &ring, memory };
        match if version == BLOCKS { blocks::look(&subject)? } else { frames::look(&subject)? } {
            Seen::Standing(next, kept) => {
                (ring.next, ring.kept) = (next, kept);
                return Ok(Ok(ring));
            }
            Seen::Changed => {}
            Seen::Unknown(refusal) => return Ok(Err(refusal)),
        }
    }
    Ok(Err(Refusal::passing("packets come to its ring faster than can be seen where the kernel stands in it")))
}

impl Seen {
    /// The program has changed what is the kernel's.
    pub fn changed_by_program() -> Self {
        let reason = "where the kernel stands in its ring cannot be seen: the program has changed headers of slots";
        Self::Unknown(Refusal::Never(reason.into()))
    }
}
