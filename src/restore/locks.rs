//! Locks of files: which process takes which, and who outside stands in their way.

use super::lookup;
use super::script::{Label, List, Script};
use crate::image::model::Snapshot;
use crate::image::model::file::{
    DescriptionLock, DescriptionLockKind, FdTable, File, Link, LockRange, OpenObject, PosixLock,
};
use crate::image::model::id::{DescriptionId, Fd, FdTableId, FileId, Pid};
use crate::proc::locks::{self, Lock, LockClass};
use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;

const F_SETOWN_EX: u64 = 15;
const F_OFD_SETLK: u64 = 37;

/// Somebody's lock of a file of the image.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// The file.
    pub file: FileId,
    /// The lock.
    pub lock: Lock,
    /// Command name of its owner, empty where nobody sees that one.
    pub name: String,
}

/// The locks that others hold here on files of which the image has locks. A pid namespace hides those of processes outside: then the
/// lock is refused when it is taken.
#[must_use]
pub fn foreign(snapshot: &Snapshot) -> Vec<Foreign> {
    let wanted: BTreeMap<FileId, _> = wanted(snapshot).into_iter().collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let inode = |file: &File| {
        let meta = std::fs::symlink_metadata(lookup::path(file)?).ok()?;
        Some(((meta.dev(), meta.ino()), file.id))
    };
    let files = wanted.keys().map(|id| &snapshot.files[id.0 as usize]);
    let inodes: HashMap<(u64, u64), FileId> = files.filter_map(inode).collect();
    let locks = locks::read(&mut Vec::new()).unwrap_or_default();
    let here = locks.into_iter().filter(|lock| !lock.waiting).filter_map(|lock| {
        let file = *inodes.get(&(lock.dev?, lock.ino))?;
        let name = std::fs::read_to_string(format!("/proc/{}/comm", lock.pid)).unwrap_or_default();
        Some(Foreign { file, lock, name: name.trim_end().to_owned() })
    });
    here.collect()
}

/// Every lock of the image on a file that has a name.
fn wanted(snapshot: &Snapshot) -> Vec<(FileId, DescriptionLock)> {
    let named = |file: &FileId| snapshot.files[file.0 as usize].link != Link::Unlinked;
    let file = |id: DescriptionId| file_of(&snapshot.descriptions[id.0 as usize].object).filter(named);
    let of_descriptions =
        snapshot.descriptions.iter().filter_map(|description| Some((file(description.id)?, description)));
    let mut wanted: Vec<_> = of_descriptions
        .flat_map(|(file, description)| description.locks.iter().map(move |lock| (file, *lock)))
        .collect();
    for table in &snapshot.fd_tables {
        for PosixLock { fd, exclusive, range } in &table.locks {
            let entry = table.entries.iter().find(|entry| entry.fd == *fd);
            let (kind, holder) = (DescriptionLockKind::OpenDescription, None);
            let lock = DescriptionLock { kind, exclusive: *exclusive, range: *range, holder };
            wanted.extend(entry.and_then(|entry| file(entry.description)).map(|file| (file, lock)));
        }
    }
    wanted
}

/// The file behind a description that can have locks.
const fn file_of(object: &OpenObject) -> Option<FileId> {
    match object {
        OpenObject::Regular(file) | OpenObject::Directory(file) => Some(*file),
        _ => None,
    }
}

/// Which locks of others keep those of the image from being taken.
#[must_use]
pub fn conflicts<'a>(snapshot: &Snapshot, foreign: &'a [Foreign]) -> Vec<&'a Foreign> {
    let wanted = wanted(snapshot);
    let against =
        |other: &&Foreign| wanted.iter().any(|(file, lock)| *file == other.file && excludes(lock, &other.lock));
    foreign.iter().filter(against).collect()
}

fn excludes(wanted: &DescriptionLock, other: &Lock) -> bool {
    let same_kind = match wanted.kind {
        DescriptionLockKind::Flock => other.class == LockClass::Flock,
        DescriptionLockKind::OpenDescription => matches!(other.class, LockClass::Posix | LockClass::OpenFile),
        DescriptionLockKind::Lease => other.class == LockClass::Lease,
    };
    let LockRange { start, end } = wanted.range;
    let meets = start <= other.end.unwrap_or(u64::MAX) && other.start <= end.unwrap_or(u64::MAX);
    same_kind && meets && (wanted.exclusive || other.access == "WRITE")
}

