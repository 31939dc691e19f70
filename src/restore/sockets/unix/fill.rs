//! Sends again what waited in UNIX sockets.

use super::{LARGE, Making, error, is_dgram, of, peer, rooms, state};
use crate::image::model::id::DescriptionId;
use crate::image::model::socket::Socket;
use crate::image::model::socket::unix::{Message, PeerCredentials, Unix, Urgent};
use crate::resources::socket::unix::address_of;
use crate::restore::descriptors::OpenError;
use crate::sys::socket;
use crate::sys::socket_message::{send, send_urgent, take_urgent};
use nix::errno::Errno;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// Messages in a row that one socket has sent in the name of one process.
struct Run<'a> {
    sender: File,
    /// The receiver's address, where the sender is not connected to it.
    to: Option<Vec<u8>>,
    credentials: Option<[u32; 3]>,
    /// With the numbers of what they carry.
    messages: Vec<(&'a Message, Vec<i32>)>,
}

impl<'a> Making<'a> {
    /// Fills those through which nothing goes that has no number, and tells whether these are all.
    pub(super) fn fill(&mut self, number: &dyn Fn(DescriptionId) -> Option<i32>) -> Result<bool, OpenError> {
        let mut all = true;
        for (socket, own) in of(self.snapshot) {
            let mut carried = own.queue.iter().flat_map(|message| &message.files);
            if own.queue.is_empty() || self.filled.contains(&socket.id) {
                continue;
            }
            if carried.all(|id| number(*id).is_some()) {
                self.fill_one(socket, own, number).map_err(error(socket))?;
                self.filled.insert(socket.id);
            } else {
                all = false;
            }
        }
        Ok(all)
    }

    fn fill_one(
        &mut self,
        socket: &'a Socket,
        own: &'a Unix,
        number: &dyn Fn(DescriptionId) -> Option<i32>,
    ) -> io::Result<()> {
        let mut last: Option<(&[u8], Run<'a>)> = None;
        for message in &own.queue {
            let Message { bytes: _, sender, files, credentials, urgent: _ } = message;
            let numbers = files.iter().map(|id| number(*id).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound)));
            let numbers = numbers.collect::<io::Result<Vec<i32>>>()?;
            match &mut last {
                Some((name, run)) if *name == sender.as_slice() && run.credentials == *credentials => {
                    run.messages.push((message, numbers));
                }
                last => {
                    if let Some((_, run)) = last.take() {
                        self.send(socket, &run)?;
                    }
                    let (file, to) = self.sender(socket, own, sender)?;
                    let messages = vec![(message, numbers)];
                    *last = Some((sender, Run { sender: file, to, credentials: *credentials, messages }));
                }
            }
        }
        last.map_or(Ok(()), |(_, run)| self.send(socket, &run))
    }

    /// Who sends to a socket under this name, and the address to which that has to send.
    fn sender(&mut self, socket: &Socket, own: &Unix, name: &[u8]) -> io::Result<(File, Option<Vec<u8>>)> {
        if let Some(closed) = self.closed.get(&socket.id) {
            return Ok((closed.try_clone()?, None));
        }
        if !is_dgram(socket) {
            let peer = peer(own).ok_or(io::ErrorKind::NotConnected)?;
            return Ok((self.socket(peer)?, None));
        }
        // Without a name it can be reached by the other one of its pair alone.
        if own.name.is_empty() {
            let is_maker =
                |(other, theirs): &(&Socket, &Unix)| peer(theirs) == Some(socket.id) || peer(own) == Some(other.id);
            let maker = of(self.snapshot).find(is_maker).map(|(other, _)| other.id);
            return Ok((self.socket(maker.ok_or(io::ErrorKind::NotConnected)?)?, None));
        }
        let to = Some(address_of(&own.name));
        let paired = peer(own).filter(|id| state(self.snapshot, *id).is_some_and(|other| other.name.is_empty()));
        if let Some(paired) = paired.filter(|_| name.is_empty()) {
            return Ok((self.socket(paired)?, None));
        }
        let is_sender = |(other, theirs): &(&Socket, &Unix)| {
            is_dgram(other) && theirs.name == name && (!name.is_empty() || peer(theirs) == Some(socket.id))
        };
        let mut senders = of(self.snapshot).filter(is_sender).map(|(other, _)| other.id);
        if let (Some(sender), None) = (senders.next(), senders.next()) {
            return Ok((self.socket(sender)?, to));
        }
        // Nobody who is left.
        let file = self.lift(socket::make(libc::AF_UNIX, libc::SOCK_DGRAM, 0)?)?;
        let room = if name.is_empty() { None } else { rooms::bind(&file, name, None)? };
        self.others.push((file.try_clone()?, room));
        Ok((file, to))
    }

    fn send(&self, socket: &Socket, run: &Run<'_>) -> io::Result<()> {
        let Run { sender, to, credentials, messages } = run;
        enlarge(sender)?;
        let stream = socket.kind == libc::SOCK_STREAM;
        let receiver = self.made[&socket.id].as_fd();
        let send_all = || -> crate::sys::Result<()> {
            for (message, numbers) in messages {
                match message.urgent {
                    Urgent::No => send_whole(sender, &message.bytes, to.as_deref(), (numbers, *credentials), stream)?,
                    Urgent::Waiting => {
                        send_urgent(sender.as_fd(), message.bytes[0], numbers, *credentials)?;
                    }
                    Urgent::Taken => {
                        send_urgent(sender.as_fd(), 0, &[], *credentials)?;
                        take_urgent(receiver)?;
                    }
                }
            }
            Ok(())
        };
        let inside = if to.is_some() { self.inside(socket.id) } else { None };
        if inside.is_none() {
            // Of a process that is there, in whose name whoever has CAP_SYS_ADMIN may send; the first message tells.
            match send_all() {
                Err(Errno::ESRCH | Errno::EPERM) if credentials.is_some() => {}
                sent => return Ok(sent?),
            }
        }
        // The kernel takes no other pid than that of who sends, or one that is there.
        let author = credentials.map(|[pid, ..]| PeerCredentials {
            pid: pid.cast_signed(),
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            groups: self.authors.own_groups().to_vec(),
        });
        self.authors.call(author.as_ref(), inside, 0, &|_| send_all()).map(drop)
    }
}

/// In as many parts as it takes, which only a stream allows.
fn send_whole(
    sender: &File,
    mut rest: &[u8],
    to: Option<&[u8]>,
    (mut numbers, credentials): (&[i32], Option<[u32; 3]>),
    stream: bool,
) -> crate::sys::Result<()> {
    loop {
        let sent = send(sender.as_fd(), rest, to, numbers, credentials)?;
        rest = &rest[sent.min(rest.len())..];
        numbers = &[];
        match (rest.is_empty(), stream) {
            (true, _) => return Ok(()),
            (false, true) => {}
            (false, false) => return Err(Errno::EMSGSIZE),
        }
    }
}

/// Makes room for all that is to be sent; the size of the buffer is set at the end.
fn enlarge(sender: &File) -> io::Result<()> {
    let size = LARGE.to_ne_bytes();
    let set = |name| socket::set_option(sender.as_fd(), libc::SOL_SOCKET, name, &size);
    set(libc::SO_SNDBUFFORCE).or_else(|_| set(libc::SO_SNDBUF))
}
