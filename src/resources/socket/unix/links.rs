//! What each UNIX socket of a tree is connected to, from what the kernel tells of all of them.

use super::{name, queue, resolve};
use crate::image::model::id::{Fd, Pid, SocketId, Tid};
use crate::image::model::socket::unix::{Link, Unix};
use crate::resources::border::{Outsider, Tie};
use crate::resources::socket::Leaks;
use crate::resources::{CollectError, Findings};
use crate::sys::sock_diag::{self, LISTENING, UnixSocket};
use crate::sys::socket;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// How often all sockets are asked for. The kernel may pass one over when others come and go meanwhile.
const TRIES: u32 = 10;

/// A socket of the tree while its links are looked for.
pub struct Subject<'a> {
    /// Its id.
    pub id: SocketId,
    /// Its inode.
    pub ino: u64,
    /// SOCK_STREAM and the like.
    pub kind: i32,
    /// A duplicate of a descriptor of it.
    pub file: &'a File,
    /// Who has it.
    pub holder: (Tid, Fd),
    /// What is known of it.
    pub state: &'a mut Unix,
}

impl Subject<'_> {
    fn is_dgram(&self) -> bool {
        self.kind == libc::SOCK_DGRAM
    }
}

/// All UNIX sockets of this network namespace.
#[derive(Debug)]
pub struct Links {
    all: Vec<UnixSocket>,
    by_ino: HashMap<u64, usize>,
    /// Those that have a name.
    by_name: HashMap<Vec<u8>, Vec<usize>>,
    /// The listener that a socket waits for.
    waits_for: HashMap<u64, u64>,
    /// Which are in the tree.
    inside: HashMap<u64, SocketId>,
}

impl Links {
    /// Asks the kernel until it has told of all that are wanted.
    ///
    /// # Errors
    /// As sock_diag(7); `NotFound` where one of them is in another network namespace.
    pub fn look(inside: HashMap<u64, SocketId>) -> io::Result<Self> {
        for _ in 0..TRIES {
            let all = sock_diag::unix()?;
            let by_ino: HashMap<u64, usize> = all.iter().enumerate().map(|(at, socket)| (socket.ino, at)).collect();
            if inside.keys().all(|ino| by_ino.contains_key(ino)) {
                let waiting = |socket: &UnixSocket| {
                    let listener = socket.ino;
                    socket.pending.clone().into_iter().map(move |ino| (ino, listener))
                };
                let waits_for = all.iter().flat_map(waiting).collect();
                let mut by_name: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
                for (at, socket) in all.iter().enumerate().filter(|(_, socket)| !socket.name.is_empty()) {
                    by_name.entry(socket.name.clone()).or_default().push(at);
                }
                return Ok(Self { all, by_ino, by_name, waits_for, inside });
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "the kernel does not tell of a UNIX socket"))
    }

    fn get(&self, ino: u64) -> Option<&UnixSocket> {
        self.by_ino.get(&ino).map(|at| &self.all[*at])
    }

    /// Those with a name.
    fn named(&self, name: &[u8]) -> impl Iterator<Item = &UnixSocket> {
        self.by_name.get(name).into_iter().flatten().map(|at| &self.all[*at])
    }

    /// The sockets by which one of the tree is tied to other processes: itself, and those outside with which it is connected.
    pub fn ties(&self, ino: u64) -> Vec<Tie> {
        let Some(own) = self.get(ino) else { return vec![Tie::Socket(ino)] };
        let peer = own.peer.filter(|peer| *peer != 0);
        let others = peer.into_iter().chain(own.pending.iter().copied()).chain(self.waits_for.get(&ino).copied());
        let others = others.filter(|other| *other != 0 && !self.inside.contains_key(other));
        others.chain([ino]).map(Tie::Socket).collect()
    }

