//! Event descriptors.

use super::ensure;
use crate::image::error::Error;
use crate::image::model::Snapshot;
use crate::image::model::event::{Epoll, Timerfd};
use crate::image::model::file::OpenObject;
use crate::image::model::id::{DescriptionId, Tid};
use crate::image::model::socket::State;
use std::collections::HashSet;

/// More than any limit of open files allows.
const HIGHEST_FD: i32 = 1 << 30;

/// The epoll instances, all of them at once: who has a description stands in no other place.
pub fn epolls(snapshot: &Snapshot) -> Result<(), Error> {
    let instances = snapshot.descriptions.iter().filter_map(|description| match &description.object {
        OpenObject::Epoll(epoll) if !epoll.items.is_empty() => Some((description.id, epoll)),
        _ => None,
    });
    let mut instances = instances.peekable();
    if instances.peek().is_none() {
        return Ok(());
    }
    let had = had(snapshot);
    instances.try_for_each(|(id, instance)| epoll(id, instance, snapshot, &had))
}

/// The descriptions that are in a table or on their way through a socket.
fn had(snapshot: &Snapshot) -> HashSet<DescriptionId> {
    let queues = snapshot.sockets.iter().flat_map(|socket| match &socket.state {
        State::Unix(state) => &state.queue[..],
        State::Tcp(_) | State::Datagram(_) | State::Netlink(_) | State::Packet(_) => &[],
    });
    let on_their_way = queues.flat_map(|message| message.files.iter().copied());
    let entries = snapshot.fd_tables.iter().flat_map(|table| &table.entries);
    entries.map(|entry| entry.description).chain(on_their_way).collect()
}

fn epoll(id: DescriptionId, epoll: &Epoll, snapshot: &Snapshot, had: &HashSet<DescriptionId>) -> Result<(), Error> {
    let object = || format!("description {id}");
    for item in &epoll.items {
        ensure((0..HIGHEST_FD).contains(&item.fd.0), object, "watches an impossible descriptor")?;
        let exists = (item.description.0 as usize) < snapshot.descriptions.len();
        ensure(exists, object, "watches a description that is not in the image")?;
        ensure(had.contains(&item.description), object, "watches a description that nobody has")?;
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
