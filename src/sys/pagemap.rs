//! PAGEMAP_SCAN: which pages of a process are there (Documentation/admin-guide/mm/pagemap.rst).

#![allow(unsafe_code)]

use crate::image::model::address::{PAGE_SIZE, PageRange};
use bitflags::bitflags;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

bitflags! {
    /// Categories of a page, PAGE_IS_*.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Pages: u64 {
        /// Write-protection by an asynchronous userfaultfd allows writing.
        const WRITE_PROTECT_ALLOWED = 1 << 0;
        /// Written to since it was write-protected.
        const WRITTEN = 1 << 1;
        /// Belongs to a file or to shared memory.
        const FILE = 1 << 2;
        /// In memory.
        const PRESENT = 1 << 3;
        /// In swap, or holds a marker.
        const SWAPPED = 1 << 4;
        /// The zero page.
        const ZERO = 1 << 5;
        /// Mapped by a huge page.
        const HUGE = 1 << 6;
        /// Written to since the soft-dirty bits were cleared.
        const SOFT_DIRTY = 1 << 7;
        /// Guard region of MADV_GUARD_INSTALL (from 6.15).
        const GUARD = 1 << 8;
    }
}

/// `struct pm_scan_arg` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

const _: () = assert!(size_of::<ScanArg>() == 96 && size_of::<Region>() == 24);

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: u64 = 0xc060_6610;

/// Which pages a scan reports.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// All of these must hold.
    pub all: Pages,
    /// None of these may hold.
    pub none: Pages,
    /// At least one of these must hold, if any is given.
    pub any: Pages,
    /// These are reported with each range.
    pub report: Pages,
}

/// Ranges of pages in `range` that pass the filter, ascending, neighbours of equal categories joined.
///
/// `pagemap` is an open `/proc/PID/pagemap`.
///
/// # Errors
/// ENOTTY before kernel 6.7; EINVAL for categories that the kernel does not know.
pub fn scan(pagemap: &File, range: PageRange, filter: Filter) -> io::Result<Vec<(PageRange, Pages)>> {
    let mut found: Vec<(PageRange, Pages)> = Vec::new();
    let mut buffer = vec![Region::default(); 4096];
    let mut arg = ScanArg {
        size: size_of::<ScanArg>() as u64,
        start: range.start.0,
        end: range.end.0,
        vec: buffer.as_mut_ptr() as u64,
        vec_len: buffer.len() as u64,
        category_inverted: filter.none.bits(),
        category_mask: (filter.all | filter.none).bits(),
        category_anyof_mask: filter.any.bits(),
        return_mask: filter.report.bits(),
        ..ScanArg::default()
    };
    loop {
        // SAFETY: the argument is a pm_scan_arg of the size it states; its vector has room for vec_len regions.
        let count = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN as _, &raw mut arg) };
        let Ok(count) = usize::try_from(count) else { return Err(io::Error::last_os_error()) };
        for region in &buffer[..count] {
            let pages = Pages::from_bits_retain(region.categories);
            match found.last_mut() {
                Some((last, kind)) if last.end.0 == region.start && *kind == pages => last.end.0 = region.end,
                _ => found.push((PageRange::new(region.start, region.end), pages)),
            }
        }
        // walk_end is stale when the vector filled up: go on after the last region reported.
        arg.start = match found.last() {
            Some((last, _)) if count == buffer.len() => last.end.0.max(arg.start),
            _ => return Ok(found),
        };
    }
}

bitflags! {
    /// An entry of `/proc/PID/pagemap` as it is read: which frame stands behind a page.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Entry: u64 {
        /// The frame, or type and offset in swap; 0 without CAP_SYS_ADMIN.
        const FRAME = (1 << 55) - 1;
        /// Mapped nowhere else.
        const EXCLUSIVE = 1 << 56;
        /// Belongs to a file or to shared memory.
        const FILE = 1 << 61;
        /// In swap, or holds a marker.
        const SWAPPED = 1 << 62;
        /// In memory.
        const PRESENT = 1 << 63;
    }
}

/// The entries of consecutive pages.
///
/// # Errors
/// As pread(2).
pub fn entries(pagemap: &File, range: PageRange) -> io::Result<Vec<Entry>> {
    let mut bytes = vec![0; range.pages() as usize * size_of::<u64>()];
    pagemap.read_exact_at(&mut bytes, range.start.0 / PAGE_SIZE * size_of::<u64>() as u64)?;
    let words = bytes.as_chunks().0.iter();
    Ok(words.map(|word| Entry::from_bits_retain(u64::from_le_bytes(*word))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    fn a_touched_page_is_found_and_an_untouched_one_is_not() {
        let mut memory = vec![0u8; 16 * 4096];
        let base = (memory.as_mut_ptr() as u64).next_multiple_of(4096);
        let offset = (base - memory.as_ptr() as u64) as usize;
        memory[offset + 3 * 4096] = 1;
        black_box(&memory);
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let filter =
            Filter { any: Pages::PRESENT | Pages::SWAPPED, none: Pages::FILE | Pages::ZERO, ..Filter::default() };
        let found = scan(&pagemap, PageRange::new(base + 3 * 4096, base + 4 * 4096), filter).unwrap();
        assert_eq!(found, vec![(PageRange::new(base + 3 * 4096, base + 4 * 4096), Pages::empty())]);
    }
}
