//! Sets the options of sockets. The first socket of a sort is looked at whole, at each point of its making; the others of that sort, in what can differ
//! from what a new socket has. Most calls would find that.

use crate::image::model::Snapshot;
use crate::image::model::id::OptionsId;
use crate::image::model::socket::tcp::{Connection, Role};
use crate::image::model::socket::unix::Link;
use crate::image::model::socket::{Socket, SocketOption, State};
use crate::resources::socket::options::{self, Due, Moment};
use crate::sys::socket;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

// include/uapi/asm-generic/socket.h
const SO_BUF_LOCK: i32 = 72;

/// Family, type and protocol.
type Kind = (i32, i32, i32);

/// At which point of its making a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// It is new.
    New,
    /// It is new, and is to be connected by packets that may not be filtered yet.
    Unfiltered,
    /// It has its names and queues.
    Ready,
    /// The same, and nothing was set before.
    Settled,
    /// It is a connection of TCP that lives again.
    Alive,
}

impl Point {
    /// Which options are due.
    const fn moments(self) -> &'static [Moment] {
        match self {
            Self::New | Self::Unfiltered => &[Moment::Made],
            Self::Ready => &[Moment::Named, Moment::Filled],
            Self::Settled | Self::Alive => &[Moment::Made, Moment::Named, Moment::Filled],
        }
    }

    /// Whether this option still means something.
    fn wants(self, option: &SocketOption) -> bool {
        /// What binding an address, and the size of windows, depend on: `IP_FREEBIND` and `IP_TRANSPARENT` of both versions among them.
        const EARLY: [(i32, i32); 8] = [
            (libc::IPPROTO_IP, 15),
            (libc::IPPROTO_IP, 19),
            (libc::IPPROTO_IPV6, 75),
            (libc::IPPROTO_IPV6, 78),
            (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
            (libc::SOL_SOCKET, libc::SO_BINDTODEVICE),
            (libc::SOL_SOCKET, libc::SO_RCVBUF),
            (libc::SOL_SOCKET, SO_BUF_LOCK),
        ];
        let option = (option.level, option.name);
        match self {
            Self::Unfiltered => EARLY.contains(&option),
            // An address of IPv6 makes a connection one of IPv6 alone (net/ipv6/af_inet6.c, `__inet6_bind`).
            Self::Alive => option != (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
            Self::New | Self::Ready | Self::Settled => true,
        }
    }
}

/// What sockets have in common of which one is like the other: the options that they are to have, and how they come to what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sort {
    kind: Kind,
    options: OptionsId,
    point: Point,
    way: Way,
}

/// How a socket comes to what it is: a number for each way, and the choices on it.
type Way = (u8, [bool; 4]);

/// The options of an image, and what was learned of those that sockets get here.
#[derive(Debug)]
pub struct Settings<'a> {
    sets: &'a [Vec<SocketOption>],
    /// What new sockets have.
    fresh: RefCell<HashMap<Kind, Rc<Vec<SocketOption>>>>,
    known: RefCell<HashMap<Sort, Rc<Learned>>>,
}

/// What the first socket of a sort has told of the others.
#[derive(Debug, Default)]
struct Learned {
    /// What is to be looked at.
    due: Vec<Due>,
    /// What they have by themselves, as a new one has it.
    given: Vec<Due>,
}

impl<'a> Settings<'a> {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(snapshot: &'a Snapshot) -> Self {
        Self { sets: &snapshot.socket_options, fresh: RefCell::default(), known: RefCell::default() }
    }

