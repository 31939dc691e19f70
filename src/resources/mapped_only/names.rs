//! Names of an inode that is mapped under a name which it has no more, found without a descriptor of it.
//!
//! Such a file may have other names, and then its content is not the image's. No interface tells the number of its links, so its file system is
//! searched: one that is small, mounted as a whole, and may be read everywhere.

use crate::proc::mountinfo::{self, Mount};
use crate::proc::{self, TaskDir};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Entries of directories that are looked at in one file system.
const MOST: usize = 50_000;

/// File systems that were searched.
#[derive(Debug, Default)]
pub struct Names {
    searched: HashMap<u64, Result<Searched, String>>,
}

#[derive(Debug)]
struct Searched {
    in_memory: bool,
    paths: HashMap<u64, PathBuf>,
}

/// What was found of an inode.
#[derive(Debug)]
pub enum Found {
    /// It has a name.
    Named(Metadata),
    /// It has none.
    Nameless {
        /// Whether it lies on tmpfs.
        in_memory: bool,
    },
}

impl Names {
    /// Looks for a name of an inode whose former path is `path`.
    ///
    /// # Errors
    /// Why it cannot be said whether it has one.
    pub fn find(&mut self, dev: u64, ino: u64, path: &[u8]) -> Result<Found, String> {
        let path = Path::new(OsStr::from_bytes(path));
        if let Some(meta) = is_it(path, dev, ino).or_else(|| beside(path, dev, ino)) {
            return Ok(Found::Named(meta));
        }
        let searched = self.searched.entry(dev).or_insert_with(|| search(dev));
        let Searched { in_memory, paths } = searched.as_ref().map_err(Clone::clone)?;
        Ok(match paths.get(&ino).and_then(|path| is_it(path, dev, ino)) {
            Some(meta) => Found::Named(meta),
            None => Found::Nameless { in_memory: *in_memory },
        })
    }
}

fn is_it(path: &Path, dev: u64, ino: u64) -> Option<Metadata> {
    std::fs::symlink_metadata(path).ok().filter(|meta| meta.dev() == dev && meta.ino() == ino)
}

/// Most files that have lost a name have another in the same directory.
fn beside(path: &Path, dev: u64, ino: u64) -> Option<Metadata> {
    let entries = std::fs::read_dir(path.parent()?).ok()?;
    entries.flatten().filter(|entry| entry.ino() == ino).find_map(|entry| is_it(&entry.path(), dev, ino))
}

/// Goes through a whole file system.
fn search(dev: u64) -> Result<Searched, String> {
    let mounts = TaskDir::current().and_then(|task| mountinfo::read(&task, &mut Vec::new()));
    let mount = whole(&mounts.map_err(|error: proc::Error| error.to_string())?, dev)?;
    let mut paths = HashMap::new();
    let mut directories = vec![PathBuf::from(OsStr::from_bytes(&mount.mount_point))];
    let mut seen = 0;
    while let Some(directory) = directories.pop() {
        let unreadable = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => None,
            _ => Some(format!("{} cannot be searched for another name of it: {error}", directory.display())),
        };
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) => match unreadable(error) {
                None => continue,
                Some(reason) => return Err(reason),
            },
        };
        for entry in entries {
            let entry = entry.map_err(|error| unreadable(error).unwrap_or_default())?;
            seen += 1;
            if seen > MOST {
                return Err("its file system has too many files to be searched for another name of it".into());
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(entry.path()),
                Ok(_) => drop(paths.insert(entry.ino(), entry.path())),
                Err(_) => {}
            }
        }
    }
    let in_memory = [b"tmpfs".as_slice(), b"devtmpfs"].contains(&mount.fs_type.as_slice());
    Ok(Searched { in_memory, paths })
}

/// The mount that shows all of a file system.
fn whole(mounts: &[Mount], dev: u64) -> Result<Mount, String> {
    let covers = |mount: &&Mount| mount.dev == dev && mount.root == b"/";
    let mount = mounts.iter().find(covers).ok_or("its file system is not mounted as a whole")?;
    match mounts.iter().find(|other| other.parent == mount.id) {
        None => Ok(mount.clone()),
        Some(other) => Err(format!(
            "what lies beneath {} cannot be searched for another name of it",
            String::from_utf8_lossy(&other.mount_point)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn other_names_are_found_and_none_is_said() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let (first, elsewhere) = (dir.path().join("first"), dir.path().join("below/elsewhere"));
        fs::create_dir(dir.path().join("below")).unwrap();
        fs::write(&first, "text").unwrap();
        fs::hard_link(&first, &elsewhere).unwrap();
        let file = fs::File::open(&first).unwrap();
        let meta = file.metadata().unwrap();
        fs::remove_file(&first).unwrap();
        let find = || Names::default().find(meta.dev(), meta.ino(), first.as_os_str().as_bytes());
        match find() {
            Ok(Found::Named(found)) => assert_eq!((found.dev(), found.ino()), (meta.dev(), meta.ino())),
            Ok(other @ Found::Nameless { .. }) => panic!("{other:?}"),
            // Somebody keeps a directory of his own there, or there are too many files.
            Err(reason) => assert!(reason.contains("another name of it"), "{reason}"),
        }
        fs::remove_file(&elsewhere).unwrap();
        match find() {
            Ok(other) => assert!(matches!(other, Found::Nameless { in_memory: true }), "{other:?}"),
            Err(reason) => assert!(reason.contains("another name of it"), "{reason}"),
        }
    }

    #[test]
    fn a_file_system_of_which_a_part_is_hidden_is_not_searched() {
        let text = b"1 0 0:5 / /a rw - tmpfs t rw\n2 1 0:6 / /a/b rw - tmpfs t rw\n3 1 0:7 /sub /a/c rw - tmpfs t rw\n";
        let mounts = mountinfo::parse(text).unwrap();
        assert!(whole(&mounts, libc::makedev(0, 5)).unwrap_err().contains("beneath /a/b"));
        assert_eq!(whole(&mounts, libc::makedev(0, 6)).unwrap().mount_point, b"/a/b");
        assert!(whole(&mounts, libc::makedev(0, 7)).unwrap_err().contains("not mounted as a whole"));
    }
}
