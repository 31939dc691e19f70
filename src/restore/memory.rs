//! The operations that give a skeleton its address space. Pure.
//!
//! A mapping is made with its final backing, and writable where pages must still be filled; what would hinder the
//! filling (protection, locks, seals) follows once the pages are there.

use super::aio;
use super::attached;
use super::inheritance::{self, Kept};
use super::script::{Label, List, Script};
use super::vdso::Home;
use crate::image::model::Snapshot;
use crate::image::model::address::{Addr, PageRange};
use crate::image::model::id::{BpfMapId, FileId, ShmId};
use crate::image::model::inventory::XTILE_DATA;
use crate::image::model::memory::{Backing, MemoryPolicy, Mm, Prot, SharedMemoryKind, Vma, VmaFlags};
use std::collections::HashMap;

/// End of the user half with four-level page tables.
pub const TASK_END: u64 = 0x7fff_ffff_f000;

const MAP_DROPPABLE: i32 = 0x08;
const MADV_COLLAPSE: u64 = 25;
const MADV_GUARD_INSTALL: u64 = 102;
const PR_SET_MM: u64 = 35;
const PR_SET_MM_MAP: u64 = 14;
const PR_SET_VMA: u64 = 0x5356_4d41;
const PR_SET_THP_DISABLE: u64 = 41;
const PR_SET_MDWE: u64 = 65;
const PR_SET_MEMORY_MERGE: u64 = 67;
const PKEY_ALLOC: i64 = 330;
const PKEY_MPROTECT: i64 = 329;
const MSEAL: i64 = 462;
const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;

/// Where the things are that mappings are made from: the same for every skeleton.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Descriptors of files, by whether they are writable.
    pub files: HashMap<(FileId, bool), i32>,
    /// Descriptors of memfds, by whether they are writable.
    pub memfds: HashMap<(ShmId, bool), i32>,
    /// Descriptors of packet sockets whose rings are mapped, by the inodes of these.
    pub rings: HashMap<u64, i32>,
    /// Descriptors of mapped arrays of bpf(2).
    pub bpf_maps: HashMap<BpfMapId, i32>,
    /// Anonymous shared memory and System V segments that the skeletons have inherited, by whether they may be written.
    pub arenas: HashMap<(ShmId, bool), Addr>,
    /// Programs that may be set.
    pub programs: HashMap<FileId, i32>,
    /// A regular file, if anybody has AIO contexts.
    pub ready: i32,
    /// A free place for the vdso, as large as all of its parts.
    pub scratch: Addr,
    /// A free place for the largest segment of huge pages of which somebody has a part.
    pub bench: Addr,
    /// The range that must stay mapped: the script, the arenas and the scratch place.
    pub keep: PageRange,
    /// XSAVE components that need no permission any more.
    pub xcomp_permitted: u64,
    /// Whether huge pages come without being asked for.
    pub huge_always: bool,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            files: HashMap::new(),
            memfds: HashMap::new(),
            rings: HashMap::new(),
            bpf_maps: HashMap::new(),
            arenas: HashMap::new(),
            programs: HashMap::new(),
            ready: -1,
            bench: Addr::NULL,
            scratch: Addr::NULL,
            keep: PageRange::new(0, 0),
            xcomp_permitted: 0,
            huge_always: false,
        }
    }
}

/// What one skeleton finds when it is born, and what becomes of it.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Where the parts of the vdso of this host are.
    pub vdso: &'a [PageRange],
    /// Where they go.
    pub vdso_home: &'a Home,
    /// Mappings of its parent that it keeps, ascending.
    pub kept: &'a [Kept],
}

/// Unmaps everything but what is kept, and puts the vdso where it goes.
pub fn unmap_old(list: &mut List, sources: &Sources, found: Found<'_>) {
    let mut keep = found.vdso.to_vec();
    keep.push(sources.keep);
    keep.extend(found.kept.iter().map(|kept| kept.range));
    keep.sort_by_key(|range| range.start);
    let mut from = 0;
    for range in keep.iter().copied().chain([PageRange::new(TASK_END, TASK_END)]) {
        if range.start.0 > from {
            let gap = PageRange::new(from, range.start.0);
            list.call(Label::Range("unmapping", gap), libc::SYS_munmap, &[gap.start.0, gap.len()]);
        }
        from = from.max(range.end.0);
    }
    move_vdso(list, sources, found);
    found.kept.iter().for_each(|kept| inheritance::keep(list, kept));
}

