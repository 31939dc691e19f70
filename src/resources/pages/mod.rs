//! Pages: which ones an address space has that no file can give back, and reading them.

mod table;

use super::CollectError;
use crate::image::model::address::{Addr, PAGE_SIZE, PageRange};
use crate::image::model::id::Pid;
use crate::image::model::memory::{Backing, Vma, VmaFlags};
use crate::proc::{TaskDir, smaps};
use crate::sys::pagemap::{Filter, Pages, scan};
use nix::errno::Errno;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Bytes of a transparent huge page.
const HUGE_PAGE: u64 = 2 << 20;

/// Consecutive pages that the image must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Their addresses.
    pub range: PageRange,
    /// Whether a page that is zero must be noted, since something else lies beneath.
    pub keep_zero: bool,
    /// Whether fork(2) copies them.
    pub forked: bool,
}

/// Pages of one address space that the image must hold.
#[derive(Debug, Default)]
pub struct PageSet {
    /// In ascending order.
    pub spans: Vec<Span>,
    /// Bytes of zero pages that were left out.
    pub zero: u64,
    /// Bytes of file pages that equal the file.
    pub clean_file: u64,
}

/// Finds every page that an address space has, whatever the kernel offers for it.
///
/// # Errors
/// As PAGEMAP_SCAN, or as reading `smaps` and `pagemap` on kernels before 6.7.
pub fn find_all(dir: &TaskDir, pagemap: &File, pid: Pid) -> Result<Vec<(PageRange, Pages)>, CollectError> {
    match scan_all(pagemap) {
        Err(error) if error.raw_os_error() == Some(Errno::ENOTTY as i32) => {
            let vmas = smaps::read(dir, &mut Vec::new())?;
            table::read(pagemap, &vmas).map_err(CollectError::at(pid.leader(), "reading pagemap"))
        }
        found => found.map_err(CollectError::at(pid.leader(), "PAGEMAP_SCAN")),
    }
}

/// Finds them by PAGEMAP_SCAN.
///
/// # Errors
/// ENOTTY before kernel 6.7.
fn scan_all(pagemap: &File) -> io::Result<Vec<(PageRange, Pages)>> {
    // User space ends one page below a power of two, which depends on the levels of page tables; beyond it PAGEMAP_SCAN refuses.
    let everything = |bits: u32| PageRange::new(0, (1 << bits) - PAGE_SIZE);
    let known = Pages::FILE | Pages::ZERO | Pages::HUGE | Pages::PRESENT | Pages::SWAPPED;
    let filter = Filter { any: Pages::PRESENT | Pages::SWAPPED, report: known | Pages::GUARD, ..Filter::default() };
    let scan_to = |bits, report| scan(pagemap, everything(bits), Filter { report, ..filter });
    // GUARD is not known before 6.15, where no guard region exists that could be seen.
    scan_to(56, filter.report)
        .or_else(|_| scan_to(47, filter.report))
        .or_else(|_| scan_to(56, known))
        .or_else(|_| scan_to(47, known))
}

/// Sorts out the pages that were found, and fills in what they tell of each mapping: huge pages and guard regions.
#[must_use]
pub fn collect(found: Vec<(PageRange, Pages)>, vmas: &mut [Vma]) -> PageSet {
    let mut set = PageSet::default();
    let mut vmas = vmas.iter_mut().peekable();
    for (range, kind) in found {
        let mut rest = range;
        while !rest.is_empty() {
            while vmas.next_if(|vma| vma.range.end <= rest.start).is_some() {}
            let Some(vma) = vmas.peek_mut() else { break };
            let start = rest.start.max(vma.range.start);
            let end = rest.end.min(vma.range.end);
            if start < end {
                set.add(vma, PageRange { start, end }, kind);
            }
            rest.start = end.max(start).min(rest.end);
            if vma.range.start >= rest.end {
                break;
            }
        }
    }
    set
}

