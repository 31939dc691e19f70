//! Makes a map of bpf(2) again, with what is in it.

use crate::image::model::bpf::{BpfMap, MapContent, MapTypes};
use crate::sys::bpf::{self, Attributes, NAME_LEN};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

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

/// Makes a map with what is in it, and freezes it if it was. `inner` gives the maps that are in it, in the order of their keys, `types` describes what its keys
/// and values are.
///
/// # Errors
/// As bpf(2); `StorageFull` where the kernel has dropped something again.
pub fn make(map: &BpfMap, inner: &[BorrowedFd<'_>], types: Option<BorrowedFd<'_>>) -> io::Result<File> {
    let made = bpf::create(attributes(map, inner.first().copied(), types))?;
    fill(map, made.as_fd(), inner)?;
    if map.kind.forgets() {
        all_there(map, made.as_fd())?;
    }
    if map.frozen {
        bpf::freeze(made.as_fd())?;
    }
    Ok(made)
}

fn fill(map: &BpfMap, made: BorrowedFd<'_>, inner: &[BorrowedFd<'_>]) -> io::Result<()> {
    let key_size = map.key_size as usize;
    match &map.content {
        MapContent::Pinned(_) => Ok(()),
        MapContent::Memory(memory) => bpf::write_memory(made, memory),
        MapContent::Maps { keys, maps: _ } => {
            for (key, inner) in keys.chunks_exact(key_size.max(1)).zip(inner) {
                let number = std::os::fd::AsRawFd::as_raw_fd(inner);
                bpf::update(made, key, &number.to_ne_bytes())?;
            }
            Ok(())
        }
        MapContent::Entries { keys, values: _, cpus: _ } if keys.is_empty() => Ok(()),
        MapContent::Entries { keys, values, cpus } => {
            let stride = map.stride(*cpus) as usize;
            let together = (AT_ONCE / stride.max(1)).max(1);
            for (keys, values) in keys.chunks(key_size * together).zip(values.chunks((stride * together).max(1))) {
                if bpf::update_batch(made, keys, values, keys.len() / key_size)? {
                    continue;
                }
                for (key, value) in keys.chunks_exact(key_size).zip(values.chunks_exact(stride)) {
                    bpf::update(made, key, value)?;
                }
            }
            Ok(())
        }
    }
}

/// The kernel makes room in maps that forget before they are full (kernel/bpf/bpf_lru_list.c).
fn all_there(map: &BpfMap, made: BorrowedFd<'_>) -> io::Result<()> {
    let MapContent::Entries { keys, values: _, cpus } = &map.content else { return Ok(()) };
    let mut value = vec![0; map.stride(*cpus) as usize];
    for key in keys.chunks_exact((map.key_size as usize).max(1)) {
        if bpf::lookup(made, key, &mut value).is_err() {
            return Err(io::ErrorKind::StorageFull.into());
        }
    }
    Ok(())
}
