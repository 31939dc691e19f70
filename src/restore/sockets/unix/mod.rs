//! Sockets of the UNIX domain.
//!
//! Those that are connected are made connected: by socketpair(2), or by connect(2) and accept(2) through a listener of their name, which may be
//! there for this alone. Then what waited in them is sent again by whoever had sent it. Then ends that were closed are closed.

mod author;
mod fill;
mod links;
pub mod rooms;

use super::super::descriptors::{OpenError, failed};
use super::settings::Settings;
use crate::image::model::Snapshot;
use crate::image::model::id::{DescriptionId, SocketId};
use crate::image::model::socket::unix::{Link, PeerCredentials, Unix};
use crate::image::model::socket::{Socket, State};
use crate::sys::descriptor::{OwnerEx, get_owner, set_owner};
use crate::sys::elsewhere::Elsewhere;
use crate::sys::{open, socket};
use author::Authors;
use rooms::Room;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// Room for what was sent before: more than any buffer has.
const LARGE: i32 = i32::MAX / 2;

/// The UNIX sockets of an image while they are made.
#[derive(Debug)]
pub struct Making<'a> {
    snapshot: &'a Snapshot,
    settings: Settings<'a>,
    authors: Authors,
    /// Numbers from here on are free for our own use.
    top: i32,
    /// Those that are made.
    made: BTreeMap<SocketId, File>,
    /// The other ends of those whose peer was closed.
    closed: HashMap<SocketId, File>,
    /// Rooms of bound names.
    rooms: HashMap<SocketId, Room>,
    /// Sockets and rooms that are there for what they have sent, until that is received.
    others: Vec<(File, Option<Room>)>,
    /// Those in which all waits that is to wait.
    filled: HashSet<SocketId>,
}

/// Names of sockets, which stay in their rooms until nothing can fail any more. Dropped, they are gone.
#[derive(Debug, Default)]
pub struct Names(Vec<Room>);

impl Names {
    /// Puts every file where it belongs.
    ///
    /// # Errors
    /// As rename(2).
    pub fn put(&mut self) -> io::Result<()> {
        self.0.iter_mut().try_for_each(Room::put)
    }

    /// The program runs: they stay.
    pub fn keep(mut self) {
        self.0.iter_mut().for_each(Room::keep);
    }
}

impl<'a> Making<'a> {
    /// Makes all of them, connected and bound; nothing waits in them yet.
    ///
    /// # Errors
    /// What could not be had.
    pub fn make(snapshot: &'a Snapshot, settings: Settings<'a>, top: i32) -> Result<Self, OpenError> {
        let authors = Authors::new().map_err(failed("own groups"))?;
        let mut making = Self {
            snapshot,
            settings,
            authors,
            top,
            made: BTreeMap::new(),
            closed: HashMap::new(),
            rooms: HashMap::new(),
            others: Vec::new(),
            filled: HashSet::new(),
        };
        making.make_pairs()?;
        for (socket, state) in of(snapshot) {
            if !making.made.contains_key(&socket.id) && !state.accepted {
                let made = socket::make(libc::AF_UNIX, socket.kind, 0).and_then(|made| making.lift(made));
                making.made.insert(socket.id, made.map_err(error(socket))?);
            }
            if !state.accepted && !state.name.is_empty() {
                let made = &making.made[&socket.id];
                let room = rooms::bind(made, &state.name, state.file.as_ref()).map_err(named(socket, &state.name))?;
                making.rooms.extend(room.map(|room| (socket.id, room)));
            }
        }
        making.connect_streams()?;
        Ok(making)
    }

    /// A duplicate of one of them.
    ///
    /// # Errors
    /// As dup(2).
    pub fn socket(&self, id: SocketId) -> io::Result<File> {
        self.made.get(&id).ok_or_else(|| io::ErrorKind::NotFound.into()).and_then(File::try_clone)
    }

    /// Fills those through which nothing is on its way that has no number yet, and tells whether these are all. `number` tells under which of our numbers a
    /// description is.
    ///
    /// # Errors
    /// What could not be had.
    pub fn begin(&mut self, number: &dyn Fn(DescriptionId) -> Option<i32>) -> Result<bool, OpenError> {
        self.leave_makers()?;
        self.fill(number)
    }

