//! Classic BPF filters of sockets (SO_ATTACH_FILTER, Documentation/networking/filter.rst).

use crate::sys::socket;
use std::io;
use std::os::fd::BorrowedFd;

/// The instructions of a filter, empty for none; or why they cannot be had.
///
/// # Errors
/// As getsockopt(2).
pub fn collect(fd: BorrowedFd<'_>) -> io::Result<Result<Vec<u8>, String>> {
    match socket::filter(fd) {
        Ok(program) => Ok(Ok(program)),
        // net/core/filter.c, sk_get_filter: there is no classic program that it was made of.
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            Ok(Err("it has an eBPF filter (SO_ATTACH_BPF), whose program cannot be read".into()))
        }
        Err(error) => Err(error),
    }
}
