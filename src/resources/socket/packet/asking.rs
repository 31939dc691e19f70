//! Where the kernel stands in rings for sending: asked by a process that has the socket, which writes frames over that cannot be sent and puts them back, while all others
//! that have the socket or see the ring stand by.

use crate::blocker::Blocker;
use crate::image::model::Snapshot;
use crate::image::model::address::Addr;
use crate::image::model::file::OpenObject;
use crate::image::model::id::{Fd, Pid, SocketId};
use crate::image::model::memory::Backing;
use crate::image::model::process::Process;
use crate::image::model::socket::packet::{BLOCKS, Packet, SendRing};
use crate::image::model::socket::{Socket, SocketOption, State};
use crate::resources::Findings;
use crate::resources::together::{self, Holders, Unseen};
use crate::sys::packet_ring::send;
use crate::tracer::{self, FrozenTree, Gathering, Memory, RemotePtr};
use nix::errno::Errno;
use protocol::{Op, SEND_ADDRESS, SEND_HEADER, SendProbe, pseudo};
use std::collections::{HashMap, HashSet};
use std::io;
use std::mem::offset_of;

// include/uapi/linux/if_packet.h
const PACKET_LOSS: i32 = 14;
const PACKET_TX_HAS_OFF: i32 = 19;
/// Less than no bytes: no error that means something else.
const IMPOSSIBLE: u32 = -42_i32 as u32;
/// Frames of which each may leave two lines in the log of the kernel: a slow console takes a second for some hundred.
const LINES_MAX: u32 = 256;
/// The first device that is up is enough.
const DEVICES: usize = 64;

/// A ring that has to be asked, and how.
#[derive(Debug)]
pub struct Asking {
    socket: SocketId,
    /// Processes that have it; the first is to ask.
    pids: Vec<Pid>,
    /// The descriptor of the first.
    fd: Fd,
    /// What messages call it.
    object: String,
}

/// Where things lie in the memory of who asks.
#[derive(Clone, Copy)]
struct Places {
    probe: Addr,
    result: Addr,
    devices: Addr,
    saved: Addr,
    end: Addr,
}

impl Places {
    fn new(probe: Addr, devices: u64, frames: u64) -> Self {
        let result = probe.add(size_of::<SendProbe>() as u64);
        let devices_at = result.add(8);
        let saved = devices_at.add(devices * SEND_ADDRESS);
        Self { probe, result, devices: devices_at, saved, end: saved.add(frames * SEND_HEADER) }
    }
}

/// How to ask all rings of the tree whose frames are more than one. Why that cannot be done is noted.
pub fn plan(snapshot: &Snapshot, findings: &mut Findings) -> Vec<Asking> {
    let mut all = Vec::new();
    let asked = |socket: &&Socket| of(socket).is_some_and(|(_, ring)| ring.layout.frames > 1);
    let asked: Vec<&Socket> = snapshot.sockets.iter().filter(asked).collect();
    if asked.is_empty() {
        return all;
    }
    let holders = holders(snapshot, &asked);
    for socket in asked {
        match one(snapshot, socket, &holders) {
            Ok(asking) => all.push(asking),
            Err((pid, reason, remedy)) => {
                let object = format!("socket:[{}]", socket.ino);
                let reason = format!("where the kernel stands in its ring for sending (PACKET_TX_RING) {reason}");
                findings.block(format!("pid {pid}"), object, reason, remedy);
            }
        }
    }
    all
}

/// Who has each of these sockets, or maps its ring.
fn holders<'a>(snapshot: &'a Snapshot, asked: &[&Socket]) -> Holders<'a, SocketId> {
    let ids: HashSet<SocketId> = asked.iter().map(|socket| socket.id).collect();
    let numbers: HashMap<u64, SocketId> = asked.iter().map(|socket| (socket.ino, socket.id)).collect();
    let opened = |object: &OpenObject| {
        let OpenObject::Socket(id) = object else { return None };
        ids.get(id).copied()
    };
    let mapped = |backing: &Backing| {
        let Backing::PacketRing { ino } = backing else { return None };
        numbers.get(ino).copied()
    };
    Holders::new(snapshot, opened).or_mapped(mapped)
}

/// The ring for sending of a socket, if it has one.
fn of(socket: &Socket) -> Option<(&Packet, &SendRing)> {
    match &socket.state {
        State::Packet(packet) => packet.send_ring.as_ref().map(|ring| (packet, ring)),
        State::Unix(_) | State::Tcp(_) | State::Datagram(_) | State::Netlink(_) => None,
    }
}

