//! What a process does for the descriptions in its table, `snap` does for those that none has, which are on their way through sockets (SCM_RIGHTS), once all
//! tasks are there: it opens what belongs to a task, arms timers, sets owners. And it adds what an epoll instance watches where no process has both.

use super::descriptors::{OpenError, failed, set_up};
use super::late::{self, Late};
use super::lookup;
use crate::image::model::Snapshot;
use crate::image::model::event::{Epoll, EpollItem, Timerfd};
use crate::image::model::file::{
    AsyncOwner, Description, DescriptionLock, DescriptionLockKind, OpenObject, OwnerTarget,
};
use crate::image::model::id::{DescriptionId, Fd, FdTableId, Tid};
use crate::image::model::socket::unix::Message;
use crate::sys::descriptor::{OwnerEx, set_async, set_owner, set_signal};
use crate::sys::elsewhere::{self, Elsewhere};
use crate::sys::event::{self, Watched};
use crate::sys::open::{self, LockKind};
use crate::sys::pidfd;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The epoll instances of which some item can be added by no process, for it has no descriptor of both: `snap` adds all of theirs. Pure.
#[must_use]
pub fn instances(snapshot: &Snapshot) -> BTreeSet<DescriptionId> {
    let descriptions = snapshot.descriptions.iter();
    let epolls = descriptions.filter_map(|description| match &description.object {
        OpenObject::Epoll(epoll) => Some((description.id, epoll)),
        _ => None,
    });
    let epolls: Vec<(DescriptionId, &Epoll)> = epolls.collect();
    let of = |(id, epoll): &(DescriptionId, &Epoll)| {
        let watched = epoll.items.iter().map(|item| item.description);
        watched.chain([*id]).collect::<Vec<_>>()
    };
    let concerned: HashSet<DescriptionId> = epolls.iter().flat_map(of).collect();
    let mut tables: HashMap<DescriptionId, HashSet<FdTableId>> = HashMap::new();
    let entries = snapshot.fd_tables.iter().flat_map(|table| table.entries.iter().map(|entry| (table.id, entry)));
    for (table, entry) in entries.filter(|(_, entry)| concerned.contains(&entry.description)) {
        tables.entry(entry.description).or_default().insert(table);
    }
    let beside = |id: DescriptionId, item: &EpollItem| matches!((tables.get(&id), tables.get(&item.description)), (Some(own), Some(its)) if !own.is_disjoint(its));
    let is_one = |(id, epoll): &(DescriptionId, &Epoll)| !epoll.items.iter().all(|item| beside(*id, item));
    epolls.into_iter().filter(is_one).map(|(id, _)| id).collect()
}

/// Descriptions that `snap` keeps for that.
#[derive(Debug, Default)]
pub struct Loose {
    /// In no table.
    on_their_way: BTreeSet<DescriptionId>,
    /// See [`instances`].
    instances: BTreeSet<DescriptionId>,
    /// By their ids, under numbers that no program wants.
    files: HashMap<DescriptionId, File>,
    top: i32,
}

impl Loose {
    /// Duplicates of what is open under these numbers; those from `top` on are free for our own use.
    ///
    /// # Errors
    /// As dup(2).
    pub fn keep(snapshot: &Snapshot, numbers: &HashMap<DescriptionId, i32>, top: i32) -> io::Result<Self> {
        let entries = snapshot.fd_tables.iter().flat_map(|table| &table.entries);
        let held: HashSet<DescriptionId> = entries.map(|entry| entry.description).collect();
        let on_their_way: BTreeSet<_> = lookup::on_their_way(snapshot).filter(|id| !held.contains(id)).collect();
        let instances = instances(snapshot);
        let has_work = |id: &&DescriptionId| {
            let description = &snapshot.descriptions[id.0 as usize];
            description.owner.is_some() || matches!(description.object, OpenObject::Timerfd(_))
        };
        let waits = |queue: &Vec<DescriptionId>| queue.iter().any(|id| !numbers.contains_key(id));
        let sent_later = lookup::queues(snapshot).map(carried).filter(waits);
        let sent_later: Vec<DescriptionId> = sent_later.flatten().collect();
        let wanted: BTreeSet<DescriptionId> = on_their_way
            .iter()
            .filter(has_work)
            .copied()
            .chain(watching(snapshot, &instances))
            .chain(sent_later)
            .collect();
        let mut files = HashMap::with_capacity(wanted.len());
        for id in wanted {
            if let Some(number) = numbers.get(&id) {
                files.insert(id, open::duplicate(*number, top)?);
            }
        }
        Ok(Self { on_their_way, instances, files, top })
    }

