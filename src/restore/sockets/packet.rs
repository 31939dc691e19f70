//! Packet sockets.

use crate::image::model::socket::datagram::Device;
use crate::image::model::socket::packet::{Packet, PacketMembership};
use crate::sys::socket;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

// include/uapi/linux/if_packet.h
const PACKET_ADD_MEMBERSHIP: i32 = 1;
/// `MAX_ADDR_LEN` (include/linux/netdevice.h).
const ADDRESS: usize = 32;

/// Gives it its memberships, and then packets.
pub fn set_up(made: &File, Packet { protocol, device, running, memberships }: &Packet) -> io::Result<()> {
    let fd = made.as_fd();
    for membership in memberships.iter().rev() {
        let request = request(membership)?;
        for _ in 0..membership.count {
            let joined = socket::set_option(fd, libc::SOL_PACKET, PACKET_ADD_MEMBERSHIP, &request);
            joined.map_err(on(&membership.device))?;
        }
    }
    let index = device.as_ref().map_or(Ok(0), index)?;
    if *protocol == 0 && index == 0 {
        return Ok(());
    }
    let family = (libc::AF_PACKET as u16).to_ne_bytes();
    let address = [&family[..], &protocol.to_be_bytes(), &index.to_ne_bytes(), &[0; 12]].concat();
    let bound = socket::bind(fd, &address);
    match device {
        None => bound?,
        Some(device) => bound.map_err(on(device))?,
    }
    if !running {
        // A device that is down leaves an error (net/packet/af_packet.c, `packet_do_bind`), which the program has had already.
        socket::option(fd, libc::SOL_SOCKET, libc::SO_ERROR)?;
    }
    Ok(())
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