/// Moves each part by way of the scratch place, so that old and new places may overlap.
fn move_vdso(list: &mut List, sources: &Sources, found: Found<'_>) {
    match found.vdso_home {
        Home::Here => {}
        Home::Nowhere => {
            for part in found.vdso {
                list.call(Label::Range("unmapping the vdso at", *part), libc::SYS_munmap, &[part.start.0, part.len()]);
            }
        }
        Home::At(places) => {
            let mut scratch = sources.scratch;
            let mut hops = Vec::new();
            for part in found.vdso {
                remap(list, "moving the vdso away from", *part, scratch);
                hops.push(PageRange::new(scratch.0, scratch.0 + part.len()));
                scratch = scratch.add(part.len());
            }
            for (hop, place) in hops.into_iter().zip(places) {
                remap(list, "moving the vdso from", hop, *place);
            }
        }
    }
}

/// Whether a mapping belongs to the vdso and is moved rather than made.
#[must_use]
pub const fn is_vdso(vma: &Vma) -> bool {
    matches!(vma.backing, Backing::Vdso | Backing::Vvar)
}

/// Moves a mapping.
pub fn remap(list: &mut List, text: &'static str, from: PageRange, to: Addr) {
    let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
    let args = [from.start.0, from.len(), from.len(), flags, to.0];
    list.call_equals(Label::Range(text, from), libc::SYS_mremap, &args, to.0);
}

/// Makes every mapping, ready to be filled.
pub fn map(list: &mut List, script: &mut Script, snapshot: &Snapshot, mm: &Mm, sources: &Sources, kept: &[Kept]) {
    if sources.huge_always {
        list.try_call("holding back huge pages", libc::SYS_prctl, &[PR_SET_THP_DISABLE, 1, 0, 0, 0]);
    }
    let kept: Vec<PageRange> = kept.iter().map(|kept| kept.range).collect();
    for vma in &mm.vmas {
        let first = kept.partition_point(|range| range.end <= vma.range.start);
        let parts = vma.range.without(&kept[first..]);
        parts.iter().for_each(|part| map_one(list, script, (snapshot, vma), *part, sources));
        if !parts.is_empty() {
            before_filling(list, script, vma);
        }
    }
}

/// Whether the mapping must be made writable although it is not: it was once, as its accounting tells.
#[must_use]
pub const fn writable_first(vma: &Vma) -> bool {
    let private = matches!(
        vma.backing,
        Backing::Anonymous | Backing::PrivateFile { .. } | Backing::PrivateShared { .. } | Backing::HugeTlb { .. }
    );
    // What was not mapped for writing can never be made writable (kernel/bpf/syscall.c, `bpf_map_mmap`).
    let map = matches!(vma.backing, Backing::BpfMap { map: _, offset: _, may_write: true });
    (map || private && vma.flags.contains(VmaFlags::ACCOUNTED)) && !vma.prot.contains(Prot::WRITE)
}

/// The protection that a mapping is made with.
pub fn first_protection(vma: &Vma) -> u64 {
    let prot = if writable_first(vma) { vma.prot.union(Prot::WRITE) } else { vma.prot };
    u64::from(prot.bits())
}

/// Makes a part of a mapping.
fn map_one(
    list: &mut List,
    script: &mut Script,
    (snapshot, vma): (&Snapshot, &Vma),
    part: PageRange,
    sources: &Sources,
) {
    let skipped = part.start.0 - vma.range.start.0;
    let file = |file: FileId, write: bool| sources.files.get(&(file, write)).copied().unwrap_or(-1);
    let memfd = |shm: &ShmId, write: bool| sources.memfds.get(&(*shm, write)).copied().unwrap_or(-1);
    let (kind, fd, offset) = match &vma.backing {
        Backing::Anonymous if vma.flags.contains(VmaFlags::DROPPABLE) => (MAP_DROPPABLE | libc::MAP_ANONYMOUS, -1, 0),
        Backing::Anonymous => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0),
        Backing::PrivateFile { file: id, offset } => (libc::MAP_PRIVATE, file(*id, false), *offset),
        Backing::SharedFile { file: id, offset, may_write } => (shared_kind(vma), file(*id, *may_write), *offset),
        Backing::Shared { shm, offset, may_write } => match &snapshot.shared_memory[shm.0 as usize].kind {
            SharedMemoryKind::SystemV(segment) if segment.huge_page.is_some() => {
                let whole = PageRange {
                    start: sources.bench,
                    end: sources.bench.add(snapshot.shared_memory[shm.0 as usize].size),
                };
                return attached::attach(list, vma, segment.id, (whole, *offset), *may_write);
            }
            SharedMemoryKind::Anonymous | SharedMemoryKind::SystemV(_) => {
                let from = sources.arenas.get(&(*shm, *may_write)).copied().unwrap_or_default().add(*offset);
                return attached::duplicate(list, vma, from, *may_write);
            }
            SharedMemoryKind::Memfd { .. } | SharedMemoryKind::AnonymousHuge { .. } => {
                (libc::MAP_SHARED, memfd(shm, *may_write), *offset)
            }
        },
        Backing::PrivateShared { shm, offset } => (libc::MAP_PRIVATE, memfd(shm, true), *offset),
        Backing::HugeTlb { page_size } => {
            let size = (page_size.trailing_zeros() as i32) << libc::MAP_HUGE_SHIFT;
            (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | size, -1, 0)
        }
        Backing::PacketRing { ino } => (libc::MAP_SHARED, sources.rings.get(ino).copied().unwrap_or(-1), 0),
        Backing::BpfMap { map, offset, may_write: _ } => {
            (libc::MAP_SHARED, sources.bpf_maps.get(map).copied().unwrap_or(-1), *offset)
        }
        Backing::AioRing(ring) => return aio::make(list, script, vma.range, ring, sources.ready),
        Backing::Vdso | Backing::Vvar | Backing::Vsyscall => return,
    };
    let mut flags = kind | libc::MAP_FIXED_NOREPLACE;
    if vma.flags.contains(VmaFlags::GROWS_DOWN) {
        flags |= libc::MAP_GROWSDOWN;
    }
    if vma.flags.contains(VmaFlags::NO_RESERVE) {
        flags |= libc::MAP_NORESERVE;
    }
    let fd = i64::from(fd) as u64;
    let args = [part.start.0, part.len(), first_protection(vma), flags as u64, fd, offset + skipped];
    list.call_equals(Label::Range("mapping", part), libc::SYS_mmap, &args, part.start.0);
}

