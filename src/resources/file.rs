//! Files by path: which inode a target holds, and by which name it can be had again.

use crate::blocker::Blocker;
use crate::image::model::file::{File, Link};
use crate::image::model::id::FileId;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What the kernel adds to the path of a file that it no longer leads to.
pub const DELETED: &[u8] = b" (deleted)";

/// The inodes of one dump, each once.
#[derive(Debug, Default)]
pub struct FileTable {
    files: Vec<File>,
    known: HashMap<(u64, u64, Vec<u8>), FileId>,
    contents: HashMap<FileId, std::fs::File>,
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
        let (id, is_new) = match self.known.get(&key) {
            Some(&id) => (id, false),
            None => (FileId(self.files.len() as u32), true),
        };
        let file = File {
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
        };
        if is_new {
            self.files.push(file);
            self.known.insert(key, id);
        } else {
            self.guessed.remove(&id);
            self.files[id.0 as usize] = file;
        }
        Ok(id)
    }

    /// The file that was entered with these.
    #[must_use]
    pub fn find(&self, dev: u64, ino: u64, link: &[u8]) -> Option<FileId> {
        self.known.get(&(dev, ino, link.to_vec())).copied()
    }

    /// A file without a name that is only mapped, if no descriptor of it is found later. Nobody can see its attributes.
    pub fn intern_nameless(&mut self, dev: u64, ino: u64, link: &[u8]) -> FileId {
        if let Some(id) = self.find(dev, ino, link) {
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
        });
        self.known.insert((dev, ino, link.to_vec()), id);
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

    /// All files in the order of their ids, and the contents of the unlinked ones.
    #[must_use]
    pub fn finish(self) -> (Vec<File>, HashMap<FileId, std::fs::File>) {
        (self.files, self.contents)
    }
}

/// Finds a name for an inode: its path and how that path relates to it, or why there is none.
fn locate(meta: &Metadata, link: &[u8]) -> Result<(Vec<u8>, Link), String> {
    if names(link, meta) {
        return Ok((link.to_vec(), Link::Named));
    }
    let path = link.strip_suffix(DELETED).unwrap_or(link).to_vec();
    if meta.nlink() == 0 {
        return Ok((path, Link::Unlinked));
    }
    if names(&path, meta) {
        return Ok((path, Link::Named));
    }
    match other_name(&path, meta) {
        Ok(Some(name)) => Ok((path, Link::OtherName(name))),
        Ok(None) => Err(format!("its name is gone and none of its {} other names is in that directory", meta.nlink())),
        Err(e) => Err(format!("its name is gone and its directory cannot be searched for another: {e}")),
    }
}

fn names(path: &[u8], meta: &Metadata) -> bool {
    // The final component is not followed: the kernel names the inode itself, which may be a symbolic link (O_PATH).
    std::fs::symlink_metadata(OsStr::from_bytes(path)).is_ok_and(|m| m.dev() == meta.dev() && m.ino() == meta.ino())
}

fn other_name(path: &[u8], meta: &Metadata) -> io::Result<Option<Vec<u8>>> {
    let Some(parent) = Path::new(OsStr::from_bytes(path)).parent() else { return Ok(None) };
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        let candidate = entry.path();
        let bytes = candidate.as_os_str().as_bytes();
        if std::os::unix::fs::DirEntryExt::ino(&entry) == meta.ino() && names(bytes, meta) {
            return Ok(Some(bytes.to_vec()));
        }
    }
    Ok(None)
}
