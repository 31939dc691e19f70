//! Which addresses and descriptor numbers are free both in `snap` and in what it restores. Pure.

use super::memory::TASK_END;
use crate::image::model::address::{Addr, PageRange};
use std::collections::BTreeSet;

/// Below this nothing of ours is placed: programs have their null pages and small fixed mappings there.
const LOWEST: u64 = 1 << 32;

/// The first hole of at least `size` bytes between `used` ranges, with a page left free at both ends.
#[must_use]
pub fn find_hole(used: &[PageRange], size: u64) -> Option<PageRange> {
    let mut used: Vec<PageRange> = used.to_vec();
    used.sort_unstable_by_key(|range| range.start);
    let mut from = LOWEST;
    for range in used.iter().copied().chain([PageRange::new(TASK_END, TASK_END)]) {
        let end = range.start.0.min(TASK_END);
        let needed = size.checked_add(2 * 4096)?;
        if end > from && end - from >= needed {
            return Some(PageRange { start: Addr(from + 4096), end: Addr(end - 4096) });
        }
        from = from.max(range.end.0);
    }
    None
}

/// Gives out descriptor numbers.
#[derive(Clone, Debug)]
pub struct Numbers {
    used: BTreeSet<i32>,
    next: i32,
}

impl Numbers {
    /// Numbers that neither `used` here nor `wanted` there holds are given out from the top of both.
    #[must_use]
    pub fn new(used: &BTreeSet<i32>, wanted: impl Iterator<Item = i32>) -> Self {
        let highest = used.iter().copied().chain(wanted).max().unwrap_or(2);
        Self { used: used.clone(), next: highest + 1 }
    }

    /// `number` if it is free here, else one from the top.
    pub fn claim(&mut self, number: i32) -> i32 {
        if self.used.insert(number) { number } else { self.fresh() }
    }

    /// One from the top.
    pub fn fresh(&mut self) -> i32 {
        self.next += 1;
        self.next - 1
    }

    /// First number above all that were given out.
    #[must_use]
    pub const fn top(&self) -> i32 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_touches_nothing() {
        let used = [PageRange::new(0x7000_0000_0000, 0x7000_0000_1000), PageRange::new(LOWEST, LOWEST + 0x3000)];
        let hole = find_hole(&used, 1 << 20).unwrap();
        assert!(hole.len() >= 1 << 20);
        assert!(used.iter().all(|range| !range.overlaps(hole)));
        assert_eq!(find_hole(&[PageRange::new(LOWEST, TASK_END)], 1), None);
    }

    #[test]
    fn a_number_is_kept_where_it_is_free() {
        let mut numbers = Numbers::new(&BTreeSet::from([0, 1, 2, 5]), [7, 3].into_iter());
        assert_eq!([numbers.claim(3), numbers.claim(5), numbers.fresh()], [3, 8, 9]);
        assert_eq!(numbers.top(), 10);
    }
}