    /// Notes what a socket is connected to. `leaks` says what becomes of what is outside.
    ///
    /// # Errors
    /// A kernel interface that failed.
    pub fn apply(
        &self,
        subject: Subject<'_>,
        outsiders: &HashMap<Tie, Outsider>,
        leaks: Leaks,
        findings: &mut Findings,
    ) -> Result<(), CollectError> {
        let Some(own) = self.get(subject.ino) else { return Ok(()) };
        let (tid, fd) = subject.holder;
        let mut report = Report { task: Pid(tid.0), fd, ino: subject.ino, outsiders, leaks, findings };
        if let Some(outsider) = outsiders.get(&Tie::Socket(subject.ino)) {
            report.shared(outsider);
        }
        let error = |action| CollectError::at(tid, action);
        let open = subject.file.as_fd();
        let signs = queue::signs(open).map_err(error("poll of a socket"))?;
        let link = self.link(&subject, own, &mut report).map_err(error("looking at a socket's peer"))?;
        let connected = matches!(link, Link::Peer(_) | Link::Closed(_) | Link::Pending(_));
        let state = subject.state;
        state.shutdown = own.shutdown;
        state.reset = signs.error && matches!(link, Link::Closed(_)) && subject.kind != libc::SOCK_DGRAM;
        if signs.error && !state.reset {
            report.passing("an error waits in it, which cannot be seen without taking it away".into());
        }
        if !state.name.is_empty() && connected && subject.kind != libc::SOCK_DGRAM {
            let bound =
                name::is_bound(open, own, self.named(&own.name)).map_err(error("looking for the name of a socket"))?;
            state.accepted = !bound;
        }
        let of_gone = match &link {
            Link::Closed(name) if state.accepted && name.is_empty() => &state.name,
            Link::Closed(name) => name,
            _ if state.accepted => &state.name,
            _ => &Vec::new(),
        };
        if let Some(other) = self.taken(subject.kind, of_gone) {
            report.taken(of_gone, other);
        }
        if !state.accepted {
            state.file = name::file(open, &state.name, own.file, Pid(tid.0));
        }
        state.link = link;
        Ok(())
    }

    /// A socket of the tree that has bound an abstract name since the one was closed that had it. A restore needs that name for a moment; for one
    /// that listens it does not matter which of them it is.
    fn taken(&self, kind: i32, name: &[u8]) -> Option<&UnixSocket> {
        if name.is_empty() || name::is_path(name) {
            return None;
        }
        let all = || self.named(name).filter(|other| other.kind == kind && other.peer.is_none());
        let listens = all().any(|other| other.state == LISTENING);
        all().find(|other| !listens && self.inside.contains_key(&other.ino))
    }

    fn link(&self, subject: &Subject<'_>, own: &UnixSocket, report: &mut Report<'_>) -> io::Result<Link> {
        if own.state == LISTENING {
            return self.listening(own, report);
        }
        let peer_name = || socket::peer_address(subject.file.as_fd()).map(|address| name::name_of(&address));
        if let Some(listener) = self.waits_for.get(&subject.ino) {
            let unseen = socket::unsent(subject.file.as_fd())?;
            return match self.inside.get(listener) {
                Some(_) if unseen > 0 => {
                    report.passing("what it has sent to a listener that has not accepted it yet cannot be seen".into());
                    Ok(Link::None)
                }
                Some(listener) => Ok(Link::Pending(*listener)),
                None => {
                    report.leak(*listener, "it waits for a listener outside to be accepted");
                    Ok(Link::Closed(peer_name()?))
                }
            };
        }
        match own.peer {
            None => Ok(Link::None),
            Some(0) => Ok(Link::Closed(peer_name()?)),
            Some(peer) => match self.inside.get(&peer) {
                Some(id) => Ok(Link::Peer(*id)),
                None if subject.is_dgram() && !peer_name()?.is_empty() => Ok(self.outside(peer, peer_name()?, report)),
                None => {
                    report.leak(peer, "its other end is outside");
                    Ok(Link::Closed(peer_name()?))
                }
            },
        }
    }

