//! Multicast groups of a socket. The kernel lists those of devices alone; of a socket it tells whether it is in a group that it is asked for.

use crate::image::model::socket::datagram::{Device, Membership};
use crate::proc::multicast::{self, Group};
use crate::sys::socket;
use nix::errno::Errno;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

// include/uapi/linux/in.h: both levels have them.
const MCAST_JOIN_GROUP: i32 = 42;
const MCAST_MSFILTER: i32 = 48;
const MCAST_EXCLUDE: u32 = 0;
const MCAST_INCLUDE: u32 = 1;
/// Bytes of `struct sockaddr_storage`.
const ADDRESS: usize = size_of::<libc::sockaddr_storage>();
/// Bytes of `struct group_req`; it and `struct group_filter` begin with the device's number and, aligned to 8, the group.
const REQUEST: usize = 8 + ADDRESS;
/// Where `struct group_filter` has its mode, the number of sources after that, and the sources.
const MODE: usize = REQUEST;
const SOURCES: usize = REQUEST + 8;
/// IPV6: `net.ipv6.mld_max_msf` and its like are far below.
const SOURCES_MAX: usize = 1024;

/// All groups that it is in.
///
/// # Errors
/// As getsockopt(2).
pub fn collect(fd: BorrowedFd<'_>) -> io::Result<Vec<Membership>> {
    let groups = multicast::read().map_err(io::Error::other)?;
    let mut found = Vec::new();
    for group in groups {
        found.extend(membership(fd, &group)?);
    }
    Ok(found)
}

fn membership(fd: BorrowedFd<'_>, group: &Group) -> io::Result<Option<Membership>> {
    let address = whole(group.address);
    let mut filter = request(group.index, &address);
    filter.resize(SOURCES + SOURCES_MAX * ADDRESS, 0);
    filter[MODE + 4..MODE + 8].copy_from_slice(&(SOURCES_MAX as u32).to_ne_bytes());
    match socket::ask(fd, level(group.address), MCAST_MSFILTER, &mut filter) {
        Ok(_) => {}
        // It is not in it; or it has no such protocol.
        Err(Errno::EADDRNOTAVAIL | Errno::ENOPROTOOPT | Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    }
    let word = |at: usize| filter[at..at + 4].try_into().map_or(0, u32::from_ne_bytes);
    let sources = filter[SOURCES..].chunks_exact(ADDRESS).take(word(MODE + 4) as usize);
    Ok(Some(Membership {
        group: address.clone(),
        device: Device { index: group.index, name: String::from_utf8_lossy(&group.device).into_owned() },
        exclude: word(MODE) == MCAST_EXCLUDE,
        sources: sources.map(|source| source[..address.len()].to_vec()).collect(),
    }))
}

/// Joins a group.
///
/// # Errors
/// As setsockopt(2), with the device's name.
pub fn join(fd: BorrowedFd<'_>, membership: &Membership) -> io::Result<()> {
    let Membership { group, device: Device { index: _, name }, exclude, sources } = membership;
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("multicast group on device {name}: {error}"));
    let index = nix::net::if_::if_nametoindex(name.as_str()).map_err(|errno| failed(errno.into()))?;
    let level = if group.len() == size_of::<libc::sockaddr_in>() { libc::IPPROTO_IP } else { libc::IPPROTO_IPV6 };
    socket::set_option(fd, level, MCAST_JOIN_GROUP, &request(index, group)).map_err(failed)?;
    if *exclude && sources.is_empty() {
        return Ok(());
    }
    let mut filter = request(index, group);
    filter.extend_from_slice(&if *exclude { MCAST_EXCLUDE } else { MCAST_INCLUDE }.to_ne_bytes());
    filter.extend_from_slice(&(sources.len() as u32).to_ne_bytes());
    for source in sources {
        let end = filter.len() + ADDRESS;
        filter.extend_from_slice(source);
        filter.resize(end, 0);
    }
    socket::set_option(fd, level, MCAST_MSFILTER, &filter).map_err(failed)
}

/// `struct group_req`.
fn request(index: u32, group: &[u8]) -> Vec<u8> {
    let mut request = vec![0; REQUEST];
    request[..4].copy_from_slice(&index.to_ne_bytes());
    request[8..8 + group.len()].copy_from_slice(group);
    request
}

fn level(address: IpAddr) -> i32 {
    if address.is_ipv4() { libc::IPPROTO_IP } else { libc::IPPROTO_IPV6 }
}

/// A whole `struct sockaddr` without a port.
fn whole(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => {
            let family = (libc::AF_INET as u16).to_ne_bytes();
            [&family[..], &[0; 2], &ip.octets(), &[0; 8]].concat()
        }
        IpAddr::V6(ip) => {
            let family = (libc::AF_INET6 as u16).to_ne_bytes();
            [&family[..], &[0; 6], &ip.octets(), &[0; 4]].concat()
        }
    }
}
