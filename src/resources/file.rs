//! Files by path: which inode a target holds, and by which name it can be had again.

use super::named_memory;
use crate::blocker::Blocker;
use crate::image::model::file::{File, HeldFutex, Link};
use crate::image::model::id::FileId;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What the kernel adds to the path of a file that it no longer leads to.
pub const DELETED: &[u8] = b" (deleted)";

/// The path by which a file is opened, if it has a name.
#[must_use]
pub fn name(file: &File) -> Option<&[u8]> {
    match &file.link {
        Link::Named => Some(&file.path),
        Link::OtherName(name) => Some(name),
        Link::Unlinked => None,
    }
}

/// The same as a path.
#[must_use]
pub fn path(file: &File) -> Option<&Path> {
    name(file).map(|name| Path::new(OsStr::from_bytes(name)))
}

/// The inodes of one dump, each once.
#[derive(Debug, Default)]
pub struct FileTable {
    files: Vec<File>,
    known: HashMap<(u64, u64, Vec<u8>), FileId>,
    contents: HashMap<FileId, std::fs::File>,
    /// Those without a name, which more than one link may lead to: two names of an inode that are both gone.
    nameless: HashMap<(u64, u64), FileId>,
    /// Files of which nothing is known but where they are mapped.
    guessed: HashSet<FileId>,
}

impl FileTable {
    /// The file with these attributes that the kernel names `link`, entered if it is new.
    ///
    /// `link` is what readlink(2) gave for a link of /proc, ` (deleted)` included.
    ///
    /// # Errors
    /// The blocker for an inode which has a name left somewhere that cannot be found.
    pub fn intern(&mut self, meta: &Metadata, link: &[u8], task: &str) -> Result<FileId, Blocker> {
        let key = (meta.dev(), meta.ino(), link.to_vec());
        if let Some(&id) = self.known.get(&key)
            && !self.guessed.contains(&id)
        {
            return Ok(id);
        }
        let (path, link) = locate(meta, link).map_err(|reason| Blocker {
            task: task.to_owned(),
            object: String::from_utf8_lossy(link).into_owned(),
            reason,
            remedy: "close the file, or link it to a name in its old directory".into(),
        })?;
        let inode = (meta.dev(), meta.ino());
        let nameless = self.nameless.get(&inode).filter(|_| link == Link::Unlinked);
        let id = match self.known.get(&key).or(nameless) {
            Some(&id) => {
                if self.guessed.remove(&id) {
                    self.files[id.0 as usize] = described(id, path, link, meta);
                }
                id
            }
            None => {
                let id = FileId(self.files.len() as u32);
                self.files.push(described(id, path, link, meta));
                id
            }
        };
        self.known.insert(key, id);
        if self.get(id).link == Link::Unlinked {
            self.nameless.insert(inode, id);
        }
        Ok(id)
    }

    /// A file of `/proc/PID` whose process has ended, if it is one that every process has. `link` as for [`Self::intern`].
    pub fn intern_of_dead(&mut self, meta: &Metadata, link: &[u8]) -> Option<FileId> {
        let path = link.strip_suffix(DELETED).unwrap_or(link);
        if !is_of_every_process(path) || is_named(path, meta) {
            return None;
        }
        if let Some(id) = self.find(meta.dev(), meta.ino(), link) {
            return Some(id);
        }
        let id = FileId(self.files.len() as u32);
        self.files.push(described(id, path.to_vec(), Link::Unlinked, meta));
        self.known.insert((meta.dev(), meta.ino(), link.to_vec()), id);
        Some(id)
    }

    /// The file that was entered with these.
    #[must_use]
    pub fn find(&self, dev: u64, ino: u64, link: &[u8]) -> Option<FileId> {
        self.known.get(&(dev, ino, link.to_vec())).copied()
    }

    /// A file without a name that is only mapped, if no descriptor of it is found later. Nobody can see its attributes.
    pub fn intern_nameless(&mut self, dev: u64, ino: u64, link: &[u8]) -> FileId {
        if let Some(id) = self.find(dev, ino, link).or_else(|| self.nameless.get(&(dev, ino)).copied()) {
            self.known.insert((dev, ino, link.to_vec()), id);
            return id;
        }
        let id = FileId(self.files.len() as u32);
        self.files.push(File {
            id,
            path: link.strip_suffix(DELETED).unwrap_or(link).to_vec(),
            link: Link::Unlinked,
            dev,
            ino,
            mode: libc::S_IFREG | 0o600,
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            size: 0,
            mtime: 0,
            rdev: 0,
            build_id: None,
            in_memory: None,
            held: Vec::new(),
        });
        self.known.insert((dev, ino, link.to_vec()), id);
        self.nameless.insert((dev, ino), id);
        self.guessed.insert(id);
        id
    }

