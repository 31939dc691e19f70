//! Descriptors of /dev/net/tun.

use crate::image::model::file::OpenObject;
use crate::image::model::id::FileId;
use crate::image::model::tun::{Tun, TunInterface};
use crate::sys::tun;
use std::fs::{File, metadata};
use std::io;
use std::os::unix::fs::MetadataExt;

/// What a descriptor is attached to. An interface that would go with it has addresses, routes and a state that are not saved.
///
/// # Errors
/// Why it cannot be saved.
pub fn collect(device: &File, file: FileId) -> Result<OpenObject, String> {
    let unreadable = |error: io::Error| format!("its interface cannot be read: {error}");
    let Some((name, flags)) = tun::interface(device).map_err(unreadable)? else {
        return Ok(OpenObject::Tun(Tun { file, interface: None }));
    };
    let inode = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    let its = tun::namespace(device).and_then(|namespace| namespace.metadata()).map(inode);
    let its = its.map_err(|error| format!("the network namespace of its interface {name} cannot be told: {error}"))?;
    if Some(its) != metadata("/proc/self/ns/net").map(inode).ok() {
        return Err(format!("its interface {name} is in another network namespace"));
    }
    if flags & tun::PERSIST == 0 {
        return Err(format!(
            "its interface {name} would go with it, and its addresses and routes too: make it persistent (ip tuntap add, TUNSETPERSIST)"
        ));
    }
    let [header, send_buffer] = tun::sizes(device).map_err(unreadable)?;
    Ok(OpenObject::Tun(Tun { file, interface: Some(TunInterface { name, flags, header, send_buffer }) }))
}