    /// The options of a socket.
    #[must_use]
    pub fn of(&self, wanted: &Socket) -> &'a [SocketOption] {
        self.sets.get(wanted.options.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// Sets what is due and what the socket does not have already.
    ///
    /// # Errors
    /// As [`options::apply`].
    pub fn set(&self, fd: BorrowedFd<'_>, wanted: &Socket, point: Point) -> io::Result<()> {
        let all = self.of(wanted);
        let give = |due: Due| options::give(fd, due, all);
        let kind = (wanted.domain, wanted.kind, wanted.protocol);
        let Some(way) = way(&wanted.state) else {
            return due(all, point).try_for_each(|due| give(due).map(drop));
        };
        let sort = Sort { kind, options: wanted.options, point, way };
        let known = self.known.borrow().get(&sort).cloned();
        if let Some(known) = known {
            known.due.iter().try_for_each(|due| give(*due).map(drop))?;
            debug_assert_eq!(
                known.given.iter().find(|due| !options::has(fd, &all[due.at])).map(|due| due.row.title),
                None
            );
            return Ok(());
        }
        let fresh = self.fresh(kind);
        let mut learned = Learned::default();
        for due in due(all, point) {
            let had_it = give(due)?;
            // A new one has nothing yet that would depend on its own fate.
            let may_differ = point != Point::New && due.row.restless;
            let is_given = had_it && !may_differ && fresh.contains(&all[due.at]);
            if is_given { &mut learned.given } else { &mut learned.due }.push(due);
        }
        self.known.borrow_mut().insert(sort, Rc::new(learned));
        Ok(())
    }

    /// What a new socket has; nothing where none can be made.
    fn fresh(&self, kind: Kind) -> Rc<Vec<SocketOption>> {
        let mut all = self.fresh.borrow_mut();
        let read = || {
            let new = socket::make(kind.0, kind.1, kind.2).ok()?;
            options::collect(new.as_fd(), kind).ok()?.ok()
        };
        Rc::clone(all.entry(kind).or_insert_with(|| Rc::new(read().unwrap_or_default())))
    }
}

fn due(all: &[SocketOption], point: Point) -> impl Iterator<Item = Due> {
    let moments = point.moments().iter();
    moments.flat_map(|moment| options::due(all, *moment)).filter(move |due| point.wants(&all[due.at]))
}

/// How a socket comes to what it is; none where that is each one's own.
fn way(state: &State) -> Option<Way> {
    match state {
        State::Unix(state) => {
            let number = match state.link {
                Link::None => 0,
                Link::Listening { backlog: _, pending: _ } => 1,
                Link::Pending(_) => 2,
                Link::Peer(_) => 3,
                Link::Closed(_) => 4,
                Link::Outside { name: _, path: _ } => 5,
            };
            Some((number, [state.accepted, state.reset, state.queue.is_empty(), state.name.is_empty()]))
        }
        State::Tcp(tcp) => match &tcp.role {
            Role::Unconnected => Some((10, [false; 4])),
            Role::Listening { backlog: _ } => Some((11, [false; 4])),
            Role::Connected(connection) => {
                let Connection { peer: _, other: _, incoming, outgoing, window: _, agreed } = &**connection;
                let choices = [agreed.timestamp.is_some(), incoming.finished, incoming.shut, outgoing.finished];
                Some((12, choices))
            }
            Role::Ended(_) | Role::Connecting { peer: _ } => None,
        },
        State::Datagram(state) => {
            let is_plain = state.groups.is_empty() && state.queue.is_empty() && state.shutdown == 0;
            is_plain.then_some((20, [state.peer.is_some(), false, false, false]))
        }
        State::Netlink(_) | State::Packet(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::model::socket::tcp::Tcp;
    use crate::image::tests::sample;

    const TCP: Kind = (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP);
    const SO_REUSEADDR: i32 = 2;
    const SO_KEEPALIVE: i32 = 9;

    /// Sockets of one sort get what they are to have, the first and the others, also where something has changed one on its way.
    #[test]
    fn all_sockets_of_a_sort_get_the_same() {
        let make = || socket::make(TCP.0, TCP.1, TCP.2).unwrap();
        let set = |file: &std::fs::File, name: i32, value: i32| {
            socket::set_option(file.as_fd(), libc::SOL_SOCKET, name, &value.to_ne_bytes()).unwrap();
        };
        let model = make();
        set(&model, SO_KEEPALIVE, 1);
        let mut snapshot = sample::bare(1);
        snapshot.socket_options = vec![options::collect(model.as_fd(), TCP).unwrap().unwrap()];
        let state = State::Tcp(Tcp { local: Vec::new(), role: Role::Unconnected });
        let wanted = Socket { domain: TCP.0, kind: TCP.1, protocol: TCP.2, state, ..sample::socket(0) };
        let settings = Settings::new(&snapshot);
        for number in 0..4 {
            let made = make();
            settings.set(made.as_fd(), &wanted, Point::New).unwrap();
            if number == 2 {
                // As leaving repair mode does.
                set(&made, SO_REUSEADDR, 1);
            }
            settings.set(made.as_fd(), &wanted, Point::Settled).unwrap();
            let found = options::collect(made.as_fd(), TCP).unwrap().unwrap();
            assert_eq!(found, snapshot.socket_options[0], "{number}");
        }
    }

    #[test]
    fn what_a_new_socket_has_is_not_asked_for_again() {
        let new = socket::make(TCP.0, TCP.1, TCP.2).unwrap();
        let mut snapshot = sample::bare(1);
        snapshot.socket_options = vec![options::collect(new.as_fd(), TCP).unwrap().unwrap()];
        let state = State::Tcp(Tcp { local: Vec::new(), role: Role::Unconnected });
        let wanted = Socket { domain: TCP.0, kind: TCP.1, protocol: TCP.2, state, ..sample::socket(0) };
        let settings = Settings::new(&snapshot);
        settings.set(new.as_fd(), &wanted, Point::New).unwrap();
        let known = settings.known.borrow();
        let learned = known.values().next().unwrap();
        assert!(learned.due.is_empty() && learned.given.len() > 50, "{learned:?}");
    }
}
