//! Contexts of Linux AIO: made where the kernel likes, moved to where they were, and turned on until their events come to stand where they stood.
//!
//! A context follows its ring when that is moved (fs/aio.c, `aio_ring_mremap`), so that it has the old id again. Requests that are done at once
//! move the tail; those for which there are events are not taken, and their slots are written over: so the kernel's accounts are right.

use super::check::blocker;
use super::script::{Label, List, Script};
use crate::blocker::Blocker;
use crate::image::model::Snapshot;
use crate::image::model::address::{Addr, PAGE_SIZE, PageRange};
use crate::image::model::aio::{AioEvent, AioRing};
use crate::image::model::memory::Backing;
use crate::proc::host;
use crate::sys::aio::Request;

/// Most requests that are submitted together.
const BATCH: u32 = 256;
/// Offset of the words `head` and `tail` in a ring.
const HEAD: u64 = 8;
/// Bytes of an event, and of what is before the first.
const EVENT: u64 = 32;

/// What this host has for contexts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AioFacts {
    /// CPUs that it may ever have; 0 if that is not known.
    pub cpus: u64,
    /// Requests that all contexts to be made may ask for together; none at all on a kernel without.
    pub left: u64,
}

impl AioFacts {
    /// Looks.
    #[must_use]
    pub fn probe(buffer: &mut Vec<u8>) -> Self {
        let mut number = |name| host::sysctl_number(name, buffer).unwrap_or(0);
        let left = number("fs/aio-max-nr").saturating_sub(number("fs/aio-nr"));
        Self { cpus: host::possible_cpus().map_or(0, |(count, _)| count), left: left.max(0).cast_unsigned() }
    }
}

/// Why the contexts of an image cannot be had here.
#[must_use]
pub fn check(snapshot: &Snapshot, facts: AioFacts) -> Vec<Blocker> {
    let mut blockers = Vec::new();
    let mut wanted = 0;
    for mm in &snapshot.mms {
        let Some(process) = snapshot.processes.iter().find(|process| process.mm == mm.id) else { continue };
        for vma in mm.vmas.iter().filter(|vma| matches!(vma.backing, Backing::AioRing(_))) {
            wanted += u64::from(AioRing::requests(AioRing::slots(vma.range.len())));
            if vma.range.len() / PAGE_SIZE < AioRing::least_pages(facts.cpus) {
                let object = format!("AIO context {}", vma.range.start);
                let reason =
                    format!("on a machine with {} possible CPUs the ring of no context is so small", facts.cpus);
                blockers.push(blocker(process.pid, object, reason, "restore on a machine with fewer"));
            }
        }
    }
    if wanted > facts.left {
        let reason = format!("they take {wanted} requests, and {} are left (fs.aio-max-nr)", facts.left);
        let remedy = "raise it: sysctl fs.aio-max-nr, on a kernel with CONFIG_AIO";
        blockers.push(blocker(snapshot.inventory.root, "AIO contexts", reason, remedy));
    }
    blockers
}

/// Makes a context with its ring at `range`. `ready` is a descriptor of a regular file.
pub fn make(list: &mut List, script: &mut Script, range: PageRange, ring: &AioRing, ready: i32) {
    let slots = AioRing::slots(range.len());
    let id = script.place_words(&[0]);
    // Otherwise the kernel could choose a part of it.
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE) as u64;
    let hold = [range.start.0, range.len(), libc::PROT_NONE as u64, flags, u64::MAX, 0];
    list.call_equals(Label::Range("mapping", range), libc::SYS_mmap, &hold, range.start.0);
    let requests = u64::from(AioRing::requests(slots));
    list.call(Label::Range("making the AIO context", range), libc::SYS_io_setup, &[requests, id.0]);
    let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
    let args = [id.0, range.len(), range.len(), flags, range.start.0];
    list.call_indirect(Label::Range("moving the ring of the AIO context", range), libc::SYS_mremap, &args, 1);
    let most = (slots / 4).clamp(1, BATCH);
    let request = script.place(&Request { data: 0, fd: ready }.bytes());
    let batch = script.place_words(&vec![request.0; most as usize]);
    let label = Label::Range("turning on the AIO context", range);
    let submit = |list: &mut List, count: u32| {
        let args = [range.start.0, count.into(), batch.0];
        list.call_equals(label.clone(), libc::SYS_io_submit, &args, count.into());
    };
    let mut at = 0;
    while at < ring.head {
        let count = most.min(ring.head - at);
        submit(list, count);
        at += count;
        // Both words in one: what is there is taken.
        list.store(label.clone(), range.start.add(HEAD), u64::from(at) | u64::from(at) << 32);
    }
    let mut left = ring.events.len() as u32;
    while left > 0 {
        let count = most.min(left);
        submit(list, count);
        left -= count;
    }
    let first = ring.events.len().min((slots - ring.head) as usize);
    let (before, behind) = ring.events.split_at(first);
    put(list, script, range, ring.head, before);
    put(list, script, range, 0, behind);
}

/// Writes events from a slot on.
fn put(list: &mut List, script: &mut Script, range: PageRange, slot: u32, events: &[AioEvent]) {
    if events.is_empty() {
        return;
    }
    let bytes: Vec<u8> = events.iter().flat_map(AioEvent::bytes).collect();
    let at: Addr = range.start.add((u64::from(slot) + 1) * EVENT);
    list.copy(Label::Range("putting events into the AIO context", range), at, script.place(&bytes), bytes.len() as u64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::sample;

    #[test]
    fn a_ring_that_is_too_small_and_what_the_limit_leaves_are_named() {
        // The sample has one context, with a ring of one page.
        let snapshot = sample::snapshot();
        let reasons = |cpus, left| {
            let found = check(&snapshot, AioFacts { cpus, left });
            found.into_iter().map(|blocker| blocker.reason).collect::<Vec<_>>()
        };
        assert_eq!(reasons(15, 1), [""; 0]);
        assert_eq!(reasons(16, 1), ["on a machine with 16 possible CPUs the ring of no context is so small"]);
        assert_eq!(reasons(2, 0), ["they take 1 requests, and 0 are left (fs.aio-max-nr)"]);
    }
}
