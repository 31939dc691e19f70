//! Addresses of a target: never a bare integer.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes in a page on x86-64.
pub const PAGE_SIZE: u64 = 4096;

/// A virtual address in the target's address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Addr(pub u64);

impl Addr {
    /// The null address.
    pub const NULL: Self = Self(0);

    /// This address moved up by `bytes`, wrapping as the hardware does.
    #[must_use]
    pub const fn add(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// Whether this is the null address.
    #[must_use]
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A half-open, page-aligned range of addresses, or of offsets in a shared object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PageRange {
    /// First byte.
    pub start: Addr,
    /// First byte after the range.
    pub end: Addr,
}

impl PageRange {
    /// A range from its two ends; an inverted pair gives an empty range.
    #[must_use]
    pub const fn new(start: u64, end: u64) -> Self {
        Self { start: Addr(start), end: Addr(if end < start { start } else { end }) }
    }

    /// Length in bytes; 0 for the inverted range that a hostile image can hold.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    /// Whether the range holds no byte.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.end.0 <= self.start.0
    }

    /// Length in pages of [`PAGE_SIZE`].
    #[must_use]
    pub const fn pages(self) -> u64 {
        self.len() / PAGE_SIZE
    }

    /// Whether `addr` lies inside.
    #[must_use]
    pub const fn contains(self, addr: Addr) -> bool {
        addr.0 >= self.start.0 && addr.0 < self.end.0
    }

    /// Whether the two ranges share a byte.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start.0 < other.end.0 && other.start.0 < self.end.0
    }

    /// What of it none of the ascending `ranges` covers.
    #[must_use]
    pub fn without(self, ranges: &[Self]) -> Vec<Self> {
        let mut gaps = Vec::new();
        let mut from = self.start;
        for range in ranges.iter().take_while(|range| range.start < self.end) {
            if range.start > from {
                gaps.push(Self { start: from, end: range.start });
            }
            from = from.max(range.end);
        }
        if from < self.end {
            gaps.push(Self { start: from, end: self.end });
        }
        gaps
    }
}

impl fmt::Display for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.start.0, self.end.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_lie_between() {
        let outer = PageRange::new(0x1000, 0x6000);
        let ranges = [PageRange::new(0, 0x2000), PageRange::new(0x3000, 0x4000), PageRange::new(0x7000, 0x8000)];
        assert_eq!(outer.without(&ranges), [PageRange::new(0x2000, 0x3000), PageRange::new(0x4000, 0x6000)]);
        assert_eq!(outer.without(&[]), [outer]);
    }
}
