//! Shared memory and files without a name that the tree only maps: for who may not open `/proc/PID/map_files`.
//!
//! What such an object holds is read where it is mapped. Pages that are not there are looked for with mincore(2), made in the target's place,
//! which sees those of tmpfs that no process of the tree has touched, and are not made by being looked at.

mod names;
mod source;

pub use names::{Found, Names};
pub use source::{MappedSource, PageSource};

use super::ask::Asker;
use super::file::FileTable;
use super::shared_memory::SharedMemoryTable;
use super::{CollectError, Findings};
use crate::image::model::address::{Addr, PAGE_SIZE, PageRange};
use crate::image::model::id::{Pid, Tid};
use crate::image::model::memory::ContentOwner;
use crate::proc::{TaskDir, host, smaps};
use crate::tracer;
use std::collections::{BTreeMap, HashMap};
use std::io;

/// What would lift every refusal here.
const REMEDY: &str = "unmap it before the dump, or dump with CAP_CHECKPOINT_RESTORE";

/// The objects of one dump.
#[derive(Debug, Default)]
pub struct MappedOnly {
    objects: BTreeMap<ContentOwner, Object>,
    /// Parts of which nobody knows yet which pages are there, by their first bytes.
    unknown: Vec<(ContentOwner, u64)>,
    /// Where names of inodes are looked for.
    pub names: Names,
}

/// What an object is, apart from its content.
#[derive(Clone, Debug)]
pub struct Nature {
    /// Which process was first seen to map it, and where.
    pub holder: (Pid, String),
    /// Whether pages that are neither in memory nor in swap are zero, as on tmpfs.
    pub in_memory: bool,
    /// Why it can be restored only if a descriptor of it is found.
    pub complaint: Option<String>,
}

#[derive(Debug)]
struct Object {
    nature: Nature,
    /// Where it is mapped, without overlap, by its first byte in the object.
    pieces: BTreeMap<u64, Piece>,
    /// What of it is to be read, in the object.
    resident: Vec<PageRange>,
}

/// A part of an object, and where it is mapped.
#[derive(Clone, Copy, Debug)]
struct Piece {
    pages: PageRange,
    pid: Pid,
    at: Addr,
}

impl Piece {
    fn at(&self, offset: Addr) -> Addr {
        self.at.add(offset.0 - self.pages.start.0)
    }
}

impl MappedOnly {
    /// Enters an object that no descriptor leads to.
    pub fn enter(&mut self, owner: ContentOwner, nature: Nature) {
        let object = Object { nature, pieces: BTreeMap::new(), resident: Vec::new() };
        self.objects.entry(owner).or_insert(object);
    }

    /// Notes where an object is mapped, if it is one of these. `hidden` are addresses where other pages lie above those of the object, ascending.
    pub fn note(&mut self, owner: ContentOwner, pid: Pid, vma: PageRange, offset: u64, hidden: &[PageRange]) {
        let Some(object) = self.objects.get_mut(&owner) else { return };
        for visible in vma.without(hidden) {
            let start = offset + (visible.start.0 - vma.start.0);
            let pages = PageRange::new(start, start + visible.len());
            let before = object.pieces.range(..pages.end.0).rev().map(|(_, piece)| piece.pages);
            let mut known: Vec<PageRange> = before.take_while(|piece| piece.end > pages.start).collect();
            known.reverse();
            for pages in pages.without(&known) {
                let at = visible.start.add(pages.start.0 - start);
                object.pieces.insert(pages.start.0, Piece { pages, pid, at });
                self.unknown.push((owner, pages.start.0));
            }
        }
    }

    /// Asks which pages are there of the parts that were noted since, all of them of this process.
    ///
    /// # Errors
    /// When a call could not be made, or /proc not be read.
    pub fn ask(&mut self, pid: Pid, asker: &mut Asker<'_, '_>, tid: Tid) -> Result<(), CollectError> {
        let mut asked = Vec::new();
        for (owner, start) in std::mem::take(&mut self.unknown) {
            let Some(object) = self.objects.get_mut(&owner) else { continue };
            let Some(piece) = object.pieces.get(&start) else { continue };
            if object.nature.in_memory {
                object.resident.extend(resident(asker, tid, piece)?);
                asked.push((owner, *piece));
            } else {
                object.resident.push(piece.pages);
            }
        }
        if asked.is_empty() || host::swap_size() == Some(0) { Ok(()) } else { self.look_in_swap(pid, &asked) }
    }

