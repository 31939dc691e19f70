//! Packet sockets.

pub mod asking;
mod blocks;
mod frames;
pub mod ring;
mod sending;

use super::Refusal;
use crate::image::model::socket::datagram::Device;
use crate::image::model::socket::packet::{Bound, Layout, Packet, PacketMembership, RING_MAX, Ring, SendRing};
use crate::sys::packet_diag::{self, Membership, PacketSocket};
use crate::sys::packet_ring::{self, Memory};
use crate::sys::socket;
use std::io;
use std::os::fd::BorrowedFd;

/// The type of packet sockets before Linux 2.2, whose addresses are names (packet(7)).
pub const SOCK_PACKET: i32 = 10;

/// What is known of it, or why it cannot be saved.
///
/// # Errors
/// As getsockname(2) and its like.
pub fn collect(ino: u64, fd: BorrowedFd<'_>, kind: i32) -> io::Result<Result<Packet, Refusal>> {
    let never = |reason: &str| Ok(Err(Refusal::Never(reason.to_owned())));
    if !matches!(kind, libc::SOCK_RAW | libc::SOCK_DGRAM | SOCK_PACKET) {
        return never("it is a packet socket of a type that is not known");
    }
    let all = match packet_diag::read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return never(
                "what packet sockets have asked devices for is told by packet_diag alone, which this kernel lacks",
            );
        }
        read => read?,
    };
    let Some(found) = all.into_iter().find(|socket| socket.ino == ino) else {
        return never("it is a packet socket of another network namespace than that of snap");
    };
    if found.has_fanout && is_programmed(socket::number(fd, libc::SOL_PACKET, libc::PACKET_FANOUT)?) {
        return never("packets of its group are distributed by a program (PACKET_FANOUT_DATA), which cannot be read");
    }
    let waiting = socket::waiting(fd)?;
    if waiting & libc::POLLERR != 0 {
        let reason = "it has an error that was not told yet, which cannot be read without taking it away";
        return Ok(Err(Refusal::passing(reason)));
    }
    // A ring lets it say so when the last slot is not given back.
    let waits = if found.receives.is_some() { packet_ring::queued(fd)? } else { waiting & libc::POLLIN != 0 };
    if waits {
        let reason = "packets wait in it that nobody has read, and that nobody could bring once more to it alone";
        return Ok(Err(Refusal::passing(reason)));
    }
    let bound = match found.index {
        0 => Bound::Anywhere,
        // The kernel lets nobody into a group who receives nothing.
        ..0 if found.has_fanout => {
            return never("it is in a group (PACKET_FANOUT), and the device that it was bound to is gone");
        }
        ..0 => Bound::Gone,
        index => Bound::Device(device(index.cast_unsigned())?),
    };
    let memberships = found.memberships.iter().map(membership).collect::<io::Result<_>>()?;
    let (protocol, running) = (found.protocol, found.running);
    let packet = |(ring, send_ring)| Packet { protocol, bound, running, memberships, ring, send_ring };
    Ok(rings(fd, &found)?.map(packet))
}

/// For receiving and for sending.
type Rings = (Option<Ring>, Option<SendRing>);

/// Its rings, which lie in memory one behind the other; or why they cannot be saved.
fn rings(fd: BorrowedFd<'_>, found: &PacketSocket) -> io::Result<Result<Rings, Refusal>> {
    let refusals =
        [(found.receives, "ring for receiving (PACKET_RX_RING)"), (found.sends, "ring for sending (PACKET_TX_RING)")];
    for (layout, what) in refusals {
        if let Some(bytes) = layout.map(|layout| layout.bytes()).filter(|bytes| *bytes > RING_MAX) {
            let reason = format!(
                "its {what} has {} KiB, of which at most {} are supported: all that stands in it would have to be held in memory",
                bytes >> 10,
                RING_MAX >> 10
            );
            return Ok(Err(Refusal::Never(reason)));
        }
    }
    let bytes = |layout: Option<Layout>| layout.map_or(0, |layout| layout.bytes() as usize);
    let (receives, sends) = (bytes(found.receives), bytes(found.sends));
    if receives + sends == 0 {
        return Ok(Ok((None, None)));
    }
    let memory = Memory::map(fd, receives + sends)?;
    let ring = match found.receives.map(|layout| ring::read(fd, layout, &memory)).transpose()? {
        Some(Err(refusal)) => return Ok(Err(refusal)),
        ring => ring.and_then(Result::ok),
    };
    let send_ring = match found.sends.map(|layout| sending::read(fd, layout, (&memory, receives))).transpose()? {
        Some(Err(refusal)) => return Ok(Err(refusal)),
        ring => ring.and_then(Result::ok),
    };
    Ok(Ok((ring, send_ring)))
}

/// Whether a group distributes packets by PACKET_FANOUT_CBPF (6), PACKET_FANOUT_EBPF (7), or in a way that is not known yet.
const fn is_programmed(fanout: i32) -> bool {
    const QUEUE_MAPPING: i32 = 5;
    fanout >> 16 & 0xff > QUEUE_MAPPING
}

fn membership(Membership { index, count, kind, address }: &Membership) -> io::Result<PacketMembership> {
    Ok(PacketMembership { device: device(*index)?, kind: *kind, address: address.clone(), count: *count })
}

fn device(index: u32) -> io::Result<Device> {
    let name = nix::net::if_::if_indextoname(index)?;
    Ok(Device { index, name: name.to_string_lossy().into_owned() })
}