fn one(
    snapshot: &Snapshot,
    socket: &Socket,
    all: &Holders<'_, SocketId>,
) -> Result<Asking, (Pid, &'static str, &'static str)> {
    let holders = all.of(socket.id);
    let first = holders.first().or(snapshot.processes.first().as_ref()).map_or(Pid(0), |process| process.pid);
    if together::share_memory(&holders) {
        let reason = "cannot be asked: two processes that share memory have it, which is not supported yet";
        return Err((first, reason, "close it in one of them"));
    }
    let opened = |process: &Process| all.main_descriptors(process, socket.id).first().copied();
    let Some((worker, (fd, _))) = holders.iter().find_map(|process| Some((process.pid, opened(process)?))) else {
        let reason = "cannot be asked: no main thread has a descriptor of it";
        return Err((first, reason, "receive it where it is on its way, or let the table of descriptors be shared"));
    };
    let others = holders.iter().map(|process| process.pid).filter(|pid| *pid != worker);
    let object = format!("fd {fd}: socket:[{}]", socket.ino);
    Ok(Asking { socket: socket.id, pids: [worker].into_iter().chain(others).collect(), fd, object })
}

impl Asking {
    /// Asks, and notes the answer.
    ///
    /// # Errors
    /// The outer error is that of the tracer. What could not be asked is refused by the inner one.
    pub fn run(&self, tree: &mut FrozenTree, snapshot: &mut Snapshot) -> Result<Result<(), Unseen>, tracer::Error> {
        let Some(socket) = snapshot.sockets.get(self.socket.0 as usize) else { return Ok(Ok(())) };
        let Some((packet, ring)) = of(socket) else { return Ok(Ok(())) };
        let options = snapshot.socket_options.get(socket.options.0 as usize).map_or(&[][..], Vec::as_slice);
        let (way, passes) = (Way::of(socket.kind, ring, options), is_set(options, PACKET_LOSS));
        if way == Way::Length && passes && ring.layout.frames > LINES_MAX {
            let reason = "the kernel would leave a line in its log for each of so many frames";
            return Ok(Err(self.unseen(reason.into(), "dump it with fewer frames, or with PACKET_TX_HAS_OFF")));
        }
        let devices = match devices(way == Way::Empty) {
            Ok(devices) => devices,
            Err(error) => return Ok(Err(self.unseen(format!("devices cannot be listed: {error}"), ""))),
        };
        let room = Places::new(Addr::NULL, devices.len() as u64, ring.layout.frames.into()).end.0;
        let mut gathering = match Gathering::enter(tree, &self.pids, 1, room) {
            Err(tracer::Error::Refused { tid, reason, remedy }) => {
                return Ok(Err(self.unseen(format!("tid {tid} cannot stand by: {reason}"), remedy)));
            }
            Err(tracer::Error::NoRoom { pid, what }) => {
                let reason = format!("pid {pid} cannot stand by: it has no {what}");
                return Ok(Err(self.unseen(reason, "dump when it has fewer threads")));
            }
            entered => entered?,
        };
        let places = Places::new(gathering.room().start, devices.len() as u64, ring.layout.frames.into());
        let marks = way.marks(ring);
        self.write(gathering.memory()?, places, (packet, ring), (&devices, marks, passes))?;
        let args = [places.probe.0, 0, 0, 0, 0, 0];
        gathering.perform(&[Op { nr: pseudo::SEND_PROBE, store: places.result.0, args, ..Op::default() }])?;
        let memory = gathering.memory()?;
        let result = memory.get(RemotePtr::<i64>::new(places.result))?;
        let next = memory.get(RemotePtr::<u64>::new(places.probe.add(offset_of!(SendProbe, next) as u64)))?;
        gathering.leave()?;
        if result != 0 {
            return Ok(Err(self.not_told(result)));
        }
        if let Some(State::Packet(packet)) =
            snapshot.sockets.get_mut(self.socket.0 as usize).map(|socket| &mut socket.state)
            && let Some(ring) = &mut packet.send_ring
        {
            ring.next = next as u32;
        }
        Ok(Ok(()))
    }

