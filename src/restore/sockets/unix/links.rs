//! Connects UNIX sockets.

use super::{Making, author, error, is_dgram, named, of, peer, rooms, state};
use crate::image::model::id::SocketId;
use crate::image::model::socket::Socket;
use crate::image::model::socket::unix::{Link, PeerCredentials, Unix};
use crate::resources::socket::unix::address_of;
use crate::restore::descriptors::OpenError;
use crate::sys::elsewhere::Elsewhere;
use crate::sys::socket;
use rooms::Room;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

/// A backlog that holds every connection on the way to its end.
const BACKLOG: i32 = 1 << 20;

/// A connection that is made through a listener.
struct Connection<'a> {
    /// Who connects: a socket of the image, or one that was closed, with its name.
    from: Result<SocketId, &'a [u8]>,
    /// What the listener gives: a socket of the image, or one that was closed.
    to: Option<SocketId>,
    /// For which of them it is made.
    socket: &'a Socket,
    /// Who has called connect(2), and listen(2).
    authors: [Option<&'a PeerCredentials>; 2],
}

/// A listener, with what it takes to reach it and who has called listen(2) last.
struct Listener<'a> {
    file: File,
    inside: Option<Elsewhere>,
    author: Option<Option<&'a PeerCredentials>>,
    /// Its room, if it is there for connections alone.
    _room: Option<Room>,
}

impl<'a> Making<'a> {
    /// Pairs that socketpair(2) can make: connected with each other, neither by way of a listener. All of one author in one go.
    pub(super) fn make_pairs(&mut self) -> Result<(), OpenError> {
        let mut pairs: BTreeMap<Kind<'_>, Vec<(SocketId, Option<SocketId>)>> = BTreeMap::new();
        for (socket, state) in of(self.snapshot) {
            if let Some(other) = self.pairs_with(socket, state) {
                let key = (socket.kind, state.credentials.as_ref().map(key));
                pairs.entry(key).or_default().push((socket.id, other));
            }
        }
        for ((kind, _), pairs) in pairs {
            let first = &self.snapshot.sockets[pairs[0].0.0 as usize];
            let credentials = state(self.snapshot, first.id).and_then(|state| state.credentials.as_ref());
            let numbers = self.authors.call(credentials, None, pairs.len() * 2, &|values| {
                for pair in values.chunks(2) {
                    let made = socket::pair(kind)?;
                    pair.iter().zip(made).for_each(|(place, number)| place.store(number, Ordering::SeqCst));
                }
                Ok(())
            });
            let numbers = numbers.map_err(error(first))?;
            let files: Vec<File> = numbers.into_iter().map(socket::adopt).collect();
            let mut files = files.into_iter();
            for (id, other) in pairs {
                for place in [Some(id), other] {
                    let Some(file) = files.next() else { continue };
                    let file = self.lift(file).map_err(error(first))?;
                    match place {
                        Some(place) => self.made.insert(place, file),
                        None => self.closed.insert(id, file),
                    };
                }
            }
        }
        Ok(())
    }

    /// What a socket is made together with: another of the image, or one that was closed.
    fn pairs_with(&self, socket: &Socket, own: &Unix) -> Option<Option<SocketId>> {
        let dgram = is_dgram(socket);
        // Nothing else tells a datagram socket of a peer's credentials.
        let was_paired = dgram && own.credentials.is_some();
        match &own.link {
            Link::Closed(name) => (!own.accepted && name.is_empty() || was_paired).then_some(None),
            Link::Peer(id) => {
                let other = state(self.snapshot, *id)?;
                let mutual = peer(other) == Some(socket.id);
                let nameless = own.name.is_empty() || other.name.is_empty();
                let wanted = match (dgram, mutual) {
                    (true, true) => (nameless || was_paired) && socket.id < *id,
                    // Once a pair; the other has gone elsewhere since.
                    (true, false) => other.name.is_empty(),
                    (false, _) => !own.accepted && !other.accepted && socket.id < *id,
                };
                match wanted {
                    true => Some(Some(*id)),
                    false => (was_paired && !self.is_paired(socket, own, *id)).then_some(None),
                }
            }
            Link::None | Link::Outside { .. } => (was_paired && !self.is_left(socket.id)).then_some(None),
            Link::Listening { .. } | Link::Pending(_) => None,
        }
    }

