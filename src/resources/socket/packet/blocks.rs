//! Rings of TPACKET_V3: blocks that the kernel numbers as it begins them.
//!
//! The block with the highest number is the last one begun. It is open, and the kernel goes on in it; or it was closed and the next one still is the
//! program's, where the kernel waits (net/packet/af_packet.c, `prb_freeze_queue`). That can be told even when the program has given it back: closing a
//! block ends the list of its packets (`prb_close_block`).

use super::ring::{Seen, Subject};
use crate::image::model::socket::packet::Kept;
use crate::resources::socket::Refusal;
use crate::sys::packet_ring::{self, KERNEL, TIMED_OUT, USER, block};
use std::io;

/// What the header of a block says.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Head {
    status: u32,
    sequence: u64,
}

/// The newest block.
enum Newest {
    /// It is empty.
    Empty,
    /// It was being begun, and had the number of packets of the round before.
    Begun,
    /// It was closed.
    Closed,
    /// Of its packets so many are whole; they take so many bytes, with the header, and the last of them begins there.
    Open { packets: u32, end: usize, last: usize },
}

/// Looks at it once.
pub fn look(subject: &Subject<'_>) -> io::Result<Seen> {
    let before = subject.heads()?;
    let count = subject.ring.layout.blocks;
    let Some(newest) = (0..count).max_by_key(|slot| before[*slot as usize].sequence) else {
        return Ok(Seen::changed_by_program());
    };
    if !in_order(&before, newest) {
        return Ok(again(subject.heads()? != before));
    }
    let found = match before[newest as usize].status {
        KERNEL => match subject.newest(newest)? {
            Some(found) => found,
            None => return Ok(again(subject.heads()? != before)),
        },
        _ => Newest::Closed,
    };
    if matches!(found, Newest::Begun) || subject.heads()? != before {
        return Ok(Seen::Changed);
    }
    if matches!(found, Newest::Empty) && subject.is_older_than_its_end(newest)? {
        let reason = "it cannot be seen whether the kernel fills a block of its ring or waits for the next one";
        return Ok(Seen::Unknown(Refusal::passing(reason)));
    }
    let mut kept = Vec::new();
    for slot in 0..count {
        let bytes = match &found {
            Newest::Open { packets, end, last } if slot == newest => subject.closed(slot, *packets, *end, *last)?,
            _ if before[slot as usize].status & USER != 0 => match subject.handed_over(slot)? {
                Some(bytes) => bytes,
                None => return Ok(Seen::changed_by_program()),
            },
            _ => {
                kept.extend(subject.private(slot)?);
                continue;
            }
        };
        kept.push(Kept { slot, start: 0, bytes });
    }
    let next = if matches!(found, Newest::Empty) { newest } else { (newest + 1) % count };
    Ok(Seen::Standing(next, kept))
}

fn again(changed: bool) -> Seen {
    if changed { Seen::Changed } else { Seen::changed_by_program() }
}

/// Whether the blocks have the numbers that the kernel gives them, from 1 for the first one; 0 in those that it has not begun yet. A status is the
/// kernel's or has USER.
fn in_order(heads: &[Head], newest: u32) -> bool {
    let (count, highest) = (heads.len() as u64, heads[newest as usize].sequence);
    highest > 0
        && (highest - 1) % count == u64::from(newest)
        && (0..).zip(heads).all(|(slot, head): (u64, _)| {
            let age = (u64::from(newest) + count - slot) % count;
            head.sequence == highest.saturating_sub(age) && (head.status == KERNEL || head.status & USER != 0)
        })
}

impl Subject<'_> {
    fn at(&self, slot: u32, field: usize) -> usize {
        self.ring.at(slot) + field
    }

    fn heads(&self) -> io::Result<Vec<Head>> {
        let head = |slot| {
            let status = self.memory.word(self.at(slot, block::STATUS))?;
            Ok(Head { status, sequence: self.long(self.at(slot, block::SEQUENCE))? })
        };
        (0..self.ring.layout.blocks).map(head).collect()
    }

    fn long(&self, at: usize) -> io::Result<u64> {
        Ok(u64::from(self.memory.word(at)?) | u64::from(self.memory.word(at + 4)?) << 32)
    }

    /// The newest block, which the kernel has; `None` where its packets are not as the kernel writes them. The caller looks whether it is still the newest.
    fn newest(&self, slot: u32) -> io::Result<Option<Newest>> {
        let size = self.ring.layout.block_size as usize;
        let packets = self.memory.word(self.at(slot, block::PACKETS))?;
        if packets == 0 {
            return Ok(Some(Newest::Empty));
        }
        // A packet is counted before it is whole.
        packet_ring::settle()?;
        if self.memory.word(self.at(slot, block::PACKETS))? < packets {
            return Ok(Some(Newest::Begun));
        }
        let mut at = self.memory.word(self.at(slot, block::FIRST))? as usize;
        for number in 1..=packets {
            if at < block::HEADER || at.saturating_add(block::HEADER) > size || !at.is_multiple_of(8) {
                return Ok(None);
            }
            let length = self.memory.word(self.at(slot, at + block::NEXT))? as usize;
            match (number == packets, length) {
                (true, 0) => return Ok(Some(Newest::Closed)),
                (_, 0) => return Ok(None),
                (true, _) if length < block::HEADER || at.saturating_add(length) > size => return Ok(None),
                (true, _) => return Ok(Some(Newest::Open { packets, end: at + length, last: at })),
                (false, _) => at = at.saturating_add(length),
            }
        }
        Ok(None)
    }

    /// Whether a block has been closed after it was begun: one into which the only packet did not fit is empty.
    fn is_older_than_its_end(&self, slot: u32) -> io::Result<bool> {
        let time = |at| Ok::<_, io::Error>((self.memory.word(at)?, self.memory.word(at + 4)?));
        Ok(time(self.at(slot, block::BEGUN))? < time(self.at(slot, block::LAST))?)
    }

    /// An open block as it would be had its time been over (`prb_retire_rx_blk_timer_expired`), with so many packets.
    fn closed(&self, slot: u32, packets: u32, end: usize, last: usize) -> io::Result<Vec<u8>> {
        let mut bytes = self.memory.copy(self.at(slot, 0), end)?;
        let time = bytes[last + block::TIME..last + block::TIME + 8].to_vec();
        let mut set = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        set(block::STATUS, &(USER | TIMED_OUT).to_ne_bytes());
        set(block::PACKETS, &packets.to_ne_bytes());
        set(block::LENGTH, &(end as u32).to_ne_bytes());
        set(block::LAST, &time);
        set(last + block::NEXT, &0u32.to_ne_bytes());
        Ok(bytes)
    }

    /// A block that is the program's; `None` where its header cannot be the kernel's.
    fn handed_over(&self, slot: u32) -> io::Result<Option<Vec<u8>>> {
        let length = self.memory.word(self.at(slot, block::LENGTH))? as usize;
        if length < block::HEADER || length > self.ring.layout.block_size as usize {
            return Ok(None);
        }
        self.memory.copy(self.at(slot, 0), length).map(Some)
    }

    /// The program's own bytes in a block that is the kernel's, if there are any.
    fn private(&self, slot: u32) -> io::Result<Option<Kept>> {
        let room = (self.ring.layout.block_size as usize).saturating_sub(block::HEADER);
        let bytes = self.memory.copy(self.at(slot, block::HEADER), (self.ring.layout.private as usize).min(room))?;
        let start = block::HEADER as u32;
        Ok(bytes.iter().any(|byte| *byte != 0).then_some(Kept { slot, start, bytes }))
    }
}
