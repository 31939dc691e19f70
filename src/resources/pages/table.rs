//! Which pages an address space has, on kernels before 6.7, which have no PAGEMAP_SCAN: from the entries of `/proc/PID/pagemap`.
//!
//! Entries tell less. A page of zeroes that was only read is known by its frame, for whoever may see frames; for everybody else it is a page
//! whose content is zero. Which pages are huge follows from frames that lie side by side, or from how many `smaps` counts.

use crate::image::model::address::{PAGE_SIZE, PageRange};
use crate::proc::smaps::Vma;
use crate::sys::pagemap::{self, Entry, Pages};
use std::fs::File;
use std::hint::black_box;
use std::io;

/// Most entries that are read in one go: those of a whole number of huge pages.
const BATCH: u64 = 1 << 16;

/// Pages of a huge one.
const IN_HUGE: u64 = 512;

type Runs = Vec<(PageRange, Pages)>;

/// Every page that is there or in swap, ascending, neighbours of equal kind joined. The target stands still.
///
/// # Errors
/// As pread(2).
pub fn read(pagemap: &File, vmas: &[Vma]) -> io::Result<Runs> {
    let zero = zero_frame().ok().filter(|frame| *frame != 0);
    let mut found = Runs::new();
    for vma in vmas.iter().filter(|vma| has_pages(vma)) {
        let (mut runs, mut huge) = (Runs::new(), Vec::new());
        let range = vma.mapping.range;
        let mut at = range.start.0;
        while at < range.end.0 {
            let end = (at / PAGE_SIZE / BATCH + 1) * BATCH * PAGE_SIZE;
            let batch = PageRange::new(at, end.min(range.end.0));
            let entries = pagemap::entries(pagemap, batch)?;
            for (page, entry) in (at..).step_by(PAGE_SIZE as usize).zip(&entries) {
                push(&mut runs, PageRange::new(page, page + PAGE_SIZE), kind(*entry, zero));
            }
            if vma.anon_huge_pages != 0 {
                huge.extend(huge_pages(batch, &entries));
            }
            at = batch.end.0;
        }
        // Without frames, places that are filled may be filled with small pages: nobody knows which, if there are more than huge pages.
        if zero.is_none() && huge.len() as u64 * IN_HUGE * PAGE_SIZE > vma.anon_huge_pages {
            huge.clear();
        }
        for (range, kind) in runs {
            split(&mut found, range, kind, &huge);
        }
    }
    Ok(found)
}

/// Where nothing is, not even entries are read: programs reserve terabytes.
const fn has_pages(vma: &Vma) -> bool {
    vma.rss != 0 || vma.swap != 0 || vma.shared_hugetlb != 0 || vma.private_hugetlb != 0
}

/// The frame of the page that everybody has who has only read; 0 for who may not see frames.
fn zero_frame() -> io::Result<u64> {
    let memory = memmap2::MmapMut::map_anon(PAGE_SIZE as usize)?;
    memory.advise(memmap2::Advice::NoHugePage)?;
    black_box(memory[0]);
    let at = memory.as_ptr() as u64;
    let entries = pagemap::entries(&File::open("/proc/self/pagemap")?, PageRange::new(at, at + PAGE_SIZE))?;
    Ok((entries[0] & Entry::FRAME).bits())
}

fn kind(entry: Entry, zero: Option<u64>) -> Pages {
    let mut kind = Pages::empty();
    kind.set(Pages::PRESENT, entry.contains(Entry::PRESENT));
    kind.set(Pages::SWAPPED, entry.contains(Entry::SWAPPED));
    kind.set(Pages::FILE, entry.contains(Entry::FILE));
    let is_zero = entry.contains(Entry::PRESENT) && zero == Some((entry & Entry::FRAME).bits());
    kind.set(Pages::ZERO, is_zero);
    kind
}

/// Where huge pages may be: their places of which every page is there and belongs to no file, with one frame behind the other.
fn huge_pages(batch: PageRange, entries: &[Entry]) -> Vec<PageRange> {
    let size = IN_HUGE * PAGE_SIZE;
    let first = ((batch.start.0.next_multiple_of(size) - batch.start.0) / PAGE_SIZE) as usize;
    let places = entries.get(first..).unwrap_or_default().chunks_exact(IN_HUGE as usize);
    let is_huge = |pages: &[Entry]| {
        let frame = (pages[0] & Entry::FRAME).bits();
        let is_next = |(number, page): (u64, &Entry)| {
            let own = (*page & Entry::FRAME).bits();
            page.contains(Entry::PRESENT) && !page.contains(Entry::FILE) && (frame == 0 || own == frame + number)
        };
        frame.is_multiple_of(IN_HUGE) && (0..).zip(pages).all(is_next)
    };
    let addresses = (batch.start.0 + first as u64 * PAGE_SIZE..).step_by(size as usize);
    addresses.zip(places).filter(|(_, pages)| is_huge(pages)).map(|(at, _)| PageRange::new(at, at + size)).collect()
}

