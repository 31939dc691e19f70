//! The memory of a ring of a packet socket (Documentation/networking/packet_mmap.rst), to which the kernel writes at any time.
#![allow(unsafe_code)]

use super::checked;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// A slot that the kernel fills.
pub const KERNEL: u32 = 0;
/// A slot that was handed over to the program.
pub const USER: u32 = 1;
/// A block that was handed over before it was full.
pub const TIMED_OUT: u32 = 1 << 5;

/// `struct tpacket_block_desc` of TPACKET_V3, and `struct tpacket3_hdr` of the packets in a block (include/uapi/linux/if_packet.h).
pub mod block {
    /// Of the block: whether it is handed over.
    pub const STATUS: usize = 8;
    /// How many packets there are.
    pub const PACKETS: usize = 12;
    /// Bytes from the beginning of the block to the first of them.
    pub const FIRST: usize = 16;
    /// Bytes in use, with this header.
    pub const LENGTH: usize = 20;
    /// Its number, 64 bits.
    pub const SEQUENCE: usize = 24;
    /// When it was begun: seconds, nanoseconds.
    pub const BEGUN: usize = 32;
    /// When its last packet came: seconds, nanoseconds.
    pub const LAST: usize = 40;
    /// Bytes of this header.
    pub const HEADER: usize = 48;
    /// Of a packet: bytes to the next one.
    pub const NEXT: usize = 0;
    /// When it came: seconds, nanoseconds.
    pub const TIME: usize = 4;
}

/// `struct tpacket_hdr` and `struct tpacket2_hdr`, the header of a frame of TPACKET_V1 and TPACKET_V2.
pub mod frame {
    /// When it came: seconds, microseconds or nanoseconds.
    pub const TIMES: [usize; 2] = [20, 16];
    /// Bytes of either header.
    pub const HEADER: usize = 32;
}

/// Frames of a ring for sending, whose headers are the same in all versions but for where things stand.
pub mod send {
    /// A frame that is the program's, and one that it has handed over.
    pub const AVAILABLE: u32 = 0;
    /// See [`AVAILABLE`].
    pub const REQUEST: u32 = 1;
    /// The frame was sent at a time that the kernel has written there (TP_STATUS_TS_*).
    pub const TIMES: u32 = 0x7 << 29;

    /// Where things stand in the header of a frame.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Header {
        /// The status.
        pub status: usize,
        /// Bytes of the packet.
        pub length: usize,
        /// With PACKET_TX_HAS_OFF, where the packet begins, of SOCK_RAW and of SOCK_DGRAM: 16 bits each.
        pub starts: [usize; 2],
        /// Where it begins otherwise (`tp_hdrlen` without the address, net/packet/af_packet.c).
        pub packet: usize,
    }

    /// Of TPACKET_V1, TPACKET_V2 and TPACKET_V3.
    pub const HEADERS: [Header; 3] = [
        Header { status: 0, length: 8, starts: [16, 18], packet: 32 },
        Header { status: 0, length: 4, starts: [12, 14], packet: 32 },
        Header { status: 20, length: 16, starts: [24, 26], packet: 48 },
    ];
}

/// All blocks of the rings of a socket, one after the other.
#[derive(Debug)]
pub struct Memory {
    start: NonNull<u8>,
    len: usize,
}