impl PageSet {
    fn add(&mut self, vma: &mut Vma, range: PageRange, kind: Pages) {
        if kind.contains(Pages::GUARD) {
            vma.guards.push(range);
            return;
        }
        // The kernel may drop these pages at any time. They hold states of random number generators, which two restores must not share.
        if vma.flags.contains(VmaFlags::DROPPABLE) {
            return;
        }
        let keep_zero = match vma.backing {
            Backing::Anonymous | Backing::HugeTlb { .. } => false,
            Backing::PrivateFile { .. } | Backing::PrivateShared { .. } => true,
            // Their pages are the file's, the object's or the kernel's own.
            Backing::SharedFile { .. }
            | Backing::Shared { .. }
            | Backing::PacketRing { .. }
            | Backing::BpfMap { .. }
            | Backing::AioRing(_)
            | Backing::Vdso
            | Backing::Vvar
            | Backing::Vsyscall => return,
        };
        let of_file = kind.contains(Pages::FILE) && !matches!(vma.backing, Backing::HugeTlb { .. });
        if of_file {
            self.clean_file += range.len();
        } else if kind.contains(Pages::ZERO) && !keep_zero {
            self.zero += range.len();
        } else {
            if kind.contains(Pages::HUGE) && vma.backing == Backing::Anonymous {
                vma.huge.extend(whole_huge_pages(range));
            }
            let unforked = VmaFlags::DONT_FORK | VmaFlags::WIPE_ON_FORK;
            let forked = !vma.flags.intersects(unforked) && !matches!(vma.backing, Backing::HugeTlb { .. });
            self.push(Span { range, keep_zero, forked });
        }
    }

    fn push(&mut self, span: Span) {
        match self.spans.last_mut() {
            Some(last)
                if last.range.end == span.range.start
                    && (last.keep_zero, last.forked) == (span.keep_zero, span.forked) =>
            {
                last.range.end = span.range.end;
            }
            _ => self.spans.push(span),
        }
    }

    /// Bytes of all pages of the set.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.spans.iter().map(|span| span.range.len()).sum()
    }

    /// Leaves out pages that stand elsewhere. The ranges are ascending.
    pub fn leave_out(&mut self, ranges: &[PageRange]) {
        let mut rest = Vec::with_capacity(self.spans.len());
        let mut at = 0;
        for span in &self.spans {
            let mut start = span.range.start;
            while ranges.get(at).is_some_and(|range| range.end <= start) {
                at += 1;
            }
            for range in ranges[at..].iter().take_while(|range| range.start < span.range.end) {
                if start < range.start {
                    rest.push(Span { range: PageRange { start, end: range.start }, ..*span });
                }
                start = start.max(range.end);
            }
            if start < span.range.end {
                rest.push(Span { range: PageRange { start, end: span.range.end }, ..*span });
            }
        }
        self.spans = rest;
    }

    /// Whether there is no page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

fn whole_huge_pages(range: PageRange) -> Option<PageRange> {
    let start = range.start.0.next_multiple_of(HUGE_PAGE);
    let end = range.end.0 / HUGE_PAGE * HUGE_PAGE;
    (start < end).then(|| PageRange::new(start, end))
}

/// Parts of a shared memory object or a file that are not holes, in whole pages.
///
/// # Errors
/// As lseek(2).
pub fn data_ranges(file: &File, size: u64) -> io::Result<Vec<PageRange>> {
    use nix::unistd::{Whence, lseek};
    // The target shares this description: to seek in it would move the target's offset.
    let Ok(file) = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())) else {
        return Ok(vec![PageRange { start: Addr(0), end: Addr(size.next_multiple_of(PAGE_SIZE)) }]);
    };
    let mut ranges = Vec::new();
    let mut at: i64 = 0;
    while at.cast_unsigned() < size {
        let start = match lseek(&file, at, Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => break,
            Err(e) => return Err(e.into()),
        };
        let end = lseek(&file, start, Whence::SeekHole)?;
        let start = start.cast_unsigned() / PAGE_SIZE * PAGE_SIZE;
        ranges.push(PageRange { start: Addr(start), end: Addr(end.cast_unsigned().next_multiple_of(PAGE_SIZE)) });
        at = end;
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_gone_and_all_else_stays() {
        let span = |start, end| Span { range: PageRange::new(start, end), keep_zero: true, forked: false };
        let mut set = PageSet { spans: vec![span(10, 20), span(20, 30), span(40, 50)], zero: 0, clean_file: 0 };
        set.leave_out(&[PageRange::new(0, 5), PageRange::new(12, 14), PageRange::new(18, 25), PageRange::new(45, 60)]);
        assert_eq!(set.spans, [span(10, 12), span(14, 18), span(25, 30), span(40, 45)]);
        set.leave_out(&[PageRange::new(0, 100)]);
        assert!(set.is_empty());
    }
}
