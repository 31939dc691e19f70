//! Rings for sending of packet sockets: what stands in them, while none of their packets is in flight. Where the kernel stands is asked later ([`super::asking`]).

use super::super::Refusal;
use super::ring::version;
use crate::image::model::socket::packet::{BLOCKS, Kept, Layout, SendRing};
use crate::sys::packet_ring::Memory;
use crate::sys::socket;
use std::io;
use std::os::fd::BorrowedFd;

// include/uapi/linux/if_packet.h
const PACKET_TX_HAS_OFF: i32 = 19;

/// The ring of a socket whose program stands still, or why it cannot be saved. It begins at that offset of the memory.
///
/// # Errors
/// As getsockopt(2).
pub fn read(
    fd: BorrowedFd<'_>,
    layout: Layout,
    (memory, start): (&Memory, usize),
) -> io::Result<Result<SendRing, Refusal>> {
    let version = version(fd)?;
    if version > BLOCKS || layout.block_size == 0 || layout.frame_size == 0 {
        return Ok(Err(Refusal::Never(format!(
            "its ring for sending is of version {version}, which is not supported"
        ))));
    }
    if socket::number(fd, libc::SOL_PACKET, PACKET_TX_HAS_OFF).is_err() {
        let reason = "it has a ring for sending, and this kernel does not tell where packets begin in its frames (PACKET_TX_HAS_OFF)";
        return Ok(Err(Refusal::Never(reason.into())));
    }
    // The kernel writes to the frame of a packet until nobody has that any more, and counts its memory until then.
    if socket::unsent(fd)? != 0 {
        let reason = "packets of its ring for sending (PACKET_TX_RING) are in flight: a device still holds them";
        return Ok(Err(Refusal::passing(reason)));
    }
    let mut kept = Vec::new();
    for slot in 0..layout.blocks {
        let size = layout.block_size as usize;
        let mut bytes = memory.copy(start + slot as usize * size, size)?;
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if used != 0 {
            bytes.truncate(used);
            bytes.shrink_to_fit();
            kept.push(Kept { slot, start: 0, bytes });
        }
    }
    Ok(Ok(SendRing { version, layout, next: 0, kept }))
}
