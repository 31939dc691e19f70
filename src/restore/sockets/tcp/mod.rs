//! TCP sockets.

mod connection;
mod ended;
mod packet;
pub mod reviving;

use crate::image::model::socket::inet;
use crate::image::model::socket::tcp::{Role, Tcp};
use crate::sys::{socket, tcp};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// In which order sockets are made: whoever binds a port with exclusion comes before those who share it without asking.
#[must_use]
pub fn turn(role: &Role) -> u8 {
    match role {
        Role::Ended(_) => 0,
        Role::Listening { backlog: _ } => 1,
        Role::Unconnected | Role::Connecting { peer: _ } => 2,
        Role::Connected(_) => 3,
    }
}

/// Makes a new socket what it was.
pub fn set_up(made: &File, Tcp { local, role }: &Tcp) -> io::Result<()> {
    match role {
        Role::Unconnected => name(made, local),
        Role::Listening { backlog } => {
            name(made, local)?;
            tcp::listen(made.as_fd(), *backlog)
        }
        Role::Ended(ended) => ended::again(made, ended),
        Role::Connecting { peer: _ } => name_beside_others(made, local),
        Role::Connected(connection) => connection::set_up(made, local, connection),
    }
}

/// What connects may have a port that others have too, to other addresses (net/ipv4/inet_hashtables.c, `__inet_hash_connect`): for bind(2) that takes
/// repair mode.
fn name_beside_others(made: &File, local: &[u8]) -> io::Result<()> {
    match name(made, local) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        other => return other,
    }
    let fd = made.as_fd();
    let reuse = socket::option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    tcp::set(fd, tcp::REPAIR, 1)?;
    name(made, local)?;
    tcp::set(fd, tcp::REPAIR, tcp::OFF_SILENTLY)?;
    socket::set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &reuse)?;
    Ok(())
}

/// Gives it its name, if it had one.
fn name(made: &File, local: &[u8]) -> io::Result<()> {
    match inet::parse(local) {
        Some(address) if address.port() != 0 || !address.ip().is_unspecified() => {
            let named = |error: io::Error| io::Error::new(error.kind(), format!("bind to {address}: {error}"));
            socket::bind(made.as_fd(), local).map_err(named)
        }
        Some(_) | None => Ok(()),
    }
}
