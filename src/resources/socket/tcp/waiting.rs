//! Connections that a listener has and nobody has accepted: they belong to no descriptor, and end with a tree that is killed.

use super::tree::{Ends, Policy};
use crate::image::model::id::{Fd, Tid};
use crate::image::model::socket::inet;
use crate::proc::tcp_table::Row;
use crate::resources::Findings;
use crate::sys::tcp;
use std::net::SocketAddr;

/// A listener of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its address.
    pub local: SocketAddr,
    /// Who has it.
    pub holder: (Tid, Fd),
}

impl Listener {
    fn has(&self, row: &Row) -> bool {
        let (own, other) = (inet::canonical(self.local), inet::canonical(row.local));
        own.port() == other.port() && (own.ip().is_unspecified() || own.ip() == other.ip())
    }
}

/// Says which connections from outside the other side will find reset, or refuses them. Those whose other end `is_inside` connect again.
pub fn tell(
    listeners: &[Listener],
    table: &[Row],
    is_inside: &dyn Fn(&Ends) -> bool,
    policy: Policy,
    findings: &mut Findings,
) {
    let from_outside = table.iter().filter(|row| {
        let is_waiting =
            row.ino == 0 && matches!(tcp::State::from(row.state), tcp::State::Established | tcp::State::CloseWait);
        is_waiting && !is_inside(&(inet::canonical(row.peer), inet::canonical(row.local)))
    });
    // Of several with one port (SO_REUSEPORT) nothing tells which has it.
    let owners: Vec<&Listener> =
        from_outside.filter_map(|row| listeners.iter().find(|listener| listener.has(row))).collect();
    for listener in listeners {
        let count = owners.iter().filter(|owner| **owner == listener).count();
        if count == 0 {
            continue;
        }
        let (tid, fd) = listener.holder;
        let object = format!("fd {fd}: TCP listener of {}", inet::canonical(listener.local));
        let what = match count {
            1 => "a connection from outside that it has not accepted".to_owned(),
            many => format!("{many} connections from outside that it has not accepted"),
        };
        match policy {
            Policy::Keep | Policy::Close => {
                findings.warnings.push(format!("{object}: {what} cannot be kept: the other side finds a reset"));
            }
            Policy::Refuse => {
                let remedy = "leave the option away, or try again in a moment";
                findings.block(format!("pid {tid}"), object, format!("it has {what} (--tcp refuse)"), remedy);
            }
        }
    }
}
