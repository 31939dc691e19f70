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
mod tests {
    use super::*;
    use crate::image::model::address::{PAGE_SIZE, PageRange};
    use crate::image::model::file::{Description, FdEntry, FdTable};
    use crate::image::model::id::{DescriptionId, MmId, Pid, SocketId};
    use crate::image::tests::sample;

    /// Four processes: the first has sockets 0 and 1, the second has another table for its second thread, the third is without descriptors, the fourth has the
    /// memory of the third.
    fn snapshot() -> Snapshot {
        let mut snapshot = sample::bare(100);
        let any = sample::snapshot().descriptions.swap_remove(0);
        let description = |(id, flags): (u32, i32)| Description {
            id: DescriptionId(id),
            object: OpenObject::Socket(SocketId([0, 1, 0, 2][id as usize])),
            flags: (flags | libc::O_NONBLOCK) as u32,
            ..any.clone()
        };
        let modes = [(0, libc::O_RDWR), (1, libc::O_RDWR), (2, libc::O_RDONLY), (3, libc::O_RDWR)];
        snapshot.descriptions = modes.into_iter().map(description).collect();
        let table = |(id, of): (u32, &&[(i32, u32)])| {
            let entry =
                |(fd, of): &(i32, u32)| FdEntry { fd: Fd(*fd), description: DescriptionId(*of), close_on_exec: false };
            FdTable { id: FdTableId(id), entries: of.iter().map(entry).collect(), locks: Vec::new() }
        };
        let tables: [&[(i32, u32)]; 3] = [&[(3, 0), (4, 1), (9, 2)], &[(5, 3)], &[]];
        snapshot.fd_tables = (0..).zip(&tables).map(table).collect();
        let process = |(pid, mm, tables): (i32, u32, &[u32])| {
            let mut process = Process { pid: Pid(pid), mm: MmId(mm), ..snapshot.processes[0].clone() };
            let thread = |table: &u32| {
                let mut thread = sample::thread(pid);
                thread.fd_table = FdTableId(*table);
                thread
            };
            process.threads = tables.iter().map(thread).collect();
            process
        };
        let all: [(i32, u32, &[u32]); 4] = [(100, 0, &[0]), (101, 1, &[2, 0, 1]), (102, 2, &[2]), (103, 2, &[2])];
        snapshot.processes = all.map(process).to_vec();
        let mut mms = vec![snapshot.mms[0].clone(); 3];
        (0..).zip(&mut mms).for_each(|(id, mm)| mm.id = MmId(id));
        let range = PageRange::new(0x10_0000, 0x10_0000 + PAGE_SIZE);
        mms[2].vmas = vec![sample::vma(range, Backing::PacketRing { ino: 51 })];
        snapshot.mms = mms;
        snapshot
    }

    fn pids(processes: &[&Process]) -> Vec<i32> {
        processes.iter().map(|process| process.pid.0).collect()
    }

    #[test]
    fn who_has_an_object_has_it_by_a_descriptor_of_any_thread_or_maps_it() {
        let snapshot = snapshot();
        let wanted = |object: &OpenObject| {
            let OpenObject::Socket(id) = object else { return None };
            (id.0 != 2).then_some(id.0)
        };
        let holders = Holders::new(&snapshot, wanted);
        assert_eq!(pids(&holders.of(0)), [100, 101]);
        assert_eq!(pids(&holders.of(1)), [100, 101]);
        assert_eq!(pids(&holders.of(2)), [0; 0], "nobody has asked for it");
        let of = |place: usize, key| holders.main_descriptors(&snapshot.processes[place], key);
        assert_eq!(of(0, 0), [(Fd(3), libc::O_RDWR as u32), (Fd(9), libc::O_RDONLY as u32)]);
        assert_eq!(of(0, 1), [(Fd(4), libc::O_RDWR as u32)]);
        assert_eq!(of(1, 0), [], "the main thread has a table of its own");
        let mapped = |backing: &Backing| matches!(backing, Backing::PacketRing { ino: 51 }).then_some(1);
        let holders = holders.or_mapped(mapped);
        assert_eq!((pids(&holders.of(0)), pids(&holders.of(1))), (vec![100, 101], vec![100, 101, 102, 103]));
        assert!(share_memory(&holders.of(1)) && !share_memory(&holders.of(0)));
    }
}
