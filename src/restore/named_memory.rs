//! Makes shared memory again whose names are gone: without a name first, so that whoever takes the names away again knows which file is meant.

use super::descriptors::{OpenError, failed};
use super::plan::RestorePlan;
use crate::image::model::Snapshot;
use crate::image::model::id::FileId;
use crate::resources::file::path;
use crate::sys::open;
use nix::sys::stat::lstat;
use nix::sys::time::TimeSpec;
use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// The files that are made, and their names.
#[derive(Debug, Default)]
pub struct NamedMemory {
    files: HashMap<FileId, Arc<File>>,
    names: Vec<(Name, Arc<File>)>,
    /// How many of the names are theirs by now.
    linked: usize,
}

/// A name, and of which file it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    path: CString,
    dev: u64,
    ino: u64,
}

impl Name {
    /// Takes it away if it is that of our file. Makes nothing but system calls.
    pub fn remove(&self) {
        let found = lstat(self.path.as_c_str());
        if found.is_ok_and(|found| (found.st_dev, found.st_ino) == (self.dev, self.ino)) {
            let _ = nix::unistd::unlink(self.path.as_c_str());
        }
    }

    fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.path.as_bytes()))
    }
}

impl NamedMemory {
    /// Makes all of them without their names. Their content is that of the first of those that are one inode.
    ///
    /// # Errors
    /// The one that could not be made.
    pub fn make(snapshot: &Snapshot, plan: &RestorePlan) -> Result<Self, OpenError> {
        let mut made = Self::default();
        let mut known: HashMap<(u64, u64), Arc<File>> = HashMap::new();
        for &id in &plan.made {
            let model = &snapshot.files[id.0 as usize];
            let path = path(model).unwrap_or(Path::new(""));
            let error = || failed(format!("making {} again", path.display()));
            let file = match known.get(&(model.dev, model.ino)) {
                Some(file) => Arc::clone(file),
                None => {
                    let parent = path.parent().unwrap_or(Path::new("/"));
                    let file = open::nameless(parent, libc::O_RDWR, 0o600).and_then(|file| open::lift(file, plan.top));
                    let file = file.map_err(error())?;
                    file.set_len(model.size).map_err(error())?;
                    let file = Arc::new(file);
                    made.files.insert(id, Arc::clone(&file));
                    known.insert((model.dev, model.ino), Arc::clone(&file));
                    file
                }
            };
            let meta = file.metadata().map_err(error())?;
            let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from).map_err(error())?;
            let name = Name { path, dev: meta.dev(), ino: meta.ino() };
            // One that was opened under a name which it has lost is opened by one that another has too.
            if !made.names.iter().any(|(known, _)| *known == name) {
                made.names.push((name, file));
            }
        }
        Ok(made)
    }

    /// What is to be removed should the restore fail.
    #[must_use]
    pub fn names(&self) -> Vec<Name> {
        self.names.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Gives them their names.
    ///
    /// # Errors
    /// As linkat(2): the name that somebody has taken meanwhile.
    pub fn link(&mut self) -> Result<(), OpenError> {
        for (name, file) in &self.names {
            open::link(file, name.path()).map_err(failed(format!("making {} again", name.path().display())))?;
            self.linked += 1;
        }
        Ok(())
    }

    /// The file that is to be filled as this one.
    #[must_use]
    pub fn get(&self, id: FileId) -> Option<&File> {
        self.files.get(&id).map(Arc::as_ref)
    }

    /// Owners, permissions and times, when they are filled.
    ///
    /// # Errors
    /// As fchown(2), fchmod(2), futimens(2).
    pub fn settle(&self, snapshot: &Snapshot) -> Result<(), OpenError> {
        const SECOND: i64 = 1_000_000_000;
        for (id, file) in &self.files {
            let model = &snapshot.files[id.0 as usize];
            let error = || failed(String::from_utf8_lossy(&model.path).into_owned());
            open::own(file, model.uid, model.gid, model.mode & 0o7777).map_err(error())?;
            let modified = TimeSpec::new(model.mtime.div_euclid(SECOND), model.mtime.rem_euclid(SECOND));
            let set = nix::sys::stat::futimens(file.as_ref(), &TimeSpec::UTIME_OMIT, &modified);
            set.map_err(io::Error::from).map_err(error())?;
        }
        Ok(())
    }

    /// They stay.
    pub fn keep(&mut self) {
        self.linked = 0;
    }
}

impl Drop for NamedMemory {
    fn drop(&mut self) {
        self.names[..self.linked].iter().for_each(|(name, _)| name.remove());
    }
}
