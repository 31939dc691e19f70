//! Who in the kernel has a map besides the processes of the tree: programs, other maps, and pins on file systems of type bpf.

use crate::image::model::bpf::MapKind;
use crate::proc::{TaskDir, mountinfo};
use crate::sys::bpf::{self, Program, READ_ONLY};
use nix::errno::Errno;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// For each of these maps a program or another map that has it, if there is one, by its number. `inside` are the maps that come back with the tree.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
pub fn users(wanted: &HashSet<u32>, inside: &HashSet<u32>) -> io::Result<HashMap<u32, String>> {
    let mut found = HashMap::new();
    for Program { id, name, maps } in bpf::programs()? {
        let name = if name.is_empty() { String::new() } else { format!(" ({})", String::from_utf8_lossy(&name)) };
        for map in maps.into_iter().filter(|map| wanted.contains(map)) {
            found.entry(map).or_insert_with(|| format!("the program {id}{name} in the kernel"));
        }
    }
    for id in bpf::maps()?.into_iter().filter(|id| !inside.contains(id)) {
        for inner in maps_in(id)?.into_iter().filter(|inner| wanted.contains(inner)) {
            found.entry(inner).or_insert_with(|| format!("the map {id} in the kernel, which holds maps,"));
        }
    }
    Ok(found)
}

/// The path under which each of these maps is pinned, if it is, by its number.
///
/// # Errors
/// A list of mounts that cannot be read.
pub fn pins(wanted: &HashSet<u32>) -> io::Result<HashMap<u32, PathBuf>> {
    let this = TaskDir::current().map_err(io::Error::other)?;
    let mounts = mountinfo::read(&this, &mut Vec::new()).map_err(io::Error::other)?;
    let mut found = HashMap::new();
    for mount in mounts.iter().filter(|mount| mount.fs_type == b"bpf") {
        walk(Path::new(OsStr::from_bytes(&mount.mount_point)), wanted, &mut found);
    }
    Ok(found)
}

/// Looks at what is pinned in a directory and below it.
fn walk(directory: &Path, wanted: &HashSet<u32>, found: &mut HashMap<u32, PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        match kind {
            Ok(kind) if kind.is_dir() => walk(&path, wanted, found),
            Ok(kind) if kind.is_file() => {
                if let Some(id) = pinned(&path).filter(|id| wanted.contains(id)) {
                    found.entry(id).or_insert(path);
                }
            }
            _ => {}
        }
    }
}

/// The number of the map that is pinned there, if it is one.
#[must_use]
pub fn pinned(path: &Path) -> Option<u32> {
    let file = bpf::pinned(path, READ_ONLY).or_else(|_| bpf::pinned(path, 0)).ok()?;
    if is_map(&file) { Some(bpf::info(file.as_fd()).ok()?.id) } else { None }
}

/// Whether a descriptor of ours is one of a map, and of no program.
#[must_use]
pub fn is_map(file: &File) -> bool {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    link.is_ok_and(|link| link.as_os_str() == "anon_inode:bpf-map")
}

/// The numbers of the maps in a map; none where it is gone, or holds no maps.
fn maps_in(id: u32) -> io::Result<Vec<u32>> {
    let file = match bpf::map_by_id(id, READ_ONLY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let info = bpf::info(file.as_fd())?;
    if !MapKind(info.kind).holds_maps() {
        return Ok(Vec::new());
    }
    let (mut found, mut key, mut next, mut value) = (Vec::new(), None, vec![0; info.key_size as usize], [0; 4]);
    loop {
        match bpf::next_key(file.as_fd(), key.as_deref(), &mut next) {
            Ok(()) => {}
            Err(Errno::ENOENT) => return Ok(found),
            Err(errno) => return Err(errno.into()),
        }
        if bpf::lookup(file.as_fd(), &next, &mut value).is_ok() {
            found.push(u32::from_ne_bytes(value));
        }
        key = Some(next.clone());
    }
}