    /// Whether nothing is known of this file but where it is mapped.
    #[must_use]
    pub fn is_guessed(&self, id: FileId) -> bool {
        self.guessed.contains(&id)
    }

    /// Notes how large a file is that is only mapped.
    pub fn set_size(&mut self, id: FileId, size: u64) {
        self.files[id.0 as usize].size = size;
    }

    /// The file with this id.
    #[must_use]
    pub fn get(&self, id: FileId) -> &File {
        &self.files[id.0 as usize]
    }

    /// The file with this device and inode number, if it was entered.
    #[must_use]
    pub fn of_inode(&self, dev: u64, ino: u64) -> Option<FileId> {
        self.files.iter().find(|file| (file.dev, file.ino) == (dev, ino)).map(|file| file.id)
    }

    /// The paths of all files so far.
    pub fn paths(&self) -> impl Iterator<Item = &[u8]> {
        self.files.iter().map(|file| file.path.as_slice())
    }

    /// Notes the GNU build id of a mapped program.
    pub fn set_build_id(&mut self, id: FileId, build_id: Option<Vec<u8>>) {
        self.files[id.0 as usize].build_id = build_id;
    }

    /// Whether the content of this file must go into the image and nobody has opened it for that yet.
    #[must_use]
    pub fn wants_content(&self, id: FileId) -> bool {
        self.get(id).link == Link::Unlinked && !self.contents.contains_key(&id)
    }

    /// A descriptor through which the content of an unlinked file can be read.
    pub fn set_content(&mut self, id: FileId, file: std::fs::File) {
        self.contents.insert(id, file);
    }

    /// Notes a robust futex in a file that somebody of the tree holds.
    pub fn set_held(&mut self, id: FileId, held: HeldFutex) {
        let (dev, ino) = (self.get(id).dev, self.get(id).ino);
        for file in self.files.iter_mut().filter(|file| (file.dev, file.ino) == (dev, ino)) {
            if !file.held.iter().any(|known| known.offset == held.offset) {
                file.held.push(held);
            }
        }
    }

    /// Whether this is a file with a name, of which nobody has said yet that its content is wanted all the same.
    #[must_use]
    pub fn may_be_memory(&self, id: FileId) -> bool {
        let file = self.get(id);
        file.mode & libc::S_IFMT == libc::S_IFREG && file.link != Link::Unlinked && !self.contents.contains_key(&id)
    }

    /// All files in the order of their ids, and the contents of those that are unlinked or shared memory.
    ///
    /// # Errors
    /// As read(2) of shared memory.
    pub fn finish(mut self) -> io::Result<(Vec<File>, HashMap<FileId, std::fs::File>)> {
        let is_named = |id: &FileId| self.files[id.0 as usize].link != Link::Unlinked;
        let mut named: Vec<FileId> = self.contents.keys().copied().filter(is_named).collect();
        named.sort();
        let mut known: HashMap<(u64, u64), u32> = HashMap::new();
        for id in named {
            let (dev, ino, size) = (self.get(id).dev, self.get(id).ino, self.get(id).size);
            let checksum = match known.get(&(dev, ino)) {
                Some(&checksum) => {
                    self.contents.remove(&id);
                    checksum
                }
                None => named_memory::checksum(&self.contents[&id], size, &self.get(id).held)?,
            };
            known.insert((dev, ino), checksum);
        }
        for file in self.files.iter_mut().filter(|file| file.link != Link::Unlinked) {
            file.in_memory = known.get(&(file.dev, file.ino)).copied();
        }
        Ok((self.files, self.contents))
    }
}

fn described(id: FileId, path: Vec<u8>, link: Link, meta: &Metadata) -> File {
    File {
        id,
        path,
        link,
        dev: meta.dev(),
        ino: meta.ino(),
        mode: meta.mode(),
        uid: meta.uid(),
        gid: meta.gid(),
        size: meta.size(),
        mtime: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
        rdev: meta.rdev(),
        build_id: None,
        in_memory: None,
        held: Vec::new(),
    }
}