    /// mincore(2) does not see shared memory in swap. `smaps` counts it, and is read after the call: what has left memory since is seen there.
    fn look_in_swap(&mut self, pid: Pid, asked: &[(ContentOwner, Piece)]) -> Result<(), CollectError> {
        let vmas = smaps::read(&TaskDir::process(pid)?, &mut Vec::new())?;
        for (owner, piece) in asked {
            let first = vmas.partition_point(|vma| vma.mapping.range.end <= piece.at);
            let is_swapped = vmas.get(first).is_some_and(|vma| vma.swap > 0);
            if is_swapped && let Some(object) = self.objects.get_mut(owner) {
                object.resident.push(piece.pages);
            }
        }
        Ok(())
    }

    /// Refuses those that no descriptor was found for and that cannot be read whole.
    pub fn refuse(&self, shared: &SharedMemoryTable, files: &FileTable, findings: &mut Findings) {
        for object in
            self.objects.iter().filter(|(owner, _)| is_wanted(**owner, shared, files)).map(|(_, object)| object)
        {
            if let Some(reason) = object.complaint() {
                object.refuse(reason, findings);
            }
        }
    }

    /// The objects that no descriptor was found for, with their sizes entered in the tables. Those that cannot be read whole are refused.
    ///
    /// # Errors
    /// When the memory of a process cannot be opened.
    pub fn finish(
        self,
        shared: &mut SharedMemoryTable,
        files: &mut FileTable,
        findings: &mut Findings,
    ) -> Result<HashMap<ContentOwner, MappedSource>, CollectError> {
        self.refuse(shared, files, findings);
        let mut sources = HashMap::new();
        for (owner, mut object) in self.objects {
            if !is_wanted(owner, shared, files) || object.complaint().is_some() {
                continue;
            }
            let failed = CollectError::at(object.nature.holder.0.leader(), "opening its memory");
            let source = object.source().map_err(failed)?;
            if object.ends_early(&source) {
                object
                    .refuse("it is mapped beyond its end, which takes CAP_CHECKPOINT_RESTORE to find".into(), findings);
            }
            match owner {
                ContentOwner::SharedMemory(id) => shared.set_size(id, object.size()),
                ContentOwner::File(id) => files.set_size(id, object.size()),
                ContentOwner::Mm(_) | ContentOwner::BpfMap(_) => {}
            }
            sources.insert(owner, source);
        }
        Ok(sources)
    }
}

/// Whether no descriptor of it was found.
fn is_wanted(owner: ContentOwner, shared: &SharedMemoryTable, files: &FileTable) -> bool {
    match owner {
        ContentOwner::SharedMemory(id) => shared.wants_source(id),
        ContentOwner::File(id) => files.wants_content(id),
        ContentOwner::Mm(_) | ContentOwner::BpfMap(_) => false,
    }
}

impl Object {
    fn refuse(&self, reason: String, findings: &mut Findings) {
        let (pid, what) = &self.nature.holder;
        findings.block(format!("pid {pid}"), what, reason, REMEDY);
    }

    fn size(&self) -> u64 {
        self.pieces.last_key_value().map_or(0, |(_, piece)| piece.pages.end.0)
    }

    /// Why it cannot be read whole.
    fn complaint(&self) -> Option<String> {
        if self.nature.complaint.is_some() {
            return self.nature.complaint.clone();
        }
        let covered: Vec<PageRange> = self.pieces.values().map(|piece| piece.pages).collect();
        let missing: u64 = PageRange::new(0, self.size()).without(&covered).iter().map(|range| range.len()).sum();
        (missing > 0).then(|| {
            format!(
                "{missing} bytes of the object are mapped nowhere in the tree or lie beneath pages that were changed, \
                 and to read them takes CAP_CHECKPOINT_RESTORE"
            )
        })
    }