    /// Connections through listeners, those that wait last; then the listeners are as they were.
    pub(super) fn connect_streams(&mut self) -> Result<(), OpenError> {
        let mut by_name: BTreeMap<(i32, &'a [u8]), Vec<Connection<'a>>> = BTreeMap::new();
        for (socket, own) in of(self.snapshot).filter(|(socket, _)| !is_dgram(socket)) {
            if let Some((name, connection)) = self.connection(socket, own) {
                by_name.entry((socket.kind, name)).or_default().push(connection);
            }
        }
        let mut listeners = BTreeMap::new();
        for (socket, own) in of(self.snapshot) {
            if let Link::Listening { backlog: _, pending: _ } = &own.link {
                listeners.insert((socket.kind, own.name.as_slice()), socket);
            }
        }
        for ((kind, name), connections) in by_name {
            let first = connections[0].socket;
            let mut listener = match listeners.get(&(kind, name)) {
                Some(listener) => self.listener(listener),
                None => temporary(kind, name),
            }
            .map_err(named(first, name))?;
            for connection in connections {
                self.connect(&mut listener, name, &connection).map_err(named(connection.socket, name))?;
            }
        }
        for (socket, own) in of(self.snapshot) {
            if let Link::Listening { backlog, pending } = &own.link {
                self.listen(socket, own, *backlog, pending).map_err(error(socket))?;
            }
        }
        Ok(())
    }

    /// The connection by which a socket came, and the name of the listener; for two sockets of the image once.
    fn connection(&self, socket: &'a Socket, own: &'a Unix) -> Option<(&'a [u8], Connection<'a>)> {
        let credentials = own.credentials.as_ref();
        match &own.link {
            Link::Peer(id) if own.accepted => {
                let from = Ok(*id);
                let theirs = state(self.snapshot, *id)?.credentials.as_ref();
                let authors = [credentials, theirs];
                Some((&own.name, Connection { from, to: Some(socket.id), socket, authors }))
            }
            Link::Closed(name) if own.accepted => {
                let authors = [credentials, None];
                Some((&own.name, Connection { from: Err(name), to: Some(socket.id), socket, authors }))
            }
            Link::Closed(name) if !name.is_empty() => {
                Some((name, Connection { from: Ok(socket.id), to: None, socket, authors: [None, credentials] }))
            }
            Link::None
            | Link::Listening { .. }
            | Link::Peer(_)
            | Link::Pending(_)
            | Link::Closed(_)
            | Link::Outside { .. } => None,
        }
    }

    fn listener(&self, socket: &Socket) -> io::Result<Listener<'a>> {
        let file = self.socket(socket.id)?;
        Ok(Listener { file, inside: self.inside(socket.id).cloned(), author: None, _room: None })
    }

    fn connect(&mut self, listener: &mut Listener<'a>, name: &[u8], connection: &Connection<'a>) -> io::Result<()> {
        let [connects, listens] = connection.authors;
        listener.listen(&self.authors, listens, BACKLOG)?;
        let (file, _room) = match connection.from {
            Ok(id) => (self.socket(id)?, None),
            Err(own) => {
                let file = socket::make(libc::AF_UNIX, connection.socket.kind, 0)?;
                let room = if own.is_empty() { None } else { rooms::bind(&file, own, None)? };
                (file, room)
            }
        };
        self.call_connect(&file, name, listener.inside.as_ref(), connects)?;
        let accepted = self.lift(socket::accept(listener.file.as_fd())?)?;
        match (connection.from, connection.to) {
            (Ok(_), Some(to)) => {
                self.made.insert(to, accepted);
            }
            (Ok(from), None) => {
                self.closed.insert(from, accepted);
            }
            (Err(_), Some(to)) => {
                self.made.insert(to, accepted);
                let file = self.lift(file)?;
                self.closed.insert(to, file);
            }
            (Err(_), None) => {}
        }
        Ok(())
    }

    fn call_connect(
        &self,
        file: &File,
        name: &[u8],
        inside: Option<&Elsewhere>,
        author: Option<&PeerCredentials>,
    ) -> io::Result<()> {
        let address = address_of(name);
        if inside.is_none() && author.is_none() {
            return Ok(socket::connect(file.as_fd(), &address)?);
        }
        self.authors.call(author, inside, 0, &|_| socket::connect(file.as_fd(), &address)).map(drop)
    }

    /// Makes the connections that wait, and a listener of a socket.
    fn listen(&self, socket: &Socket, own: &'a Unix, backlog: u32, pending: &[Option<SocketId>]) -> io::Result<()> {
        let mut listener = self.listener(socket)?;
        for waiting in pending {
            let (file, author, theirs) = match waiting {
                Some(id) => {
                    let theirs = state(self.snapshot, *id).and_then(|state| state.credentials.as_ref());
                    (self.socket(*id)?, self.holder(*id), theirs)
                }
                // Closed: it waits all the same.
                None => (socket::make(libc::AF_UNIX, socket.kind, 0)?, None, None),
            };
            listener.listen(&self.authors, theirs, BACKLOG)?;
            self.call_connect(&file, &own.name, listener.inside.as_ref(), author.as_ref())?;
        }
        listener.author = None;
        listener.listen(&self.authors, own.credentials.as_ref(), backlog.cast_signed())
    }