/// Finds a name for an inode: its path and how that path relates to it, or why there is none.
fn locate(meta: &Metadata, link: &[u8]) -> Result<(Vec<u8>, Link), String> {
    if is_named(link, meta) {
        return Ok((link.to_vec(), Link::Named));
    }
    let path = link.strip_suffix(DELETED).unwrap_or(link).to_vec();
    if meta.nlink() == 0 {
        return Ok((path, Link::Unlinked));
    }
    if is_named(&path, meta) {
        return Ok((path, Link::Named));
    }
    match other_name(&path, meta) {
        Some(name) => Ok((path, Link::OtherName(name))),
        None => Err(format!(
            "its name is gone, and it has {}, but not among the first {NAMES} names around its old directory",
            if meta.nlink() == 1 { "another".to_owned() } else { format!("{} others", meta.nlink()) }
        )),
    }
}

/// Whether this is a path of `/proc/PID` that does not depend on what the process has or does.
fn is_of_every_process(path: &[u8]) -> bool {
    let mut parts = path.split(|byte| *byte == b'/').skip(1);
    let (Some(b"proc"), Some(pid)) = (parts.next(), parts.next()) else { return false };
    let rest: Vec<&[u8]> = parts.collect();
    let rest = match rest.as_slice() {
        [b"task", thread, rest @ ..] if *thread == pid => rest,
        rest => rest,
    };
    let is_pid = std::str::from_utf8(pid).is_ok_and(|pid| pid.parse::<i32>().is_ok());
    is_pid && !matches!(rest, [b"task" | b"fd" | b"fdinfo" | b"map_files" | b"ns", _, ..])
}

/// Whether a path leads to the inode with these attributes.
#[must_use]
pub fn is_named(path: &[u8], meta: &Metadata) -> bool {
    // The final component is not followed: the kernel names the inode itself, which may be a symbolic link (O_PATH).
    std::fs::symlink_metadata(OsStr::from_bytes(path)).is_ok_and(|m| m.dev() == meta.dev() && m.ino() == meta.ino())
}

/// More names than these are not looked at.
const NAMES: usize = 20_000;

/// Another name of an inode, searched for where it had the one that is gone, and then further and further around.
fn other_name(path: &[u8], meta: &Metadata) -> Option<Vec<u8>> {
    let mut left = NAMES;
    let mut done: Option<&Path> = None;
    for root in Path::new(OsStr::from_bytes(path)).ancestors().skip(1) {
        let mut waiting = VecDeque::from([root.to_path_buf()]);
        while let Some(directory) = waiting.pop_front() {
            let is_elsewhere = || std::fs::symlink_metadata(&directory).map_or(true, |found| found.dev() != meta.dev());
            if done == Some(&directory) || is_elsewhere() {
                continue;
            }
            for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
                left = left.checked_sub(1)?;
                let candidate = entry.path();
                let bytes = candidate.as_os_str().as_bytes();
                if std::os::unix::fs::DirEntryExt::ino(&entry) == meta.ino() && is_named(bytes, meta) {
                    return Some(bytes.to_vec());
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    waiting.push_back(candidate);
                }
            }
        }
        done = Some(root);
    }
    None
}

/// Whether the directory in which this one was, to which `..` leads from it for ever, is still under its old path. `directory` leads to it by /proc.
#[must_use]
pub fn has_parent(directory: &Path, path: &[u8]) -> bool {
    let path = path.strip_suffix(DELETED).unwrap_or(path);
    let above = std::fs::metadata(directory.join("..")).map(|meta| (meta.dev(), meta.ino()));
    let named = Path::new(OsStr::from_bytes(path)).parent().and_then(|parent| std::fs::metadata(parent).ok());
    matches!((above, named), (Ok(above), Some(named)) if above == (named.dev(), named.ino()))
}

/// Why a directory cannot be made again, if it has neither a name nor a parent.
pub const ORPHAN: &str = "the directory is unlinked, and the one that it was in too";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_name_is_found_below_and_beside_the_old_directory() {
        let top = tempfile::tempdir().unwrap();
        let (old, below, beside) = (top.path().join("old"), top.path().join("old/a/b"), top.path().join("beside"));
        std::fs::create_dir_all(&below).unwrap();
        std::fs::create_dir(&beside).unwrap();
        let gone = old.join("gone");
        for other in [below.join("name"), beside.join("name")] {
            std::fs::write(&gone, "x").unwrap();
            std::fs::hard_link(&gone, &other).unwrap();
            let meta = std::fs::metadata(&gone).unwrap();
            std::fs::remove_file(&gone).unwrap();
            assert_eq!(other_name(gone.as_os_str().as_bytes(), &meta), Some(other.as_os_str().as_bytes().to_vec()));
            std::fs::remove_file(&other).unwrap();
            let text = [gone.as_os_str().as_bytes(), DELETED].concat();
            assert!(locate(&meta, &text).unwrap_err().contains("names around its old directory"));
        }
    }
}
