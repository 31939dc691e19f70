//! Where an address lies: `libc.so.6+0x98d61`, `[heap]+0x10`.

use super::names::bpf;
use super::text;
use crate::image::model::Snapshot;
use crate::image::model::address::Addr;
use crate::image::model::aio::AioRing;
use crate::image::model::file::File;
use crate::image::model::id::{FileId, ShmId};
use crate::image::model::memory::{Backing, Mm, SharedMemoryKind, Vma};

/// What a mapping is, as `/proc/PID/maps` names it.
#[must_use]
pub fn label(snapshot: &Snapshot, mm: &Mm, vma: &Vma) -> String {
    match &vma.backing {
        Backing::Anonymous | Backing::HugeTlb { page_size: _ } => anonymous(mm, vma),
        Backing::PrivateFile { file, offset: _ } | Backing::SharedFile { file, offset: _, may_write: _ } => {
            path(snapshot, *file)
        }
        Backing::Shared { shm, offset: _, may_write: _ } | Backing::PrivateShared { shm, offset: _ } => {
            shared(snapshot, *shm)
        }
        Backing::PacketRing { ino } => format!("socket:[{ino}]"),
        Backing::BpfMap { map, offset: _, may_write: _ } => {
            snapshot.bpf_maps.get(map.0 as usize).map_or_else(|| format!("BPF map {map}"), bpf::label)
        }
        Backing::AioRing(AioRing { head: _, events }) => match events.len() {
            0 => "[aio]".to_owned(),
            1 => "[aio], 1 event".to_owned(),
            count => format!("[aio], {count} events"),
        },
        Backing::Vdso => "[vdso]".to_owned(),
        Backing::Vvar => vma.name.as_deref().map_or("[vvar]".to_owned(), |name| format!("[{name}]")),
        Backing::Vsyscall => "[vsyscall]".to_owned(),
    }
}

/// The address as mapping and offset into what is mapped; `None` where nothing is mapped.
#[must_use]
pub fn of(snapshot: &Snapshot, mm: &Mm, addr: Addr) -> Option<String> {
    let vma = at(mm, addr)?;
    let label = label(snapshot, mm, vma);
    let name = label.rsplit('/').next().unwrap_or(&label);
    let into = addr.0 - vma.range.start.0;
    let name = if name.is_empty() { "[anon]" } else { name };
    Some(format!("{name}+{:#x}", offset(&vma.backing).wrapping_add(into)))
}

/// The mapping that holds an address.
#[must_use]
pub fn at(mm: &Mm, addr: Addr) -> Option<&Vma> {
    let index = mm.vmas.partition_point(|vma| vma.range.end.0 <= addr.0);
    mm.vmas.get(index).filter(|vma| vma.range.contains(addr))
}

/// Offset of a mapping in what stands behind it.
#[must_use]
pub fn offset(backing: &Backing) -> u64 {
    match backing {
        Backing::PrivateFile { file: _, offset }
        | Backing::SharedFile { file: _, offset, may_write: _ }
        | Backing::Shared { shm: _, offset, may_write: _ }
        | Backing::PrivateShared { shm: _, offset }
        | Backing::BpfMap { map: _, offset, may_write: _ } => *offset,
        Backing::Anonymous
        | Backing::HugeTlb { page_size: _ }
        | Backing::PacketRing { ino: _ }
        | Backing::AioRing(_)
        | Backing::Vdso
        | Backing::Vvar
        | Backing::Vsyscall => 0,
    }
}

/// The path of a file, for people.
#[must_use]
pub fn path(snapshot: &Snapshot, id: FileId) -> String {
    file(snapshot, id).map_or_else(|| format!("file {id}"), |file| text::printable(&file.path))
}

/// A file by its id.
#[must_use]
pub fn file(snapshot: &Snapshot, id: FileId) -> Option<&File> {
    snapshot.files.get(id.0 as usize)
}

/// What a shared memory object is.
#[must_use]
pub fn shared(snapshot: &Snapshot, id: ShmId) -> String {
    match snapshot.shared_memory.get(id.0 as usize).map(|shm| &shm.kind) {
        Some(SharedMemoryKind::Anonymous | SharedMemoryKind::AnonymousHuge { .. }) => format!("shared memory {id}"),
        Some(SharedMemoryKind::SystemV(segment)) => format!("/SYSV{:08x} (segment {})", segment.owner.key, segment.id),
        Some(SharedMemoryKind::Memfd { name, flags: _, seals: _, mode: _, uid: _, gid: _ }) => {
            format!("/memfd:{}", text::escape_controls(name))
        }
        None => format!("shared memory {id}"),
    }
}

fn anonymous(mm: &Mm, vma: &Vma) -> String {
    let layout = &mm.layout;
    if let Some(name) = &vma.name {
        return format!("[anon:{}]", text::escape_controls(name));
    }
    if vma.range.start.0 < layout.brk.0 && vma.range.end.0 > layout.start_brk.0 {
        return "[heap]".to_owned();
    }
    if vma.range.contains(layout.start_stack) {
        return "[stack]".to_owned();
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::sample::{ANON, PRIVATE_FILE, snapshot};

    fn place(addr: u64) -> Option<String> {
        let mut snapshot = snapshot();
        snapshot.mms[0].layout.start_stack = Addr(ANON + 8);
        of(&snapshot, &snapshot.mms[0], Addr(addr))
    }

    #[test]
    fn an_address_in_a_file_counts_from_the_start_of_the_file() {
        assert_eq!(place(PRIVATE_FILE + 0x10), Some("sample+0x1010".into()));
    }

    #[test]
    fn names_win_over_positions() {
        assert_eq!(place(ANON), Some("[anon:arena]+0x0".into()));
        assert_eq!(place(0x7fff_0000_4123), Some("[vdso]+0x123".into()));
    }

    #[test]
    fn where_nothing_is_mapped_is_nowhere() {
        assert_eq!(place(0), None);
        assert_eq!(place(PRIVATE_FILE - 1), None);
        assert_eq!(place(PRIVATE_FILE + 4 * 4096), None);
        assert_eq!(place(u64::MAX), None);
    }
}
