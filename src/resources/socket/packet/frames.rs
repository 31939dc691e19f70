//! Rings of TPACKET_V1 and TPACKET_V2: frames of one packet each, which have no numbers.
//!
//! The kernel hands them over one after the other, so it stands behind the last of those that the program has not given back. Where there is none, it
//! stands behind the one that came last: there alone, going round, a time is earlier than the one before it. Frames that were never used are zeros.

use super::ring::{Seen, Subject};
use crate::image::model::socket::packet::Kept;
use crate::resources::socket::Refusal;
use crate::sys::packet_ring::{self, KERNEL, USER, frame};
use crate::sys::socket;
use std::io;

/// Bytes at the beginning of a frame that are not all zero once it was used: the header, and behind it the address (`struct sockaddr_ll`).
const WRITTEN: usize = 52;

/// What the header of a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    status: u32,
    time: (u32, u32),
    /// Whether there is anything in it.
    used: bool,
}

/// Looks at it once.
pub fn look(subject: &Subject<'_>) -> io::Result<Seen> {
    let before = read(subject)?;
    // A frame has its time before it is handed over.
    packet_ring::settle()?;
    let is_last_there = socket::waiting(subject.fd)? & libc::POLLIN != 0;
    if read(subject)? != before {
        return Ok(Seen::Changed);
    }
    let next = match next(&before, is_last_there) {
        Ok(next) => next,
        Err(refusal) => return Ok(Seen::Unknown(refusal)),
    };
    let mut kept = Vec::new();
    for slot in (0..subject.ring.layout.frames).filter(|slot| before[*slot as usize].status != KERNEL) {
        let bytes = subject.memory.copy(subject.ring.at(slot), subject.ring.layout.frame_size as usize)?;
        kept.push(Kept { slot, start: 0, bytes });
    }
    Ok(Seen::Standing(next, kept))
}

/// The frame that the kernel fills next. It tells whether the one before that is the program's (net/packet/af_packet.c, `packet_poll`).
fn next(heads: &[Head], is_last_there: bool) -> Result<u32, Refusal> {
    let unknown = |why: &str| format!("where the kernel stands in its ring cannot be seen: {why}");
    let count = heads.len();
    if heads.iter().any(|head| head.status != KERNEL && head.status & USER == 0)
        || heads.iter().any(|head| head.used != (head.time != (0, 0)))
    {
        return Err(Refusal::Never(unknown("the program has changed headers of frames")));
    }
    let before = |at: usize| (at + count - 1) % count;
    let theirs = |at: usize| heads[at].status != KERNEL;
    let behind: Vec<usize> = (0..count).filter(|at| theirs(before(*at)) && !theirs(*at)).collect();
    let earlier: Vec<usize> = (0..count).filter(|at| heads[before(*at)].time > heads[*at].time).collect();
    let next = match (&behind[..], &earlier[..]) {
        // No two frames in a row that the program still has are out of order.
        ([next], _) if earlier.iter().all(|at| !theirs(*at) || !theirs(before(*at))) => *next,
        ([], [next]) => *next,
        ([], []) if count == 1 || heads.iter().all(|head| !head.used) => 0,
        _ => return Err(Refusal::passing(unknown("frames have no order by their times"))),
    };
    if theirs(before(next)) == is_last_there {
        Ok(next as u32)
    } else {
        Err(Refusal::passing(unknown("frames are given back in another order than they came")))
    }
}

fn read(Subject { fd: _, ring, memory }: &Subject<'_>) -> io::Result<Vec<Head>> {
    let time = frame::TIMES[usize::from(ring.version != 0)];
    let head = |slot| {
        let bytes = memory.copy(ring.at(slot), WRITTEN)?;
        let word = |at: usize| bytes[at..].first_chunk().map_or(0, |word| u32::from_ne_bytes(*word));
        let used = bytes[size_of::<u32>()..].iter().any(|byte| *byte != 0);
        Ok(Head { status: memory.word(ring.at(slot))?, time: (word(time), word(time + 4)), used })
    };
    (0..ring.layout.frames).map(head).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames by their times, of which some are the program's; 0 was never used.
    fn heads(times: &[u32], theirs: &[usize]) -> Vec<Head> {
        let head = |(at, time): (usize, &u32)| Head {
            status: u32::from(theirs.contains(&at)),
            time: (*time, 0),
            used: *time != 0,
        };
        times.iter().enumerate().map(head).collect()
    }

    #[test]
    fn the_next_frame_follows_from_what_was_not_given_back_and_from_times() {
        for (times, theirs, last, expected) in [
            (&[0, 0, 0, 0][..], &[][..], false, 0),
            (&[1, 2, 0, 0], &[], false, 2),
            (&[5, 6, 3, 4], &[], false, 2),
            (&[1, 2, 3, 4], &[], false, 0),
            // Two came in the same instant.
            (&[5, 5, 3, 5], &[], false, 2),
            (&[5, 6, 3, 4], &[0, 1], true, 2),
            (&[5, 6, 3, 4], &[3, 0, 1], true, 2),
            (&[5, 6, 3, 4], &[0, 1, 2, 3], true, 2),
            // Out of order where it does not matter.
            (&[5, 6, 4, 3], &[0, 1], true, 2),
            (&[7], &[], false, 0),
            (&[7], &[0], true, 0),
        ] {
            assert_eq!(next(&heads(times, theirs), last), Ok(expected), "{times:?} {theirs:?}");
        }
    }

    #[test]
    fn what_cannot_be_known_is_not_guessed() {
        for (times, theirs, last) in [
            (&[5, 5, 5, 5][..], &[][..], false),
            (&[5, 3, 4, 2], &[], false),
            // Two groups, and a group whose times fall.
            (&[5, 6, 3, 4], &[1, 3], true),
            (&[6, 5, 3, 4], &[0, 1], true),
            // The kernel says otherwise.
            (&[5, 6, 3, 4], &[0], false),
        ] {
            assert!(matches!(next(&heads(times, theirs), last), Err(Refusal::Passing(_))), "{times:?} {theirs:?}");
        }
        let mut wiped = heads(&[5, 6, 3, 4], &[]);
        wiped[1].time = (0, 0);
        assert!(matches!(next(&wiped, false), Err(Refusal::Never(_))));
    }
}
