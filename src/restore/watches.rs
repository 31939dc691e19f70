//! Makes inotify instances and fanotify groups. What they watch is set at the very end, so that nothing that a restore does to files is
//! reported.

use super::descriptors::{OpenError, failed};
use crate::image::model::Snapshot;
use crate::image::model::file::OpenObject;
use crate::image::model::id::{DescriptionId, FileId};
use crate::image::model::watch::{Fanotify, Mark, MarkScope, Watch};
use crate::restore::lookup;
use crate::sys::open;
use crate::sys::watch;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Fewer than the kernel keeps events for (`max_queued_events`): each watch that is taken away leaves one.
const DRAINED: i32 = 4096;

/// What is still to be watched.
#[derive(Debug, Default)]
pub struct Watchers {
    waiting: Vec<Waiting>,
    /// Files without a name that are watched.
    nameless: HashMap<FileId, File>,
}

#[derive(Debug)]
struct Waiting {
    id: DescriptionId,
    file: File,
}

impl Watchers {
    /// An instance whose watches have their numbers, and report nothing yet.
    ///
    /// The kernel gives out numbers one after another (fs/notify/inotify/inotify_user.c, `inotify_add_to_idr`): those that are not wanted are given
    /// to a file of ours and taken back.
    ///
    /// # Errors
    /// As inotify_add_watch(2).
    pub fn inotify(&mut self, snapshot: &Snapshot, id: DescriptionId, top: i32) -> Result<File, OpenError> {
        let error = || failed("inotify");
        let OpenObject::Inotify(watches) = &snapshot.descriptions[id.0 as usize].object else {
            return Err(error()(io::ErrorKind::InvalidInput.into()));
        };
        let inotify = watch::inotify().map_err(error())?;
        let dummy = open::memfd("snap", 0).map_err(error())?;
        let dummy_path = PathBuf::from(format!("/proc/self/fd/{}", dummy.as_raw_fd()));
        let mut sorted: Vec<&Watch> = watches.iter().collect();
        sorted.sort_unstable_by_key(|watch| watch.wd);
        let mut next = 1;
        for watch in sorted {
            while next < watch.wd {
                let wd = watch::watch(&inotify, &dummy_path, watch::QUIET).map_err(error())?;
                watch::unwatch(&inotify, wd).map_err(error())?;
                if next % DRAINED == 0 {
                    drain(&inotify).map_err(error())?;
                }
                next = wd + 1;
            }
            self.watch(snapshot, &inotify, watch, watch::QUIET)?;
            next = watch.wd + 1;
        }
        drain(&inotify).map_err(error())?;
        self.keep(id, inotify, top).map_err(error())
    }

    /// A group that has no marks yet.
    ///
    /// # Errors
    /// As fanotify_init(2).
    pub fn fanotify(&mut self, snapshot: &Snapshot, id: DescriptionId, top: i32) -> Result<File, OpenError> {
        let error = || failed("fanotify");
        let OpenObject::Fanotify(group) = &snapshot.descriptions[id.0 as usize].object else {
            return Err(error()(io::ErrorKind::InvalidInput.into()));
        };
        let file = watch::fanotify(group.flags, group.event_flags).map_err(error())?;
        self.keep(id, file, top).map_err(error())
    }

    /// A file without a name that is watched.
    ///
    /// # Errors
    /// As dup(2).
    pub fn keep_nameless(&mut self, file: FileId, open: &File, top: i32) -> io::Result<()> {
        if let Entry::Vacant(place) = self.nameless.entry(file) {
            place.insert(open::lift(open.try_clone()?, top)?);
        }
        Ok(())
    }

    fn keep(&mut self, id: DescriptionId, file: File, top: i32) -> io::Result<File> {
        self.waiting.push(Waiting { id, file: open::lift(file.try_clone()?, top)? });
        Ok(file)
    }

    /// Has everything watched as it was: the last thing before the processes run.
    ///
    /// # Errors
    /// What could not be watched.
    pub fn arm(&self, snapshot: &Snapshot) -> Result<(), OpenError> {
        for Waiting { id, file } in &self.waiting {
            match &snapshot.descriptions[id.0 as usize].object {
                OpenObject::Inotify(watches) => {
                    watches.iter().try_for_each(|watch| self.watch(snapshot, file, watch, watch.mask))?;
                }
                OpenObject::Fanotify(Fanotify { flags: _, event_flags: _, marks }) => {
                    marks.iter().rev().try_for_each(|mark| self.mark(snapshot, file, mark))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn watch(&self, snapshot: &Snapshot, inotify: &File, watch: &Watch, mask: u32) -> Result<(), OpenError> {
        let (path, manner) = self.path(snapshot, watch.file);
        let error = || failed(format!("watching {}", path.display()));
        let manner = if manner { libc::IN_DONT_FOLLOW } else { 0 };
        match watch::watch(inotify, &path, mask | manner).map_err(error())? {
            wd if wd == watch.wd => Ok(()),
            wd => Err(error()(io::Error::other(format!("it is watch {wd} instead of {}", watch.wd)))),
        }
    }

    fn mark(&self, snapshot: &Snapshot, fanotify: &File, mark: &Mark) -> Result<(), OpenError> {
        const EVICTABLE: u32 = 0x200;
        const SURVIVES: u32 = 0x40;
        const IGNORE: u32 = 0x400;
        let (path, named) = self.path(snapshot, mark.file);
        let error = || failed(format!("marking {}", path.display()));
        let scope = match mark.scope {
            MarkScope::Inode => 0,
            MarkScope::Mount => libc::FAN_MARK_MOUNT,
            MarkScope::FileSystem => libc::FAN_MARK_FILESYSTEM,
        };
        let follow = if named && mark.scope == MarkScope::Inode { libc::FAN_MARK_DONT_FOLLOW } else { 0 };
        let add = libc::FAN_MARK_ADD | scope | follow | mark.flags & EVICTABLE;
        if mark.mask != 0 {
            watch::mark(fanotify, add, u64::from(mark.mask), &path).map_err(error())?;
        }
        if mark.ignored != 0 {
            let ignore = if mark.flags & IGNORE != 0 { IGNORE } else { libc::FAN_MARK_IGNORED_MASK };
            let add = add | ignore | mark.flags & SURVIVES;
            watch::mark(fanotify, add, u64::from(mark.ignored), &path).map_err(error())?;
        }
        Ok(())
    }

    /// The path of a file, and whether it is its own name.
    fn path(&self, snapshot: &Snapshot, id: FileId) -> (PathBuf, bool) {
        match (lookup::name(&snapshot.files[id.0 as usize]), self.nameless.get(&id)) {
            (None, Some(file)) => (PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())), false),
            (name, _) => (Path::new(OsStr::from_bytes(name.unwrap_or_default())).to_owned(), true),
        }
    }
}

/// Takes away what an instance says of watches that were taken away.
fn drain(mut inotify: &File) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match inotify.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// The files without a name that an instance watches.
pub fn nameless(snapshot: &Snapshot, object: &OpenObject) -> Vec<FileId> {
    let files: Vec<FileId> = match object {
        OpenObject::Inotify(watches) => watches.iter().map(|watch| watch.file).collect(),
        OpenObject::Fanotify(group) => group.marks.iter().map(|mark| mark.file).collect(),
        _ => Vec::new(),
    };
    files.into_iter().filter(|id| lookup::name(&snapshot.files[id.0 as usize]).is_none()).collect()
}
