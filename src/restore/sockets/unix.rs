//! Sockets of the UNIX domain.

use crate::image::model::socket::unix::Unix;
use crate::sys::socket;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// Gives it its name.
pub fn set_up(made: &File, Unix { name }: &Unix) -> io::Result<()> {
    if name.is_empty() {
        return Ok(());
    }
    let address = [&(libc::AF_UNIX as u16).to_ne_bytes()[..], name].concat();
    socket::bind(made.as_fd(), &address)
}
