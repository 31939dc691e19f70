//! The connections of a tree: which have both ends in it, and what becomes of the others.

use super::connection::{self, Trouble};
use super::lock::{self, Lock};
use super::subject::Subject;
use super::waiting::{self, Listener};
use crate::image::model::socket::tcp::{Connection, Other, Role};
use crate::image::model::socket::{State, inet};
use crate::proc::tcp_table::{self, Row, Version};
use crate::resources::border::{Outsider, Tie};
use crate::resources::{CollectError, Findings};
use crate::sys::undo::Undo;
use crate::sys::{socket, tcp};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

/// What becomes of connections whose other end is outside of the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// They are kept: the other side sees a delay.
    #[default]
    Keep,
    /// The restored program finds them reset.
    Close,
    /// The dump is refused.
    Refuse,
}

/// How the connections of a tree are read.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// What becomes of those that lead outside.
    pub policy: Policy,
    /// Whether the tree is killed afterwards, so that no packet may be received that the image does not have.
    pub ends: bool,
    /// Whether the tree stands still; else it is only looked at, and nothing is changed for a moment either.
    pub frozen: bool,
    /// Called when packets are dropped and when a connection is in repair mode.
    pub passed: fn(Step) -> io::Result<()>,
}

/// What is undone should we die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Packets are dropped.
    Locked,
    /// A connection is in repair mode.
    Repairing,
}

