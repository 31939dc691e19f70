//! The files behind watches and marks: the kernel names inodes, a restore needs paths.
//!
//! With CAP_DAC_READ_SEARCH a file is opened by its handle, whatever has become of its name. Without, it is searched for where the tree
//! has been seen: the files that it has, the directories above them, what lies in these, and its arguments.

use super::file::FileTable;
use crate::image::model::id::FileId;
use crate::proc::TaskDir;
use crate::proc::marks::Inode;
use crate::proc::mountinfo::{self, Mount};
use crate::sys::watch;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Most names that are looked at in search of an inode.
const MOST_NAMES: usize = 200_000;

/// Finds files by inode.
pub struct Finder {
    mounts: Vec<Mount>,
    /// A directory of each file system, or a file.
    doors: HashMap<u64, Option<File>>,
    /// Names by inode number, once they were searched.
    names: Option<HashMap<u64, Vec<PathBuf>>>,
    /// Where the search begins.
    known: Vec<PathBuf>,
}

impl Finder {
    /// A finder that knows these paths of the tree besides its files.
    pub fn new(arguments: impl Iterator<Item = OsString>) -> Self {
        let mounts = TaskDir::current().and_then(|this| mountinfo::read(&this, &mut Vec::new())).unwrap_or_default();
        let known = arguments.map(PathBuf::from).filter(|path| path.is_absolute()).collect();
        Self { mounts, doors: HashMap::new(), names: None, known }
    }

    /// The file with this inode.
    ///
    /// # Errors
    /// Why it cannot be had again.
    pub fn inode(&mut self, inode: &Inode, files: &mut FileTable, task: &str) -> Result<FileId, String> {
        if let Some(known) = files.of_inode(inode.dev, inode.ino) {
            return Ok(known);
        }
        match self.by_handle(inode) {
            Some((meta, _)) if meta.nlink() == 0 => {
                Err("its file has no name any more, and nobody in the tree has it open".into())
            }
            Some((meta, link)) => files.intern(&meta, &link, task).map_err(|blocker| blocker.reason),
            None => {
                let (meta, path) = self.by_name(inode, files).ok_or_else(|| {
                    format!(
                        "inode {} of device {}:{} has no name that is known, and to open it by its handle takes \
                         CAP_DAC_READ_SEARCH",
                        inode.ino,
                        libc::major(inode.dev),
                        libc::minor(inode.dev)
                    )
                })?;
                files.intern(&meta, path.as_os_str().as_bytes(), task).map_err(|blocker| blocker.reason)
            }
        }
    }

    /// Where the mount with this id is mounted.
    ///
    /// # Errors
    /// Why it cannot be had again.
    pub fn mount(&self, id: i32, files: &mut FileTable, task: &str) -> Result<FileId, String> {
        let mount = self.mounts.iter().find(|mount| mount.id == id).ok_or("its mount is not among those of snap")?;
        Self::mount_point(mount, files, task)
    }

    /// A place where this file system is mounted.
    ///
    /// # Errors
    /// Why it cannot be had again.
    pub fn file_system(&self, dev: u64, files: &mut FileTable, task: &str) -> Result<FileId, String> {
        let reachable = |mount: &&Mount| fs::metadata(path(&mount.mount_point)).is_ok_and(|meta| meta.dev() == dev);
        let mount = self.mounts.iter().filter(|mount| mount.dev == dev).find(reachable);
        Self::mount_point(mount.ok_or("its file system is mounted nowhere that snap can reach")?, files, task)
    }

    fn mount_point(mount: &Mount, files: &mut FileTable, task: &str) -> Result<FileId, String> {
        let meta = fs::metadata(path(&mount.mount_point)).map_err(|error| format!("its mount point: {error}"))?;
        files.intern(&meta, &mount.mount_point, task).map_err(|blocker| blocker.reason)
    }

    /// Attributes and the name that the kernel gives it.
    fn by_handle(&mut self, inode: &Inode) -> Option<(Metadata, Vec<u8>)> {
        let (kind, bytes) = inode.handle.as_ref()?;
        let mounts = &self.mounts;
        let door = self.doors.entry(inode.dev).or_insert_with(|| door(mounts, inode.dev));
        let file = watch::by_handle(door.as_ref()?.as_fd(), *kind, bytes).ok()?;
        let meta = file.metadata().ok().filter(|meta| meta.ino() == inode.ino)?;
        let link = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
        let link = link.into_os_string();
        // A name that was not looked up lately is not known to the kernel.
        (meta.nlink() == 0 || link.as_bytes().starts_with(b"/")).then(|| (meta, link.as_bytes().to_vec()))
    }

    fn by_name(&mut self, inode: &Inode, files: &FileTable) -> Option<(Metadata, PathBuf)> {
        let known = &self.known;
        let names = self.names.get_or_insert_with(|| search(known, files));
        names.get(&inode.ino)?.iter().find_map(|path| {
            let meta = fs::symlink_metadata(path).ok()?;
            (meta.dev() == inode.dev && meta.ino() == inode.ino).then(|| (meta, path.clone()))
        })
    }
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Something of a file system that open_by_handle_at(2) takes, which O_PATH is not.
fn door(mounts: &[Mount], dev: u64) -> Option<File> {
    let places = mounts.iter().filter(|mount| mount.dev == dev).map(|mount| path(&mount.mount_point));
    let mut opened = places.filter(|place| place.is_dir()).filter_map(|place| File::open(place).ok());
    opened.find(|file| file.metadata().is_ok_and(|meta| meta.dev() == dev))
}

/// The names around all that is known of a tree, by inode number.
fn search(known: &[PathBuf], files: &FileTable) -> HashMap<u64, Vec<PathBuf>> {
    let mut names: HashMap<u64, Vec<PathBuf>> = HashMap::new();
    let mut seen = std::collections::BTreeSet::new();
    let of_files = files.paths().map(path);
    for place in of_files.chain(known.iter().map(PathBuf::as_path)).flat_map(Path::ancestors) {
        if !seen.insert(place.to_owned()) {
            continue;
        }
        let Ok(meta) = fs::symlink_metadata(place) else { continue };
        names.entry(meta.ino()).or_default().push(place.to_owned());
    }
    let mut left = MOST_NAMES;
    for directory in seen.iter().rev().filter(|place| place.is_dir()) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten().take(left) {
            left -= 1;
            names.entry(entry.ino()).or_default().push(entry.path());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_by_its_inode() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("watched");
        fs::write(&place, "").unwrap();
        let meta = fs::metadata(&place).unwrap();
        let inode = Inode { dev: meta.dev(), ino: meta.ino(), handle: None };
        let mut files = FileTable::default();
        let mut finder = Finder::new([directory.path().as_os_str().to_owned()].into_iter());
        let id = finder.inode(&inode, &mut files, "pid 1").unwrap();
        assert_eq!(files.get(id).path, place.as_os_str().as_bytes());
        fs::remove_file(&place).unwrap();
        let mut finder = Finder::new(std::iter::empty());
        let error = finder.inode(&inode, &mut FileTable::default(), "pid 1").unwrap_err();
        assert!(error.contains("no name"), "{error}");
    }
}
