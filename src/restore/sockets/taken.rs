//! Which addresses of an image cannot be had on this host, and who has them.

use crate::image::model::Snapshot;
use crate::image::model::id::{Pid, SocketId};
use crate::image::model::socket::inet::{self, Shown};
use crate::image::model::socket::tcp::Role;
use crate::image::model::socket::{Socket, State};
use crate::proc::fd_link::{self, FdLink};
use crate::proc::tcp_table::{self, Row};
use crate::proc::{TaskDir, many};
use crate::resources::socket::datagram;
use crate::resources::socket::options::{self, Moment};
use crate::sys;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

/// A socket that cannot have its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The socket.
    pub id: SocketId,
    /// The address.
    pub address: String,
    /// Why not.
    pub reason: String,
    /// What helps.
    pub remedy: String,
}

/// Tries each address of a socket that is bound, but those of connections of TCP.
#[must_use]
pub fn probe(snapshot: &Snapshot) -> Vec<Taken> {
    snapshot.sockets.iter().filter_map(one).collect()
}

fn one(wanted: &Socket) -> Option<Taken> {
    let local = own_address(wanted)?;
    let address = inet::parse(local).filter(|address| address.port() != 0)?;
    let trouble = bind(wanted, local).err()?;
    let (reason, remedy) = match trouble.raw_os_error() {
        Some(libc::EADDRINUSE) => match holder(wanted, address) {
            Some(holder) => (format!("it is taken by {holder}"), "end that, or restore in another network namespace"),
            None if wanted.protocol == libc::IPPROTO_TCP && are_leftovers(address) => (
                "connections that have ended have it for up to a minute (TIME-WAIT and the like), since it has no SO_REUSEADDR".into(),
                "wait until they are gone: ss -tan",
            ),
            None => ("it is taken".into(), "see who has it: ss -antup"),
        },
        Some(libc::EADDRNOTAVAIL) => ("this host does not have that address".into(), "add it (ip address add)"),
        Some(libc::EACCES) => ("it takes CAP_NET_BIND_SERVICE".into(), "run as root"),
        // Whatever else it is will be said when the socket is made.
        _ => return None,
    };
    Some(Taken { id: wanted.id, address: Shown(local).to_string(), reason, remedy: remedy.into() })
}

/// The address that bind(2) is to be called with.
fn own_address(wanted: &Socket) -> Option<&[u8]> {
    match &wanted.state {
        State::Unix(_) => None,
        State::Tcp(tcp) => match tcp.role {
            Role::Unconnected | Role::Listening { backlog: _ } => Some(&tcp.local),
            Role::Ended(_) | Role::Connecting { peer: _ } | Role::Connected(_) => None,
        },
        State::Datagram(state) => (wanted.kind == libc::SOCK_DGRAM).then_some(&state.local),
        State::Netlink(_) => None,
    }
}

fn bind(wanted: &Socket, local: &[u8]) -> io::Result<()> {
    let trial = sys::socket::make(wanted.domain, wanted.kind, wanted.protocol)?;
    options::apply(trial.as_fd(), &wanted.options, Moment::Made)?;
    sys::socket::bind(trial.as_fd(), local)
}

/// Who has a socket with this port, as far as this user may see.
fn holder(socket: &Socket, wanted: SocketAddr) -> Option<String> {
    let rows = tcp_table::read_of(datagram::table(socket.kind, socket.protocol)?, &mut Vec::new()).ok()?;
    let same = |row: &&Row| row.local.port() == wanted.port() && row.ino != 0;
    let inodes: Vec<u64> = rows.iter().filter(same).map(|row| row.ino).collect();
    let pids: Vec<Pid> = std::fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(Pid)
        .collect();
    many::map(&pids, |&pid, buffer| holds(pid, &inodes, buffer)).into_iter().flatten().next()
}

/// Whether what has this port belongs to no process any more.
fn are_leftovers(wanted: SocketAddr) -> bool {
    let rows = tcp_table::read(&mut Vec::new()).unwrap_or_default();
    let mut same = rows.iter().filter(|row| row.local.port() == wanted.port()).peekable();
    same.peek().is_some() && same.all(|row| row.ino == 0)
}

fn holds(pid: Pid, inodes: &[u64], buffer: &mut Vec<u8>) -> Option<String> {
    let task = TaskDir::process(pid).ok()?;
    let is_it = |fd| matches!(fd_link::read(&task, fd), Ok(FdLink::Socket(ino)) if inodes.contains(&ino));
    let fd = task.fds().ok()?.into_iter().find(|fd| is_it(*fd))?;
    let comm = task.read_into("comm", buffer).map(|name| String::from_utf8_lossy(name.trim_ascii_end()).into_owned());
    Some(format!("pid {pid} ({}) fd {fd}", comm.unwrap_or_default()))
}
