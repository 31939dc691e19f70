//! Event descriptors.

use super::ensure;
use crate::image::error::Error;
use crate::image::model::Snapshot;
use crate::image::model::event::{Epoll, Timerfd};
use crate::image::model::file::OpenObject;
use crate::image::model::id::{DescriptionId, FdTableId, Tid};
use std::collections::{HashMap, HashSet};

/// More than any limit of open files allows.
const HIGHEST_FD: i32 = 1 << 30;

/// The epoll instances, all of them at once: for which tables a description is in stands in no other place.
pub fn epolls(snapshot: &Snapshot) -> Result<(), Error> {
    let instances = snapshot.descriptions.iter().filter_map(|description| match &description.object {
        OpenObject::Epoll(epoll) if !epoll.items.is_empty() => Some((description.id, epoll)),
        _ => None,
    });
    let mut instances = instances.peekable();
    if instances.peek().is_none() {
        return Ok(());
    }
    let tables = tables(snapshot);
    instances.try_for_each(|(id, instance)| epoll(id, instance, snapshot, &tables))
}

type Tables = HashMap<DescriptionId, HashSet<FdTableId>>;

/// The tables in which each description is.
fn tables(snapshot: &Snapshot) -> Tables {
    let mut tables = Tables::new();
    for table in &snapshot.fd_tables {
        for entry in &table.entries {
            tables.entry(entry.description).or_default().insert(table.id);
        }
    }
    tables
}

fn epoll(id: DescriptionId, epoll: &Epoll, snapshot: &Snapshot, tables: &Tables) -> Result<(), Error> {
    let object = || format!("description {id}");
    for item in &epoll.items {
        ensure((0..HIGHEST_FD).contains(&item.fd.0), object, "watches an impossible descriptor")?;
        let exists = (item.description.0 as usize) < snapshot.descriptions.len();
        ensure(exists, object, "watches a description that is not in the image")?;
        let in_one = tables.get(&id).zip(tables.get(&item.description)).is_some_and(|(own, its)| !own.is_disjoint(its));
        ensure(in_one, object, "watches a description that no table has beside it")?;
    }
    Ok(())
}

pub fn timerfd(timer: &Timerfd, object: impl Fn() -> String) -> Result<(), Error> {
    let is_time = |time: u64| i64::try_from(time).is_ok();
    ensure(is_time(timer.value) && is_time(timer.interval), &object, "has an impossible time")?;
    ensure(timer.settime & !3 == 0, &object, "has impossible flags")
}

/// Whether there is such a thread, or an ended process.
pub fn has_task(snapshot: &Snapshot, tid: Tid) -> bool {
    let mut threads = snapshot.processes.iter().flat_map(|process| &process.threads);
    threads.any(|thread| thread.tid == tid) || snapshot.zombies.iter().any(|zombie| zombie.pid.leader() == tid)
}
