//! A connection of a tree while it is looked at: what is said of it, and what becomes of it when its other end is not in the tree.

use super::tree::{Ends, Policy, Rows};
use super::{connection, shown};
use crate::image::model::id::{Fd, Tid};
use crate::image::model::socket::tcp::{Connection, Ended, Role, Tcp};
use crate::image::model::socket::{Socket, State};
use crate::proc::tcp_table::Row;
use crate::resources::Findings;
use crate::sys::{descriptor, socket, tcp};
use std::fs::File;
use std::os::fd::AsFd;

/// A connection while it is looked at.
pub struct Subject<'a> {
    /// The socket.
    pub socket: &'a mut Socket,
    /// A duplicate of a descriptor of it.
    pub file: &'a File,
    /// Who has it.
    pub holder: (Tid, Fd),
}

impl Subject<'_> {
    pub(super) fn set(&mut self, role: Role) {
        if let State::Tcp(tcp) = &mut self.socket.state {
            tcp.role = role;
        }
    }

    pub(super) fn connection(&self) -> Option<&Connection> {
        match &self.socket.state {
            State::Tcp(Tcp { local: _, role: Role::Connected(connection) }) => Some(connection),
            State::Tcp(_) | State::Unix(_) | State::Datagram(_) | State::Netlink(_) | State::Packet(_) => None,
        }
    }

    fn name(&self) -> (String, String) {
        let (tid, fd) = self.holder;
        let local = match &self.socket.state {
            State::Tcp(tcp) => shown(&tcp.local),
            State::Unix(_) | State::Datagram(_) | State::Netlink(_) | State::Packet(_) => String::new(),
        };
        let peer = socket::peer_address(self.file.as_fd()).map_or_else(|_| "nobody".into(), |peer| shown(&peer));
        (format!("pid {tid}"), format!("fd {fd}: TCP connection of {local} with {peer}"))
    }

    pub(super) fn refuse(&self, findings: &mut Findings, reason: impl Into<String>, remedy: &str) {
        let (task, object) = self.name();
        findings.block(task, object, reason, remedy);
    }

    pub(super) fn passing(&self, findings: &mut Findings, reason: String) {
        let (task, object) = self.name();
        findings.pass(task, object, reason, "try again in a moment");
    }

    /// What becomes of one that leads outside; whether it is to be read.
    pub(super) fn leads_outside(
        &mut self,
        peer: &[u8],
        policy: Policy,
        repairs: bool,
        findings: &mut Findings,
    ) -> bool {
        match policy {
            Policy::Keep if repairs => return true,
            Policy::Keep => {
                let reason = "its other end is outside, and to keep it takes CAP_NET_ADMIN in this network namespace";
                self.refuse(findings, reason, "run as root, or dump it with its connections closed (--tcp close)");
            }
            Policy::Refuse => {
                self.refuse(
                    findings,
                    "its other end is outside (--tcp refuse)",
                    "leave the option away, or --tcp close",
                );
            }
            Policy::Close => {
                if tcp::polled(self.file.as_fd()).is_ok_and(|polled| polled.urgent) {
                    self.refuse(findings, connection::URGENT, "let it be read before");
                    return false;
                }
                if connection::peek_offset(self.file.as_fd()).is_some() {
                    self.refuse(findings, connection::PEEKS, "let it be read before");
                    return false;
                }
                let unread = descriptor::unread(self.file.as_fd());
                let unread = unread.and_then(|count| tcp::peek(self.file.as_fd(), count)).unwrap_or_default();
                self.set(Role::Ended(Ended { unread, failed: true }));
                let (_, object) = self.name();
                findings.warnings.push(format!("{object} is reset in the image: {}", shown(peer)));
            }
        }
        false
    }

    /// Whether its other end is on this host and nobody has it any more, nor will it send anything. `row` is what the kernel's table has of that end.
    pub(super) fn other_is_gone(&self, (own, other): Ends, row: Option<&&Row>) -> bool {
        let is_here = other.ip().is_loopback() || own.ip() == other.ip();
        let is_over = row.is_none_or(|row| {
            row.ino == 0 && matches!(tcp::State::from(row.state), tcp::State::FinWait2 | tcp::State::TimeWait)
        });
        // Its own state is looked at last: what has ended before cannot begin again.
        is_here && is_over && tcp::info(self.file.as_fd()).is_ok_and(|info| info.state == tcp::State::CloseWait)
    }

    /// Connected to a listener that has not accepted it yet: what it has sent lies where nobody can look, but if that is nothing, it connects again.
    pub(super) fn not_accepted(&mut self, peer: Vec<u8>, rows: &Rows<'_>, ends: Ends, findings: &mut Findings) {
        let waiting = rows.get(&ends).map_or(0, |row| row.unread);
        let unread = descriptor::unread(self.file.as_fd()).unwrap_or(0);
        let plain = tcp::info(self.file.as_fd()).is_ok_and(|info| info.state == tcp::State::Established)
            && tcp::polled(self.file.as_fd()).is_ok_and(|polled| !polled.shut && !polled.failed);
        if waiting == 0 && unread == 0 && plain && tcp::unacknowledged(self.file.as_fd()).is_ok_and(|count| count == 0)
        {
            self.set(Role::Connecting { peer });
        } else {
            let reason =
                "it has sent something to a listener that has not accepted it yet, which cannot be seen, or has ended";
            self.passing(findings, reason.into());
        }
    }
}
