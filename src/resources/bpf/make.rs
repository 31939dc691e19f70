//! Makes a map of bpf(2) again, with what is in it.

use super::content;
use super::source::MapSource;
use crate::image::model::bpf::{BpfMap, MapContent, MapTypes};
use crate::sys::affinity;
use crate::sys::bpf::{self, Attributes, NAME_LEN};
use nix::errno::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Most bytes of values that are handed over in one call.
const AT_ONCE: usize = 1 << 20;

/// What a map is made with. `inner` is one that is in it, `types` describes what its keys and values are.
#[must_use]
pub fn attributes(map: &BpfMap, inner: Option<BorrowedFd<'_>>, types: Option<BorrowedFd<'_>>) -> Attributes {
    let mut name = [0; NAME_LEN];
    for (to, from) in name.iter_mut().zip(&map.name).take(BpfMap::NAME_MAX) {
        *to = *from;
    }
    let attributes = Attributes {
        kind: map.kind.0,
        key_size: map.key_size,
        value_size: map.value_size,
        max_entries: map.max_entries,
        flags: map.flags,
        name,
        extra: map.extra,
        ..Attributes::default()
    };
    let attributes = attributes.with_inner(inner);
    match (map.types, types) {
        (Some(MapTypes { of: _, key, value }), Some(of)) => attributes.with_types(of, key, value),
        (None, _) | (_, None) => attributes,
    }
}

/// Makes a map with what is in it, and freezes it if it was, unless that is in pages. `inner` gives the maps that are in it, in the order of their keys, `types` describes what
/// its keys and values are.
///
/// # Errors
/// As bpf(2); `StorageFull` where the kernel has dropped something again.
pub fn make(map: &BpfMap, inner: &[BorrowedFd<'_>], types: Option<BorrowedFd<'_>>) -> io::Result<File> {
    let made = bpf::create(attributes(map, inner.first().copied(), types))?;
    fill(map, made.as_fd(), inner)?;
    if map.pages_len().is_none() {
        complete(map, made.as_fd())?;
    }
    Ok(made)
}

/// What comes last, once everything is in a map.
///
/// # Errors
/// As [`make`].
pub fn complete(map: &BpfMap, made: BorrowedFd<'_>) -> io::Result<()> {
    let (MapContent::Entries { keys: _, values: _, cpus } | MapContent::EntryPages { chunks: _, cpus }) = &map.content
    else {
        return freeze(map, made);
    };
    // The kernel makes room in maps that forget before they are full (kernel/bpf/bpf_lru_list.c).
    if map.kind.forgets() && content::count(map, made, *cpus)? != map.entries() as u64 {
        return Err(io::ErrorKind::StorageFull.into());
    }
    freeze(map, made)
}

fn freeze(map: &BpfMap, made: BorrowedFd<'_>) -> io::Result<()> {
    if map.frozen { Ok(bpf::freeze(made)?) } else { Ok(()) }
}

/// Makes a map and fills it, from its source if much is in it, to see whether that can be done; it is gone at once.
///
/// # Errors
/// As [`make`], and as reading the source.
pub fn copy(map: &BpfMap, source: Option<&MapSource>, types: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let made = make(map, &[], types)?;
    let (Some(source), MapContent::EntryPages { chunks: _, cpus }) = (source, &map.content) else { return Ok(()) };
    let cpu = affinity::first()?;
    source.each(|keys, values| put_on(cpu, map, made.as_fd(), (keys, values), *cpus))?;
    complete(map, made.as_fd())
}

fn fill(map: &BpfMap, made: BorrowedFd<'_>, inner: &[BorrowedFd<'_>]) -> io::Result<()> {
    match &map.content {
        MapContent::Pinned(_) | MapContent::MemoryPages | MapContent::EntryPages { .. } => Ok(()),
        MapContent::Memory(memory) => bpf::write_memory(made, memory),
        MapContent::Maps { keys, maps: _ } => {
            for (key, inner) in keys.chunks_exact((map.key_size as usize).max(1)).zip(inner) {
                let number = std::os::fd::AsRawFd::as_raw_fd(inner);
                bpf::update(made, key, &number.to_ne_bytes())?;
            }
            Ok(())
        }
        MapContent::Entries { keys, values, cpus } if map.kind.forgets() => {
            put_on(affinity::first()?, map, made, (keys, values), *cpus)
        }
        MapContent::Entries { keys, values, cpus } => put(map, made, (keys, values), *cpus),
    }
}

/// Puts entries into a map that forgets, on one CPU. All that is put into it must be so: each CPU that puts something in takes up to 128 places for what it may put in next
/// (kernel/bpf/bpf_lru_list.c), so that on several there is less room than was seen on one.
///
/// # Errors
/// As [`put`], and as sched_setaffinity(2).
pub fn put_on(cpu: usize, map: &BpfMap, made: BorrowedFd<'_>, entries: (&[u8], &[u8]), cpus: u32) -> io::Result<()> {
    affinity::on(cpu, || put(map, made, entries, cpus))?
}

/// Puts entries into a map.
///
/// # Errors
/// As bpf(2).
pub fn put(map: &BpfMap, made: BorrowedFd<'_>, (keys, values): (&[u8], &[u8]), cpus: u32) -> io::Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let (key_size, stride) = (map.key_size as usize, map.stride(cpus) as usize);
    let together = (AT_ONCE / stride.max(1)).max(1);
    for (keys, values) in keys.chunks(key_size * together).zip(values.chunks((stride * together).max(1))) {
        match bpf::update_batch(made, keys, values, keys.len() / key_size) {
            Ok(true) => continue,
            Ok(false) | Err(Errno::ENOMEM) => {}
            Err(errno) => return Err(errno.into()),
        }
        for (key, value) in keys.chunks_exact(key_size).zip(values.chunks_exact(stride)) {
            patiently(|| bpf::update(made, key, value))?;
        }
    }
    Ok(())
}

/// The memory of a hash that is not made in advance (BPF_F_NO_PREALLOC) comes from a store that the kernel fills beside, when it has the time (kernel/bpf/memalloc.c).
fn patiently(mut update: impl FnMut() -> Result<(), Errno>) -> io::Result<()> {
    const PAUSE: Duration = Duration::from_millis(2);
    for _ in 0..500 {
        match update() {
            Err(Errno::ENOMEM) => std::thread::sleep(PAUSE),
            done => return Ok(done?),
        }
    }
    Ok(update()?)
}
