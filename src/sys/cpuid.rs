//! The layout of the XSAVE area that this CPU and its kernel use (CPUID leaf 0Dh, XCR0).

use std::arch::x86_64::{__cpuid_count, _xgetbv, CpuidResult};

/// Standard-format layout of the XSAVE area.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XsaveLayout {
    /// State components that the kernel enabled (XCR0), bit N for component N.
    pub features: u64,
    /// Bytes of the area for all of them, header included: the length of NT_X86_XSTATE.
    pub size: u32,
    /// Every enabled component but x87 and SSE, whose place is fixed, in ascending order of bits.
    pub components: Vec<XsaveComponent>,
}

/// One state component in the standard format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XsaveComponent {
    /// Bit number in XSTATE_BV.
    pub bit: u8,
    /// Offset in bytes from the start of the area.
    pub offset: u32,
    /// Length in bytes.
    pub size: u32,
}

const XSTATE_LEAF: u32 = 0x0d;
const OSXSAVE: u32 = 1 << 27;
/// Components from this bit on have an entry of their own in the leaf.
const FIRST_EXTENDED: u8 = 2;
/// Bit 63 of XCR0 is reserved.
const BITS: u8 = 63;

impl XsaveLayout {
    /// Asks the CPU; `None` where it lacks XSAVE or the kernel does not use it.
    #[must_use]
    pub fn of_this_cpu() -> Option<Self> {
        let features = xcr0()?;
        let size = cpuid(XSTATE_LEAF, 0).ebx;
        let enabled = (FIRST_EXTENDED..BITS).filter(|bit| features & 1 << bit != 0);
        let components = enabled.map(|bit| {
            let leaf = cpuid(XSTATE_LEAF, u32::from(bit));
            XsaveComponent { bit, offset: leaf.ebx, size: leaf.eax }
        });
        Some(Self { features, size, components: components.collect() })
    }
}

#[allow(unsafe_code, unused_unsafe, reason = "the intrinsic is unsafe before Rust 1.94")]
fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    // SAFETY: every x86-64 CPU has the instruction.
    unsafe { __cpuid_count(leaf, subleaf) }
}

/// XCR0, which user space may read once the kernel has set CR4.OSXSAVE.
#[allow(unsafe_code)]
fn xcr0() -> Option<u64> {
    if cpuid(0, 0).eax < XSTATE_LEAF || cpuid(1, 0).ecx & OSXSAVE == 0 {
        return None;
    }
    // SAFETY: OSXSAVE says that XGETBV is enabled; register 0 exists wherever it is.
    Some(unsafe { read_xcr0() })
}

/// XGETBV of register 0.
///
/// # Safety
/// CR4.OSXSAVE must be set.
#[allow(unsafe_code)]
#[target_feature(enable = "xsave")]
unsafe fn read_xcr0() -> u64 {
    // SAFETY: as promised by the caller.
    unsafe { _xgetbv(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_lie_behind_the_header_and_inside_the_area() {
        let layout = XsaveLayout::of_this_cpu().unwrap();
        assert_eq!(layout.features & 0b11, 0b11);
        assert_eq!(layout.components.len() as u32, (layout.features >> 2).count_ones());
        for component in &layout.components {
            // 512 bytes of x87 and SSE, 64 of the header.
            assert!(component.offset >= 576 && component.size > 0);
            assert!(component.offset + component.size <= layout.size);
        }
        let last = layout.components.iter().map(|component| component.offset + component.size).max();
        assert_eq!(last.unwrap_or(576), layout.size);
        let avx = layout.components.iter().find(|component| component.bit == 2);
        assert_eq!(avx.map(|avx| (avx.offset, avx.size)), (layout.features & 4 != 0).then_some((576, 256)));
    }
}