const fn shared_kind(vma: &Vma) -> i32 {
    if vma.flags.contains(VmaFlags::SYNC) { libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC } else { libc::MAP_SHARED }
}

/// What decides how pages are allocated, and the name.
fn before_filling(list: &mut List, script: &mut Script, vma: &Vma) {
    let (start, len) = (vma.range.start.0, vma.range.len());
    if vma.flags.contains(VmaFlags::HUGE_PAGE) && !vma.huge.is_empty() {
        advise(list, vma.range, libc::MADV_HUGEPAGE as u64);
    }
    if let Some(MemoryPolicy { mode, nodes }) = &vma.policy {
        let mask = script.place_words(nodes);
        let args = [start, len, u64::from(*mode), mask.0, nodes.len() as u64 * 64 + 1, 0];
        list.call(Label::Range("setting the NUMA policy of", vma.range), libc::SYS_mbind, &args);
    }
    if let Some(name) = &vma.name {
        let name = script.place_string(name.as_bytes());
        let args = [PR_SET_VMA, 0, start, len, name.0];
        list.call(Label::Range("naming", vma.range), libc::SYS_prctl, &args);
    }
}

fn advise(list: &mut List, range: PageRange, advice: u64) {
    list.call(Label::Range("madvise of", range), libc::SYS_madvise, &[range.start.0, range.len(), advice]);
}

/// Final protections and attributes, and what holds for the whole address space.
pub fn settle(list: &mut List, script: &mut Script, mm: &Mm, sources: &Sources) {
    allocate_keys(list, mm);
    if sources.huge_always || mm.thp_disable != 0 {
        let args = [PR_SET_THP_DISABLE, u64::from(mm.thp_disable & 1), u64::from(mm.thp_disable & !1), 0, 0];
        list.call("setting THP_DISABLE", libc::SYS_prctl, &args);
    }
    mm.vmas.iter().filter(|vma| !is_vdso(vma)).for_each(|vma| settle_one(list, vma));
    set_bounds(list, script, mm, sources);
    if mm.ksm_merge_any {
        list.call("setting MEMORY_MERGE", libc::SYS_prctl, &[PR_SET_MEMORY_MERGE, 1, 0, 0, 0]);
    }
    if mm.lock_future != 0 {
        list.call("locking future memory", libc::SYS_mlockall, &[u64::from(mm.lock_future)]);
    }
    for bit in (0..32).filter(|bit| mm.membarrier >> bit & 1 == 1) {
        list.call(Label::Number("membarrier command", 1 << bit), libc::SYS_membarrier, &[1 << bit, 0, 0]);
    }
    // Those that need no permission are among them too.
    if mm.xcomp_permitted & XTILE_DATA & !sources.xcomp_permitted != 0 {
        let args = [ARCH_REQ_XCOMP_PERM, u64::from(XTILE_DATA.trailing_zeros())];
        list.call("permission to use AMX tiles", libc::SYS_arch_prctl, &args);
    }
}

/// MDWE and seals forbid what comes before them, so they come last.
pub fn seal(list: &mut List, mm: &Mm) {
    for vma in mm.vmas.iter().filter(|vma| vma.flags.contains(VmaFlags::SEALED) && !is_vdso(vma)) {
        list.call(Label::Range("sealing", vma.range), MSEAL, &[vma.range.start.0, vma.range.len(), 0]);
    }
    if mm.mdwe != 0 {
        list.call("setting MDWE", libc::SYS_prctl, &[PR_SET_MDWE, u64::from(mm.mdwe), 0, 0, 0]);
    }
}

