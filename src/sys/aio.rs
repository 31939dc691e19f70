//! Linux AIO: how many requests a context of a given size takes on this kernel.
#![allow(unsafe_code)]

use super::{Result, affinity, checked};
use crate::image::model::aio::AioRing;
use crate::image::model::id::Tid;
use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use std::os::fd::{AsFd, AsRawFd};

/// Requests that are submitted together.
const BATCH: usize = 256;

/// Requests that an idle context whose ring has so many slots takes before it refuses more (EAGAIN): a few of the slots are never used, since
/// each CPU is given a round number of them. Seen of a context of our own.
///
/// # Errors
/// As io_setup(2), EAGAIN above all: the contexts of the whole system may have only so many events (`/proc/sys/fs/aio-max-nr`).
/// EOPNOTSUPP when a ring of this kernel has another size.
pub fn capacity(slots: u32) -> Result<u64> {
    // On one CPU, for each that it is on would keep a share.
    let held = std::thread::scope(|scope| scope.spawn(|| hold().and_then(|()| measure(slots))).join());
    held.unwrap_or(Err(Errno::EAGAIN))
}

fn hold() -> Result<()> {
    let allowed = affinity::get(Tid(0))?;
    let word = allowed.iter().position(|word| *word != 0).ok_or(Errno::EINVAL)?;
    let mut one = vec![0; word + 1];
    one[word] = allowed[word] & allowed[word].wrapping_neg();
    affinity::set(Tid(0), &one)
}

fn measure(slots: u32) -> Result<u64> {
    let context = Context::new(AioRing::requests(slots))?;
    if context.slots() != slots {
        return Err(Errno::EOPNOTSUPP);
    }
    let ready = EventFd::new()?;
    let mut request = Request { data: 0, fd: ready.as_fd().as_raw_fd() }.bytes();
    let batch = [request.as_mut_ptr(); BATCH];
    let mut all = 0;
    loop {
        // SAFETY: the kernel reads the pointers, and reads and writes the request, all of which live on.
        match checked(unsafe { libc::syscall(libc::SYS_io_submit, context.0, BATCH, batch.as_ptr()) }) {
            Ok(0) | Err(Errno::EAGAIN) => return Ok(all),
            Ok(taken) => all += taken as u64,
            Err(errno) => return Err(errno),
        }
    }
}

/// `struct iocb` of a request that is done at once: it waits for a descriptor to become ready (IOCB_CMD_POLL, POLLOUT) that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What its event says.
    pub data: u64,
    /// A descriptor that can be written to, or a regular file, which always can.
    pub fd: i32,
}

impl Request {
    /// As io_submit(2) reads it; it writes to the third word of 32 bits.
    #[must_use]
    pub fn bytes(self) -> [u8; 64] {
        const IOCB_CMD_POLL: u64 = 5;
        let command = IOCB_CMD_POLL | u64::from(self.fd.cast_unsigned()) << 32;
        let words = [self.data, 0, command, libc::POLLOUT as u64, 0, 0, 0, 0].map(u64::to_le_bytes);
        std::array::from_fn(|at| words[at / 8][at % 8])
    }
}

/// A context of ours.
struct Context(u64);

impl Context {
    fn new(requests: u32) -> Result<Self> {
        let mut id = 0u64;
        // SAFETY: the kernel writes one word.
        checked(unsafe { libc::syscall(libc::SYS_io_setup, requests, &raw mut id) })?;
        Ok(Self(id))
    }

    /// `nr` of `struct aio_ring`, which is where the id says.
    fn slots(&self) -> u32 {
        let ring = std::ptr::with_exposed_provenance::<u32>(self.0 as usize);
        // SAFETY: the kernel has mapped the ring, which stays until the context is destroyed.
        unsafe { ring.add(1).read_volatile() }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: nobody else has the context.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_takes_what_its_ring_holds_but_for_a_remainder() {
        for slots in [127, 255, 1023] {
            let capacity = capacity(slots).expect("capacity");
            assert!((u64::from(slots) * 3 / 4..u64::from(slots)).contains(&capacity), "{slots}: {capacity}");
        }
    }
}
