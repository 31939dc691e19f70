//! What is in a map. A little of it goes into the model; much is read while the image is written, a chunk at a time, and never stands in our memory as a whole.

use super::source::{Chunk, MapSource};
use super::walk::Walk;
use crate::image::model::address::PAGE_SIZE;
use crate::image::model::bpf::{BpfMap, MapContent, MapKind};
use crate::sys::bpf::{self, MapMemory};
use nix::errno::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Most bytes of one map that go into the model.
const INLINE: usize = 1 << 20;

/// What is in a map, and where it is read if it is much.
pub type Content = (MapContent, Option<MapSource>);

/// How often a map that somebody else changes is gone through, until no more is found in it than it can hold.
const TRIES: usize = 8;

/// What is in a map that holds no maps, for the machine's `cpus` possible CPUs. One that is `shared` somebody else may change meanwhile.
///
/// # Errors
/// Why it cannot be saved.
pub fn read(map: &BpfMap, file: &File, cpus: u32, shared: bool) -> Result<Content, String> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::FileTooLarge => format!(
            "somebody else, who may change it meanwhile, has it too, and more than {} MiB are in it",
            BpfMap::CHUNK_MOST >> 20
        ),
        io::ErrorKind::StorageFull => {
            format!("one bucket of it has more than {} MiB, which is not supported yet", BpfMap::CHUNK_MOST >> 20)
        }
        _ => format!("what is in it cannot be read: {error}"),
    };
    let cpus = if map.kind.is_per_cpu() { cpus } else { 1 };
    if map.is_mappable() {
        match memory(map, file) {
            Ok(found) => return Ok(found),
            // Nobody can map one whose values have locks in them (kernel/bpf/syscall.c, `bpf_map_mmap`).
            Err(error) if bpf::is_unsupported(&error) => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    let nothing = MapContent::Entries { keys: Vec::new(), values: Vec::new(), cpus };
    match map.kind {
        MapKind::QUEUE | MapKind::STACK => {
            match bpf::lookup(file.as_fd(), &[], &mut vec![0; map.value_size as usize]) {
                Err(Errno::ENOENT) => return Ok((nothing, None)),
                Ok(()) => return Err("what is in it can be had only by taking it out".into()),
                Err(errno) => return Err(unreadable(errno.into())),
            }
        }
        MapKind::RING_BUFFER | MapKind::USER_RING_BUFFER => {
            // Two pages of one word each: how much was taken out, and how much was put in (kernel/bpf/ringbuf.c).
            let memory = bpf::read_memory(file.as_fd(), 0, 2 * PAGE_SIZE as usize).map_err(unreadable)?;
            return match memory.iter().all(|byte| *byte == 0) {
                true => Ok((nothing, None)),
                false => Err("it was used, and a new ring begins at 0".into()),
            };
        }
        _ => {}
    }
    if map.chunk_len(1, cpus) > BpfMap::CHUNK_MOST {
        let most = BpfMap::CHUNK_MOST >> 20;
        return Err(format!("one element of it has more than {most} MiB, which is not supported yet"));
    }
    // The elements of an array do not come and go.
    let read = if shared && !map.kind.is_array() { changing } else { entries };
    read(map, file, cpus).map_err(unreadable)
}

fn memory(map: &BpfMap, file: &File) -> io::Result<Content> {
    let len = map.memory_len();
    if len > INLINE as u64 {
        let memory = MapMemory::new(file.as_fd(), len, false)?;
        return Ok((MapContent::MemoryPages, Some(MapSource::memory(memory))));
    }
    let mut memory = bpf::read_memory(file.as_fd(), 0, len as usize)?;
    memory.truncate(memory.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    Ok((MapContent::Memory(memory), None))
}

/// Entries that are read together.
#[must_use]
pub fn together(map: &BpfMap, cpus: u32) -> usize {
    let most = (BpfMap::CHUNK / map.chunk_len(1, cpus).max(1)).max(1);
    most.min(u64::from(map.max_entries).max(1)) as usize
}

fn entries(map: &BpfMap, file: &File, cpus: u32) -> io::Result<Content> {
    let (stride, room) = (map.stride(cpus) as usize, together(map, cpus));
    let mut walk = Walk::new(map, file.as_fd(), stride, None);
    let (mut keys, mut values, mut chunks) = (Vec::new(), Vec::new(), Vec::new());
    let mut is_much = false;
    while let Some((from, count)) = walk.step(room)? {
        chunks.push(Chunk { from, count: count as u32 });
        if !is_much {
            take(map, stride, (&walk.keys, &walk.values), (&mut keys, &mut values));
            is_much = keys.len() + values.len() > INLINE;
        }
        // An array is not gone through twice.
        if is_much && map.kind.is_array() {
            chunks = of_array(map.max_entries, room as u32);
            break;
        }
    }
    if !is_much {
        return Ok((MapContent::Entries { keys, values, cpus }, None));
    }
    let content = MapContent::EntryPages { chunks: chunks.iter().map(|chunk| chunk.count).collect(), cpus };
    let source = MapSource::entries(map, file.try_clone()?, cpus, chunks);
    Ok((content, Some(source)))
}

/// The entries of a map that somebody else may change: of those that come or go meanwhile some are found and some are not, so that they are read once and no more.
fn changing(map: &BpfMap, file: &File, cpus: u32) -> io::Result<Content> {
    for _ in 0..TRIES {
        if let Some((keys, values)) = once(map, file, cpus)? {
            return Ok((MapContent::Entries { keys, values, cpus }, None));
        }
    }
    Err(io::Error::other("somebody else changes it so fast that more is found in it than it can hold"))
}

/// The keys and the values of a map; `None` where these are more than it can hold at a time.
fn once(map: &BpfMap, file: &File, cpus: u32) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let stride = map.stride(cpus) as usize;
    let mut walk = Walk::new(map, file.as_fd(), stride, None);
    let (mut keys, mut values, mut sum) = (Vec::new(), Vec::new(), 0);
    while let Some((_, count)) = walk.step(together(map, cpus))? {
        sum += count as u64;
        if sum > u64::from(map.max_entries) {
            return Ok(None);
        }
        take(map, stride, (&walk.keys, &walk.values), (&mut keys, &mut values));
        if (keys.len() + values.len()) as u64 > BpfMap::CHUNK_MOST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
    Ok(Some((keys, values)))
}

/// All elements of an array.
fn of_array(max_entries: u32, room: u32) -> Vec<Chunk> {
    let begins = (0..max_entries).step_by(room.max(1) as usize);
    let chunk = |first: u32| Chunk {
        from: first.checked_sub(1).map(|last| last.to_ne_bytes().to_vec()),
        count: room.min(max_entries - first),
    };
    begins.map(chunk).collect()
}

/// Takes entries in, of arrays those that are not zero, as all are in a new one.
fn take(
    map: &BpfMap,
    stride: usize,
    (keys, values): (&[u8], &[u8]),
    (to_keys, to_values): (&mut Vec<u8>, &mut Vec<u8>),
) {
    if !map.kind.is_array() || stride == 0 {
        to_keys.extend_from_slice(keys);
        to_values.extend_from_slice(values);
        return;
    }
    let pairs = keys.chunks_exact((map.key_size as usize).max(1)).zip(values.chunks_exact(stride));
    for (key, value) in pairs.filter(|(_, value)| value.iter().any(|byte| *byte != 0)) {
        to_keys.extend_from_slice(key);
        to_values.extend_from_slice(value);
    }
}

/// How many entries are in a map.
///
/// # Errors
/// As bpf(2).
pub fn count(map: &BpfMap, file: BorrowedFd<'_>, cpus: u32) -> io::Result<u64> {
    let (mut walk, mut sum) = (Walk::new(map, file, map.stride(cpus) as usize, None), 0);
    while let Some((_, count)) = walk.step(together(map, cpus))? {
        sum += count as u64;
    }
    Ok(sum)
}

/// The keys of a map of maps and the numbers of those that are in it.
///
/// # Errors
/// Why they cannot be read.
pub fn inner(map: &BpfMap, file: BorrowedFd<'_>) -> Result<Vec<(Vec<u8>, u32)>, String> {
    let (mut walk, mut found) = (Walk::one_by_one(map, file, 4), Vec::new());
    let unreadable = |error| format!("which maps are in it cannot be read: {error}");
    while walk.step(map.max_entries.max(1) as usize).map_err(unreadable)?.is_some() {
        let (numbers, _) = walk.values.as_chunks();
        let keys = walk.keys.chunks_exact((map.key_size as usize).max(1)).map(<[u8]>::to_vec);
        found.extend(keys.zip(numbers.iter().map(|bytes| u32::from_ne_bytes(*bytes))));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_elements_of_an_array_are_all_in_chunks() {
        let chunks = of_array(10, 4);
        let found: Vec<_> = chunks.into_iter().map(|Chunk { from, count }| (from, count)).collect();
        let behind = |last: u32| Some(last.to_ne_bytes().to_vec());
        assert_eq!(found, [(None, 4), (behind(3), 4), (behind(7), 2)]);
        assert!(of_array(0, 4).is_empty());
    }
}
