//! Sockets of the UNIX domain: what they are connected to, and what waits in them.

mod links;
mod name;
pub mod queue;

pub use links::{Links, Subject};
pub use name::{address_of, is_path, name_of, resolve};

use crate::image::model::socket::unix::{Link, PeerCredentials, Unix};
use crate::sys::socket;
use std::io;
use std::os::fd::BorrowedFd;

/// What it tells by itself. The rest is looked for once every socket of the tree is known.
///
/// # Errors
/// As getsockname(2) and its like.
pub fn collect(fd: BorrowedFd<'_>) -> io::Result<Unix> {
    let name = name_of(&socket::own_address(fd)?);
    let credentials = match socket::peer_credentials(fd)? {
        Some([pid, uid, gid]) => {
            Some(PeerCredentials { pid: pid.cast_signed(), uid, gid, groups: socket::peer_groups(fd)? })
        }
        None => None,
    };
    Ok(Unix {
        name,
        accepted: false,
        file: None,
        link: Link::None,
        shutdown: 0,
        reset: false,
        credentials,
        queue: Vec::new(),
    })
}
