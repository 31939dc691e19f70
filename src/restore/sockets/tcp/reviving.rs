//! Connections of an image between their making and the moment at which they live.

use super::connection;
use crate::image::model::Snapshot;
use crate::image::model::id::SocketId;
use crate::image::model::socket::tcp::{Connection, Role, Tcp};
use crate::image::model::socket::{Socket, State};
use crate::resources::socket::tcp::lock::lock_of;
use crate::restore::sockets::settings::Settings;
use crate::sys::nftables::{self, Owned};
use std::fs::File;
use std::io;

/// What is still to be done for connections.
#[derive(Debug, Default)]
pub struct Reviving {
    waiting: Vec<(SocketId, File)>,
    /// What drops packets that come too early.
    lock: Option<Owned>,
    /// The lock that the dump has left.
    left: Option<String>,
    /// Whether connections may be repaired.
    repairs: bool,
}

impl Reviving {
    /// Drops the packets of connections that lead outside, until they live.
    ///
    /// # Errors
    /// As netlink(7).
    pub fn prepare(snapshot: &Snapshot, top: i32, repairs: bool) -> io::Result<Self> {
        let Some((name, connections)) = lock_of(&snapshot.sockets) else {
            return Ok(Self { repairs, ..Self::default() });
        };
        let lock = nftables::own(&format!("{name}-restore-{}", std::process::id()), &connections)?.lift(top)?;
        Ok(Self { waiting: Vec::new(), lock: Some(lock), left: Some(name), repairs })
    }

    /// Keeps a socket that has still to be brought to life; any other is given back. There may be as many as `snap` may have open, so that it is no copy.
    pub fn keep(&mut self, socket: &Socket, file: File) -> Option<File> {
        let is_waiting = matches!(
            &socket.state,
            State::Tcp(Tcp { local: _, role: Role::Connected(_) | Role::Connecting { peer: _ } })
        );
        if !is_waiting {
            return Some(file);
        }
        self.waiting.push((socket.id, file));
        None
    }

    /// Lets all of them live. Nothing may fail after it.
    ///
    /// # Errors
    /// What failed with which socket.
    pub fn revive(mut self, snapshot: &Snapshot) -> io::Result<()> {
        let settings = Settings::new(snapshot);
        let waiting = std::mem::take(&mut self.waiting);
        let all = || waiting.iter().filter_map(|(id, file)| Some((snapshot.sockets.get(id.0 as usize)?, file)));
        let failed = |socket: &Socket| {
            let ino = socket.ino;
            move |error: io::Error| io::Error::new(error.kind(), format!("socket:[{ino}]: {error}"))
        };
        let is_anew = |connection: &Connection| connection.is_anew(self.repairs);
        for (socket, file) in all().filter(|(socket, _)| connection(socket).is_some_and(|one| !is_anew(one))) {
            connection::wake(file).map_err(failed(socket))?;
        }
        drop(self.lock);
        if let Some(left) = &self.left {
            nftables::remove(left)?;
        }
        for (socket, file) in all() {
            let State::Tcp(tcp) = &socket.state else { continue };
            match &tcp.role {
                Role::Connected(connection) => {
                    connection::go_on(file, socket, tcp, connection, &settings, is_anew(connection))
                }
                Role::Connecting { peer } => connection::connect_again(file, peer, settings.of(socket)),
                Role::Unconnected | Role::Listening { backlog: _ } | Role::Ended(_) => Ok(()),
            }
            .map_err(failed(socket))?;
        }
        Ok(())
    }
}

fn connection(socket: &Socket) -> Option<&Connection> {
    match &socket.state {
        State::Tcp(Tcp { local: _, role: Role::Connected(connection) }) => Some(connection),
        State::Tcp(_) | State::Unix(_) | State::Datagram(_) | State::Netlink(_) | State::Packet(_) => None,
    }
}
