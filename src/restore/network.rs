//! The locks of images: what drops the packets of their connections while nobody has these.

use crate::image::model::Snapshot;
use crate::resources::socket::tcp::lock::lock_of;
use crate::sys::nftables;
use std::io;

/// Puts the lock of an image in, on a host that is about to take its addresses over; how many connections it holds.
///
/// # Errors
/// As netlink(7): EPERM without CAP_NET_ADMIN, EEXIST when it is there already.
pub fn lock(snapshot: &Snapshot) -> io::Result<usize> {
    let Some((name, connections)) = lock_of(&snapshot.sockets) else { return Ok(0) };
    nftables::leave(&name, &connections)?;
    Ok(connections.len())
}

/// Takes the lock of an image away; whether it was there.
///
/// # Errors
/// As netlink(7).
pub fn unlock(snapshot: &Snapshot) -> io::Result<bool> {
    match lock_of(&snapshot.sockets) {
        Some((name, _)) => nftables::remove(&name),
        None => Ok(false),
    }
}

/// Takes every lock of this network namespace away; how many there were.
///
/// # Errors
/// As netlink(7).
pub fn unlock_all() -> io::Result<usize> {
    let names = nftables::names()?;
    // Those of dumps and restores at work go with these, and belong to nobody else.
    let removed = names.iter().filter(|name| nftables::remove(name).unwrap_or(false)).count();
    Ok(removed)
}