/// Locks of descriptions, by the table whose process takes them: the one that did, if it still has the description.
#[derive(Clone, Debug, Default)]
pub struct Takers(HashMap<FdTableId, Vec<(Fd, DescriptionId, DescriptionLock)>>);

impl Takers {
    /// Finds them.
    #[must_use]
    pub fn among(snapshot: &Snapshot) -> Self {
        let is_locked =
            |id: DescriptionId| !snapshot.descriptions[id.0 as usize].locks.is_empty() && !is_external(snapshot, id);
        let mut holders: HashMap<DescriptionId, Vec<(&FdTable, Fd)>> = HashMap::new();
        for table in &snapshot.fd_tables {
            for entry in table.entries.iter().filter(|entry| is_locked(entry.description)) {
                holders.entry(entry.description).or_default().push((table, entry.fd));
            }
        }
        let table_of = |pid: Pid| {
            let process = snapshot.processes.iter().find(|process| process.pid == pid)?;
            Some(process.threads[0].fd_table)
        };
        let mut takers = Self::default();
        for (id, holders) in holders {
            for lock in &snapshot.descriptions[id.0 as usize].locks {
                let taker = lock.holder.and_then(table_of);
                let has = holders.iter().find(|(table, _)| Some(table.id) == taker).or(holders.first());
                if let Some((table, fd)) = has {
                    takers.0.entry(table.id).or_default().push((*fd, id, *lock));
                }
            }
        }
        takers.0.values_mut().for_each(|locks| locks.sort_by_key(|(fd, _, _)| *fd));
        takers
    }

    /// The operations by which the process that makes this table takes its locks, those of F_SETLK too.
    pub fn take(&self, list: &mut List, script: &mut Script, snapshot: &Snapshot, table: &FdTable) {
        for PosixLock { fd, exclusive, range } in &table.locks {
            record(list, script, libc::F_SETLK as u64, *fd, *exclusive, *range);
        }
        for (fd, id, DescriptionLock { kind, exclusive, range, holder: _ }) in
            self.0.get(&table.id).into_iter().flatten()
        {
            match kind {
                DescriptionLockKind::Flock => {
                    let how = if *exclusive { libc::LOCK_EX } else { libc::LOCK_SH } | libc::LOCK_NB;
                    list.call(label(*fd), libc::SYS_flock, &[fd.0 as u64, how as u64]);
                }
                DescriptionLockKind::OpenDescription => record(list, script, F_OFD_SETLK, *fd, *exclusive, *range),
                DescriptionLockKind::Lease => {
                    let kind = if *exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
                    let args = [fd.0 as u64, libc::F_SETLEASE as u64, kind as u64];
                    list.call(Label::Number("leasing through descriptor", i64::from(fd.0)), libc::SYS_fcntl, &args);
                    if snapshot.descriptions[id.0 as usize].owner.is_none() {
                        // Whoever takes a lease becomes the owner of a description that has none (fcntl(2)).
                        let nobody = script.place(&[1_i32.to_le_bytes(), [0; 4]].concat());
                        let args = [fd.0 as u64, F_SETOWN_EX, nobody.0];
                        list.call(Label::Number("owner of descriptor", i64::from(fd.0)), libc::SYS_fcntl, &args);
                    }
                }
            }
        }
    }
}

/// What somebody else has open is as that one wants it.
fn is_external(snapshot: &Snapshot, id: DescriptionId) -> bool {
    matches!(snapshot.descriptions[id.0 as usize].object, OpenObject::External(_))
}

fn label(fd: Fd) -> Label {
    Label::Number("locking through descriptor", i64::from(fd.0))
}

fn record(list: &mut List, script: &mut Script, command: u64, fd: Fd, exclusive: bool, range: LockRange) {
    let kind = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
    let len = range.end.map_or(0, |end| end.wrapping_sub(range.start).wrapping_add(1));
    // `struct flock`: two shorts and padding, start, length, pid.
    let lock = script.place_words(&[kind as u64, range.start, len, 0]);
    list.call(label(fd), libc::SYS_fcntl, &[fd.0 as u64, command, lock.0]);
}
