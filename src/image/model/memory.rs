//! Address spaces: VMAs, the program break, auxv, and what holds for the whole `mm_struct`.

use super::address::{Addr, PageRange};
use super::aio::AioRing;
use super::id::{BpfMapId, FileId, MmId, ShmId};
use super::ipc::Segment;
use bitflags::bitflags;
use serde::{Deserialize, Serialize};

/// One address space; all threads of a process, and tasks with CLONE_VM, share it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mm {
    /// Its place in [`super::Snapshot::mms`].
    pub id: MmId,
    /// Mappings in ascending order, without overlap.
    pub vmas: Vec<Vma>,
    /// Bounds that the kernel keeps of the program's parts (prctl PR_SET_MM_MAP).
    pub layout: MmLayout,
    /// The auxiliary vector as the kernel keeps it for `/proc/PID/auxv`.
    pub auxv: Vec<u64>,
    /// The program file behind `/proc/PID/exe`.
    pub exe: FileId,
    /// prctl PR_GET_DUMPABLE: 0, 1 or 2.
    pub dumpable: u8,
    /// `/proc/PID/coredump_filter`.
    pub coredump_filter: u32,
    /// prctl PR_GET_THP_DISABLE.
    pub thp_disable: u32,
    /// prctl PR_GET_MDWE flags.
    pub mdwe: u32,
    /// prctl PR_GET_MEMORY_MERGE.
    pub ksm_merge_any: bool,
    /// membarrier(2) commands registered, as MEMBARRIER_CMD_GET_REGISTRATIONS reports them.
    pub membarrier: u32,
    /// mlockall(MCL_FUTURE), MCL_ONFAULT: what holds for mappings yet to come.
    pub lock_future: u32,
    /// XSAVE components that ARCH_REQ_XCOMP_PERM has permitted beyond the default.
    pub xcomp_permitted: u64,
    /// Pages that are still those of another address space, since fork(2).
    pub inherited: Option<Inherited>,
    /// Code in the vdso, whose pages are in no image, to which threads may come back that a stop has found in the middle of a transfer.
    pub remainders: Vec<Remainder>,
}

/// A few instructions that make the rest of a system call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remainder {
    /// Where they stand.
    pub at: Addr,
    /// They and what belongs to them.
    #[serde(with = "super::bytes")]
    pub code: Vec<u8>,
}

/// Private pages shared copy-on-write, which stand in the image once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inherited {
    /// The address space of the parent process, which stands earlier in the list.
    pub from: MmId,
    /// Where the pages are, in both: ascending, without overlap. What is absent there is absent here.
    pub pages: Vec<PageRange>,
}

/// The fields of `struct prctl_mm_map` that are addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the kernel's own names")]
pub struct MmLayout {
    pub start_code: Addr,
    pub end_code: Addr,
    pub start_data: Addr,
    pub end_data: Addr,
    pub start_brk: Addr,
    pub brk: Addr,
    pub start_stack: Addr,
    pub arg_start: Addr,
    pub arg_end: Addr,
    pub env_start: Addr,
    pub env_end: Addr,
}

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vma {
    /// Addresses.
    pub range: PageRange,
    /// Protection as mmap(2) takes it.
    pub prot: Prot,
    /// What stands behind it.
    pub backing: Backing,
    /// What madvise, mlock and mmap have set.
    pub flags: VmaFlags,
    /// Memory protection key, 0 for the default.
    pub pkey: u8,
    /// Name given by PR_SET_VMA_ANON_NAME.
    pub name: Option<String>,
    /// Policy set by mbind(2), as a line of `/proc/PID/numa_maps` names it; `None` for the default.
    pub policy: Option<MemoryPolicy>,
    /// 2 MiB ranges that were transparent huge pages.
    pub huge: Vec<PageRange>,
    /// Guard regions of MADV_GUARD_INSTALL.
    pub guards: Vec<PageRange>,
}

