//! Contexts of Linux AIO (io_setup(2)): rings of events that are done and that nobody has taken yet.

use serde::{Deserialize, Serialize};

/// Bytes of `struct io_event`, and of the head of a ring.
const EVENT: u64 = 32;
/// Slots of a ring with so many pages have no room for one event: the head is there.
const EVENTS_OF_PAGE: u64 = super::address::PAGE_SIZE / EVENT;

/// A ring, whose address is the context's id. No request is in flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AioRing {
    /// The slot of the first event; where the next one goes, when there is none.
    pub head: u32,
    /// Events in the order in which they are taken.
    pub events: Vec<AioEvent>,
}

/// `struct io_event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AioEvent {
    /// `aio_data` of the request.
    pub data: u64,
    /// Address of the request.
    pub obj: u64,
    /// What came of it: bytes, or an error below zero.
    pub res: i64,
    /// More of that, of which Linux makes no use.
    pub res2: i64,
}

impl AioRing {
    /// Slots of a ring with so many bytes, all of which are whole pages (fs/aio.c, `aio_setup_ring`). One of them is never used.
    #[must_use]
    pub fn slots(bytes: u64) -> u32 {
        u32::try_from((bytes / EVENT).saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// The least that io_setup(2) must be asked for to make a ring with so many slots: it makes room for twice as many, and two.
    #[must_use]
    pub fn requests(slots: u32) -> u32 {
        let before_last_page = (u64::from(slots) + 1).saturating_sub(EVENTS_OF_PAGE);
        (before_last_page / 2).saturating_sub(1).max(1) as u32
    }

    /// Pages of the smallest ring on a machine with so many possible CPUs.
    #[must_use]
    pub const fn least_pages(cpus: u64) -> u64 {
        (1 + cpus * 8 + 2).div_ceil(EVENTS_OF_PAGE)
    }
}

impl AioEvent {
    /// As the kernel reads and writes it.
    #[must_use]
    pub fn bytes(&self) -> [u8; EVENT as usize] {
        let Self { data, obj, res, res2 } = *self;
        let words = [data, obj, res.cast_unsigned(), res2.cast_unsigned()].map(u64::to_le_bytes);
        std::array::from_fn(|at| words[at / 8][at % 8])
    }

    /// The events in these bytes.
    pub fn all(bytes: &[u8]) -> impl Iterator<Item = Self> {
        bytes.as_chunks::<{ EVENT as usize }>().0.iter().map(|bytes| {
            let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at * 8 + byte]));
            Self { data: word(0), obj: word(1), res: word(2).cast_signed(), res2: word(3).cast_signed() }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What fs/aio.c makes of a number of requests on a machine with two CPUs.
    fn made(requests: u64) -> u32 {
        let wanted = requests.max(8) * 2 + 2;
        AioRing::slots(((wanted + 1) * EVENT).next_multiple_of(4096))
    }

    #[test]
    fn what_is_asked_for_makes_the_same_ring_and_is_the_least() {
        for requests in [1, 8, 61, 62, 63, 126, 127, 5000, 65536] {
            let slots = made(requests);
            let least = AioRing::requests(slots);
            assert_eq!(made(least.into()), slots, "{requests}");
            assert!(least == 1 || made(u64::from(least) - 1) < slots, "{requests}");
        }
    }

    #[test]
    fn the_smallest_ring_grows_with_the_machine() {
        assert_eq!([1, 2, 15, 16, 64].map(AioRing::least_pages), [1, 1, 1, 2, 5]);
    }

    #[test]
    fn events_are_read_as_they_are_written() {
        let event = AioEvent { data: 1, obj: 2, res: -3, res2: 4 };
        assert_eq!(AioEvent::all(&event.bytes()).collect::<Vec<_>>(), [event]);
    }
}
