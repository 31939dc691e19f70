//! Netlink sockets.

use crate::image::model::socket::netlink::Netlink;
use crate::sys::socket;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

// include/uapi/linux/netlink.h
const NETLINK_ADD_MEMBERSHIP: i32 = 1;

/// Gives it its port, groups and peer.
pub fn set_up(made: &File, Netlink { port, groups, peer }: &Netlink) -> io::Result<()> {
    let fd = made.as_fd();
    let named = |what: String| move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    if *port != 0 {
        let address = address([*port, 0]);
        socket::bind(fd, &address).map_err(named(format!("netlink port {port}")))?;
    }
    for group in groups {
        let joined = socket::set_option(fd, libc::SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group.to_ne_bytes());
        joined.map_err(named(format!("netlink group {group}")))?;
    }
    if *peer != [0, 0] {
        let connected = socket::connect(fd, &address(*peer)).map_err(io::Error::from);
        connected.map_err(named(format!("netlink peer {}", peer[0])))?;
    }
    Ok(())
}

/// `struct sockaddr_nl`.
fn address([port, groups]: [u32; 2]) -> Vec<u8> {
    let family = u32::from(libc::AF_NETLINK as u16);
    [family, port, groups].iter().flat_map(|word| word.to_ne_bytes()).collect()
}
