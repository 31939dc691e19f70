//! Which addresses of an image cannot be had on this host, and who has them.

use super::settings::{Point, Settings};
use super::tcp::anew;
use super::unix::rooms;
use crate::image::model::Snapshot;
use crate::image::model::id::{Pid, SocketId};
use crate::image::model::socket::inet::{self, Shown};
use crate::image::model::socket::tcp::{Connection, Other, Role, Tcp};
use crate::image::model::socket::unix::SocketFile;
use crate::image::model::socket::{Socket, State};
use crate::proc::fd_link::{self, FdLink};
use crate::proc::tcp_table::{self, Row};
use crate::proc::{TaskDir, many, processes};
use crate::resources::socket::datagram;
use crate::resources::socket::tcp::tree::may_repair;
use crate::sys;
use crate::sys::sock_diag::{self, UnixSocket};
use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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

/// Tries each address of a socket that is bound, but those of connections of TCP that are repaired.
#[must_use]
pub fn probe(snapshot: &Snapshot) -> Vec<Taken> {
    let settings = Settings::new(snapshot);
    // What it is that fails here is said when sockets are made.
    let repairs = may_repair().unwrap_or(true);
    anew::clear(snapshot, repairs, &settings);
    snapshot.sockets.iter().filter_map(|wanted| unix(wanted).or_else(|| one(wanted, &settings, repairs))).collect()
}

/// A name of the UNIX domain.
fn unix(wanted: &Socket) -> Option<Taken> {
    let State::Unix(state) = &wanted.state else { return None };
    if state.accepted || state.name.is_empty() {
        return None;
    }
    let file = state.file.as_ref();
    let trouble = rooms::obstacle(&state.name, file, wanted.kind).err()?;
    let (reason, remedy) = match trouble.kind() {
        io::ErrorKind::AddrInUse => match unix_holder(wanted.kind, &state.name, file) {
            Some(holder) => (format!("another socket is bound to it, of {holder}"), "end that"),
            None => ("another socket is bound to it".into(), "see who has it: ss -xap"),
        },
        io::ErrorKind::NotFound => ("its directory does not exist".into(), "make it again (mkdir)"),
        io::ErrorKind::AlreadyExists => (trouble.to_string(), "move that away"),
        io::ErrorKind::PermissionDenied => ("this user may not make a file there".into(), "run as root"),
        // Whatever else it is will be said when the socket is made.
        _ => return None,
    };
    let name = file.map_or(&state.name, |file| &file.path);
    let address = String::from_utf8_lossy(name).replace('\0', "@");
    Some(Taken { id: wanted.id, address, reason, remedy: remedy.into() })
}

fn unix_holder(kind: i32, name: &[u8], file: Option<&SocketFile>) -> Option<String> {
    let known = file.and_then(|file| Path::new(OsStr::from_bytes(&file.path)).symlink_metadata().ok());
    let is_it = |socket: &UnixSocket| match &known {
        Some(meta) => socket.file.is_some_and(|(_, ino)| meta.ino() == ino),
        None => socket.kind == kind && socket.name == name,
    };
    who_holds(&sock_diag::unix().ok()?.into_iter().filter(is_it).map(|socket| socket.ino).collect::<Vec<_>>())
}

fn one(wanted: &Socket, settings: &Settings<'_>, repairs: bool) -> Option<Taken> {
    if let Some(connection) = leads_outside(wanted).filter(|_| !repairs) {
        let peer = Shown(&connection.peer);
        let reason = format!(
            "its connection with {peer} leads outside, and to bring it back takes CAP_NET_ADMIN in this network namespace"
        );
        let remedy = "run as root, or restore it with its connections closed (--tcp-close)".into();
        let State::Tcp(Tcp { local, role: _ }) = &wanted.state else { return None };
        return Some(Taken { id: wanted.id, address: Shown(local).to_string(), reason, remedy });
    }
    let is_anew = anew::is_anew(wanted, repairs);
    let local = own_address(wanted, is_anew)?;
    let address = inet::parse(local).filter(|address| address.port() != 0)?;
    let tried = if is_anew { anew::trial(wanted, settings) } else { bind(wanted, local, settings) };
    let trouble = tried.err()?;
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

fn leads_outside(wanted: &Socket) -> Option<&Connection> {
    match &wanted.state {
        State::Tcp(Tcp { local: _, role: Role::Connected(connection) }) => {
            Some(connection.as_ref()).filter(|connection| connection.other == Other::Outside)
        }
        State::Tcp(_) | State::Unix(_) | State::Datagram(_) | State::Netlink(_) | State::Packet(_) => None,
    }
}

/// The address that bind(2) is to be called with.
fn own_address(wanted: &Socket, is_anew: bool) -> Option<&[u8]> {
    match &wanted.state {
        State::Unix(_) => None,
        State::Tcp(tcp) => match tcp.role {
            Role::Unconnected | Role::Listening { backlog: _ } => Some(&tcp.local),
            Role::Connected(_) if is_anew => Some(&tcp.local),
            Role::Ended(_) | Role::Connecting { peer: _ } | Role::Connected(_) => None,
        },
        State::Datagram(state) => (wanted.kind == libc::SOCK_DGRAM).then_some(&state.local),
        State::Netlink(_) | State::Packet(_) => None,
    }
}

fn bind(wanted: &Socket, local: &[u8], settings: &Settings<'_>) -> io::Result<()> {
    let trial = sys::socket::make(wanted.domain, wanted.kind, wanted.protocol)?;
    settings.set(trial.as_fd(), wanted, Point::New)?;
    sys::socket::bind(trial.as_fd(), local)
}

/// Who has a socket with this port, as far as this user may see.
fn holder(socket: &Socket, wanted: SocketAddr) -> Option<String> {
    let rows = tcp_table::read_of(datagram::table(socket.kind, socket.protocol)?, &mut Vec::new()).ok()?;
    let same = |row: &&Row| row.local.port() == wanted.port() && row.ino != 0;
    who_holds(&rows.iter().filter(same).map(|row| row.ino).collect::<Vec<_>>())
}

/// A process that has one of these sockets open, as far as this user may see.
fn who_holds(inodes: &[u64]) -> Option<String> {
    many::map(&processes(), |&pid, buffer| holds(pid, inodes, buffer)).into_iter().flatten().next()
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
