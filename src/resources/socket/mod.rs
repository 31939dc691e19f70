//! Sockets: what all families have in common, and which family knows more. Everything is asked of duplicates in our own table.

pub mod datagram;
pub mod family;
pub mod netlink;
pub mod options;
pub mod packet;
pub mod tcp;
pub mod unix;

use super::border::{Outsider, Tie};
use super::{CollectError, Findings};
use crate::blocker::Blocker;
use crate::image::model::file::OpenObject;
use crate::image::model::id::{Fd, OptionsId, SocketId, Tid};
use crate::image::model::socket::inet;
use crate::image::model::socket::tcp::{Role, Tcp};
use crate::image::model::socket::unix::Message;
use crate::image::model::socket::{Socket, SocketOption, State};
use crate::proc::many;
use crate::proc::tcp_table::Tables;
use crate::sys::socket;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

/// The sockets of a tree while they are collected.
#[derive(Debug, Default)]
pub struct Sockets {
    sockets: Vec<Socket>,
    /// Sets of options, each once.
    options: Vec<Vec<SocketOption>>,
    /// For each of them a duplicate of a descriptor, and whose that is.
    open: Vec<(File, (Tid, Fd))>,
    /// Inodes of those that cannot be saved, now or ever.
    refused: HashSet<u64>,
    /// Netlink sockets for which the kernel keeps memory although nothing waits in them.
    charged: Vec<SocketId>,
    /// What /proc tells of those that do not tell it themselves.
    tables: Tables,
    /// What the UNIX sockets are connected to, once all are known.
    links: Option<unix::Links>,
}

/// A socket in which something may wait.
#[derive(Clone, Copy, Debug)]
pub struct Queue<'a> {
    /// SOCK_STREAM and the like.
    pub kind: i32,
    /// A duplicate of a descriptor of it.
    pub file: &'a File,
    /// Whose that is.
    pub holder: (Tid, Fd),
}

impl Sockets {
    /// A socket by a duplicate of its descriptor, or why it cannot be saved. There is one description of each, so each comes once.
    ///
    /// # Errors
    /// As getsockopt(2) and its like.
    pub fn collect(&mut self, ino: u64, file: &File, holder: (Tid, Fd)) -> io::Result<Result<OpenObject, Refusal>> {
        let fd = file.as_fd();
        let number = |name| socket::number(fd, libc::SOL_SOCKET, name);
        let (domain, kind, protocol) = (number(libc::SO_DOMAIN)?, number(libc::SO_TYPE)?, number(libc::SO_PROTOCOL)?);
        let state = match state(ino, fd, (domain, kind, protocol), &mut self.tables)? {
            Ok(state) => state,
            Err(reason) => {
                self.refused.insert(ino);
                return Ok(Err(reason));
            }
        };
        let meta = file.metadata()?;
        let id = SocketId(self.sockets.len() as u32);
        if matches!(state, State::Netlink(_)) && netlink::is_charged(fd)? {
            self.charged.push(id);
        }
        // Read once all are known.
        let options = OptionsId(u32::MAX);
        let (uid, gid) = (meta.uid(), meta.gid());
        self.open.push((file.try_clone()?, holder));
        self.sockets.push(Socket { id, ino, domain, kind, protocol, uid, gid, options, state });
        Ok(Ok(OpenObject::Socket(id)))
    }

    /// Netlink sockets for which the kernel keeps memory although nothing waits in them, and whose they are.
    pub fn charged(&self) -> impl Iterator<Item = (SocketId, Tid, Fd)> {
        let holder = |id: &SocketId| self.open.get(id.0 as usize).map(|(_, (tid, fd))| (*id, *tid, *fd));
        self.charged.iter().filter_map(holder)
    }

    /// Reads the options of all of them, which takes most of the calls that there are to be made for sockets, on every CPU; and refuses those that have one
    /// that cannot be had.
    ///
    /// # Errors
    /// As getsockopt(2).
    pub fn read_options(&mut self, findings: &mut Findings) -> Result<(), CollectError> {
        let all: Vec<(&Socket, &File)> = self.sockets.iter().zip(self.open.iter().map(|(file, _)| file)).collect();
        let read = many::map(&all, |(socket, file), _| {
            let (fd, kind) = (file.as_fd(), (socket.domain, socket.kind, socket.protocol));
            let without = tcp::Without::of(fd, &socket.state)?;
            options::read(fd, kind, |row| !without.is(row))
        });
        let mut known: HashMap<options::Values, OptionsId> = HashMap::new();
        for ((socket, (_, (tid, fd))), read) in self.sockets.iter_mut().zip(&self.open).zip(read) {
            let (task, object) = (format!("pid {tid}"), || format!("fd {fd}: socket:[{}]", socket.ino));
            let values = match read.map_err(CollectError::at(*tid, "getsockopt"))? {
                Ok(values) => values,
                Err(reason) => {
                    findings.block(task, object(), reason, "close it before the dump");
                    continue;
                }
            };
            let next = OptionsId(self.options.len() as u32);
            let id = *known.entry(values).or_insert_with_key(|values| {
                self.options.push(values.options());
                next
            });
            if let State::Datagram(state) = &socket.state
                && !state.queue.is_empty()
                && let Some(obstacle) =
                    datagram::queue::obstacle(&state.local, &state.queue, &self.options[id.0 as usize])
            {
                let reason = format!("datagrams wait in it that nobody has read: {obstacle}");
                let remedy = "try again when it has been read or sent".into();
                findings.passing.push(Blocker { task, object: object(), reason, remedy });
            }
            socket.options = id;
        }
        Ok(())
    }

