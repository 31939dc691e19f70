//! Features of memory: finding pages, tracking writes, and the kinds of mappings that the kernel offers.

use super::{Feature, Need, feature, line, nothing};
use crate::image::model::address::PageRange;
use crate::sys::pagemap::{self, Filter, Pages};
use crate::sys::{self, probe};
use nix::errno::Errno;
use std::fs::{self, File};
use std::hint::black_box;
use std::io;
use std::os::unix::fs::FileExt;

const UFFD_WP_ASYNC: u64 = 1 << 15;
const UFFD_MOVE: u64 = 1 << 16;

/// Tries them.
pub fn probe() -> Vec<Feature> {
    let user_mode = probe::userfaultfd(true);
    let has = |bit| user_mode.and_then(|features| if features & bit == bit { Ok(0) } else { Err(Errno::EINVAL) });
    vec![
        feature("PAGEMAP_SCAN", Need::Always, "finding the pages that are there", scan(), nothing),
        feature(
            "userfaultfd USER_MODE_ONLY",
            Need::Sometimes,
            "tracking writes and lazy restore, without privilege",
            user_mode,
            |features| format!("features {features:#x}"),
        ),
        feature(
            "userfaultfd",
            Need::Informative,
            "the same for faults inside system calls",
            probe::userfaultfd(false),
            nothing,
        ),
        feature("UFFD WP_ASYNC", Need::Sometimes, "incremental dumps", has(UFFD_WP_ASYNC), nothing),
        feature("UFFDIO_MOVE", Need::Informative, "restoring huge pages fast", has(UFFD_MOVE), nothing),
        feature(
            "soft-dirty",
            Need::Informative,
            "the older way to track writes; not used",
            probe::in_child(soft_dirty),
            nothing,
        ),
        feature("mseal", Need::Sometimes, "programs with sealed mappings", probe::in_child(probe::mseal), nothing),
        feature(
            "MADV_GUARD_INSTALL",
            Need::Sometimes,
            "programs with guard regions (glibc 2.42 or newer for thread stacks)",
            probe::in_child(probe::guard_install),
            nothing,
        ),
        feature("memfd_create", Need::Sometimes, "shared memory without a file", memfd(), nothing),
        hugetlb(),
        feature(
            "NUMA policies",
            Need::Sometimes,
            "programs with mbind or set_mempolicy",
            probe::memory_policy(),
            nothing,
        ),
        feature(
            "protection keys",
            Need::Sometimes,
            "programs with pkeys",
            probe::in_child(probe::protection_key),
            nothing,
        ),
        super::fact(
            "transparent huge pages",
            "huge pages that come back as huge pages",
            line("/sys/kernel/mm/transparent_hugepage/enabled"),
        ),
        super::fact("vm.max_map_count", "programs with many mappings", line("/proc/sys/vm/max_map_count")),
    ]
}

fn hugetlb() -> Feature {
    let answer = probe::in_child(probe::huge_page);
    let used_for = "programs on reserved huge pages";
    let mut feature =
        feature("hugetlb", Need::Sometimes, used_for, answer, |size| format!("pages of {} MiB", size >> 20));
    if answer == Err(Errno::ENOMEM) {
        feature.detail = "none is reserved: vm.nr_hugepages".into();
    }
    feature
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Looks for a page that is known to be there.
fn scan() -> sys::Result<u64> {
    let page = black_box(vec![1u8; 8192]);
    let start = (page.as_ptr() as u64).next_multiple_of(4096);
    let pagemap = File::open("/proc/self/pagemap").map_err(|error| errno(&error))?;
    let filter = Filter { all: Pages::PRESENT, ..Filter::default() };
    let found = pagemap::scan(&pagemap, PageRange::new(start, start + 4096), filter).map_err(|error| errno(&error))?;
    if found.is_empty() { Err(Errno::EIO) } else { Ok(0) }
}

/// Clears the bits of a process of its own, writes to a page, and looks whether bit 55 of its pagemap entry is set.
fn soft_dirty() -> sys::Result<u64> {
    let mut page = vec![1u8; 8192];
    let start = (page.as_ptr() as u64).next_multiple_of(4096);
    fs::write("/proc/self/clear_refs", "4").map_err(|error| errno(&error))?;
    let offset = (start - page.as_ptr() as u64) as usize;
    page[offset] = 2;
    black_box(&page);
    let pagemap = File::open("/proc/self/pagemap").map_err(|error| errno(&error))?;
    let mut entry = [0; 8];
    pagemap.read_exact_at(&mut entry, start / 4096 * 8).map_err(|error| errno(&error))?;
    if u64::from_le_bytes(entry) >> 55 & 1 == 1 { Ok(0) } else { Err(Errno::EINVAL) }
}

fn memfd() -> sys::Result<u64> {
    nix::sys::memfd::memfd_create("snap", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).map(|_| 0)
}