    fn source(&mut self) -> io::Result<MappedSource> {
        let pieces: Vec<_> = self.pieces.values().map(|piece| (piece.pages, piece.pid, piece.at)).collect();
        MappedSource::open(&pieces, joined(std::mem::take(&mut self.resident)))
    }

    /// Whether its mappings reach beyond its end, where reading fails. Nothing else tells how large it is; its last page is made by that, and zero, if
    /// nobody has touched it.
    fn ends_early(&self, source: &MappedSource) -> bool {
        let is_there = self.nature.in_memory && source.ranges().last().is_some_and(|range| range.end.0 == self.size());
        !is_there && source.read_exact_at(&mut [0], self.size().saturating_sub(PAGE_SIZE)).is_err()
    }
}

/// Ascending and without overlap.
fn joined(mut ranges: Vec<PageRange>) -> Vec<PageRange> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<PageRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// Which pages of a part are in memory, by its offsets in the object.
fn resident(asker: &mut Asker<'_, '_>, tid: Tid, piece: &Piece) -> Result<Vec<PageRange>, CollectError> {
    let mut ranges: Vec<PageRange> = Vec::new();
    let mut answers = vec![0; tracer::SCRATCH as usize];
    let mut at = piece.pages.start;
    while at < piece.pages.end {
        let pages = (piece.pages.end.0 - at.0).div_ceil(PAGE_SIZE).min(tracer::SCRATCH);
        let args = [piece.at(at).0, pages * PAGE_SIZE, asker.scratch(0).0, 0, 0, 0];
        asker.expect(tid, "mincore", libc::SYS_mincore, args)?;
        let answers = &mut answers[..pages as usize];
        asker.read(0, answers)?;
        for (page, _) in answers.iter().enumerate().filter(|(_, answer)| **answer & 1 == 1) {
            let start = at.add(page as u64 * PAGE_SIZE);
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = start.add(PAGE_SIZE),
                _ => ranges.push(PageRange { start, end: start.add(PAGE_SIZE) }),
            }
        }
        at = at.add(pages * PAGE_SIZE);
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::model::id::ShmId;

    const OWNER: ContentOwner = ContentOwner::SharedMemory(ShmId(0));

    fn entered() -> MappedOnly {
        let mut mapped = MappedOnly::default();
        let nature = Nature { holder: (Pid(1), "mapping".into()), in_memory: true, complaint: None };
        mapped.enter(OWNER, nature);
        mapped
    }

    fn pieces(mapped: &MappedOnly) -> Vec<(u64, u64, i32, u64)> {
        let pieces = mapped.objects[&OWNER].pieces.values();
        pieces.map(|piece| (piece.pages.start.0, piece.pages.end.0, piece.pid.0, piece.at.0)).collect()
    }

    #[test]
    fn each_part_is_noted_once_where_it_was_first_seen() {
        let mut mapped = entered();
        mapped.note(OWNER, Pid(1), PageRange::new(0x10_0000, 0x10_4000), 0x1000, &[]);
        mapped.note(OWNER, Pid(2), PageRange::new(0x20_0000, 0x20_8000), 0, &[]);
        let expected = [(0, 0x1000, 2, 0x20_0000), (0x1000, 0x5000, 1, 0x10_0000), (0x5000, 0x8000, 2, 0x20_5000)];
        assert_eq!(pieces(&mapped), expected);
    }

    #[test]
    fn what_lies_beneath_other_pages_is_not_seen() {
        let mut mapped = entered();
        let hidden = [PageRange::new(0x10_1000, 0x10_2000)];
        mapped.note(OWNER, Pid(1), PageRange::new(0x10_0000, 0x10_3000), 0, &hidden);
        assert_eq!(pieces(&mapped), [(0, 0x1000, 1, 0x10_0000), (0x2000, 0x3000, 1, 0x10_2000)]);
        let refusal = mapped.objects[&OWNER].complaint().unwrap();
        assert!(refusal.starts_with("4096 bytes of the object are mapped nowhere"), "{refusal}");
    }

    #[test]
    fn ranges_are_joined() {
        let range = |start, end| PageRange::new(start, end);
        assert_eq!(joined(vec![range(5, 9), range(0, 2), range(2, 3), range(6, 7)]), [range(0, 3), range(5, 9)]);
    }
}