    /// Has what belongs to tasks, now that these are there and what they were: opens it, or takes it from who has it.
    ///
    /// # Errors
    /// What could not be had.
    pub fn open(&mut self, snapshot: &Snapshot) -> Result<(), OpenError> {
        let sent = lookup::on_their_way(snapshot);
        let wanted: BTreeSet<DescriptionId> = sent.chain(watching(snapshot, &self.instances)).collect();
        for id in wanted {
            let description = &snapshot.descriptions[id.0 as usize];
            let Some(late) = late::late(snapshot, &description.object) else { continue };
            let error = || failed(format!("open file {id}"));
            let file = match holder(snapshot, id) {
                Some((tid, fd)) => take(snapshot, tid, fd),
                None => open_late(&late, description.flags),
            };
            let file = file.and_then(|file| open::lift(file, self.top)).map_err(error())?;
            if self.on_their_way.contains(&id) {
                set_up(&file, description)?;
            }
            self.files.insert(id, file);
        }
        Ok(())
    }

    /// Under which of our numbers a description is.
    #[must_use]
    pub fn number(&self, id: DescriptionId) -> Option<i32> {
        self.files.get(&id).map(AsRawFd::as_raw_fd)
    }

    /// Adds what is to be watched, sets owners, and arms timers.
    ///
    /// # Errors
    /// What could not be done.
    pub fn settle(&self, snapshot: &Snapshot) -> Result<(), OpenError> {
        for id in &self.instances {
            if let OpenObject::Epoll(epoll) = &snapshot.descriptions[id.0 as usize].object {
                self.watch(*id, epoll).map_err(failed(format!("what the epoll instance {id} watches")))?;
            }
        }
        for id in &self.on_their_way {
            let (description, Some(file)) = (&snapshot.descriptions[id.0 as usize], self.files.get(id)) else {
                continue;
            };
            if let Some(owner) = &description.owner {
                own(file, description, *owner).map_err(failed(format!("owner of open file {id}")))?;
            }
            if let OpenObject::Timerfd(timer) = &description.object {
                arm(file, timer).map_err(failed(format!("arming timerfd {id}")))?;
            }
        }
        Ok(())
    }

    /// Items that have fired come first, as where a process adds them (`restore/event.rs`).
    fn watch(&self, id: DescriptionId, epoll: &Epoll) -> io::Result<()> {
        let file = |id: DescriptionId| self.files.get(&id).ok_or(io::ErrorKind::NotFound);
        let instance = file(id)?;
        let (fired, armed): (Vec<&EpollItem>, Vec<_>) = epoll.items.iter().partition(|item| item.is_disarmed());
        let items = fired.into_iter().chain(armed).map(|item| {
            let EpollItem { fd, description, events, data } = *item;
            Ok((file(description)?.as_fd(), Watched { number: fd.0, events, data }, item.is_disarmed()))
        });
        let items = items.collect::<io::Result<Vec<_>>>()?;
        let place = Elsewhere { own_descriptors: true, ..Elsewhere::default() };
        let add = || {
            items.iter().try_for_each(|(file, item, is_disarmed)| {
                if !is_disarmed {
                    return event::watch_as(instance.as_fd(), *file, *item);
                }
                event::watch_as(
                    instance.as_fd(),
                    *file,
                    Watched { events: item.events | EpollItem::ANYTHING, ..*item },
                )?;
                match event::take_event(instance.as_fd())? {
                    true => Ok(()),
                    false => event::watch_otherwise(instance.as_fd(), *item),
                }
            })
        };
        Ok(elsewhere::call(&place, 0, |_| add()).map(drop)?)
    }
}

/// Locks of a description that no process has in its table: it is on its way. All others are taken by their processes.
///
/// # Errors
/// As flock(2) and fcntl(2).
pub fn lock(file: &File, description: &Description, snapshot: &Snapshot) -> Result<(), OpenError> {
    let error = || failed(format!("locking open file {}", description.id));
    let mut entries = snapshot.fd_tables.iter().flat_map(|table| &table.entries);
    if description.locks.is_empty() || entries.any(|entry| entry.description == description.id) {
        return Ok(());
    }
    for DescriptionLock { kind, exclusive, range, holder: _ } in &description.locks {
        let kind = match kind {
            DescriptionLockKind::Flock => LockKind::Flock,
            DescriptionLockKind::OpenDescription => LockKind::OpenDescription,
            DescriptionLockKind::Lease => LockKind::Lease,
        };
        open::lock(file, kind, *exclusive, range.start, range.end).map_err(error())?;
    }
    Ok(())
}