/// Adds a run with the huge pages in it, each of which lies within one run.
fn split(found: &mut Runs, run: PageRange, kind: Pages, huge: &[PageRange]) {
    let mut at = run.start;
    let first = huge.partition_point(|page| page.start < run.start);
    for page in huge[first..].iter().take_while(|page| page.end <= run.end) {
        push(found, PageRange { start: at, end: page.start }, kind);
        push(found, *page, kind | Pages::HUGE);
        at = page.end;
    }
    push(found, PageRange { start: at, end: run.end }, kind);
}

fn push(runs: &mut Runs, range: PageRange, kind: Pages) {
    match runs.last_mut() {
        _ if range.is_empty() || !kind.intersects(Pages::PRESENT | Pages::SWAPPED) => {}
        Some((last, known)) if last.end == range.start && *known == kind => last.end = range.end,
        _ => runs.push((range, kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::model::id::Pid;
    use crate::proc::{TaskDir, smaps};
    use crate::resources::pages;

    /// Of everything that this process has, entries tell what a scan tells, as far as they can.
    #[test]
    fn entries_tell_what_a_scan_tells() {
        let mut memory = memmap2::MmapMut::map_anon(64 * PAGE_SIZE as usize).unwrap();
        memory.advise(memmap2::Advice::NoHugePage).unwrap();
        for page in [1, 2, 3, 9, 63] {
            memory[page * PAGE_SIZE as usize] = 1;
        }
        black_box(memory[20 * PAGE_SIZE as usize]);
        let at = memory.as_ptr() as u64;
        let range = PageRange::new(at, at + 64 * PAGE_SIZE);
        let within = |all: Runs| -> Runs {
            all.into_iter()
                .map(|(found, kind)| {
                    let (start, end) = (found.start.0.max(range.start.0), found.end.0.min(range.end.0));
                    (PageRange::new(start, end), kind)
                })
                .filter(|(found, _)| !found.is_empty())
                .collect()
        };
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let dir = TaskDir::process(Pid(std::process::id() as i32)).unwrap();
        let vmas = smaps::read(&dir, &mut Vec::new()).unwrap();
        let told = within(read(&pagemap, &vmas).unwrap());
        let mut scanned = within(pages::scan_all(&pagemap).unwrap());
        if zero_frame().unwrap() == 0 {
            scanned.iter_mut().for_each(|(_, kind)| kind.remove(Pages::ZERO));
        }
        assert_eq!(told, scanned);
        assert_eq!(told.iter().map(|(range, _)| range.pages()).sum::<u64>(), 6);
    }

    #[test]
    fn huge_pages_are_whole_places_with_frames_in_a_row() {
        let size = IN_HUGE * PAGE_SIZE;
        let page = |frame: u64| Entry::PRESENT | Entry::from_bits_retain(frame);
        let mut entries: Vec<Entry> = vec![page(7)];
        entries.extend((0..IN_HUGE).map(|number| page(1024 + number)));
        entries.extend((0..IN_HUGE).map(|number| page(1025 + number)));
        entries.extend((0..IN_HUGE).map(|number| page(4096 + number) | Entry::FILE));
        let batch = PageRange::new(size - PAGE_SIZE, 4 * size);
        assert_eq!(huge_pages(batch, &entries), [PageRange::new(size, 2 * size)]);
        let unseen: Vec<Entry> = entries.iter().map(|entry| *entry - Entry::FRAME).collect();
        assert_eq!(huge_pages(batch, &unseen), [PageRange::new(size, 2 * size), PageRange::new(2 * size, 3 * size)]);

        let mut found = Runs::new();
        split(&mut found, batch, Pages::PRESENT, &[PageRange::new(size, 2 * size)]);
        let plain = |start, end| (PageRange::new(start, end), Pages::PRESENT);
        let huge = (PageRange::new(size, 2 * size), Pages::PRESENT | Pages::HUGE);
        assert_eq!(found, [plain(size - PAGE_SIZE, size), huge, plain(2 * size, 4 * size)]);
    }
}
