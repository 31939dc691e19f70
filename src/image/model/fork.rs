//! What fork(2) leaves two address spaces in common.

use super::address::PageRange;
use super::memory::{Backing, Vma};

/// Where both have private memory of the same kind: of nothing, or of the same bytes of the same file. Each part with the mappings of parent and
/// child, ascending.
#[must_use]
pub fn continued<'a>(parent: &'a [Vma], child: &'a [Vma]) -> Vec<(PageRange, &'a Vma, &'a Vma)> {
    let mut at = 0;
    let mut parts = Vec::new();
    for vma in child {
        while parent.get(at).is_some_and(|above| above.range.end <= vma.range.start) {
            at += 1;
        }
        let overlapping = parent[at..].iter().take_while(|above| above.range.start < vma.range.end);
        parts.extend(overlapping.filter(|above| is_alike(above, vma)).map(|above| {
            let (start, end) = (above.range.start.max(vma.range.start), above.range.end.min(vma.range.end));
            (PageRange { start, end }, above, vma)
        }));
    }
    parts
}

fn is_alike(above: &Vma, vma: &Vma) -> bool {
    let begins = |vma: &Vma, offset: u64| vma.range.start.0.wrapping_sub(offset);
    match (&above.backing, &vma.backing) {
        (Backing::Anonymous, Backing::Anonymous) => true,
        (Backing::PrivateFile { file: a, offset: at_a }, Backing::PrivateFile { file: b, offset: at_b }) => {
            a == b && begins(above, *at_a) == begins(vma, *at_b)
        }
        (Backing::PrivateShared { shm: a, offset: at_a }, Backing::PrivateShared { shm: b, offset: at_b }) => {
            a == b && begins(above, *at_a) == begins(vma, *at_b)
        }
        _ => false,
    }
}

/// What two ascending lists of ranges have in common.
#[must_use]
pub fn common(a: &[PageRange], b: &[PageRange]) -> Vec<PageRange> {
    let (mut i, mut j, mut common) = (0, 0, Vec::new());
    while let (Some(one), Some(other)) = (a.get(i), b.get(j)) {
        let (start, end) = (one.start.max(other.start), one.end.min(other.end));
        if start < end {
            common.push(PageRange { start, end });
        }
        if one.end <= other.end { i += 1 } else { j += 1 }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::model::address::PAGE_SIZE;

    #[test]
    fn only_what_both_have_is_common() {
        let ranges = |list: &[(u64, u64)]| -> Vec<PageRange> {
            list.iter().map(|(start, end)| PageRange::new(start * PAGE_SIZE, end * PAGE_SIZE)).collect()
        };
        assert_eq!(
            common(&ranges(&[(1, 5), (7, 9), (10, 11)]), &ranges(&[(0, 2), (4, 8), (10, 20)])),
            ranges(&[(1, 2), (4, 5), (7, 8), (10, 11)])
        );
    }
}
