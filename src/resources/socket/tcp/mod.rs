//! TCP sockets.

pub mod connection;
pub mod lock;
pub mod subject;
pub mod tree;
pub mod waiting;

use super::options::{self, Row};
use crate::image::model::socket::State;
use crate::image::model::socket::inet;
use crate::image::model::socket::tcp::{Ended, Role, Tcp};
use crate::proc::tcp_table::Tables;
use crate::sys::tcp;
use crate::sys::{descriptor, socket};
use std::io;
use std::os::fd::BorrowedFd;

/// What is known of it, or why it cannot be saved. One that is connected passes for unconnected until all sockets are known ([`tree::read`]).
///
/// # Errors
/// As getsockopt(2), getsockname(2) and their like.
pub fn collect(ino: u64, fd: BorrowedFd<'_>, tables: &mut Tables) -> io::Result<Result<Tcp, String>> {
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
        tcp::State::SynSent => match tables.row("tcp", ino).map_err(io::Error::other)? {
            // getpeername(2) does not tell before there is an answer; the table of the network namespace does.
            Some(row) => Role::Connecting { peer: inet::like(&local, row.peer) },
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
    if connection::peek_offset(fd).is_some() {
        return Ok(Err(connection::PEEKS.into()));
    }
    let unread = tcp::peek(fd, descriptor::unread(fd)?)?;
    Ok(Ok(Role::Ended(Ended { unread, failed: polled.failed })))
}

/// Which options of a socket are left out: what one that was connected has by itself and what it does not take any more: the largest segment was agreed
/// on, and nothing more is sent with the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// None.
    Nothing,
    /// Those of a stream that is not connected.
    Multicast,
    /// Those of one that is, or was.
    Agreed,
}

impl Without {
    /// What is left out of this one.
    ///
    /// # Errors
    /// As getsockopt(2).
    pub fn of(fd: BorrowedFd<'_>, state: &State) -> io::Result<Self> {
        let State::Tcp(whole) = state else { return Ok(Self::Nothing) };
        let has_ended = matches!(whole.role, Role::Ended(_));
        let is_new = !has_ended && matches!(tcp::info(fd)?.state, tcp::State::Close | tcp::State::Listen);
        Ok(if is_new { Self::Multicast } else { Self::Agreed })
    }

    /// Whether an option is one of them.
    #[must_use]
    pub fn is(self, row: &Row) -> bool {
        const FASTOPEN_CONNECT: i32 = 30;
        const AGREED: [i32; 3] = [options::tcp::TCP_MAXSEG, options::tcp::TCP_WINDOW_CLAMP, FASTOPEN_CONNECT];
        // Of multicast, which a stream does not have: the kernel notes in some of them where a connection came from, and lets nobody set them.
        const OF_V4: [i32; 4] = [32, 33, 34, 49];
        const OF_V6: [i32; 4] = [17, 18, 19, 29];
        match row.level {
            libc::IPPROTO_IP => self != Self::Nothing && OF_V4.contains(&row.name),
            libc::IPPROTO_IPV6 => self != Self::Nothing && OF_V6.contains(&row.name),
            tcp::LEVEL => self == Self::Agreed && AGREED.contains(&row.name),
            _ => false,
        }
    }
}

/// An address for people to read.
#[must_use]
pub fn shown(address: &[u8]) -> String {
    inet::Shown(address).to_string()
}
