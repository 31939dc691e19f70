//! What no host can restore. A dump asks too, so that there is no such image.

use super::blocker;
use crate::blocker::Blocker;
use crate::image::model::Snapshot;
use crate::image::model::memory::{Backing, SharedMemoryKind, Vma, VmaFlags};
use crate::image::model::process::Process;
use crate::restore::genealogy::genealogy;
use crate::restore::lookup::task_path;
use crate::restore::readdress::Consequences;
use crate::restore::{Choices, memory};

/// Everything in an image that no restore could bring back, wherever it is.
#[must_use]
pub fn unrestorable(snapshot: &Snapshot) -> Vec<Blocker> {
    let readdressed = Consequences::default();
    let choices = Choices::plain(&readdressed);
    let relations = genealogy(snapshot, &choices).err().unwrap_or_default();
    relations.into_iter().chain(objects(snapshot)).collect()
}

/// The same without the relations between tasks, which the plan of a restore finds by itself.
pub fn objects(snapshot: &Snapshot) -> Vec<Blocker> {
    snapshot
        .processes
        .iter()
        .flat_map(|process| {
            let vmas = &snapshot.mms[process.mm.0 as usize].vmas;
            let mappings = vmas.iter().filter_map(|vma| mapping(snapshot, process, vma));
            mappings.chain(threads(snapshot, process)).collect::<Vec<_>>()
        })
        .collect()
}

fn mapping(snapshot: &Snapshot, process: &Process, vma: &Vma) -> Option<Blocker> {
    let kind = |shm: &crate::image::model::id::ShmId| &snapshot.shared_memory[shm.0 as usize];
    let reason = match &vma.backing {
        backing if vma.range.end.0 > memory::TASK_END && !matches!(backing, Backing::Vsyscall) => {
            "it lies beyond the four-level address space"
        }
        _ if vma.flags.contains(VmaFlags::SYNC) => "it is mapped MAP_SYNC",
        Backing::PrivateShared { shm, offset: _ } if matches!(kind(shm).kind, SharedMemoryKind::Anonymous) => {
            "a private mapping of anonymous shared memory"
        }
        _ => return None,
    };
    Some(blocker(process.pid, format!("mapping {}", vma.range), reason, "no option; not supported yet"))
}

fn threads<'a>(snapshot: &'a Snapshot, process: &'a Process) -> impl Iterator<Item = Blocker> + 'a {
    process.others().iter().filter(|thread| thread.fs != process.threads[0].fs).filter_map(|thread| {
        let path = task_path(snapshot, snapshot.fs_contexts[thread.fs.0 as usize].cwd)?;
        let object = format!("tid {}: /proc/{}", thread.tid, String::from_utf8_lossy(path));
        let reason = "a thread has it as a working directory of its own";
        Some(blocker(process.pid, object, reason, "no option; not supported yet"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::sample;

    #[test]
    fn what_no_host_can_restore_is_named() {
        let mut snapshot = sample::snapshot();
        let before = objects(&snapshot).len();
        let named = |snapshot: &Snapshot, words: &str| {
            let blockers = objects(snapshot);
            assert_eq!(blockers.len(), before + 1, "{blockers:?}");
            assert!(blockers.iter().any(|blocker| format!("{blocker:?}").contains(words)), "{blockers:?}");
        };
        let mm = snapshot.processes[0].mm.0 as usize;
        snapshot.mms[mm].vmas[0].flags |= VmaFlags::SYNC;
        named(&snapshot, "MAP_SYNC");
    }
}
