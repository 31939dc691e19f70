//! Memory that a child has from its parent: pages shared copy-on-write since fork(2), which are made once and inherited again. Pure.

use super::memory::first_protection;
use super::script::{Label, List};
use crate::image::model::Snapshot;
use crate::image::model::address::PageRange;
use crate::image::model::fork::{common, continued};
use crate::image::model::id::MmId;
use crate::image::model::memory::{Inherited, Mm, Vma, VmaFlags};

/// A part of a mapping that a skeleton has inherited with its pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Which part.
    pub range: PageRange,
    /// The protection that it was given first by the parent, and that it has here.
    protections: [u64; 2],
    /// Parts whose pages were not the parent's.
    foreign: Vec<PageRange>,
}

/// What of the parent's address space, ready as it is when its pages are there, a child keeps: what holds pages that they share.
#[must_use]
pub fn kept(parent: &Mm, child: &Mm) -> Vec<Kept> {
    let shared = child.inherited.as_ref().map_or(&[][..], |inherited| &inherited.pages);
    let mut kept = Vec::new();
    for (range, above, vma) in continued(&parent.vmas, &child.vmas) {
        let first = shared.partition_point(|pages| pages.end <= range.start);
        if is_inherited(above, vma) && shared.get(first).is_some_and(|pages| pages.start < range.end) {
            let foreign = range.without(&shared[first..]);
            kept.push(Kept { range, protections: [first_protection(above), first_protection(vma)], foreign });
        }
    }
    kept
}

/// Whose pages an address space is to get as a copy where it cannot inherit them from its parent: each owner with the pages that are its own or
/// the image's of its own parent.
#[must_use]
pub fn sources(snapshot: &Snapshot, mm: MmId) -> Vec<(MmId, Vec<PageRange>)> {
    let mut sources = Vec::new();
    let mut wanted: Option<Vec<PageRange>> = None;
    let mut at = mm;
    while let Some(Inherited { from, pages }) = &snapshot.mms[at.0 as usize].inherited {
        let pages = wanted.as_ref().map_or_else(|| pages.clone(), |wanted| common(wanted, pages));
        sources.push((*from, pages.clone()));
        (wanted, at) = (Some(pages), *from);
    }
    sources
}

/// Whether a mapping has besides its memory what it would have from fork(2), and no call could give it.
fn is_inherited(above: &Vma, vma: &Vma) -> bool {
    let fixed = VmaFlags::GROWS_DOWN | VmaFlags::NO_RESERVE | VmaFlags::DROPPABLE;
    above.flags.intersection(fixed) == vma.flags.intersection(fixed)
        && above.name == vma.name
        && above.policy == vma.policy
}

/// Makes an inherited part what it must be before it is filled.
pub fn keep(list: &mut List, kept: &Kept) {
    let [was, wanted] = kept.protections;
    if was != wanted {
        let args = [kept.range.start.0, kept.range.len(), wanted];
        list.call(Label::Range("protecting", kept.range), libc::SYS_mprotect, &args);
    }
    for part in &kept.foreign {
        let args = [part.start.0, part.len(), libc::MADV_DONTNEED as u64];
        list.call(Label::Range("dropping pages of the parent in", *part), libc::SYS_madvise, &args);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::model::memory::Backing;
    use crate::image::tests::sample;

    fn mm(vmas: &[(u64, u64)]) -> Mm {
        let mut mm = sample::bare(1).mms.remove(0);
        let vma = |(start, end): &(u64, u64)| sample::vma(PageRange::new(*start, *end), Backing::Anonymous);
        mm.vmas = vmas.iter().map(vma).collect();
        mm
    }

    fn child(vmas: &[(u64, u64)], pages: &[(u64, u64)]) -> Mm {
        let pages = pages.iter().map(|(start, end)| PageRange::new(*start, *end)).collect();
        Mm { inherited: Some(Inherited { from: MmId(0), pages }), ..mm(vmas) }
    }

    fn ranges(kept: &[Kept]) -> Vec<(u64, u64)> {
        kept.iter().map(|kept| (kept.range.start.0, kept.range.end.0)).collect()
    }

    #[test]
    fn only_what_holds_shared_pages_is_kept() {
        let parent = mm(&[(0x1000, 0x5000), (0x8000, 0x9000)]);
        let kept = kept(&parent, &child(&[(0x1000, 0x5000), (0x8000, 0x9000)], &[(0x2000, 0x3000)]));
        assert_eq!(ranges(&kept), [(0x1000, 0x5000)]);
        assert_eq!(kept[0].foreign, [PageRange::new(0x1000, 0x2000), PageRange::new(0x3000, 0x5000)]);
    }

    #[test]
    fn a_mapping_that_was_cut_is_kept_in_part() {
        let parent = mm(&[(0x1000, 0x9000)]);
        let kept = kept(&parent, &child(&[(0x1000, 0x3000), (0x5000, 0xa000)], &[(0x1000, 0x9000)]));
        assert_eq!(ranges(&kept), [(0x1000, 0x3000), (0x5000, 0x9000)]);
        assert!(kept.iter().all(|kept| kept.foreign.is_empty()));
    }
}
