//! Shared memory that skeletons have without a descriptor: arenas and System V segments, whole or in parts. Pure.

use super::memory::remap;
use super::script::{Label, List};
use crate::image::model::Snapshot;
use crate::image::model::address::{Addr, PageRange};
use crate::image::model::memory::{Backing, Prot, SharedMemoryKind, Vma};

/// mremap(2) with an old size of 0 maps the same shared pages a second time.
pub fn duplicate(list: &mut List, vma: &Vma, from: Addr, may_write: bool) {
    let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
    let args = [from.0, 0, vma.range.len(), flags, vma.range.start.0];
    list.call_equals(Label::Range("mapping shared memory at", vma.range), libc::SYS_mremap, &args, vma.range.start.0);
    protect_shared(list, vma, may_write);
}

/// shmat(2): huge pages cannot be mapped a second time by mremap(2). Of what is attached a part is cut out, and moved to its place: around that
/// may be something else. `bench` is where all of it is attached for that.
pub fn attach(list: &mut List, vma: &Vma, segment: i32, (bench, offset): (PageRange, u64), may_write: bool) {
    let flags = if may_write { 0 } else { libc::SHM_RDONLY };
    let is_part = is_part(vma, offset, bench.len());
    let start = if is_part { bench.start } else { vma.range.start };
    let args = [segment as u64, start.0, flags as u64];
    list.call_equals(Label::Range("attaching a segment for", vma.range), libc::SYS_shmat, &args, start.0);
    if is_part {
        let part = PageRange { start: start.add(offset), end: start.add(offset + vma.range.len()) };
        for rest in bench.without(&[part]) {
            list.call(Label::Range("unmapping of a segment", rest), libc::SYS_munmap, &[rest.start.0, rest.len()]);
        }
        remap(list, "moving a part of a segment from", part, vma.range.start);
    }
    protect_shared(list, vma, may_write);
}

/// Whether a mapping is not all of an attachment.
fn is_part(vma: &Vma, offset: u64, size: u64) -> bool {
    offset != 0 || vma.range.len() != size
}

/// Size and page size of a segment of huge pages of which this is a part.
pub fn part_of_huge(snapshot: &Snapshot, vma: &Vma) -> Option<(u64, u64)> {
    let Backing::Shared { shm, offset, may_write: _ } = &vma.backing else { return None };
    let shared = &snapshot.shared_memory[shm.0 as usize];
    let page = match &shared.kind {
        SharedMemoryKind::SystemV(segment) => segment.huge_page?,
        SharedMemoryKind::Anonymous | SharedMemoryKind::Memfd { .. } | SharedMemoryKind::AnonymousHuge { .. } => {
            return None;
        }
    };
    is_part(vma, *offset, shared.size).then_some((shared.size, page))
}

fn protect_shared(list: &mut List, vma: &Vma, may_write: bool) {
    let first = if may_write { Prot::READ.union(Prot::WRITE) } else { Prot::READ };
    if vma.prot != first {
        let args = [vma.range.start.0, vma.range.len(), u64::from(vma.prot.bits())];
        list.call(Label::Range("protecting", vma.range), libc::SYS_mprotect, &args);
    }
}
