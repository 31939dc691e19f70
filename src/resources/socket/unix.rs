//! Sockets of the UNIX domain.

use crate::image::model::socket::unix::Unix;
use crate::sys::{descriptor, socket};
use std::io;
use std::os::fd::BorrowedFd;

/// Bytes of `sa_family`, before `sun_path`.
const FAMILY: usize = 2;

/// What is known of it, or why it cannot be saved.
///
/// # Errors
/// As getsockname(2) and its like.
pub fn collect(fd: BorrowedFd<'_>) -> io::Result<Result<Unix, String>> {
    let name = socket::own_address(fd)?.split_off(FAMILY);
    let refused = if socket::peer_address(fd).is_ok() {
        "connected UNIX sockets are not supported yet"
    } else if socket::number(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? != 0 {
        "listening UNIX sockets are not supported yet"
    } else if name.first().is_some_and(|byte| *byte != 0) {
        "UNIX sockets with a path are not supported yet"
    } else if descriptor::unread(fd)? > 0 {
        "UNIX sockets with unread messages are not supported yet"
    } else {
        return Ok(Ok(Unix { name }));
    };
    Ok(Err(refused.into()))
}
