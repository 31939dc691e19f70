//! Features of memory: finding pages, tracking writes, and the kinds of mappings that the kernel offers.

use super::{Feature, Need, feature, line, nothing};
use crate::image::model::address::PageRange;
use crate::sys::pagemap::{self, Filter, Pages};
use crate::sys::{self, probe};
use nix::errno::Errno;
use std::fs::File;
use std::hint::black_box;
use std::io;

/// Tries them.
pub fn probe() -> Vec<Feature> {
    vec![
        feature(
            "PAGEMAP_SCAN",
            Need::Informative,
            "finding the pages that are there; without it (before Linux 6.7) page by page, which takes longer",
            scan(),
            nothing,
        ),
        feature(
            "userfaultfd USER_MODE_ONLY",
            Need::Sometimes,
            "copying much memory straight into an image on tmpfs",
            probe::userfaultfd(),
            |features| format!("features {features:#x}"),
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

fn memfd() -> sys::Result<u64> {
    nix::sys::memfd::memfd_create("snap", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).map(|_| 0)
}