    /// Whether the other one of its pair is still connected to a datagram socket without a name, which itself is not.
    fn is_left(&self, id: SocketId) -> bool {
        let own = state(self.snapshot, id);
        let leads_here = |(_, other): &(&Socket, &Unix)| peer(other) == Some(id);
        own.is_some_and(|own| own.name.is_empty())
            && of(self.snapshot).any(|other| leads_here(&other) && own.and_then(peer) != Some(other.0.id))
    }

    /// Datagram sockets that were one of a pair and are no more, and the names of what was closed.
    pub(super) fn leave_makers(&mut self) -> Result<(), OpenError> {
        for (socket, own) in of(self.snapshot).filter(|(socket, _)| is_dgram(socket)) {
            if let (Link::Closed(name), Some(closed)) = (&own.link, self.closed.get(&socket.id)) {
                if !name.is_empty() {
                    let room = rooms::bind(closed, name, None).map_err(named(socket, name))?;
                    let closed = closed.try_clone().map_err(error(socket))?;
                    self.others.push((closed, room));
                }
            } else if self.closed.remove(&socket.id).is_some() || self.is_left(socket.id) {
                let nobody = (libc::AF_UNSPEC as u16).to_ne_bytes();
                socket::connect(self.made[&socket.id].as_fd(), &nobody).map_err(|errno| error(socket)(errno.into()))?;
            }
        }
        Ok(())
    }

    /// Datagram sockets, once they are filled: from then on they receive from their peer alone.
    pub(super) fn connect_datagrams(&self) -> Result<(), OpenError> {
        for (socket, own) in of(self.snapshot).filter(|(socket, _)| is_dgram(socket)) {
            let made = &self.made[&socket.id];
            match &own.link {
                Link::Peer(id) if !self.is_paired(socket, own, *id) => {
                    let name = state(self.snapshot, *id).map_or(&[][..], |state| &state.name);
                    self.call_connect(made, name, self.inside(*id), None).map_err(named(socket, name))?;
                }
                Link::Closed(name) if !name.is_empty() && own.credentials.is_none() => {
                    let temporary = || -> io::Result<()> {
                        let target = socket::make(libc::AF_UNIX, libc::SOCK_DGRAM, 0)?;
                        let room = rooms::bind(&target, name, None)?;
                        self.call_connect(made, name, room.as_ref().map(Room::inside), None)
                    };
                    temporary().map_err(named(socket, name))?;
                }
                Link::Outside { name, path } => {
                    let to = path.as_ref().unwrap_or(name);
                    self.call_connect(made, to, None, None).map_err(named(socket, to))?;
                }
                Link::None | Link::Listening { .. } | Link::Peer(_) | Link::Pending(_) | Link::Closed(_) => {}
            }
        }
        Ok(())
    }

    /// Whether socketpair(2) has connected a datagram socket with its peer.
    fn is_paired(&self, socket: &Socket, own: &Unix, id: SocketId) -> bool {
        let Some(other) = state(self.snapshot, id) else { return false };
        let mutual = peer(other) == Some(socket.id);
        other.name.is_empty() || mutual && (own.name.is_empty() || own.credentials.is_some())
    }
}

impl<'a> Listener<'a> {
    /// listen(2), unless the same one has called it last. From then on those who connect are told of this one.
    fn listen(
        &mut self,
        authors: &author::Authors,
        author: Option<&'a PeerCredentials>,
        backlog: i32,
    ) -> io::Result<()> {
        if self.author.is_none_or(|last| last != author) {
            authors.call(author, None, 0, &|_| socket::listen(self.file.as_fd(), backlog))?;
            self.author = Some(author);
        }
        Ok(())
    }
}

/// A listener that was closed, for the time in which its connections are made.
fn temporary<'a>(kind: i32, name: &[u8]) -> io::Result<Listener<'a>> {
    let file = socket::make(libc::AF_UNIX, kind, 0)?;
    let room = rooms::bind(&file, name, None)?;
    Ok(Listener { file, inside: room.as_ref().map(|room| room.inside().clone()), author: None, _room: room })
}

/// Pairs that one call makes: SOCK_STREAM and the like, and the author.
type Kind<'a> = (i32, Option<Key<'a>>);

/// What tells authors apart.
type Key<'a> = (i32, u32, u32, &'a [u32]);

fn key(credentials: &PeerCredentials) -> Key<'_> {
    let PeerCredentials { pid, uid, gid, groups } = credentials;
    (*pid, *uid, *gid, groups)
}
