//! Rings of packet sockets: the kernel, which begins each at its first slot, is led to where it stood, and what the program had not given back is put there.

use super::feeder::Feeder;
use crate::image::model::socket::packet::{BLOCKS, Kept, Layout, Ring};
use crate::sys::packet_ring::{KERNEL, Memory, USER, block, frame};
use crate::sys::socket;
use std::io;
use std::os::fd::BorrowedFd;

// include/uapi/linux/if_packet.h
const PACKET_STATISTICS: i32 = 6;
/// Fewer bytes than a packet takes in a block.
const PACKET_MIN: u32 = 64;

/// Whether the kernel must be led anywhere.
pub fn is_used(ring: &Ring) -> bool {
    ring.next != 0 || unread(ring).next().is_some()
}

fn unread(ring: &Ring) -> impl Iterator<Item = &Kept> {
    ring.kept.iter().filter(|kept| kept.start == 0)
}

/// Gives a socket a ring: PACKET_RX_RING or PACKET_TX_RING.
///
/// # Errors
/// As setsockopt(2).
pub fn make(fd: BorrowedFd<'_>, which: i32, version: u32, layout: Layout) -> io::Result<()> {
    let Layout { block_size, blocks, frame_size, frames, retire_timeout, private, features } = layout;
    // `struct tpacket_req3`, of which the other versions take the beginning.
    let mut request = vec![block_size, blocks, frame_size, frames];
    if version == BLOCKS {
        request.extend([retire_timeout, private, features]);
    }
    let request: Vec<u8> = request.iter().flat_map(|word| word.to_ne_bytes()).collect();
    socket::set_option(fd, libc::SOL_PACKET, which, &request)
}

/// Fills the ring of a socket that receives nothing yet; it begins where the memory does. Where the kernel must be led, nothing passes from here on but packets of
/// ours: see [`Feeder`].
///
/// # Errors
/// Those of [`Feeder`].
pub fn fill(fd: BorrowedFd<'_>, ring: &Ring, memory: &Memory) -> io::Result<()> {
    let filling = Filling { memory, ring };
    if ring.version == BLOCKS { filling.blocks(fd) } else { filling.frames(fd) }?;
    // What was counted is ours.
    socket::option(fd, libc::SOL_PACKET, PACKET_STATISTICS).map(drop)
}

/// A ring that is filled.
struct Filling<'a> {
    memory: &'a Memory,
    ring: &'a Ring,
}

impl Filling<'_> {
    fn frames(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let Self { memory, ring } = self;
        if !is_used(ring) {
            return Ok(());
        }
        let mut feeder = Feeder::new(fd, 0)?;
        for _ in 0..ring.next {
            feeder.send()?;
        }
        let is_theirs = |slot: u32| Ok::<_, io::Error>(memory.word(ring.at(slot))? != KERNEL);
        if ring.next != 0 && (!is_theirs(ring.next - 1)? || is_theirs(ring.next)?) {
            return Err(io::Error::other("packets on the loopback interface do not come one by one"));
        }
        for slot in 0..ring.next {
            // Times by which a later dump finds the same frame: earlier than that of any packet.
            let time = ring.at(slot) + frame::TIMES[usize::from(ring.version != 0)];
            memory.set_word(time, 0)?;
            memory.set_word(time + size_of::<u32>(), slot + 1)?;
            memory.set_word(ring.at(slot), KERNEL)?;
        }
        ring.kept.iter().try_for_each(|kept| memory.write(ring.at(kept.slot), &kept.bytes))
    }

    fn blocks(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let Self { memory, ring } = self;
        if is_used(ring) {
            self.lead(fd)?;
        }
        for Kept { slot, start, bytes } in &ring.kept {
            let at = ring.at(*slot);
            let numbered = memory.copy(at + block::SEQUENCE, size_of::<u64>())?;
            memory.write(at + *start as usize, bytes)?;
            if *start == 0 {
                // It keeps the number that fits those that are to come.
                memory.write(at + block::SEQUENCE, &numbered)?;
            }
        }
        // The kernel may begin the next block as soon as that is its own.
        let others = (0..ring.layout.blocks).filter(|slot| *slot != ring.next).chain([ring.next]);
        for slot in others.filter(|slot| unread(ring).all(|kept| kept.slot != *slot)) {
            self.set_status(slot, KERNEL)?;
        }
        Ok(())
    }

    /// Leads the kernel to the next block, where it waits, for that is not its own.
    fn lead(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let Self { memory: _, ring } = self;
        let mut feeder = Feeder::new(fd, ring.layout.block_size.saturating_sub(ring.layout.private))?;
        // Blocks behind the next one are of an earlier round, and have numbers only then.
        if unread(ring).any(|kept| kept.slot >= ring.next) {
            self.close(ring.layout.blocks - 1, &mut feeder)?;
        }
        if ring.next != 0 {
            self.set_status(ring.next, USER)?;
            (0..ring.next).try_for_each(|slot| self.set_status(slot, KERNEL))?;
            self.close(ring.next - 1, &mut feeder)?;
        }
        Ok(())
    }

    /// Sends packets until the kernel closes a block.
    fn close(&self, slot: u32, feeder: &mut Feeder<'_>) -> io::Result<()> {
        let Self { memory, ring } = self;
        let most = u64::from(ring.layout.blocks) * u64::from(ring.layout.block_size / PACKET_MIN);
        for _ in 0..most {
            feeder.send()?;
            if memory.word(ring.at(slot) + block::STATUS)? != KERNEL {
                return Ok(());
            }
        }
        Err(io::Error::other("the kernel does not close blocks of the ring"))
    }

    fn set_status(&self, slot: u32, status: u32) -> io::Result<()> {
        self.memory.set_word(self.ring.at(slot) + block::STATUS, status)
    }
}
