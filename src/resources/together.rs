//! Objects that several processes of a tree have: which of them do, by which descriptors, and why nobody could look into one.

use crate::blocker::Blocker;
use crate::image::model::Snapshot;
use crate::image::model::file::OpenObject;
use crate::image::model::id::{Fd, FdTableId};
use crate::image::model::memory::{Backing, Mm};
use crate::image::model::process::Process;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;

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

/// Who has each of some objects, looked up in one pass over all tables of descriptors: there may be as many objects as descriptors.
#[derive(Debug)]
pub struct Holders<'a, K> {
    snapshot: &'a Snapshot,
    /// Places in [`Snapshot::processes`].
    places: HashMap<K, BTreeSet<usize>>,
    /// By the table in which they are.
    opened: HashMap<(FdTableId, K), Vec<Opened>>,
}

impl<'a, K: Copy + Eq + Hash> Holders<'a, K> {
    /// Of all objects for which there is a key: the processes of which a thread has a descriptor.
    #[must_use]
    pub fn new(snapshot: &'a Snapshot, key: impl Fn(&OpenObject) -> Option<K>) -> Self {
        let keys: Vec<Option<K>> = snapshot.descriptions.iter().map(|description| key(&description.object)).collect();
        let mut opened: HashMap<_, Vec<Opened>> = HashMap::new();
        let mut in_table: HashMap<FdTableId, HashSet<K>> = HashMap::new();
        for table in &snapshot.fd_tables {
            for entry in &table.entries {
                let at = entry.description.0 as usize;
                let Some(key) = keys[at] else { continue };
                let mode = snapshot.descriptions[at].flags & libc::O_ACCMODE as u32;
                opened.entry((table.id, key)).or_default().push((entry.fd, mode));
                in_table.entry(table.id).or_default().insert(key);
            }
        }
        let mut holders = Self { snapshot, places: HashMap::new(), opened };
        for (place, process) in snapshot.processes.iter().enumerate() {
            let tables: HashSet<_> = process.threads.iter().map(|thread| thread.fd_table).collect();
            holders.add(place, tables.iter().filter_map(|table| in_table.get(table)).flatten());
        }
        holders
    }

    /// The same, and those that map something for which there is a key.
    #[must_use]
    pub fn or_mapped(mut self, key: impl Fn(&Backing) -> Option<K>) -> Self {
        let keys = |mm: &Mm| mm.vmas.iter().filter_map(|vma| key(&vma.backing)).collect();
        let mapped: Vec<HashSet<K>> = self.snapshot.mms.iter().map(keys).collect();
        for (place, process) in self.snapshot.processes.iter().enumerate() {
            self.add(place, mapped.get(process.mm.0 as usize).into_iter().flatten());
        }
        self
    }

    fn add<'k>(&mut self, place: usize, keys: impl Iterator<Item = &'k K>)
    where
        K: 'k,
    {
        for key in keys {
            self.places.entry(*key).or_default().insert(place);
        }
    }

    /// Who has it, in the order of the snapshot.
    #[must_use]
    pub fn of(&self, key: K) -> Vec<&'a Process> {
        self.places.get(&key).into_iter().flatten().map(|place| &self.snapshot.processes[*place]).collect()
    }

    /// What the main thread of the process has of it.
    #[must_use]
    pub fn main_descriptors(&self, process: &Process, key: K) -> &[Opened] {
        let table = process.threads.first().map(|main| main.fd_table);
        table.and_then(|table| self.opened.get(&(table, key))).map_or(&[], Vec::as_slice)
    }
}

/// Whether two of these processes share memory.
#[must_use]
pub fn share_memory(processes: &[&Process]) -> bool {
    let spaces: HashSet<_> = processes.iter().map(|process| process.mm).collect();
    spaces.len() < processes.len()
}

#[cfg(test)]
mod tests;
