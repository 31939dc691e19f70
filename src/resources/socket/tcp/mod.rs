//! TCP sockets.

pub mod connection;
pub mod tree;
pub mod waiting;

use super::options;
use crate::image::model::socket::inet;
use crate::image::model::socket::tcp::{Ended, Role, Tcp};
use crate::image::model::socket::{SocketOption, State};
use crate::proc::tcp_table;
use crate::sys::tcp;
use crate::sys::{descriptor, socket};
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

/// What is known of it, or why it cannot be saved. One that is connected passes for unconnected until all sockets are known ([`tree::read`]).
///
/// # Errors
/// As getsockopt(2), getsockname(2) and their like.
pub fn collect(ino: u64, fd: BorrowedFd<'_>) -> io::Result<Result<Tcp, String>> {
    let upper = tcp::upper_layer(fd)?;
    if !upper.is_empty() {
        return Ok(Err(format!("the state of its upper layer ({upper}) cannot be read")));
    }
    let local = socket::own_address(fd)?;
    let info = tcp::info(fd)?;
    let role = match info.state {
        tcp::State::Listen => Role::Listening { backlog: info.backlog },
        tcp::State::Close => match ended(fd)? {
            Ok(role) => role,
            Err(reason) => return Ok(Err(reason)),
        },
        tcp::State::SynSent => match connecting_to(ino) {
            Some(peer) => Role::Connecting { peer: inet::like(&local, peer) },
            None => return Ok(Err("whom it connects to cannot be seen".into())),
        },
        tcp::State::Established
        | tcp::State::FinWait1
        | tcp::State::FinWait2
        | tcp::State::CloseWait
        | tcp::State::LastAck
        | tcp::State::Closing => Role::Unconnected,
        tcp::State::SynReceived | tcp::State::TimeWait | tcp::State::Other(_) => {
            return Ok(Err(format!("it is in state {:?}, which lasts a moment only", info.state)));
        }
    };
    Ok(Ok(Tcp { local, role }))
}

/// A socket that is closed: never connected, or no longer.
fn ended(fd: BorrowedFd<'_>) -> io::Result<Result<Role, String>> {
    let polled = tcp::polled(fd)?;
    // Only the end of a connection shuts both directions (net/ipv4/tcp.c, tcp_poll).
    if !polled.shut {
        let reason = "a connection was refused and its program was not told yet; what it would be told cannot be read";
        return Ok(if polled.failed { Err(reason.into()) } else { Ok(Role::Unconnected) });
    }
    if polled.urgent || tcp::at_mark(fd)? {
        return Ok(Err(connection::URGENT.into()));
    }
    let unread = tcp::peek(fd, descriptor::unread(fd)?)?;
    Ok(Ok(Role::Ended(Ended { unread, failed: polled.failed })))
}

/// getpeername(2) does not tell before there is an answer; the table of the network namespace does.
fn connecting_to(ino: u64) -> Option<SocketAddr> {
    let rows = tcp_table::read(&mut Vec::new()).ok()?;
    rows.iter().find(|row| row.ino == ino).map(|row| row.peer)
}

/// Leaves out what a socket that was connected has by itself and what it does not take any more: the largest segment was agreed on, and nothing more is
/// sent with the first one.
///
/// # Errors
/// As getsockopt(2).
pub fn settable(mut options: Vec<SocketOption>, fd: BorrowedFd<'_>, state: &State) -> io::Result<Vec<SocketOption>> {
    const FASTOPEN_CONNECT: i32 = 30;
    /// Of multicast, which a stream does not have: the kernel notes in some of them where a connection came from, and lets nobody set them.
    const MULTICAST: [(i32, &[i32]); 2] =
        [(libc::IPPROTO_IP, &[32, 33, 34, 49]), (libc::IPPROTO_IPV6, &[17, 18, 19, 29])];
    let State::Tcp(whole) = state else { return Ok(options) };
    options.retain(|option| {
        !MULTICAST.iter().any(|(level, names)| *level == option.level && names.contains(&option.name))
    });
    let fresh = matches!(tcp::info(fd)?.state, tcp::State::Close | tcp::State::Listen);
    if !fresh || matches!(whole.role, Role::Ended(_)) {
        let leaves = [options::tcp::TCP_MAXSEG, options::tcp::TCP_WINDOW_CLAMP, FASTOPEN_CONNECT];
        options.retain(|option| option.level != tcp::LEVEL || !leaves.contains(&option.name));
    }
    Ok(options)
}

/// An address for people to read.
#[must_use]
pub fn shown(address: &[u8]) -> String {
    inet::Shown(address).to_string()
}
