//! Finding out which frame of a ring for sending of a packet socket the kernel looks at next, which nothing tells: it shows at frames that cannot be sent.
//!
//! send(2) looks at that frame alone, and goes on to the next one when it was sent (net/packet/af_packet.c, `tpacket_snd`). One that cannot be sent is marked, or, with
//! PACKET_LOSS, passed over. So no packet comes of this.

use crate::syscall::{move_bytes, pause, syscall};
use protocol::{SEND_ADDRESS, SEND_HEADER, SendProbe};

const SYS_MMAP: u32 = 9;
const SYS_MUNMAP: u32 = 11;
const SYS_SENDTO: u32 = 44;
const PROT_READ_WRITE: u64 = 3;
const MAP_SHARED: u64 = 1;
const MSG_DONTWAIT: u64 = 0x40;
const EIO: i64 = -5;
const ENXIO: i64 = -6;
const ENODEV: i64 = -19;
const ENETDOWN: i64 = -100;
/// Statuses of frames (include/uapi/linux/if_packet.h).
const AVAILABLE: u32 = 0;
const SEND_REQUEST: u32 = 1;
const WRONG_FORMAT: u32 = 4;
/// How often a send is tried that must be made.
const TRIES: u32 = 50_000;

/// Asks the ring and puts it back to the byte; 0, or the error of mmap(2) or send(2).
///
/// # Safety
/// `at` is the address of a [`SendProbe`] that says what is so of a ring of its descriptor, and whose other addresses are valid. Nobody else uses that ring
/// meanwhile, and none of its packets is in flight.
pub unsafe fn probe(at: u64) -> i64 {
    let probe = at as *mut SendProbe;
    // SAFETY: the caller gives a valid probe; the kernel finds a place for the mapping.
    unsafe {
        let len = (*probe).len;
        let memory = syscall(SYS_MMAP, [0, len, PROT_READ_WRITE, MAP_SHARED, (*probe).fd, 0]);
        if memory < 0 {
            return memory;
        }
        let ring = Ring { probe, memory: memory as u64 };
        ring.mark();
        let found = if (*probe).passes == 0 { ring.refused() } else { ring.passed() };
        ring.put_back();
        syscall(SYS_MUNMAP, [memory as u64, len, 0, 0, 0, 0]);
        if found < 0 {
            return found;
        }
        (&raw mut (*probe).next).write_volatile(found as u64);
        0
    }
}

/// A ring that is mapped.
struct Ring {
    probe: *const SendProbe,
    memory: u64,
}

impl Ring {
    /// Address of a frame.
    unsafe fn frame(&self, number: u64) -> u64 {
        // SAFETY: the probe is valid, and has frames in its blocks.
        unsafe {
            let SendProbe { start, block, in_block, frame, .. } = &*self.probe;
            let (whole, rest) = (number.checked_div(*in_block), number.checked_rem(*in_block));
            self.memory + start + whole.unwrap_or(0) * block + rest.unwrap_or(0) * frame
        }
    }

    unsafe fn status(&self, number: u64) -> *mut u32 {
        // SAFETY: as above.
        unsafe { (self.frame(number) + (*self.probe).status) as *mut u32 }
    }

    /// Keeps the headers of all frames, and makes each one of a packet that cannot be sent.
    unsafe fn mark(&self) {
        // SAFETY: every number is that of a frame, and there is room for each.
        unsafe {
            for number in 0..(*self.probe).frames {
                let (frame, saved) = (self.frame(number), (*self.probe).saved + number * SEND_HEADER);
                move_bytes(saved as *mut u8, frame as *const u8, SEND_HEADER as usize);
                let SendProbe { marks: [first, value, second, other], .. } = &*self.probe;
                ((frame + first) as *mut u32).write_volatile(*value as u32);
                ((frame + second) as *mut u32).write_volatile(*other as u32);
                self.status(number).write_volatile(SEND_REQUEST);
            }
        }
    }

    unsafe fn put_back(&self) {
        // SAFETY: as above.
        unsafe {
            for number in 0..(*self.probe).frames {
                let saved = (*self.probe).saved + number * SEND_HEADER;
                move_bytes(self.frame(number) as *mut u8, saved as *const u8, SEND_HEADER as usize);
            }
        }
    }

    /// Has the kernel look at the ring: for that it takes a device that is up, of which nothing else is asked.
    unsafe fn send(&self) -> i64 {
        let mut result = ENODEV;
        // SAFETY: there are so many addresses; nothing is read at the address of no bytes.
        unsafe {
            for number in 0..(*self.probe).count {
                let device = (*self.probe).devices + number * SEND_ADDRESS;
                result = syscall(SYS_SENDTO, [(*self.probe).fd, 0, 0, MSG_DONTWAIT, device, SEND_ADDRESS]);
                if result != ENETDOWN && result != ENXIO {
                    break;
                }
            }
        }
        result
    }

    /// The frame that the kernel has refused, at which it stays.
    unsafe fn refused(&self) -> i64 {
        // SAFETY: every number is that of a frame.
        unsafe {
            let result = self.send();
            for number in 0..(*self.probe).frames {
                if self.status(number).read_volatile() == WRONG_FORMAT {
                    return number as i64;
                }
            }
            if result < 0 { result } else { EIO }
        }
    }

    /// The first frame that the kernel has passed over on its way to the end of the ring, and to which it is led again.
    unsafe fn passed(&self) -> i64 {
        // SAFETY: every number is that of a frame.
        unsafe {
            // Here it ends.
            self.status(0).write_volatile(WRONG_FORMAT);
            let result = self.send();
            if result < 0 {
                return result;
            }
            let mut next = 1;
            while next < (*self.probe).frames && self.status(next).read_volatile() != AVAILABLE {
                next += 1;
            }
            if next >= (*self.probe).frames {
                return 0;
            }
            self.status(0).write_volatile(SEND_REQUEST);
            let mut tries = 0;
            loop {
                self.send();
                if self.status(0).read_volatile() == AVAILABLE {
                    return next as i64;
                }
                tries += 1;
                if tries == TRIES {
                    return EIO;
                }
                // All devices were taken down in this instant: one of them may come back.
                pause();
            }
        }
    }
}
