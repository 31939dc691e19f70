//! Where files are mounted: of what a process has opened in another mount namespace, which name leads to the same here.

use super::{OpenFd, is_path_only};
use crate::proc::TaskDir;
use crate::proc::mountinfo;
use crate::resources::file::{DELETED, is_named};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{Metadata, symlink_metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Mounts of the namespace of `snap`.
#[derive(Debug, Default)]
pub(super) struct Mounts(HashSet<i32>);

impl Mounts {
    /// As what a file is saved, or `None` if nothing in this namespace leads to it.
    pub fn metadata(&mut self, task: &TaskDir, fd: &OpenFd<'_>) -> Option<Metadata> {
        if let Some(named) = same_device(fd) {
            return Some(named);
        }
        (self.has(task, fd.info.mnt_id) || is_here_too(fd)).then(|| fd.meta.clone())
    }

    fn has(&mut self, task: &TaskDir, id: i32) -> bool {
        if self.0.contains(&id) {
            return true;
        }
        for dir in [TaskDir::current().ok().as_ref(), Some(task)].into_iter().flatten() {
            let mounts = mountinfo::read(dir, &mut Vec::new()).unwrap_or_default();
            self.0.extend(mounts.iter().map(|mount| mount.id));
        }
        self.0.contains(&id)
    }
}

/// Another inode under its path that is the same device, if it is one that has no state of its own. Each /dev has its own.
fn same_device(fd: &OpenFd<'_>) -> Option<Metadata> {
    let device = |meta: &Metadata| meta.file_type().is_char_device().then(|| meta.rdev());
    let rdev = device(&fd.meta)?;
    let is_stateless = libc::major(rdev) == 1 && matches!(libc::minor(rdev), 3 | 5 | 7 | 8 | 9);
    if !is_stateless || is_path_only(fd) || is_named(&fd.text, &fd.meta) {
        return None;
    }
    symlink_metadata(OsStr::from_bytes(&fd.text)).ok().filter(|named| device(named) == Some(rdev))
}

/// Whether a file of a mount that is none of this namespace has the same name here; or, if it has no name any more, its directory.
///
/// What was opened as a path alone may be the mount itself (fsmount(2), open_tree(2)).
fn is_here_too(fd: &OpenFd<'_>) -> bool {
    if is_path_only(fd) {
        return false;
    }
    let is_of_device = |directory: &Path| symlink_metadata(directory).is_ok_and(|found| found.dev() == fd.meta.dev());
    match fd.text.strip_suffix(DELETED) {
        Some(path) if fd.meta.nlink() == 0 && fd.meta.is_file() => {
            Path::new(OsStr::from_bytes(path)).parent().is_some_and(is_of_device)
        }
        Some(path) => is_named(path, &fd.meta) || is_named(&fd.text, &fd.meta),
        None => is_named(&fd.text, &fd.meta),
    }
}
