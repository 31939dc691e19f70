//! Address spaces and shared memory.

use super::{ensure, file_exists};
use crate::image::error::Error;
use crate::image::model::Snapshot;
use crate::image::model::address::{Addr, PAGE_SIZE, PageRange};
use crate::image::model::aio::AioRing;
use crate::image::model::bpf::BpfMap;
use crate::image::model::id::ShmId;
use crate::image::model::memory::{
    Backing, Inherited, MemoryPolicy, Mm, Prot, Remainder, SharedMemory, SharedMemoryKind, Vma, VmaFlags,
};
use crate::image::model::socket::State;

/// First address that user space can never have, with five levels of page tables (TASK_SIZE_MAX).
const USER_LIMIT: u64 = (1 << 56) - PAGE_SIZE;

/// Bytes of a transparent huge page.
const HUGE_PAGE_SIZE: u64 = 2 << 20;

/// Longest name of PR_SET_VMA_ANON_NAME (ANON_VMA_NAME_MAX_LEN less its NUL).
const VMA_NAME_MAX: usize = 79;

/// More words than any kernel's auxiliary vector or node mask has.
const WORDS_MAX: usize = 256;

pub fn mm(mm: &Mm, snapshot: &Snapshot) -> Result<(), Error> {
    let object = || format!("mm {}", mm.id);
    ensure(
        mm.vmas.is_sorted_by(|a, b| a.range.end <= b.range.start),
        object,
        "has mappings out of order or overlapping",
    )?;
    ensure(
        mm.auxv.len() <= WORDS_MAX && mm.auxv.len().is_multiple_of(2),
        object,
        "has an impossible auxiliary vector",
    )?;
    ensure(mm.dumpable <= 2, object, "has an impossible dumpable attribute")?;
    ensure(mm.layout.brk >= mm.layout.start_brk, object, "has its break below the start of the heap")?;
    file_exists(snapshot, mm.exe, object)?;
    if let Some(Inherited { from, pages }) = &mm.inherited {
        ensure(from.0 < mm.id.0, object, "inherits from an mm that does not stand before it")?;
        let everything = PageRange::new(0, USER_LIMIT);
        ensure(inside(pages, everything, PAGE_SIZE), object, "inherits no ranges of pages")?;
    }
    let in_vdso = |remainder: &Remainder| {
        let end = remainder.at.0.checked_add(remainder.code.len() as u64);
        let vdso = mm.vmas.iter().find(|vma| matches!(vma.backing, Backing::Vdso));
        vdso.zip(end).is_some_and(|(vdso, end)| remainder.at >= vdso.range.start && end <= vdso.range.end.0)
    };
    ensure(mm.remainders.iter().all(in_vdso), object, "has the rest of a system call outside of its vdso")?;
    mm.vmas.iter().try_for_each(|v| vma(v, snapshot).map_err(|e| within(e, &object())))
}

fn within(error: Error, outer: &str) -> Error {
    match error {
        Error::Model { object, reason } => Error::Model { object: format!("{outer}: {object}"), reason },
        other => other,
    }
}

fn vma(vma: &Vma, snapshot: &Snapshot) -> Result<(), Error> {
    let object = || format!("mapping {}", vma.range);
    ensure(is_pages(vma.range, PAGE_SIZE), object, "is not a range of pages")?;
    let in_user_space = vma.range.end.0 <= USER_LIMIT || matches!(vma.backing, Backing::Vsyscall);
    ensure(in_user_space, object, "lies outside of the user's address space")?;
    ensure(Prot::from_bits(vma.prot.bits()).is_some(), object, "has an unknown protection")?;
    ensure(VmaFlags::from_bits(vma.flags.bits()).is_some(), object, "has unknown flags")?;
    ensure(vma.pkey < 16, object, "has an impossible protection key")?;
    let named = vma.name.as_ref().is_none_or(|name| name.len() <= VMA_NAME_MAX && !name.contains('\0'));
    ensure(named, object, "has an impossible name")?;
    ensure(vma.policy.as_ref().is_none_or(policy_is_sane), object, "has an impossible NUMA policy")?;
    ensure(inside(&vma.huge, vma.range, HUGE_PAGE_SIZE), object, "has huge pages that are no part of it")?;
    ensure(inside(&vma.guards, vma.range, PAGE_SIZE), object, "has guards that are no part of it")?;
    backing(vma, snapshot)
}

