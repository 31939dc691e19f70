//! Which pages of an image there are: refuses pages that nobody can hold, and pages that are there twice.

use super::error::BlockFault;
use super::model::Snapshot;
use super::model::address::{Addr, PAGE_SIZE, PageRange};
use super::model::memory::{Backing, ContentOwner, Mm};
use std::collections::{BTreeMap, HashMap};

/// The runs seen so far. Its size is bounded by the number of runs in the image; adjacent runs become one.
#[derive(Debug)]
pub struct Coverage {
    owners: HashMap<ContentOwner, Pages>,
}

#[derive(Debug)]
struct Pages {
    /// Where the owner can have pages: sorted, adjacent ranges joined.
    room: Vec<PageRange>,
    /// Start to end of what was seen.
    seen: BTreeMap<Addr, Addr>,
}

impl Coverage {
    /// Nothing was seen yet. The snapshot has passed validation.
    pub fn new(snapshot: &Snapshot) -> Self {
        let mms = snapshot.mms.iter().map(|mm| (ContentOwner::Mm(mm.id), own_pages(mm)));
        let shms = snapshot.shared_memory.iter().map(|shm| (ContentOwner::SharedMemory(shm.id), bytes(shm.size)));
        let files = snapshot.files.iter().map(|file| (ContentOwner::File(file.id), bytes(file.size)));
        let maps =
            snapshot.bpf_maps.iter().filter_map(|map| Some((ContentOwner::BpfMap(map.id), bytes(map.pages_len()?))));
        let owners = mms.chain(shms).chain(files).chain(maps);
        Self { owners: owners.map(|(owner, room)| (owner, Pages { room, seen: BTreeMap::new() })).collect() }
    }

    /// Takes in runs, none of which is empty.
    pub fn add(&mut self, owner: ContentOwner, runs: impl IntoIterator<Item = PageRange>) -> Result<(), BlockFault> {
        let pages = self.owners.get_mut(&owner).ok_or(BlockFault::Owner(owner))?;
        runs.into_iter().try_for_each(|run| pages.add(run))
    }
}

impl Pages {
    fn add(&mut self, run: PageRange) -> Result<(), BlockFault> {
        let place = self.room.partition_point(|room| room.end <= run.start);
        let fits = self.room.get(place).is_some_and(|room| room.start <= run.start && run.end <= room.end);
        if !fits {
            return Err(BlockFault::Outside(run));
        }
        let PageRange { mut start, mut end } = run;
        if let Some((&before, &before_end)) = self.seen.range(..run.end).next_back() {
            if before_end > run.start {
                return Err(BlockFault::Overlap(run));
            }
            if before_end == run.start {
                start = before;
            }
        }
        if let Some(after_end) = self.seen.remove(&run.end) {
            end = after_end;
        }
        self.seen.insert(start, end);
        Ok(())
    }
}

/// The mappings whose pages belong to the address space, not to a shared object or the kernel.
fn own_pages(mm: &Mm) -> Vec<PageRange> {
    let mut room: Vec<PageRange> = Vec::new();
    let own = mm.vmas.iter().filter(|vma| match vma.backing {
        Backing::Anonymous
        | Backing::PrivateFile { .. }
        | Backing::PrivateShared { .. }
        | Backing::HugeTlb { .. }
        | Backing::Vdso => true,
        Backing::SharedFile { .. }
        | Backing::Shared { .. }
        | Backing::PacketRing { .. }
        | Backing::BpfMap { .. }
        | Backing::AioRing(_)
        | Backing::Vvar
        | Backing::Vsyscall => false,
    });
    for vma in own {
        match room.last_mut() {
            Some(last) if last.end == vma.range.start => last.end = vma.range.end,
            Some(_) | None => room.push(vma.range),
        }
    }
    room
}

/// From 0 to a size whose last page may be cut.
fn bytes(size: u64) -> Vec<PageRange> {
    let end = size.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX);
    if end == 0 { Vec::new() } else { vec![PageRange::new(0, end)] }
}