    /// A named datagram socket outside, which a restore connects to again.
    fn outside(&self, peer: u64, name: Vec<u8>, report: &mut Report<'_>) -> Link {
        use std::os::unix::ffi::OsStringExt;
        use std::os::unix::fs::MetadataExt;
        if !name::is_path(&name) {
            return Link::Outside { name, path: None };
        }
        let file = self.get(peer).and_then(|peer| peer.file);
        let leads_there = |path: &std::path::PathBuf| {
            // The device may be named otherwise by stat(2), as on btrfs and overlayfs.
            path.metadata().is_ok_and(|meta| file.is_none_or(|(_, ino)| meta.ino() == ino))
        };
        let path = resolve(&name, report.task).filter(leads_there);
        if path.is_none() {
            let shown = String::from_utf8_lossy(&name).into_owned();
            report.leak(peer, &format!("its peer is outside, and no path leads to that one ({shown})"));
        }
        Link::Outside { name, path: path.map(|path| path.into_os_string().into_vec()) }
    }

    fn listening(&self, own: &UnixSocket, report: &mut Report<'_>) -> io::Result<Link> {
        let mut pending = Vec::with_capacity(own.pending.len());
        for ino in &own.pending {
            match self.inside.get(ino) {
                Some(id) => pending.push(Some(*id)),
                None if *ino == 0 => {
                    report.passing(
                        "a connection waits to be accepted whose other end was closed: what that had sent cannot be seen"
                            .into(),
                    );
                }
                None => {
                    report.leak(*ino, "a connection from outside waits to be accepted");
                    pending.push(None);
                }
            }
        }
        Ok(Link::Listening { backlog: own.queue[1], pending })
    }
}

/// Where it is told what is wrong with one socket.
struct Report<'a> {
    task: Pid,
    fd: Fd,
    ino: u64,
    outsiders: &'a HashMap<Tie, Outsider>,
    leaks: Leaks,
    findings: &'a mut Findings,
}

impl Report<'_> {
    fn object(&self) -> String {
        format!("fd {}: socket:[{}]", self.fd, self.ino)
    }

    /// What may be otherwise in a moment.
    fn passing(&mut self, reason: String) {
        let object = self.object();
        self.findings.pass(format!("pid {}", self.task), object, reason, "try again when the program has gone on");
    }

    /// A name that was given to another.
    fn taken(&mut self, name: &[u8], other: &UnixSocket) {
        let name = String::from_utf8_lossy(name).replace('\0', "@");
        let reason =
            format!("its connection was made by the name {name}, which socket:[{}] of the tree has now", other.ino);
        let (task, object) = (format!("pid {}", self.task), self.object());
        self.findings.block(task, object, reason, "close either before the dump");
    }

    /// Something outside, which the user may have said to give up.
    fn leak(&mut self, other: u64, what: &str) {
        match (self.leaks, self.outsiders.get(&Tie::Socket(other))) {
            (Leaks::Allow, _) | (Leaks::RefuseSeen, None) => {}
            (Leaks::Refuse | Leaks::RefuseSeen, Some(outsider)) => {
                self.refuse(format!("{what}: socket:[{other}], held by {outsider}"));
            }
            (Leaks::Refuse, None) => {
                self.refuse(format!("{what}: socket:[{other}], held by a process that cannot be seen"));
            }
        }
    }

    /// A socket that somebody outside has too.
    fn shared(&mut self, outsider: &Outsider) {
        if self.leaks != Leaks::Allow {
            self.refuse(format!("it is shared with {outsider}, which is outside"));
        }
    }

    fn refuse(&mut self, reason: String) {
        let (fd, ino) = (self.fd, self.ino);
        let remedy = format!(
            "dump the process that made both (snap dump PID of their common parent), or give it another in its place at the restore \
             (dump --external 'socket:[{ino}]', restore --inherit '{fd}:socket:[{ino}]'), or dump it with that end closed \
             (--allow-leak)"
        );
        let object = self.object();
        self.findings.block(format!("pid {}", self.task), object, reason, remedy);
    }
}