/// What goes through a socket.
fn carried(queue: &[Message]) -> Vec<DescriptionId> {
    queue.iter().flat_map(|message| message.files.iter().copied()).collect()
}

/// Epoll instances with what they watch.
fn watching<'a>(
    snapshot: &'a Snapshot,
    instances: &'a BTreeSet<DescriptionId>,
) -> impl Iterator<Item = DescriptionId> + 'a {
    instances.iter().flat_map(|id| {
        let items = match &snapshot.descriptions[id.0 as usize].object {
            OpenObject::Epoll(epoll) => &epoll.items[..],
            _ => &[],
        };
        items.iter().map(|item| item.description).chain([*id])
    })
}

/// A thread that has a description in its table, and its number there.
fn holder(snapshot: &Snapshot, id: DescriptionId) -> Option<(Tid, Fd)> {
    let mut threads = snapshot.processes.iter().flat_map(|process| &process.threads);
    threads.find_map(|thread| {
        let table = &snapshot.fd_tables[thread.fd_table.0 as usize];
        let entry = table.entries.iter().find(|entry| entry.description == id)?;
        Some((thread.tid, entry.fd))
    })
}

fn take(snapshot: &Snapshot, tid: Tid, fd: Fd) -> io::Result<File> {
    let process = snapshot.processes.iter().find(|process| process.pid.leader() == tid);
    let pidfd = match process {
        Some(process) => pidfd::open(process.pid)?,
        None => pidfd::open_thread(tid)?,
    };
    Ok(pidfd::get_fd(pidfd.as_fd(), fd)?.into())
}

fn open_late(late: &Late<'_>, flags: u32) -> io::Result<File> {
    match late {
        Late::Pidfd(tid) => Ok(pidfd::open_as(*tid, flags & late::PIDFD_FLAGS)?.into()),
        Late::File(path) => open::path(&PathBuf::from("/proc").join(OsStr::from_bytes(path)), flags),
        // Those are all in tables, see `late`.
        Late::OwnTerminal(_) => Err(io::ErrorKind::NotFound.into()),
    }
}

fn own(file: &File, description: &Description, AsyncOwner { target, signal }: AsyncOwner) -> io::Result<()> {
    let (kind, pid) = match target {
        OwnerTarget::None => (1, 0),
        OwnerTarget::Thread(tid) => (0, tid.0),
        OwnerTarget::Process(pid) => (1, pid.0),
        OwnerTarget::Group(pid) => (2, pid.0),
    };
    set_owner(file.as_fd(), OwnerEx { kind, pid })?;
    set_signal(file.as_fd(), signal)?;
    if description.flags & libc::O_ASYNC as u32 != 0 {
        set_async(file.as_fd(), true)?;
    }
    Ok(())
}

/// By a child, which is in the time namespace of the program.
fn arm(file: &File, timer: &Timerfd) -> io::Result<()> {
    let Timerfd { clock: _, settime, value, interval, ticks } = *timer;
    let arm = || {
        if value != 0 || interval != 0 || settime != 0 {
            event::set_timer(file.as_fd(), settime, value, interval)?;
        }
        if ticks != 0 { event::set_ticks(file.as_fd(), ticks) } else { Ok(()) }
    };
    Ok(elsewhere::call(&Elsewhere::default(), 0, |_| arm()).map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::model::file::FdEntry;
    use crate::image::tests::sample;

    #[test]
    fn snap_adds_what_no_table_has_beside_the_instance() {
        let mut snapshot = sample::snapshot();
        let is_epoll = |description: &&mut Description| matches!(description.object, OpenObject::Epoll(_));
        let instance = snapshot.descriptions.iter_mut().find(is_epoll).expect("an instance");
        let id = instance.id;
        let watched = DescriptionId(0);
        let item = EpollItem { fd: Fd(7), description: watched, events: 1, data: 2 };
        instance.object = OpenObject::Epoll(Epoll { items: vec![item], busy_poll: None });
        let entry = |fd, description| FdEntry { fd: Fd(fd), description, close_on_exec: false };
        snapshot.fd_tables[0].entries = vec![entry(3, id), entry(7, watched)];
        assert_eq!(instances(&snapshot), BTreeSet::new());
        snapshot.fd_tables[0].entries.pop();
        assert_eq!(instances(&snapshot), BTreeSet::from([id]));
    }
}