    fn write(
        &self,
        memory: &Memory,
        places: Places,
        (packet, ring): (&Packet, &SendRing),
        (devices, marks, passes): (&[Vec<u8>], [u32; 4], bool),
    ) -> Result<(), tracer::Error> {
        let layout = ring.layout;
        let probe = SendProbe {
            fd: self.fd.0 as u64,
            len: packet.mapped().unwrap_or(0),
            start: packet.ring.as_ref().map_or(0, |ring| ring.bytes()),
            block: layout.block_size.into(),
            in_block: (layout.block_size / layout.frame_size).into(),
            frame: layout.frame_size.into(),
            frames: layout.frames.into(),
            status: header(ring).status as u64,
            marks: marks.map(u64::from),
            passes: passes.into(),
            devices: places.devices.0,
            count: devices.len() as u64,
            saved: places.saved.0,
            next: 0,
        };
        memory.write(places.probe, &bytes(&probe))?;
        memory.write(places.devices, &devices.concat())
    }

    fn unseen(&self, reason: String, remedy: &str) -> Unseen {
        let pid = self.pids.first().copied().unwrap_or(Pid(0));
        let reason =
            format!("where the kernel stands in its ring for sending (PACKET_TX_RING) cannot be asked: {reason}");
        Unseen::Never(Blocker::new(format!("pid {pid}"), &self.object, reason, remedy))
    }

    fn not_told(&self, result: i64) -> Unseen {
        let errno = Errno::from_raw(-result as i32);
        match errno {
            Errno::ENETDOWN | Errno::ENXIO | Errno::ENODEV => {
                let reason = "the loopback interface is not up, without which the kernel looks at no ring";
                self.unseen(reason.into(), "bring it up (ip link set lo up)")
            }
            errno => self.unseen(errno.to_string(), ""),
        }
    }
}

/// What of a frame makes the kernel refuse it before anything is made of it, and without a line in its log where that can be
/// (`tpacket_parse_header`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Of TPACKET_V3: it leads to another one, which is warned of once.
    Next,
    /// A packet that begins before its frame (PACKET_TX_HAS_OFF).
    Start,
    /// A packet of SOCK_RAW without a header, which the loopback interface does not take (`dev_validate_header`).
    Empty,
    /// A length below zero, which kernels of 2026 take for one that is too long, and log.
    Length,
}

impl Way {
    fn of(kind: i32, ring: &SendRing, options: &[SocketOption]) -> Self {
        match kind {
            _ if ring.version == BLOCKS => Self::Next,
            _ if is_set(options, PACKET_TX_HAS_OFF) => Self::Start,
            libc::SOCK_RAW => Self::Empty,
            _ => Self::Length,
        }
    }

    /// Offset and value of two words.
    fn marks(self, ring: &SendRing) -> [u32; 4] {
        let send::Header { status: _, length, starts: [start, _], packet: _ } = header(ring);
        let (length, start) = (length as u32, start as u32);
        match self {
            Self::Next => [0, 1, 0, 1],
            Self::Start => [length, 0, start, 0],
            Self::Empty => [length, 0, length, 0],
            Self::Length => [length, IMPOSSIBLE, length, IMPOSSIBLE],
        }
    }
}

fn header(ring: &SendRing) -> send::Header {
    send::HEADERS[(ring.version as usize).min(send::HEADERS.len() - 1)]
}

fn is_set(options: &[SocketOption], name: i32) -> bool {
    crate::resources::socket::options::number(options, libc::SOL_PACKET, name).unwrap_or(0) != 0
}

/// As it lies in memory.
fn bytes(probe: &SendProbe) -> Vec<u8> {
    let SendProbe {
        fd,
        len,
        start,
        block,
        in_block,
        frame,
        frames,
        status,
        marks: [first, value, second, other],
        passes,
        devices,
        count,
        saved,
        next,
    } = *probe;
    let words = [
        fd, len, start, block, in_block, frame, frames, status, first, value, second, other, passes, devices, count,
        saved, next,
    ];
    words.map(u64::to_le_bytes).concat()
}

/// Addresses (`struct sockaddr_ll`) of devices, that of loopback first or alone: some of them may be up.
fn devices(loopback_alone: bool) -> io::Result<Vec<Vec<u8>>> {
    let all = nix::net::if_::if_nameindex()?;
    let mut devices: Vec<(bool, u32)> =
        all.iter().map(|device| (device.name().to_bytes() != b"lo", device.index())).collect();
    devices.sort_unstable();
    devices.retain(|(is_other, _)| !(loopback_alone && *is_other));
    let address = |(_, index): (bool, u32)| {
        let family = (libc::AF_PACKET as u16).to_ne_bytes();
        let mut address = [&family[..], &[0; 2], &index.to_ne_bytes()].concat();
        address.resize(SEND_ADDRESS as usize, 0);
        address
    };
    Ok(devices.into_iter().take(DEVICES).map(address).collect())
}
