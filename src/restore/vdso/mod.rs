//! What becomes of this host's vdso and of that of the image. Pure.
//!
//! Where both are the same, the host's is moved to where the program has it. Otherwise the old code stays at its old address as ordinary
//! memory, for whoever has its address: its entry points are overwritten with jumps to those of the host's, which has a place of its
//! own. The old data pages are zero: `clock_mode` 0 is VDSO_CLOCKMODE_NONE, so that old code to which a signal handler
//! returns finds its sequence count changed, begins again, and makes the system call (lib/vdso/gettimeofday.c).

mod entries;
mod patch;

pub use entries::{Entry, entries};

use super::check::blocker;
use super::host::HostFacts;
use super::layout::find_hole;
use super::memory::{TASK_END, is_vdso};
use crate::blocker::Blocker;
use crate::image::model::address::{Addr, PageRange};
use crate::image::model::inventory::Host;
use crate::image::model::memory::{Backing, Mm, Prot, Remainder, Vma, VmaFlags};
use crate::image::model::process::Process;

const SEALED: &str = "this kernel seals system mappings";

/// Where the host's vdso goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// Nowhere: the program has none.
    #[default]
    Nowhere,
    /// It stays where it is.
    Here,
    /// The first address of each of its parts.
    At(Vec<Addr>),
}

/// What is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vdso {
    /// The host's.
    pub home: Home,
    /// Its parts where they will be.
    pub parts: Vec<PageRange>,
    /// The old code with its jumps, and where it goes; `None` where the host's takes its place.
    pub old: Option<(Addr, Vec<u8>)>,
    /// What the user should know.
    pub notices: Vec<String>,
}

/// Decides it; `now` is where the parts of the host's are when the process is born.
///
/// # Errors
/// What stands in the way.
pub fn decide(
    host: &Host,
    process: &Process,
    mm: &Mm,
    now: &[PageRange],
    facts: &HostFacts,
) -> Result<Vdso, Vec<Blocker>> {
    let wanted: Vec<PageRange> = mm.vmas.iter().filter(|vma| is_vdso(vma)).map(|vma| vma.range).collect();
    let lengths = |parts: &[PageRange]| parts.iter().map(|part| part.len()).collect::<Vec<_>>();
    let same = host.vdso_build_id == facts.vdso_build_id && lengths(&wanted) == lengths(now);
    let stays = Vdso { home: Home::Here, parts: now.to_vec(), ..Vdso::default() };
    if same && wanted == now {
        return Ok(stays);
    }
    let settled = if facts.vdso_sealed {
        check_free(process, mm, now)?;
        stays
    } else if wanted.is_empty() || now.is_empty() {
        Vdso::default()
    } else if same {
        return Ok(moved(wanted));
    } else {
        let parts = beside(&wanted, mm, now);
        moved(parts.ok_or_else(|| vec![vdso_blocker(process, "there is no room for that of this kernel", "")])?)
    };
    match mm.vmas.iter().find(|vma| matches!(vma.backing, Backing::Vdso)) {
        None => Ok(settled),
        Some(code) => replace(settled, host, process, mm, code.range, facts),
    }
}

fn moved(parts: Vec<PageRange>) -> Vdso {
    Vdso { home: Home::At(parts.iter().map(|part| part.start).collect()), parts, ..Vdso::default() }
}

fn vdso_blocker(process: &Process, reason: impl Into<String>, remedy: &str) -> Blocker {
    blocker(process.pid, "[vdso]", reason, remedy)
}

/// Whether the program leaves the place free where the host's vdso must stay.
fn check_free(process: &Process, mm: &Mm, now: &[PageRange]) -> Result<(), Vec<Blocker>> {
    let taken = |part: &PageRange| mm.vmas.iter().find(|vma| vma.range.overlaps(*part));
    match now.iter().find_map(taken) {
        None => Ok(()),
        Some(vma) => {
            let reason = format!("{SEALED}, and the vdso stands where the program has its mapping {}", vma.range);
            Err(vec![vdso_blocker(process, reason, "try again: every start of snap has it elsewhere")])
        }
    }
}

