//! Finding out how many requests are in flight in a Linux AIO context, which nothing tells: it is filled up with requests that are done at once.
//!
//! The ring is memory that both the kernel and the program write: `struct aio_ring` and its events (fs/aio.c). Who has taken an event moves `head`; the kernel
//! puts the next one at `tail`, and counts a place as free again once `head` is beyond it. Each CPU keeps a share of the free places for itself.

use crate::syscall::{move_bytes, syscall};
use protocol::{AIO_BATCH, AioProbe, CPU_SET};

const SYS_SCHED_SETAFFINITY: u32 = 203;
const SYS_IO_SUBMIT: u32 = 209;
const EINVAL: i64 = -22;
/// Offsets in `struct aio_ring`.
const HEAD: u64 = 8;
const TAIL: u64 = 12;
const EVENTS: u64 = 32;
/// Bytes of `struct io_event`: data, obj, res, res2.
const EVENT: u64 = 32;
/// Offset of `obj`, the address of the request; `data` is the first word of both.
const OBJ: u64 = 8;
/// How often in a row nothing may be taken of what must be.
const FUTILE: u64 = 1000;

/// Fills the ring, counts, and turns it on until it is where it was; the result is 0, or EINVAL for a ring that no kernel has made so.
///
/// # Safety
/// `at` is the address of an [`AioProbe`] whose addresses are valid. Nobody else takes events from that ring meanwhile, or submits any.
pub unsafe fn probe(at: u64) -> i64 {
    // SAFETY: the caller gives a valid probe; fields are read one by one, so that no vector register is used.
    unsafe {
        let probe = at as *mut AioProbe;
        let cpus = (&raw const (*probe).cpus).read_volatile();
        let cpu_set = (&raw const (*probe).cpu_set).read_volatile();
        let copy = (&raw const (*probe).copy).read_volatile();
        let capacity = (&raw const (*probe).capacity).read_volatile();
        let ring = Ring::of(probe);
        let first = ring.head();
        if first >= ring.slots || ring.tail() >= ring.slots {
            return EINVAL;
        }
        move_bytes(copy as *mut u8, (ring.context + EVENTS) as *const u8, (ring.slots * EVENT) as usize);
        ring.fill();
        for cpu in 0..cpus {
            if run_on(cpu, cpu_set) {
                ring.fill();
            }
        }
        let in_flight = capacity.wrapping_sub(ring.between(ring.head(), ring.tail()));
        let done = ring.turn_to(first);
        if in_flight == 0 && done {
            ring.put_back(copy);
        }
        (&raw mut (*probe).in_flight).write_volatile(in_flight);
        (&raw mut (*probe).done).write_volatile(u64::from(done));
        0
    }
}

/// Has this task run on one CPU alone, if it may.
unsafe fn run_on(cpu: u64, set: u64) -> bool {
    // SAFETY: the set has a bit for each CPU.
    unsafe {
        let word = (set as *mut u64).add((cpu / 64) as usize);
        word.write_volatile(1 << (cpu % 64));
        let result = syscall(SYS_SCHED_SETAFFINITY, [0, CPU_SET, set, 0, 0, 0]);
        word.write_volatile(0);
        result == 0
    }
}

/// A ring, and the requests to fill it with.
struct Ring {
    context: u64,
    slots: u64,
    batch: u64,
    /// Address of the request.
    request: u64,
}

impl Ring {
    unsafe fn of(probe: *const AioProbe) -> Self {
        // SAFETY: as for `probe`.
        unsafe {
            let batch = (&raw const (*probe).batch).read_volatile();
            Self {
                context: (&raw const (*probe).context).read_volatile(),
                slots: (&raw const (*probe).slots).read_volatile(),
                batch,
                request: (batch as *const u64).read_volatile(),
            }
        }
    }

    unsafe fn head(&self) -> u64 {
        // SAFETY: the ring is mapped.
        unsafe { u64::from(((self.context + HEAD) as *const u32).read_volatile()) }
    }

    unsafe fn tail(&self) -> u64 {
        // SAFETY: the ring is mapped.
        unsafe { u64::from(((self.context + TAIL) as *const u32).read_volatile()) }
    }

    /// From one place on to another.
    fn between(&self, from: u64, to: u64) -> u64 {
        if from <= to { to - from } else { to + self.slots - from }
    }

    fn before(&self, place: u64) -> u64 {
        if place == 0 { self.slots - 1 } else { place - 1 }
    }

    fn event(&self, place: u64) -> u64 {
        self.context + EVENTS + place * EVENT
    }

    /// Submits up to so many requests; how many were taken.
    unsafe fn submit(&self, count: u64) -> u64 {
        let count = if count < AIO_BATCH { count } else { AIO_BATCH };
        // SAFETY: the kernel reads so many pointers of the batch, and what they point to.
        let taken = unsafe { syscall(SYS_IO_SUBMIT, [self.context, count, self.batch, 0, 0, 0]) };
        if taken > 0 { taken as u64 } else { 0 }
    }

    /// Submits requests until there is no room.
    unsafe fn fill(&self) {
        // SAFETY: as for `submit`.
        unsafe { while self.submit(AIO_BATCH) > 0 {} }
    }

    /// Takes our own events out. Those of others are moved to the end, the last one first, so that none is overwritten.
    unsafe fn sweep(&self) {
        // SAFETY: places lie within the ring. The kernel writes behind the tail alone.
        unsafe {
            let head = self.head();
            let mut from = self.tail();
            let mut to = from;
            while from != head {
                from = self.before(from);
                if !self.is_ours(self.event(from)) {
                    to = self.before(to);
                    if to != from {
                        self.move_event(from, to);
                    }
                }
            }
            ((self.context + HEAD) as *mut u32).write_volatile(to as u32);
        }
    }

    unsafe fn is_ours(&self, event: u64) -> bool {
        // SAFETY: as for `sweep`; the request is mapped.
        unsafe {
            ((event + OBJ) as *const u64).read_volatile() == self.request
                && (event as *const u64).read_volatile() == (self.request as *const u64).read_volatile()
        }
    }

    unsafe fn move_event(&self, from: u64, to: u64) {
        // SAFETY: as for `sweep`.
        unsafe { move_bytes(self.event(to) as *mut u8, self.event(from) as *const u8, EVENT as usize) };
    }

    /// Turns the ring on until its head is there again; whether it is.
    unsafe fn turn_to(&self, first: u64) -> bool {
        let mut futile = 0;
        loop {
            // SAFETY: as for `submit`.
            unsafe {
                self.sweep();
                let left = self.between(self.head(), first);
                if left == 0 {
                    return true;
                }
                if self.submit(left) > 0 {
                    futile = 0;
                } else {
                    futile += 1;
                    if futile == FUTILE {
                        return false;
                    }
                }
            }
        }
    }

    /// Gives places that hold no event what they held before.
    unsafe fn put_back(&self, copy: u64) {
        // SAFETY: nothing is in flight, so that the kernel writes nothing.
        unsafe {
            let (head, mut place) = (self.head(), self.tail());
            while place != self.before(head) {
                move_bytes(self.event(place) as *mut u8, (copy + place * EVENT) as *const u8, EVENT as usize);
                place = if place + 1 == self.slots { 0 } else { place + 1 };
            }
            // The place before the head is never used, unless the ring is empty.
            move_bytes(self.event(place) as *mut u8, (copy + place * EVENT) as *const u8, EVENT as usize);
        }
    }
}
