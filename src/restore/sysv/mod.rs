//! System V objects of the image: made by `snap` before the skeletons are born, under their old identifiers, and removed again unless the
//! restore succeeds.

mod check;
mod facts;
mod make;
mod undo;

pub use check::{Planned, check};
pub use facts::SystemV;
pub use make::Objects;
pub use undo::{touch_semaphores, undo_semaphores};

use crate::image::model::Snapshot;
use crate::image::model::id::ShmId;
use crate::image::model::ipc::{IpcOwner, Segment};
use crate::image::model::memory::{Backing, SharedMemoryKind};
use crate::sys::sysv::Kind;
use std::collections::HashSet;

/// The segments of an image, those first that are marked for destruction: others may have their key since.
#[must_use]
pub fn segments(snapshot: &Snapshot) -> Vec<(ShmId, &Segment)> {
    let mut segments: Vec<(ShmId, &Segment)> = snapshot
        .shared_memory
        .iter()
        .filter_map(|shm| match &shm.kind {
            SharedMemoryKind::SystemV(segment) => Some((shm.id, segment)),
            SharedMemoryKind::Anonymous | SharedMemoryKind::AnonymousHuge { .. } | SharedMemoryKind::Memfd { .. } => {
                None
            }
        })
        .collect();
    segments.sort_by_key(|(_, segment)| !segment.destroyed);
    segments
}

/// Every System V object of an image.
#[must_use]
pub fn objects(snapshot: &Snapshot) -> Vec<(Kind, i32, IpcOwner)> {
    let segments = segments(snapshot).into_iter().map(|(_, segment)| (Kind::Segment, segment.id, segment.owner));
    let sets = snapshot.ipc.semaphores.iter().map(|set| (Kind::Semaphores, set.id, set.owner));
    let queues = snapshot.ipc.queues.iter().map(|queue| (Kind::Queue, queue.id, queue.owner));
    segments.chain(sets).chain(queues).collect()
}

/// Segments that somebody has attached for reading alone.
#[must_use]
pub fn read_only(snapshot: &Snapshot) -> HashSet<ShmId> {
    let vmas = snapshot.mms.iter().flat_map(|mm| &mm.vmas);
    vmas.filter_map(|vma| match vma.backing {
        Backing::Shared { shm, offset: _, may_write: false } => Some(shm),
        _ => None,
    })
    .collect()
}
