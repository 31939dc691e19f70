//! Pages that a process still has in common with its parent, since fork(2): they stand in the image once.
//!
//! Whoever may see frames finds them by equal frames at equal addresses. For everybody else the kernel tells at least which pages
//! are mapped more than once; of these, those with equal content are taken for the same.

use super::CollectError;
use super::pages::PageSet;
use crate::image::model::address::{Addr, PAGE_SIZE, PageRange};
use crate::image::model::fork::{common, continued};
use crate::image::model::id::Pid;
use crate::image::model::memory::Vma;
use crate::proc::TaskDir;
use crate::sys::pagemap::{self, Entry};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Most pages that are looked at in one go.
const BATCH: u64 = (16 << 20) / PAGE_SIZE;

/// Most entries of a parent that are kept: those of 16 GiB.
const MOST_KEPT: u64 = (16 << 30) / PAGE_SIZE;

/// One of two address spaces that stand still.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// A process that has it.
    pub pid: Pid,
    /// Its mappings.
    pub vmas: &'a [Vma],
}

/// Which of these pages of the child are still those of the parent: ascending, neighbours joined.
///
/// # Errors
/// When a page table or the memory cannot be read.
pub fn shared(
    (parent, above): (Side<'_>, &mut Option<Above>),
    (child, pagemap): (Side<'_>, File),
    pages: &PageSet,
) -> Result<Vec<PageRange>, CollectError> {
    let spans: Vec<PageRange> = pages.spans.iter().map(|span| span.range).collect();
    let continued: Vec<PageRange> = continued(parent.vmas, child.vmas).into_iter().map(|(range, _, _)| range).collect();
    let candidates = common(&continued, &spans);
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    let above = match above {
        Some(above) if above.pid == parent.pid => above,
        _ => above.insert(Above::open(parent.pid)?),
    };
    let mut pair = Pair { above, pid: child.pid, pagemap, memories: None, shared: Vec::new() };
    for batch in batches(&candidates) {
        pair.look(&batch)
            .map_err(CollectError::at(child.pid.leader(), "comparing its pages with those of its parent"))?;
    }
    Ok(pair.shared)
}

/// A parent, of which several children may be compared with it one after the other.
#[derive(Debug)]
pub struct Above {
    pid: Pid,
    pagemap: File,
    /// Its entries as they were last seen, by the first address.
    seen: HashMap<u64, Vec<Entry>>,
    /// How many there are.
    count: u64,
}

impl Above {
    fn open(pid: Pid) -> Result<Self, CollectError> {
        let pagemap = TaskDir::process(pid)?.open("pagemap")?;
        Ok(Self { pid, pagemap, seen: HashMap::new(), count: 0 })
    }

    /// Its entries as they were before.
    fn before(&mut self, range: PageRange) -> io::Result<Vec<Entry>> {
        let known = self.seen.remove(&range.start.0);
        self.count -= known.as_ref().map_or(0, |known| known.len() as u64);
        match known {
            Some(known) if known.len() as u64 == range.pages() => Ok(known),
            _ => pagemap::entries(&self.pagemap, range),
        }
    }

    /// Keeps what it is now for the next child.
    fn keep(&mut self, range: PageRange, entries: Vec<Entry>) {
        if self.count + range.pages() <= MOST_KEPT {
            self.count += range.pages();
            self.seen.insert(range.start.0, entries);
        }
    }
}

/// The pages of two address spaces.
struct Pair<'a> {
    above: &'a mut Above,
    pid: Pid,
    pagemap: File,
    /// Opened where the content has to tell.
    memories: Option<[File; 2]>,
    shared: Vec<PageRange>,
}

impl Pair<'_> {
    /// Looks at ranges that lie close together.
    fn look(&mut self, ranges: &[PageRange]) -> io::Result<()> {
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return Ok(()) };
        let all = PageRange { start: first.start, end: last.end };
        // The kernel may move a page at any time, and another one to its old place: what is found where it was before has stayed there.
        let before = self.above.before(all)?;
        let between = pagemap::entries(&self.pagemap, all)?;
        let after = pagemap::entries(&self.above.pagemap, all)?;
        let mut unknown: Vec<PageRange> = Vec::new();
        for range in ranges {
            let first = ((range.start.0 - all.start.0) / PAGE_SIZE) as usize;
            for (page, at) in (first..).zip((range.start.0..range.end.0).step_by(PAGE_SIZE as usize)) {
                match same([before[page], between[page], after[page]]) {
                    Some(true) => add(&mut self.shared, Addr(at)),
                    Some(false) => {}
                    None => add(&mut unknown, Addr(at)),
                }
            }
        }
        self.above.keep(all, after);
        unknown.into_iter().try_for_each(|range| self.compare(range))
    }

    /// Compares the content of pages.
    fn compare(&mut self, range: PageRange) -> io::Result<()> {
        const CHUNK: u64 = 256 << 10;
        let memories = match &self.memories {
            Some(memories) => memories,
            None => {
                let open = |pid: Pid| File::open(format!("/proc/{pid}/mem"));
                self.memories.insert([open(self.above.pid)?, open(self.pid)?])
            }
        };
        let mut contents = [vec![0; CHUNK as usize], vec![0; CHUNK as usize]];
        let mut at = range.start;
        while at < range.end {
            let len = CHUNK.min(range.end.0 - at.0);
            for (memory, content) in memories.iter().zip(&mut contents) {
                memory.read_exact_at(&mut content[..len as usize], at.0)?;
            }
            let [parent, child] = contents.each_ref().map(|content| content.chunks_exact(PAGE_SIZE as usize));
            for (page, _) in parent.zip(child).enumerate().take((len / PAGE_SIZE) as usize).filter(|(_, (a, b))| a == b)
            {
                add(&mut self.shared, at.add(page as u64 * PAGE_SIZE));
            }
            at = at.add(len);
        }
        Ok(())
    }
}

