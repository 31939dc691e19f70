//! What drops the packets of connections that lead outside, while a tree is dumped that is to be killed.

use super::subject::Subject;
use super::tree::Manner;
use crate::image::model::socket::tcp::{Other, Role, Tcp};
use crate::image::model::socket::{Socket, State, inet};
use crate::resources::{CollectError, Findings};
use crate::sys::nftables::{self, Remover};
use crate::sys::undo::{Promise, Undo};
use std::io;
use std::os::fd::AsFd;

/// Packets of connections are dropped as long as this lasts.
#[derive(Debug)]
pub struct Lock {
    name: String,
    connections: Vec<nftables::Connection>,
    _owned: nftables::Owned,
}

/// A lock that stays when this is forgotten, and is taken away when this is dropped.
#[derive(Debug)]
pub struct Left<'a>(&'a str, Option<Promise<'a>>);

impl Lock {
    /// What takes the lock away that [`Lock::leave`] leaves.
    ///
    /// # Errors
    /// As netlink(7).
    pub fn remover(&self) -> io::Result<Remover> {
        nftables::remover(&self.name)
    }

    /// Leaves another lock behind that does not end with us, unless we die before `undo` forgets it.
    ///
    /// # Errors
    /// As netlink(7).
    pub fn leave<'a>(&'a self, remover: &'a Remover, undo: &'a Undo) -> io::Result<Left<'a>> {
        // One of an earlier dump of the same tree.
        nftables::remove(&self.name)?;
        let left = Left(&self.name, Some(undo.promise(remover.socket.as_fd(), &remover.message)?));
        nftables::leave(&self.name, &self.connections)?;
        Ok(left)
    }
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        if let Err(error) = nftables::remove(self.0) {
            tracing::error!("taking a lock away (nf_tables): {error}");
        }
        self.1 = None;
    }
}

/// The name of the lock of an image, and the connections that it holds; none where no connection leads outside.
#[must_use]
pub fn lock_of(sockets: &[Socket]) -> Option<(String, Vec<nftables::Connection>)> {
    let outside = sockets.iter().filter_map(|socket| match &socket.state {
        State::Tcp(Tcp { local, role: Role::Connected(connection) }) if connection.other == Other::Outside => {
            Some((socket.ino, (inet::parse(local)?, inet::parse(&connection.peer)?)))
        }
        State::Tcp(_) | State::Unix(_) | State::Datagram(_) | State::Netlink(_) | State::Packet(_) => None,
    });
    let (inodes, connections): (Vec<u64>, Vec<nftables::Connection>) = outside.unzip();
    // Inodes of sockets are not used again before long, and the image has them.
    let first = inodes.into_iter().min()?;
    Some((lock_name(first), connections))
}

fn lock_name(ino: u64) -> String {
    format!("{}{ino:x}", nftables::PREFIX)
}

/// Drops the packets of what leads outside.
pub(super) fn hold(
    subjects: &[Subject<'_>],
    kept: &[(usize, Vec<u8>, Option<usize>)],
    manner: Manner,
    findings: &mut Findings,
) -> Result<Option<Lock>, CollectError> {
    let outside: Vec<&Subject<'_>> =
        kept.iter().filter(|(_, _, other)| other.is_none()).map(|(at, _, _)| &subjects[*at]).collect();
    let Some(first) = outside.iter().map(|subject| subject.socket.ino).min().filter(|_| manner.ends) else {
        return Ok(None);
    };
    let address = |bytes: &[u8]| inet::parse(bytes).map(inet::canonical);
    let connections: Vec<nftables::Connection> = kept
        .iter()
        .filter(|(_, _, other)| other.is_none())
        .filter_map(|(at, peer, _)| match &subjects[*at].socket.state {
            State::Tcp(tcp) => Some((address(&tcp.local)?, address(peer)?)),
            State::Unix(_) | State::Datagram(_) | State::Netlink(_) | State::Packet(_) => None,
        })
        .collect();
    let name = lock_name(first);
    // A name of its own: one of an earlier dump may still be there.
    match nftables::own(&format!("{name}-dump"), &connections) {
        Ok(owned) => Ok(Some(Lock { name, connections, _owned: owned })),
        Err(error) => {
            for subject in outside {
                let reason = format!("the packets of its connection cannot be held back (nf_tables): {error}");
                subject.refuse(findings, reason, REMEDY);
            }
            Ok(None)
        }
    }
}

const REMEDY: &str = "dump it with its connections closed (--tcp close), or without --kill";