fn backing(vma: &Vma, snapshot: &Snapshot) -> Result<(), Error> {
    let object = || format!("mapping {}", vma.range);
    let offset_is_sane = |offset: u64| {
        let fits = offset.checked_add(vma.range.len()).is_some_and(|end| i64::try_from(end).is_ok());
        ensure(fits && offset.is_multiple_of(PAGE_SIZE), object, "has an impossible offset")
    };
    match vma.backing {
        Backing::Anonymous | Backing::Vdso | Backing::Vvar | Backing::Vsyscall => Ok(()),
        Backing::PrivateFile { file, offset } | Backing::SharedFile { file, offset, may_write: _ } => {
            file_exists(snapshot, file, object)?;
            offset_is_sane(offset)
        }
        Backing::Shared { shm, offset, may_write: _ } | Backing::PrivateShared { shm, offset } => {
            shm_exists(snapshot, shm, object)?;
            offset_is_sane(offset)
        }
        Backing::PacketRing { ino } => {
            let mut sockets = snapshot.sockets.iter().filter(|socket| socket.ino == ino);
            let mapped = sockets.next().and_then(|socket| match &socket.state {
                State::Packet(packet) => packet.mapped(),
                State::Unix(_) | State::Tcp(_) | State::Datagram(_) | State::Netlink(_) => None,
            });
            ensure(mapped == Some(vma.range.len()), object, "is not the whole ring of a socket")
        }
        Backing::BpfMap { map, offset, may_write: _ } => {
            let map = snapshot.bpf_maps.get(map.0 as usize);
            let len = map.filter(|map| map.is_mappable()).map_or(0, BpfMap::memory_len);
            let within = offset.checked_add(vma.range.len()).is_some_and(|end| end <= len);
            ensure(within, object, "is no part of the memory of a BPF map")?;
            offset_is_sane(offset)
        }
        Backing::AioRing(ref ring) => aio_ring(ring, vma),
        Backing::HugeTlb { page_size } => {
            let sane = page_size.is_power_of_two() && page_size > PAGE_SIZE && is_pages(vma.range, page_size);
            ensure(sane, object, "does not consist of huge pages")
        }
    }
}

fn aio_ring(AioRing { head, events }: &AioRing, vma: &Vma) -> Result<(), Error> {
    let object = || format!("mapping {}", vma.range);
    let slots = AioRing::slots(vma.range.len());
    ensure(vma.prot == Prot::READ.union(Prot::WRITE), object, "is a ring that not everybody reads and writes")?;
    ensure(slots < u32::MAX >> 1, object, "is a ring of an impossible size")?;
    ensure(*head < slots && events.len() < slots as usize, object, "has events in no place of its ring")
}

fn shm_exists(snapshot: &Snapshot, shm: ShmId, object: impl FnOnce() -> String) -> Result<(), Error> {
    let exists = (shm.0 as usize) < snapshot.shared_memory.len();
    ensure(exists, object, "refers to shared memory that is not in the image")
}

/// Whether a list of ranges is sorted, free of overlaps, made of whole pages, and inside of `outer`.
fn inside(ranges: &[PageRange], outer: PageRange, page_size: u64) -> bool {
    ranges.is_sorted_by(|a, b| a.end <= b.start)
        && ranges
            .iter()
            .all(|range| is_pages(*range, page_size) && range.start >= outer.start && range.end <= outer.end)
}

fn is_pages(range: PageRange, page_size: u64) -> bool {
    let aligned = |addr: Addr| addr.0.is_multiple_of(page_size);
    !range.is_empty() && aligned(range.start) && aligned(range.end)
}

/// Whether the node mask has a length that a kernel takes.
pub fn policy_is_sane(policy: &MemoryPolicy) -> bool {
    policy.nodes.len() <= WORDS_MAX
}

pub fn shared_memory(shm: &SharedMemory) -> Result<(), Error> {
    let object = || format!("shared memory {}", shm.id);
    ensure(i64::try_from(shm.size).is_ok(), object, "has an impossible size")?;
    match &shm.kind {
        SharedMemoryKind::Anonymous => Ok(()),
        SharedMemoryKind::AnonymousHuge { page_size } => {
            let sane = page_size.is_power_of_two() && *page_size > PAGE_SIZE && shm.size.is_multiple_of(*page_size);
            ensure(sane, object, "has pages of an impossible size")
        }
        SharedMemoryKind::SystemV(segment) => super::ipc::segment(segment, shm.size),
        SharedMemoryKind::Memfd { name, flags: _, seals: _, mode, uid: _, gid: _ } => {
            ensure(name.len() <= 249 && !name.contains('\0'), object, "has an impossible name")?;
            ensure(*mode <= 0o7777, object, "has impossible permissions")
        }
    }
}
