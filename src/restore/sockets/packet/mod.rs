//! Packet sockets.

mod feeder;
mod ring;
mod sending;

use super::begin;
use super::settings::Settings;
use crate::image::model::socket::datagram::Device;
use crate::image::model::socket::packet::{Bound, Packet, PacketMembership};
use crate::image::model::socket::{Socket, SocketOption, State};
use crate::resources::socket::packet::SOCK_PACKET;
use crate::sys::packet_ring::{self, Memory};
use crate::sys::{socket, tun};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

// include/uapi/linux/if_packet.h
const PACKET_ADD_MEMBERSHIP: i32 = 1;
const PACKET_RX_RING: i32 = 5;
const PACKET_TX_RING: i32 = 13;
const SO_ATTACH_FILTER: i32 = 26;
/// `MAX_ADDR_LEN` (include/linux/netdevice.h).
const ADDRESS: usize = 32;

/// One whose ring takes packets of ours to be made, which are in the way of every other packet socket.
///
/// # Errors
/// As socket(2), setsockopt(2), and those of the ring.
pub fn with_ring(wanted: &Socket, settings: &Settings<'_>, top: i32) -> io::Result<Option<File>> {
    let State::Packet(packet) = &wanted.state else { return Ok(None) };
    let Some(len) = packet.mapped() else { return Ok(None) };
    let made = begin(wanted, settings, top)?;
    let fd = made.as_fd();
    let of = |what: &'static str| move |error: io::Error| io::Error::new(error.kind(), format!("its {what}: {error}"));
    let (receives, sends) = (of("ring"), of("ring for sending"));
    if let Some(ring) = &packet.ring {
        ring::make(fd, PACKET_RX_RING, ring.version, ring.layout).map_err(receives)?;
    }
    if let Some(ring) = &packet.send_ring {
        ring::make(fd, PACKET_TX_RING, ring.version, ring.layout).map_err(sends)?;
    }
    let memory = &Memory::map(fd, len as usize).map_err(of("rings"))?;
    // It receives nothing yet, not even what it sends.
    if let Some(ring) = &packet.send_ring {
        let start = packet.ring.as_ref().map_or(0, |ring| ring.bytes() as usize);
        let (kind, options) = (wanted.kind, settings.of(wanted));
        sending::Filling { fd, kind, options, ring, memory, start }.fill().map_err(sends)?;
    }
    if let Some(ring) = &packet.ring {
        ring::fill(fd, ring, memory).map_err(receives)?;
    }
    Ok(Some(made))
}

/// Gives it its memberships, and then packets. `options` are all that it is to have.
pub fn set_up(made: &File, wanted: &Socket, options: &[SocketOption], state: &Packet) -> io::Result<()> {
    let Packet { protocol, bound, running, memberships, ring, send_ring: _ } = state;
    let fd = made.as_fd();
    for membership in memberships.iter().rev() {
        let request = request(membership)?;
        for _ in 0..membership.count {
            let joined = socket::set_option(fd, libc::SOL_PACKET, PACKET_ADD_MEMBERSHIP, &request);
            joined.map_err(on(&membership.device))?;
        }
    }
    match bound {
        Bound::Anywhere if *protocol == 0 => return Ok(()),
        Bound::Anywhere if wanted.kind == SOCK_PACKET => {}
        Bound::Device(device) if wanted.kind == SOCK_PACKET => {
            socket::bind(fd, &name(&device.name)).map_err(on(device))?;
        }
        Bound::Anywhere => socket::bind(fd, &place(*protocol, 0))?,
        Bound::Device(device) => socket::bind(fd, &place(*protocol, index(device)?)).map_err(on(device))?,
        Bound::Gone => bind_to_none(fd, wanted.kind, *protocol)
            .map_err(|error| io::Error::new(error.kind(), format!("making a device that goes again: {error}")))?,
    }
    if !running {
        // A device that is down leaves an error (net/packet/af_packet.c, `packet_do_bind`), which the program has had already.
        socket::option(fd, libc::SOL_SOCKET, libc::SO_ERROR)?;
    }
    if wanted.kind == SOCK_PACKET {
        empty(made)?;
    }
    if wanted.kind == SOCK_PACKET || ring.as_ref().is_some_and(ring::is_used) {
        let is_filter = |option: &&SocketOption| (option.level, option.name) == (libc::SOL_SOCKET, SO_ATTACH_FILTER);
        let filter = options.iter().find(is_filter).map_or(&[][..], |option| &option.value);
        socket::attach_filter(fd, filter)?;
    }
    Ok(())
}