/// Room for the parts, in their order and distance, right behind the old ones if it is free there.
fn beside(old: &[PageRange], mm: &Mm, parts: &[PageRange]) -> Option<Vec<PageRange>> {
    let (first, last) = (parts.first()?, parts.last()?);
    let size = last.end.0 - first.start.0;
    let mut used: Vec<PageRange> = mm.vmas.iter().map(|vma| vma.range).collect();
    let behind = old.last()?.end.0;
    let candidate = PageRange::new(behind, behind.checked_add(size)?);
    let free = candidate.end.0 <= TASK_END && used.iter().all(|range| !range.overlaps(candidate));
    let base = if free {
        candidate.start
    } else {
        used.extend_from_slice(old);
        find_hole(&used, size)?.start
    };
    let place = |part: &PageRange| {
        let start = base.0 + (part.start.0 - first.start.0);
        PageRange::new(start, start + part.len())
    };
    Some(parts.iter().map(place).collect())
}

/// The old code at its old address, its entry points leading to the host's.
fn replace(
    settled: Vdso,
    host: &Host,
    process: &Process,
    mm: &Mm,
    code: PageRange,
    facts: &HostFacts,
) -> Result<Vdso, Vec<Blocker>> {
    if host.vdso.len() as u64 != code.len() {
        let reason = "the host has another one, and the image does not hold its own";
        return Err(vec![vdso_blocker(process, reason, "restore under the kernel of the dump")]);
    }
    let old = entries(&host.vdso);
    let mut blockers = inside(process, mm, code, &old);
    // The code is the last part (arch/x86/entry/vdso/vma.c, `map_vdso`).
    let target = settled.parts.last().map_or(Addr::NULL, |part| part.start);
    match patch::patch(&host.vdso, &old, target, &facts.vdso_entries) {
        Err(name) => {
            let reason = format!("its entry point {name} is too short to hold a jump");
            blockers.push(vdso_blocker(process, reason, "restore under the kernel of the dump"));
            Err(blockers)
        }
        Ok(_) if !blockers.is_empty() => Err(blockers),
        Ok(patch::Patched { bytes, failing }) => {
            let notice = |name| format!("the vdso of this kernel has no {name}: it fails with ENOSYS from now on");
            let notices = failing.into_iter().map(notice).collect();
            Ok(Vdso { old: Some((code.start, bytes)), notices, ..settled })
        }
    }
}

/// Threads that stand in the middle of the old code: what they have read of the old data pages is worth nothing here. The rest of a system call
/// reads nothing.
fn inside(process: &Process, mm: &Mm, code: PageRange, entries: &[Entry]) -> Vec<Blocker> {
    let is_entry = |rip: u64| entries.iter().any(|entry| code.start.0 + entry.offset == rip);
    let ours =
        |rip: u64| mm.remainders.iter().any(|Remainder { at, code }| (at.0..at.0 + code.len() as u64).contains(&rip));
    let stands = |rip: u64| code.contains(Addr(rip)) && !is_entry(rip) && !ours(rip);
    let threads = process.threads.iter().filter(|thread| stands(thread.cpu.regs.rip));
    threads
        .map(|thread| {
            let reason = "it was in the middle of the vdso at the dump, and this kernel has another one";
            let remedy = "restore under the kernel of the dump, or dump again there";
            blocker(process.pid, format!("tid {}", thread.tid), reason, remedy)
        })
        .collect()
}

/// The address space with the old vdso as ordinary memory.
#[must_use]
pub fn as_memory(mm: &Mm) -> Mm {
    let mut mm = mm.clone();
    for vma in mm.vmas.iter_mut().filter(|vma| is_vdso(vma)) {
        // Writable at first, to be filled: that is what being accounted says.
        let (prot, flags) = match vma.backing {
            Backing::Vdso => (Prot::READ.union(Prot::EXEC), VmaFlags::ACCOUNTED),
            _ => (Prot::READ, VmaFlags::empty()),
        };
        *vma = Vma {
            range: vma.range,
            prot,
            backing: Backing::Anonymous,
            flags,
            pkey: 0,
            name: None,
            policy: None,
            huge: Vec::new(),
            guards: Vec::new(),
        };
    }
    mm
}

#[cfg(test)]
mod tests;
