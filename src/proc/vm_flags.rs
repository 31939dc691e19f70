//! The two-letter codes of the `VmFlags` line of `smaps` (fs/proc/task_mmu.c, `show_smap_vma_flags`).

use bitflags::bitflags;

macro_rules! vm_flags {
    ($($(#[doc = $doc:literal])* $name:ident = $code:literal;)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Bit { $($name),* }

        bitflags! {
            /// What the kernel says of a mapping. The bits are ours, the codes are the kernel's.
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
            pub struct VmFlags: u64 {
                $($(#[doc = $doc])* const $name = 1 << (Bit::$name as u64);)*
            }
        }

        impl VmFlags {
            /// The flag of a code; `None` for one that this version does not know.
            #[must_use]
            pub const fn from_code(code: [u8; 2]) -> Option<Self> {
                $(if code[0] == $code[0] && code[1] == $code[1] { return Some(Self::$name); })*
                None
            }

            /// Every flag with its code.
            pub const CODES: &[(Self, [u8; 2])] = &[$((Self::$name, *$code)),*];
        }
    };
}

vm_flags! {
    /// VM_READ.
    READ = b"rd";
    /// VM_WRITE.
    WRITE = b"wr";
    /// VM_EXEC.
    EXEC = b"ex";
    /// VM_SHARED.
    SHARED = b"sh";
    /// VM_MAYREAD.
    MAY_READ = b"mr";
    /// VM_MAYWRITE: of a shared file mapping, that the description could write.
    MAY_WRITE = b"mw";
    /// VM_MAYEXEC.
    MAY_EXEC = b"me";
    /// VM_MAYSHARE.
    MAY_SHARE = b"ms";
    /// VM_GROWSDOWN.
    GROWS_DOWN = b"gd";
    /// VM_PFNMAP: raw page frames, such as a device's memory.
    PFN_MAP = b"pf";
    /// VM_DENYWRITE, on kernels before 5.15.
    DENY_WRITE = b"dw";
    /// VM_LOCKED.
    LOCKED = b"lo";
    /// VM_IO.
    IO = b"io";
    /// VM_SEQ_READ: MADV_SEQUENTIAL.
    SEQUENTIAL = b"sr";
    /// VM_RAND_READ: MADV_RANDOM.
    RANDOM = b"rr";
    /// VM_DONTCOPY: MADV_DONTFORK.
    DONT_COPY = b"dc";
    /// VM_DONTEXPAND.
    DONT_EXPAND = b"de";
    /// VM_LOCKONFAULT.
    LOCK_ON_FAULT = b"lf";
    /// VM_ACCOUNT.
    ACCOUNT = b"ac";
    /// VM_NORESERVE.
    NO_RESERVE = b"nr";
    /// VM_HUGETLB.
    HUGETLB = b"ht";
    /// VM_SYNC: MAP_SYNC.
    SYNC = b"sf";
    /// VM_NONLINEAR, on kernels before 4.0.
    NON_LINEAR = b"nl";
    /// VM_ARCH_1.
    ARCH_1 = b"ar";
    /// VM_WIPEONFORK.
    WIPE_ON_FORK = b"wf";
    /// VM_DONTDUMP.
    DONT_DUMP = b"dd";
    /// VM_ARM64_BTI.
    ARM64_BTI = b"bt";
    /// VM_SOFTDIRTY.
    SOFT_DIRTY = b"sd";
    /// VM_MIXEDMAP.
    MIXED_MAP = b"mm";
    /// VM_HUGEPAGE.
    HUGE_PAGE = b"hg";
    /// VM_NOHUGEPAGE.
    NO_HUGE_PAGE = b"nh";
    /// VM_MERGEABLE.
    MERGEABLE = b"mg";
    /// VM_UFFD_MISSING.
    UFFD_MISSING = b"um";
    /// VM_UFFD_WP.
    UFFD_WRITE_PROTECT = b"uw";
    /// VM_UFFD_MINOR.
    UFFD_MINOR = b"ui";
    /// VM_MTE.
    MTE = b"mt";
    /// VM_MPX, on kernels before 5.6.
    MPX = b"mp";
    /// VM_SHADOW_STACK.
    SHADOW_STACK = b"ss";
    /// VM_SEALED: mseal(2).
    SEALED = b"sl";
    /// VM_DROPPABLE: MAP_DROPPABLE.
    DROPPABLE = b"dp";
    /// VM_MAYBE_GUARD: MADV_GUARD_INSTALL was used, from 6.19.
    MAYBE_GUARD = b"gu";
}

/// A code that this version does not know, such as `??`.
pub type UnknownCode = [u8; 2];

/// Parses the part after `VmFlags:`; the unknown codes come in the order of the line.
///
/// # Errors
/// `None` when a word is not two bytes long.
pub(super) fn parse(text: &[u8]) -> Option<(VmFlags, Vec<UnknownCode>)> {
    let mut flags = VmFlags::empty();
    let mut unknown = Vec::new();
    for word in super::scan::words(text) {
        let code: [u8; 2] = word.try_into().ok()?;
        match VmFlags::from_code(code) {
            Some(flag) => flags |= flag,
            None => unknown.push(code),
        }
    }
    // On kernels that have no code for VM_LOCKONFAULT this is the one flag that they cannot name (Linux 6.1 and 6.12: fs/proc/task_mmu.c).
    if flags.contains(VmFlags::LOCKED) && unknown == [*b"??"] {
        unknown.clear();
        flags |= VmFlags::LOCK_ON_FAULT;
    }
    Some((flags, unknown))
}