/// Takes out what one of SOCK_PACKET has received since it was made, when it had no filter and no device yet. A filter keeps more from coming, however
/// much there is, until another takes its place.
fn empty(mut made: &File) -> io::Result<()> {
    // include/uapi/linux/filter.h: BPF_RET
    const NOTHING: [u8; 8] = [6, 0, 0, 0, 0, 0, 0, 0];
    let fd = made.as_fd();
    socket::attach_filter(fd, &NOTHING)?;
    // A CPU may be about to put a packet there that the old filter has let through. Kernels with CPUs without a tick do not tell when it has.
    if packet_ring::can_settle() {
        packet_ring::settle()?;
    }
    while socket::waiting(fd)? & libc::POLLIN != 0 {
        let _ = made.read(&mut [0])?;
    }
    Ok(())
}

/// Binds it to a device that is gone: one of ours, which goes with its descriptor.
fn bind_to_none(fd: BorrowedFd<'_>, kind: i32, protocol: u16) -> io::Result<()> {
    // include/uapi/linux/if_tun.h
    const IFF_TAP: u16 = 2;
    const IFF_NO_PI: u16 = 0x1000;
    let tun = File::options().read(true).write(true).open("/dev/net/tun")?;
    // The kernel finds a name.
    tun::attach(&tun, "", IFF_TAP | IFF_NO_PI)?;
    let (device, _) = tun::interface(&tun)?.ok_or(io::ErrorKind::NotFound)?;
    if kind == SOCK_PACKET {
        return socket::bind(fd, &name(&device));
    }
    socket::bind(fd, &place(protocol, nix::net::if_::if_nametoindex(device.as_str())?))
}

/// `struct sockaddr` with the name of a device, as SOCK_PACKET takes it.
fn name(device: &str) -> Vec<u8> {
    let mut address = [&(libc::AF_PACKET as u16).to_ne_bytes()[..], device.as_bytes()].concat();
    address.resize(size_of::<libc::sockaddr>(), 0);
    address
}

/// What such a socket is made with: one of SOCK_PACKET is given its protocol then or never.
pub fn protocol(wanted: &Socket) -> i32 {
    match &wanted.state {
        State::Packet(state) if wanted.kind == SOCK_PACKET => state.protocol.to_be().into(),
        State::Packet(_) | State::Unix(_) | State::Tcp(_) | State::Datagram(_) | State::Netlink(_) => wanted.protocol,
    }
}

/// `struct sockaddr_ll` without a hardware address.
fn place(protocol: u16, index: u32) -> Vec<u8> {
    let family = (libc::AF_PACKET as u16).to_ne_bytes();
    [&family[..], &protocol.to_be_bytes(), &index.to_ne_bytes(), &[0; 12]].concat()
}

/// `struct packet_mreq` with the longest address.
fn request(PacketMembership { device, kind, address, count: _ }: &PacketMembership) -> io::Result<Vec<u8>> {
    let mut request = index(device)?.to_ne_bytes().to_vec();
    request.extend_from_slice(&kind.to_ne_bytes());
    request.extend_from_slice(&(address.len() as u16).to_ne_bytes());
    request.extend_from_slice(address);
    request.resize(8 + ADDRESS, 0);
    Ok(request)
}

fn index(device: &Device) -> io::Result<u32> {
    nix::net::if_::if_nametoindex(device.name.as_str()).map_err(|errno| on(device)(errno.into()))
}

fn on(device: &Device) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("packet socket on device {}: {error}", device.name))
}