/// Adds a page to a list of ranges.
fn add(ranges: &mut Vec<PageRange>, at: Addr) {
    let end = at.add(PAGE_SIZE);
    match ranges.last_mut() {
        Some(last) if last.end == at => last.end = end,
        _ => ranges.push(PageRange { start: at, end }),
    }
}

/// Whether a page of the parent, seen twice, is the child's, seen between; `None` where the content has to tell.
fn same([before, between, after]: [Entry; 3]) -> Option<bool> {
    let place = Entry::FRAME | Entry::PRESENT | Entry::SWAPPED;
    let is_there = |entry: Entry| entry.intersects(Entry::PRESENT | Entry::SWAPPED);
    if !is_there(before) || !is_there(between) {
        return Some(false);
    }
    if before.intersects(Entry::FRAME) || between.intersects(Entry::FRAME) {
        return Some(before & place == between & place && between & place == after & place);
    }
    if (before | between).contains(Entry::EXCLUSIVE) { Some(false) } else { None }
}

/// Ranges that lie close enough together to be looked at in one go, and parts of those that are longer.
fn batches(ranges: &[PageRange]) -> Vec<Vec<PageRange>> {
    const NEAR: u64 = 2 << 20;
    let mut batches: Vec<Vec<PageRange>> = Vec::new();
    for range in ranges {
        let mut rest = *range;
        while !rest.is_empty() {
            let part = PageRange { start: rest.start, end: rest.end.min(rest.start.add(BATCH * PAGE_SIZE)) };
            rest.start = part.end;
            let fits = |batch: &Vec<PageRange>| match (batch.first(), batch.last()) {
                (Some(first), Some(last)) => {
                    part.start.0 - last.end.0 <= NEAR && part.end.0 - first.start.0 <= BATCH * PAGE_SIZE
                }
                _ => false,
            };
            match batches.last_mut().filter(|batch| fits(batch)) {
                Some(batch) => batch.push(part),
                None => batches.push(vec![part]),
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(list: &[(u64, u64)]) -> Vec<PageRange> {
        list.iter().map(|(start, end)| PageRange::new(start * PAGE_SIZE, end * PAGE_SIZE)).collect()
    }

    #[test]
    fn frames_tell_and_without_them_the_content() {
        let frame = |number| Entry::PRESENT | Entry::from_bits_retain(number);
        let swapped = Entry::SWAPPED | Entry::from_bits_retain(7);
        assert_eq!(same([frame(7); 3]), Some(true));
        assert_eq!(same([swapped; 3]), Some(true));
        assert_eq!(same([frame(7), swapped, frame(7)]), Some(false));
        assert_eq!(same([frame(7), frame(7), frame(8)]), Some(false));
        assert_eq!(same([frame(7), frame(8), frame(7)]), Some(false));
        assert_eq!(same([frame(0); 3]), None);
        assert_eq!(same([frame(0) | Entry::EXCLUSIVE, frame(0), frame(0)]), Some(false));
        assert_eq!(same([Entry::empty(), frame(7), Entry::empty()]), Some(false));
    }

    #[test]
    fn batches_hold_everything_and_are_short() {
        let far = 1 << 30;
        let list = ranges(&[(0, 3), (5, 6), (900, BATCH + 100), (far, far + 3 * BATCH + 1)]);
        let batches = batches(&list);
        let joined: Vec<PageRange> = batches.iter().flatten().copied().collect();
        assert_eq!(common(&joined, &list), joined);
        assert_eq!(
            joined.iter().map(|range| range.len()).sum::<u64>(),
            list.iter().map(|range| range.len()).sum::<u64>()
        );
        for batch in &batches {
            assert!(batch[batch.len() - 1].end.0 - batch[0].start.0 <= BATCH * PAGE_SIZE, "{batch:?}");
        }
        assert!(batches.len() <= 8, "{batches:?}");
    }
}
