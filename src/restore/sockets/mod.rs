//! Makes the sockets of an image.

mod datagram;
mod netlink;
pub mod taken;
mod tcp;
mod unix;

use super::descriptors::{OpenError, failed};
use crate::image::model::Snapshot;
use crate::image::model::id::SocketId;
use crate::image::model::socket::{Socket, State};
use crate::resources::socket::options::{self, Moment};
use crate::sys::{open, socket};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// The sockets, until the skeletons have inherited them.
#[derive(Debug, Default)]
pub struct Sockets {
    /// By their ids.
    made: Vec<File>,
}

impl Sockets {
    /// Makes all of them. Numbers from `top` on are free for our own use.
    ///
    /// # Errors
    /// What could not be had.
    pub fn make(snapshot: &Snapshot, top: i32) -> Result<Self, OpenError> {
        let make = |wanted: &Socket| make(wanted, top).map_err(failed(format!("socket:[{}]", wanted.ino)));
        let mut order: Vec<&Socket> = snapshot.sockets.iter().collect();
        // Those who share a port form a group in the order in which they join it: inodes are numbered by age.
        order.sort_by_key(|socket| (turn(&socket.state), socket.ino));
        let mut made = Vec::with_capacity(order.len());
        for socket in order {
            made.push((socket.id, make(socket)?));
        }
        made.sort_by_key(|(id, _)| *id);
        Ok(Self { made: made.into_iter().map(|(_, file)| file).collect() })
    }

    /// One of them: there is one description of it.
    ///
    /// # Errors
    /// As dup(2).
    pub fn socket(&self, id: SocketId) -> Result<File, OpenError> {
        let made = self.made.get(id.0 as usize).ok_or_else(|| io::ErrorKind::NotFound.into());
        made.and_then(File::try_clone).map_err(failed(format!("socket {id}")))
    }
}

/// See [`tcp::turn`].
fn turn(state: &State) -> u8 {
    match state {
        State::Unix(_) | State::Datagram(_) | State::Netlink(_) => 0,
        State::Tcp(tcp) => tcp::turn(&tcp.role),
    }
}

/// Says what it takes to make such a socket at all.
fn needs(wanted: &Socket, error: io::Error) -> io::Error {
    let hint = match wanted.kind {
        _ if error.kind() != io::ErrorKind::PermissionDenied => return error,
        libc::SOCK_RAW => "it takes CAP_NET_RAW",
        _ => "the groups that may are in net.ipv4.ping_group_range",
    };
    io::Error::new(error.kind(), format!("{error} ({hint})"))
}

fn make(wanted: &Socket, top: i32) -> io::Result<File> {
    let made = socket::make(wanted.domain, wanted.kind, wanted.protocol).map_err(|error| needs(wanted, error))?;
    let made = open::lift(made, top)?;
    let set = |moment| options::apply(made.as_fd(), &wanted.options, moment);
    set(Moment::Made)?;
    match &wanted.state {
        State::Unix(state) => unix::set_up(&made, state)?,
        State::Tcp(state) => tcp::set_up(&made, state)?,
        State::Datagram(state) => datagram::set_up(&made, wanted, state)?,
        State::Netlink(state) => netlink::set_up(&made, state)?,
    }
    set(Moment::Named)?;
    set(Moment::Filled)?;
    if nix::unistd::geteuid().is_root() {
        nix::unistd::fchown(&made, Some(wanted.uid.into()), Some(wanted.gid.into()))?;
    }
    Ok(made)
}
