//! A target's memory through `/proc/PID/mem`, which a tracer may write even where the target itself may not, and which never
//! unshares pages by reading.
#![allow(unsafe_code)]

use super::error::Error;
use crate::image::model::address::Addr;
use crate::image::model::id::Pid;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;

/// An address in a target at which a `T` lies.
pub struct RemotePtr<T> {
    addr: Addr,
    of: PhantomData<*const T>,
}

impl<T> RemotePtr<T> {
    /// The `T` at this address.
    #[must_use]
    pub const fn new(addr: Addr) -> Self {
        Self { addr, of: PhantomData }
    }

    /// Where it lies.
    #[must_use]
    pub const fn addr(self) -> Addr {
        self.addr
    }

    /// The same address as that of something else.
    #[must_use]
    pub const fn cast<U>(self) -> RemotePtr<U> {
        RemotePtr::new(self.addr)
    }

    /// The element `count` further on.
    #[must_use]
    pub const fn offset(self, count: u64) -> Self {
        Self::new(self.addr.add(count.wrapping_mul(size_of::<T>() as u64)))
    }
}

impl<T> Clone for RemotePtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for RemotePtr<T> {}

impl<T> fmt::Debug for RemotePtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemotePtr({})", self.addr)
    }
}

/// Types of which any bytes are a value and whose every byte is initialised.
///
/// # Safety
/// The type has no padding, no pointer and no invalid bit pattern.
pub unsafe trait Plain: Copy + Default {}

macro_rules! plain {
    ($($t:ty),*) => { $(
        // SAFETY: any bytes are a value of an integer, and it has no padding.
        unsafe impl Plain for $t {}
    )* };
}
plain!(u8, i8, u16, i16, u32, i32, u64, i64, usize, isize);

/// The memory of one process. It goes on to mean that address space should the process end or execute another program.
#[derive(Debug)]
pub struct Memory {
    pid: Pid,
    file: File,
}

impl Memory {
    /// Opens the memory of a process.
    ///
    /// # Errors
    /// [`Error::Proc`].
    pub fn open(pid: Pid) -> Result<Self, Error> {
        let path = format!("/proc/{pid}/mem");
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Ok(Self { pid, file }),
            Err(source) => Err(Error::Proc { path, source }),
        }
    }

    /// Whose memory it is.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Reads bytes.
    ///
    /// # Errors
    /// [`Error::Memory`] when not all of it can be read.
    pub fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), Error> {
        self.file.read_exact_at(into, at.0).map_err(|source| self.failed("reading", at, into.len(), source))
    }

    /// Reads so many bytes.
    ///
    /// # Errors
    /// [`Error::Memory`] when not all of it can be read.
    pub fn read_vec(&self, at: Addr, len: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; len];
        self.read(at, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes bytes, also to what the target may only read. A page of a private mapping is copied for it.
    ///
    /// # Errors
    /// [`Error::Memory`] when not all of it can be written.
    pub fn write(&self, at: Addr, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all_at(bytes, at.0).map_err(|source| self.failed("writing", at, bytes.len(), source))
    }

    /// Reads a value.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn get<T: Plain>(&self, at: RemotePtr<T>) -> Result<T, Error> {
        let mut value = T::default();
        // SAFETY: any bytes are a value of a `Plain` type, and the slice covers exactly `value`.
        let bytes = unsafe { std::slice::from_raw_parts_mut((&raw mut value).cast::<u8>(), size_of::<T>()) };
        self.read(at.addr, bytes)?;
        Ok(value)
    }

    /// Writes a value.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn put<T: Plain>(&self, at: RemotePtr<T>, value: T) -> Result<(), Error> {
        // SAFETY: every byte of a `Plain` type is initialised, and the slice covers exactly `value`.
        let bytes = unsafe { std::slice::from_raw_parts((&raw const value).cast::<u8>(), size_of::<T>()) };
        self.write(at.addr, bytes)
    }

    fn failed(&self, action: &'static str, at: Addr, len: usize, source: io::Error) -> Error {
        Error::Memory { pid: self.pid, action, at, len, source }
    }
}
