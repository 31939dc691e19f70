//! userfaultfd(2) over a mapping of a file: pages of it are made by UFFDIO_COPY, from the memory of whoever calls that, by several at once,
//! and are charged to us.
#![allow(unsafe_code)]

use super::checked;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// UFFD_USER_MODE_ONLY: pages that the kernel itself misses are not waited for, which takes no privilege.
const USER_MODE_ONLY: i32 = 1;
const UFFD_API: u64 = 0xaa;
/// `_IOWR(0xaa, 0x3f, struct uffdio_api)`.
const UFFDIO_API: u64 = 0xc018_aa3f;
/// `_IOWR(0xaa, 0, struct uffdio_register)`.
const UFFDIO_REGISTER: u64 = 0xc020_aa00;
const MODE_MISSING: u64 = 1;
/// 1 << _UFFDIO_COPY in what UFFDIO_REGISTER says can be done.
const CAN_COPY: u64 = 1 << 3;

/// `struct uffdio_api`.
#[repr(C)]
#[derive(Default)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
#[derive(Default)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

const _: () = assert!(size_of::<Api>() == 24 && size_of::<Register>() == 32);

/// A file of tmpfs, mapped so that its holes can be filled through a descriptor by whoever has that.
#[derive(Debug)]
pub struct CopyWindow {
    start: *mut libc::c_void,
    len: usize,
    descriptor: OwnedFd,
}

// SAFETY: it is a mapping that nobody here reads or writes; it can be unmapped by any thread.
unsafe impl Send for CopyWindow {}

impl CopyWindow {
    /// Maps the first `len` bytes of a file, which has to be that long.
    ///
    /// # Errors
    /// EINVAL for a file of another file system than tmpfs; as mmap(2), userfaultfd(2), ioctl_userfaultfd(2).
    pub fn open(file: &File, len: u64) -> io::Result<Self> {
        // SAFETY: userfaultfd takes no pointer, and the descriptor is new.
        let descriptor = unsafe {
            let fd = checked(libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | USER_MODE_ONLY))?;
            OwnedFd::from_raw_fd(fd as i32)
        };
        let mut api = Api { api: UFFD_API, ..Api::default() };
        // SAFETY: the kernel reads and writes one uffdio_api.
        checked(unsafe { libc::ioctl(descriptor.as_raw_fd(), UFFDIO_API as _, &raw mut api) }.into())?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        let len = len as usize;
        // SAFETY: a new mapping at an address of the kernel's choice; no reference into it is ever made.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let window = Self { start, len, descriptor };
        let mut register =
            Register { start: window.address(), len: len as u64, mode: MODE_MISSING, ..Register::default() };
        // SAFETY: the kernel reads and writes one uffdio_register.
        checked(unsafe { libc::ioctl(window.descriptor.as_raw_fd(), UFFDIO_REGISTER as _, &raw mut register) }.into())?;
        if register.ioctls & CAN_COPY == 0 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(window)
    }

    /// Where offset 0 of the file is mapped, for requests on the descriptor.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.start as u64
    }

    /// The descriptor.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for CopyWindow {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no reference into it exists.
        unsafe { libc::munmap(self.start, self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    /// `_IOWR(0xaa, 3, struct uffdio_copy)`.
    const UFFDIO_COPY: u64 = 0xc028_aa03;

    #[test]
    fn a_hole_is_filled_from_memory() {
        let file = crate::sys::open::memfd("window", 0).expect("memfd");
        file.set_len(1 << 20).expect("ftruncate");
        let window = CopyWindow::open(&file, 1 << 20).expect("userfaultfd");
        let page = [7u8; 4096];
        let mut request = [window.address() + 8192, page.as_ptr() as u64, 4096, 1, 0];
        // SAFETY: the kernel reads and writes one uffdio_copy, and reads the page.
        let done = unsafe { libc::ioctl(window.descriptor().as_raw_fd(), UFFDIO_COPY as _, request.as_mut_ptr()) };
        assert_eq!((done, request[4]), (0, 4096));
        drop(window);
        let mut read = [0u8; 4096];
        file.read_exact_at(&mut read, 8192).expect("pread");
        assert_eq!(read, page);
        file.read_exact_at(&mut read, 4096).expect("pread");
        assert_eq!(read, [0; 4096]);
    }
}