/// Allocates protection keys up to the highest in use; the kernel gives them out in order.
fn allocate_keys(list: &mut List, mm: &Mm) {
    let highest = mm.vmas.iter().filter(|vma| !execute_only(vma)).map(|vma| vma.pkey).max().unwrap_or(0);
    for key in 1..=highest {
        list.call_equals(Label::Number("protection key", i64::from(key)), PKEY_ALLOC, &[0, 0], u64::from(key));
    }
}

/// The kernel gives such mappings a key of its own.
fn execute_only(vma: &Vma) -> bool {
    vma.prot == Prot::EXEC
}

fn settle_one(list: &mut List, vma: &Vma) {
    let (start, len) = (vma.range.start.0, vma.range.len());
    for huge in &vma.huge {
        // A hint: it fails where no huge page is free, and where the range is not wholly populated.
        let args = [huge.start.0, huge.len(), MADV_COLLAPSE];
        list.try_call(Label::Range("collapsing", *huge), libc::SYS_madvise, &args);
    }
    let prot = u64::from(vma.prot.bits());
    if vma.pkey != 0 && !execute_only(vma) {
        let args = [start, len, prot, u64::from(vma.pkey)];
        list.call(Label::Range("protecting with a key", vma.range), PKEY_MPROTECT, &args);
    } else if writable_first(vma) {
        list.call(Label::Range("protecting", vma.range), libc::SYS_mprotect, &[start, len, prot]);
    }
    advise_one(list, vma);
    vma.guards.iter().for_each(|guard| advise(list, *guard, MADV_GUARD_INSTALL));
    lock(list, vma);
}

fn advise_one(list: &mut List, vma: &Vma) {
    let advices = [
        (VmaFlags::DONT_FORK, libc::MADV_DONTFORK),
        (VmaFlags::WIPE_ON_FORK, libc::MADV_WIPEONFORK),
        (VmaFlags::DONT_DUMP, libc::MADV_DONTDUMP),
        (VmaFlags::HUGE_PAGE, libc::MADV_HUGEPAGE),
        (VmaFlags::NO_HUGE_PAGE, libc::MADV_NOHUGEPAGE),
        (VmaFlags::MERGEABLE, libc::MADV_MERGEABLE),
        (VmaFlags::SEQUENTIAL, libc::MADV_SEQUENTIAL),
        (VmaFlags::RANDOM, libc::MADV_RANDOM),
    ];
    if matches!(vma.backing, Backing::Vsyscall) {
        return;
    }
    // hugetlbfs sets `dd` itself and takes no advice of most kinds.
    let hugetlb = matches!(vma.backing, Backing::HugeTlb { .. });
    for (flag, advice) in advices {
        if vma.flags.contains(flag) && !(hugetlb && flag != VmaFlags::DONT_FORK) {
            advise(list, vma.range, advice as u64);
        }
    }
}

fn lock(list: &mut List, vma: &Vma) {
    if !vma.flags.contains(VmaFlags::LOCKED) {
        return;
    }
    let on_fault = u64::from(vma.flags.contains(VmaFlags::LOCK_ON_FAULT));
    let args = [vma.range.start.0, vma.range.len(), on_fault];
    let label = Label::Range("locking", vma.range);
    // Populating memory that nobody may read fails with ENOMEM after the lock has been set.
    if vma.prot.is_empty() {
        list.try_call(label, libc::SYS_mlock2, &args);
    } else {
        list.call(label, libc::SYS_mlock2, &args);
    }
}

/// PR_SET_MM_MAP: `struct prctl_mm_map` of linux/prctl.h.
fn set_bounds(list: &mut List, script: &mut Script, mm: &Mm, sources: &Sources) {
    let auxv = script.place_words(&mm.auxv);
    let l = &mm.layout;
    let auxv_size = mm.auxv.len() as u64 * 8;
    let exe = sources.programs.get(&mm.exe).copied().unwrap_or(-1) as u32;
    let map = script.place_words(&[
        l.start_code.0,
        l.end_code.0,
        l.start_data.0,
        l.end_data.0,
        l.start_brk.0,
        l.brk.0,
        l.start_stack.0,
        l.arg_start.0,
        l.arg_end.0,
        l.env_start.0,
        l.env_end.0,
        if auxv_size == 0 { 0 } else { auxv.0 },
        auxv_size | u64::from(exe) << 32,
    ]);
    let args = [PR_SET_MM, PR_SET_MM_MAP, map.0, 104, 0];
    list.call("setting the bounds of the program (PR_SET_MM_MAP)", libc::SYS_prctl, &args);
}
