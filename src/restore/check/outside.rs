//! What leads out of the tree: descriptors given in place of others, addresses, and what is on its way through sockets.

use super::{Checker, blocker};
use crate::image::model::file::OpenObject;
use crate::image::model::process::Process;
use crate::image::model::socket::State;
use crate::resources::socket::datagram;
use crate::restore::lookup::inherited;
use crate::restore::readdress::Consequences;
use crate::restore::sockets::taken::Taken;
use std::collections::BTreeSet;

impl Checker<'_> {
    /// What lies outside needs something in its place, and what is given must be wanted.
    pub(super) fn externals(&mut self, root: &Process) {
        let wanted = self.snapshot.descriptions.iter().filter_map(|description| match &description.object {
            OpenObject::External(id) => Some(id.as_str()),
            _ => None,
        });
        let wanted: BTreeSet<&str> = wanted.collect();
        for id in wanted.iter().filter(|id| inherited(self.choices, id).is_none()) {
            let reason = "it was dumped with --external, and nothing is given in its place";
            self.findings.blockers.push(blocker(
                root.pid,
                *id,
                reason,
                format!("name a descriptor of snap: --inherit 'FD:{id}'"),
            ));
        }
        for (fd, id) in self.choices.inherit {
            if !wanted.contains(id.as_str()) {
                let names: Vec<&str> = wanted.iter().copied().collect();
                let remedy = if names.is_empty() {
                    "leave the option away".to_owned()
                } else {
                    format!("these are: {}", names.join(", "))
                };
                self.findings.blockers.push(blocker(
                    root.pid,
                    format!("--inherit {fd}:{id}"),
                    "no such external descriptor is in the image",
                    remedy,
                ));
            } else if !self.facts.descriptors.contains(fd) {
                let remedy = "open it for snap, as in: snap restore ... 3< FILE";
                self.findings.blockers.push(blocker(
                    root.pid,
                    format!("--inherit {fd}:{id}"),
                    "snap has no such descriptor",
                    remedy,
                ));
            }
        }
    }

    /// Addresses that somebody has, or that this host has not.
    pub(super) fn addresses(&mut self) {
        let Consequences { blockers, notices, unlock: _ } = self.choices.readdressed;
        self.findings.blockers.extend(blockers.iter().cloned());
        self.findings.notices.extend(notices.iter().cloned());
        for Taken { id, address, reason, remedy } in &self.facts.addresses {
            let socket = &self.snapshot.sockets[id.0 as usize];
            let name = match &socket.state {
                State::Unix(_) => "UNIX",
                _ => datagram::name((socket.domain, socket.kind, socket.protocol)).unwrap_or("TCP"),
            };
            let holds = |process: &&Process| {
                let table = &self.snapshot.fd_tables[process.threads[0].fd_table.0 as usize];
                table.entries.iter().find(|entry| {
                    let description = &self.snapshot.descriptions[entry.description.0 as usize];
                    description.object == OpenObject::Socket(*id)
                })
            };
            let found = self.snapshot.processes.iter().find_map(|process| Some((process.pid, holds(&process)?.fd)));
            let (pid, object) = match found {
                Some((pid, fd)) => (pid, format!("fd {fd}: {name} socket bound to {address}")),
                None => (self.snapshot.inventory.root, format!("{name} socket bound to {address}")),
            };
            self.findings.blockers.push(blocker(pid, object, reason, remedy));
        }
    }
}
