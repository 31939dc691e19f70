//! Sockets: what all families have in common, and which family knows more. Everything is asked of duplicates in our own table.

pub mod datagram;
pub mod family;
pub mod netlink;
pub mod options;
pub mod tcp;
mod unix;

use crate::image::model::file::OpenObject;
use crate::image::model::id::SocketId;
use crate::image::model::socket::{Socket, State};
use crate::sys::socket;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

/// The sockets of a tree while they are collected.
#[derive(Debug, Default)]
pub struct Sockets {
    sockets: Vec<Socket>,
}

impl Sockets {
    /// A socket by a duplicate of its descriptor, or why it cannot be saved. There is one description of each, so each comes once.
    ///
    /// # Errors
    /// As getsockopt(2) and its like.
    pub fn collect(&mut self, ino: u64, file: &File) -> io::Result<Result<OpenObject, Refusal>> {
        let fd = file.as_fd();
        let number = |name| socket::number(fd, libc::SOL_SOCKET, name);
        let (domain, kind, protocol) = (number(libc::SO_DOMAIN)?, number(libc::SO_TYPE)?, number(libc::SO_PROTOCOL)?);
        let state = match state(ino, fd, (domain, kind, protocol))? {
            Ok(state) => state,
            Err(reason) => return Ok(Err(reason)),
        };
        let meta = file.metadata()?;
        let id = SocketId(self.sockets.len() as u32);
        let options = match options::collect(fd, (domain, kind, protocol))? {
            Ok(options) => tcp::settable(options, &state),
            Err(reason) => return Ok(Err(Refusal::Never(reason))),
        };
        let (uid, gid) = (meta.uid(), meta.gid());
        self.sockets.push(Socket { id, ino, domain, kind, protocol, uid, gid, options, state });
        Ok(Ok(OpenObject::Socket(id)))
    }

    /// All of them.
    #[must_use]
    pub fn finish(self) -> Vec<Socket> {
        self.sockets
    }
}

/// Why a socket cannot be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is what it is.
    Never(String),
    /// This may be over in a moment.
    Passing(String),
}

impl Refusal {
    /// What may be over in a moment.
    pub fn passing(reason: impl Into<String>) -> Self {
        Self::Passing(reason.into())
    }
}

fn state(ino: u64, fd: BorrowedFd<'_>, what: (i32, i32, i32)) -> io::Result<Result<State, Refusal>> {
    let (.., protocol) = what;
    match what {
        (libc::AF_UNIX, _, _) => Ok(unix::collect(fd)?.map(State::Unix).map_err(Refusal::Never)),
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP) => Ok(match tcp::collect(ino, fd)? {
            Ok(tcp::Found::Whole(state)) => Ok(State::Tcp(state)),
            Ok(tcp::Found::Connection(_)) => Err(Refusal::Never("TCP connections are not supported yet".into())),
            Err(reason) => Err(Refusal::Never(reason)),
        }),
        (libc::AF_NETLINK, ..) => Ok(netlink::collect(ino, fd, protocol)?.map(State::Netlink)),
        _ if datagram::name(what).is_some() => Ok(datagram::collect(ino, fd, what)?.map(State::Datagram)),
        _ => Ok(Err(Refusal::Never(format!("{} sockets are not supported", family::name(what))))),
    }
}
