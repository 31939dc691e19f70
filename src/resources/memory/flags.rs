//! What the kernel keeps of a mapping beside its bounds and its protection.

use crate::image::model::memory::VmaFlags;
use crate::proc::smaps;
use crate::proc::vm_flags::VmFlags;

/// Mappings that no flag of mmap(2) gives back.
pub fn check(vma: &smaps::Vma, is_ring: bool) -> Result<(), String> {
    if let Some(code) = vma.unknown_flags.first() {
        return Err(format!("VmFlags has `{}`, which this version does not know", String::from_utf8_lossy(code)));
    }
    // The kernel puts the pages of a ring into its mapping one by one.
    let of_devices = VmFlags::IO | VmFlags::PFN_MAP | if is_ring { VmFlags::empty() } else { VmFlags::MIXED_MAP };
    let refused = [
        (of_devices, "it maps a device's memory"),
        (VmFlags::SHADOW_STACK, "shadow stacks are not supported"),
        (
            VmFlags::UFFD_MISSING | VmFlags::UFFD_WRITE_PROTECT | VmFlags::UFFD_MINOR,
            "it is registered with a userfaultfd, whose state cannot be saved",
        ),
        (VmFlags::SYNC, "MAP_SYNC mappings are not supported"),
    ];
    match refused.iter().find(|(flags, _)| vma.flags.intersects(*flags)) {
        Some((_, reason)) => Err((*reason).into()),
        None => Ok(()),
    }
}

/// Attributes that the image keeps.
pub fn of(flags: VmFlags) -> VmaFlags {
    const PAIRS: [(VmFlags, VmaFlags); 15] = [
        (VmFlags::GROWS_DOWN, VmaFlags::GROWS_DOWN),
        (VmFlags::LOCKED, VmaFlags::LOCKED),
        (VmFlags::LOCK_ON_FAULT, VmaFlags::LOCK_ON_FAULT),
        (VmFlags::NO_RESERVE, VmaFlags::NO_RESERVE),
        (VmFlags::DONT_COPY, VmaFlags::DONT_FORK),
        (VmFlags::WIPE_ON_FORK, VmaFlags::WIPE_ON_FORK),
        (VmFlags::DONT_DUMP, VmaFlags::DONT_DUMP),
        (VmFlags::HUGE_PAGE, VmaFlags::HUGE_PAGE),
        (VmFlags::NO_HUGE_PAGE, VmaFlags::NO_HUGE_PAGE),
        (VmFlags::MERGEABLE, VmaFlags::MERGEABLE),
        (VmFlags::SEQUENTIAL, VmaFlags::SEQUENTIAL),
        (VmFlags::RANDOM, VmaFlags::RANDOM),
        (VmFlags::SEALED, VmaFlags::SEALED),
        (VmFlags::ACCOUNT, VmaFlags::ACCOUNTED),
        (VmFlags::DROPPABLE, VmaFlags::DROPPABLE),
    ];
    PAIRS.iter().filter(|(kernel, _)| flags.contains(*kernel)).fold(VmaFlags::empty(), |all, (_, ours)| all | *ours)
}