/// Whether connections may be repaired here: nobody may where there is no TCP over IPv4, or no such thing as repairing.
///
/// # Errors
/// As socket(2), setsockopt(2).
pub fn may_repair() -> io::Result<bool> {
    const NO: [i32; 4] = [libc::EPERM, libc::EAFNOSUPPORT, libc::EPROTONOSUPPORT, libc::ENOPROTOOPT];
    let trial = socket::make(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP);
    match trial.and_then(|trial| tcp::set(trial.as_fd(), tcp::REPAIR, 1)) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error().is_some_and(|number| NO.contains(&number)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Both addresses, without the IPv6 form of those of IPv4.
pub type Ends = (SocketAddr, SocketAddr);

/// What the kernel's table has.
pub(super) type Rows<'a> = HashMap<Ends, &'a Row>;

/// Reads all connections. Gives what drops the packets of those that lead outside, if the tree is to be killed.
///
/// # Errors
/// A kernel interface that failed.
pub fn read(
    subjects: &mut [Subject<'_>],
    listeners: &[Listener],
    outsiders: &HashMap<Tie, Outsider>,
    manner: Manner,
    findings: &mut Findings,
) -> Result<Option<Lock>, CollectError> {
    let holders = subjects.iter().map(|subject| subject.holder).chain(listeners.iter().map(|listener| listener.holder));
    let Some((anybody, _)) = holders.into_iter().next() else { return Ok(None) };
    let repairs = may_repair().map_err(CollectError::at(anybody, "TCP_REPAIR"))?;
    let connections: Vec<(usize, Vec<u8>, Ends)> =
        (0..subjects.len()).filter_map(|at| connected(&subjects[at], at)).collect();
    let places: HashMap<Ends, usize> = connections.iter().map(|(at, _, ends)| (*ends, *at)).collect();
    let has_other = |ends: &Ends| places.contains_key(&(ends.1, ends.0));
    let may_wait = manner.ends && !listeners.is_empty();
    let is_needed = may_wait || connections.iter().any(|(_, _, ends)| !has_other(ends));
    let table = if is_needed { tcp_table::read(&mut Vec::new())? } else { Vec::new() };
    let rows: Rows<'_> =
        table.iter().map(|row| ((inet::canonical(row.local), inet::canonical(row.peer)), row)).collect();
    if may_wait {
        waiting::tell(listeners, &table, &|ends| places.contains_key(ends), manner.policy, findings);
    }
    let mut kept = Vec::new();
    for (at, peer, ends) in connections {
        let subject = &mut subjects[at];
        if let Some(outsider) = outsiders.get(&Tie::Socket(subject.socket.ino)) {
            subject.refuse(findings, format!("{outsider}, which is outside, has this connection too"), "end that");
            continue;
        }
        let reversed = (ends.1, ends.0);
        let other = places.get(&reversed).copied();
        if other.is_none() && is_not_accepted(&rows, reversed) {
            subject.not_accepted(peer, &rows, reversed, findings);
        } else if other == Some(at) && !repairs {
            let reason =
                "it is connected with itself, and to bring that back takes CAP_NET_ADMIN in this network namespace";
            subject.refuse(findings, reason, "run as root");
        } else if other.is_some()
            || (!repairs && manner.policy == Policy::Keep && subject.other_is_gone(ends, rows.get(&reversed)))
        {
            kept.push((at, peer, other));
        } else if subject.leads_outside(&peer, manner.policy, repairs, findings) {
            kept.push((at, peer, None));
        }
    }
    if !manner.frozen || !findings.blockers.is_empty() {
        return Ok(None);
    }
    // Without repair none leads outside.
    let held = if repairs { lock::hold(subjects, &kept, manner, findings)? } else { None };
    if held.is_some() {
        (manner.passed)(Step::Locked).map_err(CollectError::at(anybody, "fault point"))?;
    }
    read_all(subjects, &kept, repairs.then_some(manner), findings)?;
    Ok(held)
}

fn connected(subject: &Subject<'_>, at: usize) -> Option<(usize, Vec<u8>, Ends)> {
    let State::Tcp(tcp) = &subject.socket.state else { return None };
    let peer = socket::peer_address(subject.file.as_fd()).ok()?;
    let own = inet::canonical(inet::parse(&tcp.local)?);
    let other = inet::canonical(inet::parse(&peer)?);
    Some((at, peer, (own, other)))
}

/// Whether the other end waits in a listener: it is in this network namespace and belongs to no descriptor.
fn is_not_accepted(rows: &Rows<'_>, ends: Ends) -> bool {
    rows.get(&ends).is_some_and(|row| row.ino == 0 && tcp::State::from(row.state) == tcp::State::Established)
}

/// Reads all, and once more those of which one end was read before and the other after packets went between them.
fn read_all(
    subjects: &mut [Subject<'_>],
    kept: &[(usize, Vec<u8>, Option<usize>)],
    repairs: Option<Manner>,
    findings: &mut Findings,
) -> Result<(), CollectError> {
    /// How often.
    const TRIES: u32 = 20;
    if kept.is_empty() {
        return Ok(());
    }
    let is_of = |version: &Version| match version {
        Version::Four => libc::AF_INET,
        Version::Six => libc::AF_INET6,
    };
    let domains: HashSet<i32> = kept.iter().map(|(at, _, _)| subjects[*at].socket.domain).collect();
    let versions: Vec<Version> =
        [Version::Four, Version::Six].into_iter().filter(|version| domains.contains(&is_of(version))).collect();
    let undo = Undo::default();
    if repairs.is_none() {
        let files: Vec<&File> = kept.iter().map(|(at, _, _)| subjects[*at].file).collect();
        connection::await_delivery(&files).map_err(CollectError::at(subjects[kept[0].0].holder.0, "SIOCOUTQ"))?;
    }
    let mut due: Vec<usize> = (0..kept.len()).collect();
    for attempt in 1..=TRIES {
        for &one in &due {
            let (at, peer, other) = &kept[one];
            let subject = &mut subjects[*at];
            let repairs = repairs.map(|manner| manner.passed);
            let place = match (other, repairs) {
                (Some(_), _) => Other::Inside,
                (None, Some(_)) => Other::Outside,
                (None, None) => Other::Gone,
            };
            let read = connection::read(subject.file.as_fd(), peer.clone(), place, &undo, repairs);
            match read.map_err(CollectError::at(subject.holder.0, "reading a TCP connection"))? {
                Ok(connection) => subject.set(Role::Connected(Box::new(connection))),
                Err(Trouble::Refused(reason)) => subject.refuse(findings, reason, "let it be read before"),
                Err(Trouble::Passing(reason)) => subject.passing(findings, reason),
            }
        }
        let rows = tcp_table::read_versions("tcp", &versions, &mut Vec::new())?;
        let unread: HashMap<u64, u32> = rows.iter().map(|row| (row.ino, row.unread)).collect();
        due.retain(|one| {
            let (at, _, other) = &kept[*one];
            let other = other.and_then(|other| subjects[other].connection());
            !subjects[*at].connection().is_none_or(|own| is_whole(own, unread.get(&subjects[*at].socket.ino)))
                || !fits(subjects[*at].connection(), other)
        });
        // Both ends of a pair are read again.
        let others: Vec<usize> = due.iter().filter_map(|one| kept[*one].2).collect();
        due.extend((0..kept.len()).filter(|one| others.contains(&kept[*one].0)));
        due.sort_unstable();
        due.dedup();
        if due.is_empty() || !findings.passing.is_empty() || !findings.blockers.is_empty() {
            break;
        }
        if attempt == TRIES {
            for one in &due {
                let reason = "not all of what it has received can be read: urgent data (MSG_OOB) is among it";
                subjects[kept[*one].0].passing(findings, reason.into());
            }
        }
    }
    Ok(())
}

/// Whether all that was received was read: the kernel counts the end (FIN) too, and hides what comes after urgent data.
fn is_whole(own: &Connection, unread: Option<&u32>) -> bool {
    unread.is_none_or(|count| *count == own.incoming.unread.len() as u32 + u32::from(own.incoming.finished))
}

/// Whether nothing of what one has dropped as acknowledged is missing at the other. Without repair nothing waits.
fn fits(own: Option<&Connection>, other: Option<&Connection>) -> bool {
    let (Some(own), Some(other)) = (own, other) else { return true };
    let (sent, received) = (&own.outgoing, &other.incoming);
    if sent.sequence == 0 && received.sequence == 0 {
        return true;
    }
    let next = received.sequence.wrapping_add(received.unread.len() as u32 + u32::from(received.finished));
    let written = sent.bytes.len() as u32 + u32::from(sent.finished && !sent.acknowledged);
    next.wrapping_sub(sent.sequence) <= written
}
