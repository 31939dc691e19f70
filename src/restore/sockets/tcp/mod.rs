//! TCP sockets.

pub mod anew;
mod connection;
mod ended;
mod packet;
pub mod reviving;

use crate::image::model::socket::inet;
use crate::image::model::socket::tcp::{Role, Tcp};
use crate::sys::{socket, tcp};
use std::collections::HashSet;
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

/// Makes a new socket what it was. `ports` are those of connections that were made before it.
pub fn set_up(made: &File, Tcp { local, role }: &Tcp, ports: &HashSet<u16>, repairs: bool) -> io::Result<()> {
    let is_shared = inet::parse(local).is_some_and(|address| ports.contains(&address.port()));
    match role {
        Role::Unconnected => name_before_connections(made, local, is_shared, || Ok(())),
        Role::Listening { backlog } => {
            name_before_connections(made, local, is_shared, || tcp::listen(made.as_fd(), *backlog))
        }
        Role::Ended(ended) => ended::again(made, ended),
        Role::Connecting { peer: _ } => name_beside_others(made, local, repairs),
        Role::Connected(connection) => connection::set_up(made, local, connection),
    }
}

/// A listener, or what would be one, has its name before its connections have, and was not asked to share it. Here it comes after them.
fn name_before_connections(
    made: &File,
    local: &[u8],
    is_shared: bool,
    then: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    match name(made, local) {
        Err(error) if is_shared && error.kind() == io::ErrorKind::AddrInUse => {}
        other => return other.and_then(|()| then()),
    }
    let (fd, level) = (made.as_fd(), libc::SOL_SOCKET);
    let reuse = socket::option(fd, level, libc::SO_REUSEADDR)?;
    socket::set_option(fd, level, libc::SO_REUSEADDR, &1i32.to_ne_bytes())?;
    name(made, local)?;
    then()?;
    socket::set_option(fd, level, libc::SO_REUSEADDR, &reuse)
}

/// What connects may have a port that others have too, to other addresses (net/ipv4/inet_hashtables.c, `__inet_hash_connect`): for bind(2) that takes
/// repair mode, or it is given to it when it connects.
fn name_beside_others(made: &File, local: &[u8], repairs: bool) -> io::Result<()> {
    match name(made, local) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !repairs => return anew::link::share(made, local),
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