    /// One of them, if there are so many, and what there is to look into if it is of the UNIX domain.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<Option<Queue<'_>>> {
        let (socket, (file, holder)) = (self.sockets.get(at)?, self.open.get(at)?);
        Some(match &socket.state {
            State::Unix(_) => Some(Queue { kind: socket.kind, file, holder: *holder }),
            State::Tcp(_) | State::Datagram(_) | State::Netlink(_) | State::Packet(_) => None,
        })
    }

    /// Notes what waits in one of the UNIX domain.
    pub fn set_queue(&mut self, at: usize, queue: Vec<Message>) {
        match self.sockets.get_mut(at).map(|socket| &mut socket.state) {
            Some(State::Unix(state)) => state.queue = queue,
            Some(State::Tcp(_) | State::Datagram(_) | State::Netlink(_) | State::Packet(_)) | None => {}
        }
    }

    /// Looks for what they are connected to, once all are known.
    ///
    /// # Errors
    /// As sock_diag(7).
    pub fn look_around(&mut self) -> io::Result<()> {
        let unix = self.sockets.iter().filter(|socket| matches!(socket.state, State::Unix(_)));
        let inside: HashMap<u64, SocketId> = unix.map(|socket| (socket.ino, socket.id)).collect();
        self.links = if inside.is_empty() { None } else { Some(unix::Links::look(inside)?) };
        Ok(())
    }

    /// Bytes of the rings of packet sockets, by the inodes of these.
    #[must_use]
    pub fn rings(&self) -> HashMap<u64, u64> {
        let rings = self.sockets.iter().filter_map(|socket| match &socket.state {
            State::Packet(packet) => Some((socket.ino, packet.mapped()?)),
            State::Unix(_) | State::Tcp(_) | State::Datagram(_) | State::Netlink(_) => None,
        });
        rings.collect()
    }

    /// Whether it is one that cannot be saved, which was said.
    #[must_use]
    pub fn is_refused(&self, ino: u64) -> bool {
        self.refused.contains(&ino)
    }

    /// Their ties to other processes.
    pub fn ties(&self) -> impl Iterator<Item = Tie> {
        self.sockets.iter().zip(&self.open).flat_map(|(socket, (file, _))| {
            let mut ties = match &self.links {
                Some(links) => links.ties(socket.ino),
                None => vec![Tie::Socket(socket.ino)],
            };
            ties.extend(ring(socket, file));
            ties
        })
    }

    /// Notes what they are connected to, and refuses those that are connected with the outside.
    ///
    /// # Errors
    /// A kernel interface that failed.
    pub fn link(
        &mut self,
        outsiders: &HashMap<Tie, Outsider>,
        leaks: Leaks,
        findings: &mut Findings,
    ) -> Result<(), CollectError> {
        self.refuse_shared(outsiders, leaks, findings);
        let Some(links) = &self.links else { return Ok(()) };
        for (socket, (file, holder)) in self.sockets.iter_mut().zip(&self.open) {
            let Socket { id, ino, domain: _, kind, protocol: _, uid: _, gid: _, options: _, state } = socket;
            match state {
                State::Unix(state) => {
                    let subject = unix::Subject { id: *id, ino: *ino, kind: *kind, file, holder: *holder, state };
                    links.apply(subject, outsiders, leaks, findings)?;
                }
                State::Tcp(_) | State::Datagram(_) | State::Netlink(_) | State::Packet(_) => {}
            }
        }
        Ok(())
    }

    /// Refuses sockets that somebody outside has too, but those of the UNIX domain and of TCP, which know more of it.
    fn refuse_shared(&self, outsiders: &HashMap<Tie, Outsider>, leaks: Leaks, findings: &mut Findings) {
        let others = self
            .sockets
            .iter()
            .zip(&self.open)
            .filter(|(socket, _)| !matches!(socket.state, State::Unix(_) | State::Tcp(_)));
        for (socket, (file, (tid, fd))) in others {
            let ino = socket.ino;
            let mapped = || outsiders.get(&ring(socket, file)?);
            let outsider = outsiders.get(&Tie::Socket(ino)).or_else(mapped);
            let is_asked = matches!(&socket.state, State::Packet(packet) if packet.send_ring.is_some());
            let Some(outsider) = outsider.filter(|_| leaks != Leaks::Allow || is_asked) else { continue };
            let (reason, remedy) = if is_asked {
                let what = "it has a ring for sending (PACKET_TX_RING), which nobody outside may use while it is asked where the kernel stands in it";
                (
                    format!("{what}, and is shared with {outsider}"),
                    "dump the process that made it (snap dump PID of their common parent)",
                )
            } else {
                let remedy = "dump the process that made it (snap dump PID of their common parent), or let it have the socket alone (--allow-leak)";
                (format!("it is shared with {outsider}, which is outside"), remedy)
            };
            findings.block(format!("pid {tid}"), format!("fd {fd}: socket:[{ino}]"), reason, remedy);
        }
    }

    /// Reads TCP connections once all sockets are known; see [`tcp::tree::read`].
    ///
    /// # Errors
    /// A kernel interface that failed.
    pub fn connections(
        &mut self,
        outsiders: &HashMap<Tie, Outsider>,
        manner: tcp::tree::Manner,
        findings: &mut Findings,
    ) -> Result<Option<tcp::lock::Lock>, CollectError> {
        let listeners: Vec<_> = self.sockets.iter().zip(&self.open).filter_map(listener).collect();
        let all = self.sockets.iter_mut().zip(&self.open);
        let connections = all.filter(|(socket, open)| is_connection(socket, &open.0));
        let subjects =
            connections.map(|(socket, (file, holder))| tcp::subject::Subject { socket, file, holder: *holder });
        tcp::tree::read(&mut subjects.collect::<Vec<_>>(), &listeners, outsiders, manner, findings)
    }

    /// Sets of options, all sockets, and the duplicates of those that are TCP connections.
    #[must_use]
    pub fn finish(self) -> (Vec<Vec<SocketOption>>, Vec<Socket>, Vec<File>) {
        let is_kept =
            |socket: &Socket| matches!(&socket.state, State::Tcp(tcp) if matches!(tcp.role, Role::Connected(_)));
        let open = self.sockets.iter().zip(self.open).filter(|(socket, _)| is_kept(socket));
        let open = open.map(|(_, (file, _))| file).collect();
        (self.options, self.sockets, open)
    }
}

