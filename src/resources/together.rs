//! Objects that several processes of a tree have: which of them do, by which descriptors, and why nobody could look into one.

use crate::blocker::Blocker;
use crate::image::model::Snapshot;
use crate::image::model::file::OpenObject;
use crate::image::model::id::Fd;
use crate::image::model::process::Process;
use std::collections::HashSet;

/// Why an object could not be looked into.
#[derive(Debug)]
pub enum Unseen {
    /// For good.
    Never(Blocker),
    /// It may be gone in a moment.
    Now(Blocker),
}

/// A descriptor of an object and its access mode.
pub type Opened = (Fd, u32);

/// Whether a thread of the process has a descriptor of it.
#[must_use]
pub fn has(snapshot: &Snapshot, process: &Process, object: &OpenObject) -> bool {
    let tables: HashSet<_> = process.threads.iter().map(|thread| thread.fd_table).collect();
    tables.iter().any(|table| !descriptors(snapshot, table.0 as usize, object).is_empty())
}

/// What the main thread of the process has of it.
#[must_use]
pub fn main_descriptors(snapshot: &Snapshot, process: &Process, object: &OpenObject) -> Vec<Opened> {
    process.threads.first().map_or(Vec::new(), |main| descriptors(snapshot, main.fd_table.0 as usize, object))
}

fn descriptors(snapshot: &Snapshot, table: usize, object: &OpenObject) -> Vec<Opened> {
    let entries = snapshot.fd_tables.get(table).into_iter().flat_map(|table| &table.entries);
    let opened = entries.filter_map(|entry| {
        let description = &snapshot.descriptions[entry.description.0 as usize];
        (description.object == *object).then_some((entry.fd, description.flags & libc::O_ACCMODE as u32))
    });
    opened.collect()
}

/// Whether two of these processes share memory.
#[must_use]
pub fn share_memory(processes: &[&Process]) -> bool {
    let spaces: HashSet<_> = processes.iter().map(|process| process.mm).collect();
    spaces.len() < processes.len()
}
