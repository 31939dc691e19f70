//! The address space of the sample: a mapping of each kind.

use super::{ANON, ANON_PAGES, PRIVATE_FILE};
use crate::image::model::address::{PAGE_SIZE, PageRange};
use crate::image::model::aio::{AioEvent, AioRing};
use crate::image::model::id::*;
use crate::image::model::memory::*;

pub(super) fn mm() -> Mm {
    Mm {
        id: MmId(0),
        vmas: Vec::new(),
        layout: MmLayout::default(),
        auxv: Vec::new(),
        exe: FileId(0),
        dumpable: 1,
        coredump_filter: 0x33,
        thp_disable: 0,
        mdwe: 0,
        ksm_merge_any: false,
        membarrier: 0,
        lock_future: 0,
        xcomp_permitted: 0,
        inherited: None,
        remainders: Vec::new(),
    }
}

pub fn vma(range: PageRange, backing: Backing) -> Vma {
    Vma {
        range,
        prot: Prot::READ | Prot::WRITE,
        backing,
        flags: VmaFlags::ACCOUNTED,
        pkey: 0,
        name: None,
        policy: None,
        huge: Vec::new(),
        guards: Vec::new(),
    }
}

pub(super) fn vmas() -> Vec<Vma> {
    let at = |start: u64, pages: u64| PageRange::new(start, start + pages * PAGE_SIZE);
    let mut arena = vma(at(ANON, ANON_PAGES), Backing::Anonymous);
    arena.huge = vec![at(0x20_0000, 512)];
    arena.name = Some("arena".into());
    vec![
        arena,
        vma(at(PRIVATE_FILE, 4), Backing::PrivateFile { file: FileId(0), offset: 0x1000 }),
        vma(at(0x6000_0000, 64), Backing::Shared { shm: ShmId(0), offset: 0, may_write: true }),
        vma(at(0x6100_0000, 8), Backing::PacketRing { ino: 14 }),
        vma(at(0x6200_0000, 1), Backing::BpfMap { map: BpfMapId(3), offset: 0x1000, may_write: true }),
        ring(at(0x7f00_0000_0000, 1)),
        vma(at(0x7fff_0000_0000, 4), Backing::Vvar),
        vma(at(0x7fff_0000_4000, 2), Backing::Vdso),
        vma(at(0xffff_ffff_ff60_0000, 1), Backing::Vsyscall),
    ]
}

/// An AIO context with two events that nobody has taken.
fn ring(range: PageRange) -> Vma {
    let event = |data, res| AioEvent { data, obj: 0x1000, res, res2: 0 };
    let ring = AioRing { head: 126, events: vec![event(1, 4096), event(2, -5)] };
    Vma { prot: Prot::READ | Prot::WRITE, ..vma(range, Backing::AioRing(ring)) }
}