impl Memory {
    /// Maps the rings of a socket, which are so long together: the kernel maps nothing but the whole. As long as anybody maps it the ring cannot be changed (EBUSY).
    ///
    /// # Errors
    /// As mmap(2): EINVAL for another length.
    pub fn map(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let (prot, fd) = (libc::PROT_READ | libc::PROT_WRITE, fd.as_raw_fd());
        // SAFETY: without MAP_FIXED no memory that is in use is taken.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(start.cast()).map(|start| Self { start, len }).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// An aligned word as it is now.
    ///
    /// # Errors
    /// `InvalidInput` outside of the ring.
    pub fn word(&self, at: usize) -> io::Result<u32> {
        Ok(self.atomic(at)?.load(Ordering::Acquire))
    }

    /// Sets an aligned word, after all that was written before.
    ///
    /// # Errors
    /// As [`Self::word`].
    pub fn set_word(&self, at: usize, value: u32) -> io::Result<()> {
        self.atomic(at)?.store(value, Ordering::Release);
        Ok(())
    }

    /// A copy of some bytes.
    ///
    /// # Errors
    /// As [`Self::word`].
    pub fn copy(&self, at: usize, len: usize) -> io::Result<Vec<u8>> {
        let (from, mut bytes) = (self.place(at, len)?, vec![0u8; len]);
        // SAFETY: `place` has found so many bytes in the mapping, and `bytes` has as many. The kernel may write to them meanwhile, which makes some
        // of them new and some old; any byte is valid.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), len) };
        Ok(bytes)
    }

    /// Writes some bytes.
    ///
    /// # Errors
    /// As [`Self::word`].
    pub fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let to = self.place(at, bytes.len())?;
        // SAFETY: `place` has found so many bytes in the mapping, which is writable and to which no reference exists.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    fn atomic(&self, at: usize) -> io::Result<&AtomicU32> {
        let place = self.place(at, size_of::<u32>())?.cast::<u32>();
        if !place.is_aligned() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: it lies in the mapping, which lives as long as `self`, and is aligned; whoever else writes it writes it as a whole.
        Ok(unsafe { AtomicU32::from_ptr(place) })
    }

    fn place(&self, at: usize, len: usize) -> io::Result<*mut u8> {
        let end = at.checked_add(len).filter(|end| *end <= self.len);
        end.ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the mapping has at least `at` bytes.
        Ok(unsafe { self.start.as_ptr().add(at) })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Whether packets wait in the queue of a packet socket, beside its ring (SIOCINQ).
///
/// # Errors
/// As ioctl(2).
pub fn queued(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD, which is SIOCINQ, writes one int to the pointer, which is valid for it.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes != 0) }
}

/// Has the kernel send the frames of a ring from where it stands, by a device: as many as are handed over.
///
/// # Errors
/// As sendto(2).
pub fn send_frames(fd: BorrowedFd<'_>, to: &[u8]) -> io::Result<()> {
    let (flags, length) = (libc::MSG_DONTWAIT, to.len() as libc::socklen_t);
    // SAFETY: the kernel reads the address, as long as it is, and nothing at the address of no bytes.
    let count = unsafe { libc::sendto(fd.as_raw_fd(), std::ptr::null(), 0, flags, to.as_ptr().cast(), length) };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether [`settle`] works here: not on kernels with CPUs without a tick (nohz_full).
#[must_use]
pub fn can_settle() -> bool {
    super::membarrier::commands() & libc::MEMBARRIER_CMD_GLOBAL as u32 != 0
}

/// Waits until whatever the kernel was doing with a packet when this was called is done: it receives them under rcu_read_lock (net/core/dev.c), and
/// MEMBARRIER_CMD_GLOBAL waits until all who had that have left it (kernel/sched/membarrier.c).
///
/// # Errors
/// As membarrier(2): EINVAL where it does not work.
pub fn settle() -> super::Result<()> {
    // SAFETY: takes no pointer.
    checked(unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn nothing_outside_is_touched() {
        let file = nix::sys::memfd::memfd_create(c"ring", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).expect("a memfd");
        nix::unistd::ftruncate(&file, 4096).expect("room");
        let memory = Memory::map(file.as_fd(), 4096).expect("a mapping");
        memory.write(4092, b"last").expect("the last bytes");
        memory.set_word(0, 7).expect("the first word");
        assert_eq!((memory.word(0).ok(), memory.copy(4092, 4).ok()), (Some(7), Some(b"last".to_vec())));
        for (at, len) in [(4093, 4), (4096, 1), (usize::MAX, 2)] {
            assert!(memory.copy(at, len).is_err() && memory.write(at, &vec![0; len]).is_err(), "{at} {len}");
        }
        assert!(memory.word(2).is_err() && memory.set_word(4096, 1).is_err());
        assert!(can_settle() == settle().is_ok());
    }
}
