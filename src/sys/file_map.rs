//! Mapping a whole file for reading.
#![allow(unsafe_code)]

use memmap2::Mmap;
use std::fs::File;
use std::io;

/// Maps an image for [`Image::open`](crate::image::Image::open).
///
/// An image appears under its name by rename(2) and is never changed afterwards. Whoever cuts the file off while it is
/// mapped makes this process end with SIGBUS; whoever writes into it makes a checksum fail.
///
/// # Errors
/// mmap(2).
pub fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapping is private and read-only. Rust wants bytes behind a slice not to change; nothing but bytes is
    // read from it, no value has an invalid bit pattern, and what was checked is read again at most to be copied.
    unsafe { Mmap::map(file) }
}
