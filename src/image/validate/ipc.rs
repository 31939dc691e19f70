//! System V IPC, and POSIX message queues.

use super::ensure;
use crate::image::error::Error;
use crate::image::model::address::PAGE_SIZE;
use crate::image::model::ipc::{
    Ipc, IpcOwner, Message, MessageQueue, NotificationEvent, PosixMessage, PosixQueue, Segment, SemaphoreSet, Undo,
};
use crate::image::model::memory::{SharedMemory, SharedMemoryKind};
use std::collections::HashSet;

/// NAME_MAX.
const NAME_MAX: usize = 255;

/// MQ_PRIO_MAX.
const PRIORITIES: u32 = 32768;

/// The highest signal.
const SIGNALS: i32 = 64;

/// SEMVMX: the most that a semaphore can be.
const VALUE_MAX: u16 = 32767;

pub fn ipc(ipc: &Ipc) -> Result<(), Error> {
    let object = || "System V IPC".to_owned();
    ensure(ipc.semaphores.is_sorted_by(|a, b| a.id < b.id), object, "has sets of semaphores out of order")?;
    ensure(ipc.queues.is_sorted_by(|a, b| a.id < b.id), object, "has message queues out of order")?;
    ipc.semaphores.iter().try_for_each(semaphores)?;
    ipc.queues.iter().try_for_each(queue)?;
    ipc.posix_queues.iter().enumerate().try_for_each(|(index, queue)| posix_queue(index, queue))
}

fn posix_queue(index: usize, queue: &PosixQueue) -> Result<(), Error> {
    let object = || format!("message queue {}", queue.id);
    ensure(queue.id.0 as usize == index, object, "is not in its place")?;
    let plain =
        !queue.name.is_empty() && queue.name.len() <= NAME_MAX && !queue.name.iter().any(|b| matches!(b, 0 | b'/'));
    ensure(plain, object, "has an impossible name")?;
    ensure(queue.mode <= 0o7777, object, "has impossible permissions")?;
    let sane = |number: u64| i64::try_from(number).is_ok();
    let fits = |message: &PosixMessage| message.text.len() as u64 <= queue.message_size;
    let fit = queue.messages.len() as u64 <= queue.max_messages && queue.messages.iter().all(fits);
    let sizes = [queue.max_messages, queue.message_size];
    ensure(sizes.into_iter().all(sane) && fit, object, "has impossible sizes")?;
    let is_priority = |message: &PosixMessage| message.priority < PRIORITIES;
    ensure(queue.messages.iter().all(is_priority), object, "has an impossible priority")?;
    let sorted = queue.messages.is_sorted_by(|a, b| a.priority >= b.priority);
    ensure(sorted, object, "has messages out of order")?;
    match queue.notification.map(|notification| notification.event) {
        Some(NotificationEvent::Signal { signal, value: _ }) => {
            ensure((0..=SIGNALS).contains(&signal), object, "notifies by an impossible signal")
        }
        None | Some(NotificationEvent::Nothing | NotificationEvent::Thread { socket: _, cookie: _ }) => Ok(()),
    }
}

fn semaphores(set: &SemaphoreSet) -> Result<(), Error> {
    let object = || format!("set of semaphores {}", set.id);
    owner(set.id, &set.owner, object)?;
    // A number of a semaphore has 16 bits in semop(2).
    let count = (1..=1 << 16).contains(&set.semaphores.len());
    ensure(count, object, "has an impossible number of semaphores")?;
    ensure(set.semaphores.iter().all(|one| one.value <= VALUE_MAX), object, "has an impossible value")
}

fn queue(queue: &MessageQueue) -> Result<(), Error> {
    let object = || format!("message queue {}", queue.id);
    owner(queue.id, &queue.owner, object)?;
    let sane = |message: &Message| message.kind > 0 && i32::try_from(message.text.len()).is_ok();
    ensure(queue.messages.iter().all(sane), object, "has an impossible message")
}

/// No two segments have one identifier.
pub fn segments(objects: &[SharedMemory]) -> Result<(), Error> {
    let mut seen = HashSet::new();
    for shm in objects {
        if let SharedMemoryKind::SystemV(segment) = &shm.kind {
            ensure(
                seen.insert(segment.id),
                || format!("shared memory {}", shm.id),
                "is a segment that is there twice",
            )?;
        }
    }
    Ok(())
}

pub fn segment(segment: &Segment, memory: u64) -> Result<(), Error> {
    let object = || format!("segment {}", segment.id);
    owner(segment.id, &segment.owner, object)?;
    let page = segment.huge_page.unwrap_or(PAGE_SIZE);
    ensure(page.is_power_of_two() && page >= PAGE_SIZE, object, "has pages of an impossible size")?;
    let whole = segment.size.checked_next_multiple_of(page);
    ensure(segment.size > 0 && whole == Some(memory), object, "has an impossible size")
}

fn owner(id: i32, owner: &IpcOwner, object: impl Fn() -> String) -> Result<(), Error> {
    ensure(id >= 0, &object, "has an impossible identifier")?;
    ensure(owner.mode <= 0o777, object, "has impossible permissions")
}

/// What a task undoes.
pub fn undo(undo: &[Undo], ipc: &Ipc, object: impl Fn() -> String) -> Result<(), Error> {
    for Undo { set, semaphore, adjustment } in undo {
        let set = ipc.semaphores.get(*set as usize);
        let exists = set.is_some_and(|set| usize::from(*semaphore) < set.semaphores.len());
        ensure(exists && *adjustment != 0, &object, "undoes operations on no semaphore")?;
    }
    Ok(())
}