    /// Fills the others, closes what was closed, and sets their options. No owner is told by a signal (O_ASYNC) of what comes.
    ///
    /// # Errors
    /// What could not be had.
    pub fn finish(mut self, number: &dyn Fn(DescriptionId) -> Option<i32>) -> Result<Names, OpenError> {
        let owned = self.silence().map_err(failed("owners of UNIX sockets"))?;
        if !self.fill(number)? {
            return Err(failed("filling UNIX sockets")(io::ErrorKind::NotFound.into()));
        }
        self.others.clear();
        self.connect_datagrams()?;
        self.close()?;
        for (socket, _) in of(self.snapshot) {
            super::settle(&self.made[&socket.id], socket, &self.settings).map_err(error(socket))?;
        }
        for (made, owner) in owned {
            set_owner(made.as_fd(), owner).map_err(failed("owners of UNIX sockets"))?;
        }
        Ok(Names(self.rooms.into_values().collect()))
    }

    /// Those that have an owner already who is told by signals what comes, with that one: from now on nobody is. F_SETFL would tell another number in the
    /// signals that come later.
    fn silence(&self) -> io::Result<Vec<(File, OwnerEx)>> {
        let mut owned = Vec::new();
        for made in self.made.values() {
            let owner = get_owner(made.as_fd())?;
            if owner.pid != 0 {
                set_owner(made.as_fd(), OwnerEx::default())?;
                owned.push((made.try_clone()?, owner));
            }
        }
        Ok(owned)
    }

    /// shutdown(2), and the end of those that were closed.
    fn close(&mut self) -> Result<(), OpenError> {
        for (socket, state) in of(self.snapshot) {
            let made = &self.made[&socket.id];
            if let Some(peer) = self.closed.remove(&socket.id) {
                if state.reset {
                    // Who closes with something unread resets the connection (net/unix/af_unix.c, `unix_release_sock`).
                    let sent = crate::sys::socket_message::send(made.as_fd(), b"x", None, &[], None);
                    sent.map_err(|errno| error(socket)(errno.into()))?;
                }
                drop(peer);
            }
            socket::shutdown(made.as_fd(), state.shutdown).map_err(error(socket))?;
        }
        Ok(())
    }

    fn lift(&self, file: File) -> io::Result<File> {
        open::lift(file, self.top)
    }

    /// Where the name of a socket leads to it.
    fn inside(&self, id: SocketId) -> Option<&Elsewhere> {
        self.rooms.get(&id).map(Room::inside)
    }

    /// Who has a socket first: it will have connected it.
    fn holder(&self, id: SocketId) -> Option<PeerCredentials> {
        use crate::image::model::file::OpenObject;
        let snapshot = self.snapshot;
        let is_it = |description: &DescriptionId| {
            snapshot.descriptions[description.0 as usize].object == OpenObject::Socket(id)
        };
        let holds = |process: &&crate::image::model::process::Process| {
            let table = &snapshot.fd_tables[process.threads[0].fd_table.0 as usize];
            table.entries.iter().any(|entry| is_it(&entry.description))
        };
        let process = snapshot.processes.iter().find(holds)?;
        let credentials = &process.threads[0].credentials;
        let (uid, gid) = (credentials.uid[1], credentials.gid[1]);
        Some(PeerCredentials { pid: process.pid.0, uid, gid, groups: credentials.groups.clone() })
    }
}

/// The UNIX sockets of an image.
fn of(snapshot: &Snapshot) -> impl Iterator<Item = (&Socket, &Unix)> {
    snapshot.sockets.iter().filter_map(|socket| match &socket.state {
        State::Unix(state) => Some((socket, state)),
        State::Tcp(_) | State::Datagram(_) | State::Netlink(_) | State::Packet(_) => None,
    })
}

/// One of them.
fn state(snapshot: &Snapshot, id: SocketId) -> Option<&Unix> {
    match &snapshot.sockets.get(id.0 as usize)?.state {
        State::Unix(state) => Some(state),
        State::Tcp(_) | State::Datagram(_) | State::Netlink(_) | State::Packet(_) => None,
    }
}

fn is_dgram(socket: &Socket) -> bool {
    socket.kind == libc::SOCK_DGRAM
}

/// For `map_err`.
fn error(socket: &Socket) -> impl FnOnce(io::Error) -> OpenError + use<> {
    failed(format!("socket:[{}]", socket.ino))
}

/// For `map_err`, where it is about a name.
fn named(socket: &Socket, name: &[u8]) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let name = String::from_utf8_lossy(name).replace('\0', "@");
    failed(format!("socket:[{}]: UNIX name {name}", socket.ino))
}

/// The peer of a socket, if that is in the image.
fn peer(state: &Unix) -> Option<SocketId> {
    match &state.link {
        Link::Peer(peer) => Some(*peer),
        Link::None | Link::Listening { .. } | Link::Pending(_) | Link::Closed(_) | Link::Outside { .. } => None,
    }
}