/// What stands behind a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backing {
    /// Private anonymous memory, the heap and stacks included.
    Anonymous,
    /// MAP_PRIVATE of a file: only pages that differ from it are in the image.
    PrivateFile {
        /// The file.
        file: FileId,
        /// Bytes from its start.
        offset: u64,
    },
    /// MAP_SHARED of a file: its pages are the file's own.
    SharedFile {
        /// The file.
        file: FileId,
        /// Bytes from its start.
        offset: u64,
        /// Whether the description it was mapped through could write (VmFlags `mw`).
        may_write: bool,
    },
    /// MAP_SHARED memory without a path: anonymous, memfd, or a System V segment.
    Shared {
        /// The object.
        shm: ShmId,
        /// Bytes from its start.
        offset: u64,
        /// Whether the description it was mapped through, the seals of a memfd, and SHM_RDONLY let it be written (VmFlags `mw`).
        may_write: bool,
    },
    /// MAP_PRIVATE of a shared object such as a memfd: only pages that differ from it are in the image.
    PrivateShared {
        /// The object.
        shm: ShmId,
        /// Bytes from its start.
        offset: u64,
    },
    /// Private anonymous huge pages of hugetlbfs.
    HugeTlb {
        /// Bytes of one page.
        page_size: u64,
    },
    /// MAP_SHARED of the ring of a packet socket, all of it.
    PacketRing {
        /// Inode of the socket, as in `socket:[INO]`.
        ino: u64,
    },
    /// MAP_SHARED of the memory of an array of bpf(2).
    BpfMap {
        /// The array.
        map: BpfMapId,
        /// Bytes from its start.
        offset: u64,
        /// Whether it was mapped for writing (VmFlags `mw`).
        may_write: bool,
    },
    /// The ring of a Linux AIO context, all of it.
    AioRing(AioRing),
    /// The kernel's code page for user space.
    Vdso,
    /// The kernel's data for the vdso: `[vvar]`, `[vvar_vclock]`.
    Vvar,
    /// The fixed page at the top of the address space.
    Vsyscall,
}

/// NUMA policy of a mapping or of a task (set_mempolicy(2)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// MPOL_* with its mode flags.
    pub mode: u32,
    /// The node mask, least significant word first.
    pub nodes: Vec<u64>,
}

bitflags! {
    /// Protection as PROT_* of mmap(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    pub struct Prot: u32 {
        /// PROT_READ.
        const READ = 1;
        /// PROT_WRITE.
        const WRITE = 2;
        /// PROT_EXEC.
        const EXEC = 4;
    }
}

bitflags! {
    /// Attributes of a mapping, from the `VmFlags` line of `/proc/PID/smaps`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    pub struct VmaFlags: u32 {
        /// `gd`: MAP_GROWSDOWN.
        const GROWS_DOWN = 1 << 0;
        /// `lo`: mlock(2) or MAP_LOCKED.
        const LOCKED = 1 << 1;
        /// `lf`: MLOCK_ONFAULT.
        const LOCK_ON_FAULT = 1 << 2;
        /// `nr`: MAP_NORESERVE.
        const NO_RESERVE = 1 << 3;
        /// `dc`: MADV_DONTFORK.
        const DONT_FORK = 1 << 4;
        /// `wf`: MADV_WIPEONFORK.
        const WIPE_ON_FORK = 1 << 5;
        /// `dd`: MADV_DONTDUMP.
        const DONT_DUMP = 1 << 6;
        /// `hg`: MADV_HUGEPAGE.
        const HUGE_PAGE = 1 << 7;
        /// `nh`: MADV_NOHUGEPAGE.
        const NO_HUGE_PAGE = 1 << 8;
        /// `mg`: MADV_MERGEABLE.
        const MERGEABLE = 1 << 9;
        /// `sr`: MADV_SEQUENTIAL.
        const SEQUENTIAL = 1 << 10;
        /// `rr`: MADV_RANDOM.
        const RANDOM = 1 << 11;
        /// `sl`: mseal(2).
        const SEALED = 1 << 12;
        /// `sf`: MAP_SYNC.
        const SYNC = 1 << 13;
        /// `ac`: counts against the commit limit.
        const ACCOUNTED = 1 << 14;
        /// `dp`: MAP_DROPPABLE.
        const DROPPABLE = 1 << 15;
    }
}

/// Memory that lives as long as somebody maps or holds it: MAP_SHARED|MAP_ANONYMOUS, memfd_create(2), shmget(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedMemory {
    /// Its place in [`super::Snapshot::shared_memory`].
    pub id: ShmId,
    /// How it is made.
    pub kind: SharedMemoryKind,
    /// Bytes.
    pub size: u64,
}

/// How a shared memory object is made again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SharedMemoryKind {
    /// mmap(MAP_SHARED|MAP_ANONYMOUS).
    Anonymous,
    /// memfd_create(2).
    Memfd {
        /// The name without `/memfd:`.
        name: String,
        /// MFD_* flags, huge page size bits included.
        flags: u32,
        /// F_GET_SEALS.
        seals: u32,
        /// Permission bits, owner.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// shmget(2).
    SystemV(Segment),
    /// mmap(MAP_SHARED|MAP_ANONYMOUS|MAP_HUGETLB).
    AnonymousHuge {
        /// Bytes of a page.
        page_size: u64,
    },
}

/// Whose pages a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ContentOwner {
    /// Private pages at their virtual addresses.
    Mm(MmId),
    /// A shared memory object, by offset.
    SharedMemory(ShmId),
    /// An unlinked file carried in the image, by offset.
    File(FileId),
    /// What is in a map of bpf(2), if it is much, by offset.
    BpfMap(BpfMapId),
}