/// What ties a packet socket to those who map its ring.
fn ring(socket: &Socket, file: &File) -> Option<Tie> {
    let State::Packet(packet) = &socket.state else { return None };
    packet.mapped()?;
    Some(Tie::Memory(file.metadata().ok()?.dev(), socket.ino))
}

fn listener((socket, (_, holder)): (&Socket, &(File, (Tid, Fd)))) -> Option<tcp::waiting::Listener> {
    match &socket.state {
        State::Tcp(Tcp { local, role: Role::Listening { backlog: _ } }) => {
            Some(tcp::waiting::Listener { local: inet::parse(local)?, holder: *holder })
        }
        State::Tcp(_) | State::Unix(_) | State::Datagram(_) | State::Netlink(_) | State::Packet(_) => None,
    }
}

/// Whether it is a TCP connection that lasts.
fn is_connection(socket: &Socket, file: &File) -> bool {
    matches!(&socket.state, State::Tcp(tcp) if tcp.role == Role::Unconnected)
        && socket::peer_address(file.as_fd()).is_ok()
}

/// What becomes of sockets that are tied to processes outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaks {
    /// They are refused.
    Refuse,
    /// The same, but for what nobody is seen to hold: it may be on its way through a socket that was not looked into.
    RefuseSeen,
    /// What is outside counts for closed.
    Allow,
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

fn state(
    ino: u64,
    fd: BorrowedFd<'_>,
    what: (i32, i32, i32),
    tables: &mut Tables,
) -> io::Result<Result<State, Refusal>> {
    let (_, kind, protocol) = what;
    match what {
        (libc::AF_UNIX, _, _) => Ok(Ok(State::Unix(unix::collect(fd)?))),
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP) => {
            Ok(tcp::collect(ino, fd, tables)?.map(State::Tcp).map_err(Refusal::Never))
        }
        (libc::AF_NETLINK, ..) => Ok(netlink::collect(ino, fd, protocol)?.map(State::Netlink)),
        (libc::AF_PACKET, ..) => Ok(packet::collect(ino, fd, kind)?.map(State::Packet)),
        _ if datagram::name(what).is_some() => Ok(datagram::collect(ino, fd, what, tables)?.map(State::Datagram)),
        _ => Ok(Err(Refusal::Never(format!("{} sockets are not supported", family::name(what))))),
    }
}
