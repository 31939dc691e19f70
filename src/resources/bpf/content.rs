//! What is in a map, read without a trace: a look at an entry of a map that forgets does not count as a use when it is user space that looks
//! (kernel/bpf/hashtab.c, `htab_lru_map_lookup_elem_sys`).

use crate::image::model::address::PAGE_SIZE;
use crate::image::model::bpf::{BpfMap, MapContent, MapKind};
use crate::sys::bpf::{self, Found};
use nix::errno::Errno;
use std::io;
use std::os::fd::BorrowedFd;

/// Elements that are read by one call to begin with.
const TOGETHER: usize = 1 << 12;

/// Most bytes of one map that go into an image.
const MOST: u64 = 256 << 20;

/// What is in a map that holds no maps, for the machine's `cpus` possible CPUs.
///
/// # Errors
/// Why it cannot be saved.
pub fn read(map: &BpfMap, file: BorrowedFd<'_>, cpus: u32) -> Result<MapContent, String> {
    let unreadable = |error: io::Error| format!("what is in it cannot be read: {error}");
    let cpus = if map.kind.is_per_cpu() { cpus } else { 1 };
    if map.is_mappable() {
        small_enough(map.memory_len())?;
        match bpf::read_memory(file, 0, map.memory_len() as usize) {
            Ok(mut memory) => {
                memory.truncate(memory.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
                return Ok(MapContent::Memory(memory));
            }
            // Nobody can map one whose values have locks in them (kernel/bpf/syscall.c, `bpf_map_mmap`).
            Err(error) if bpf::is_unsupported(&error) => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    let nothing = MapContent::Entries { keys: Vec::new(), values: Vec::new(), cpus };
    match map.kind {
        MapKind::QUEUE | MapKind::STACK => match bpf::lookup(file, &[], &mut vec![0; map.value_size as usize]) {
            Err(Errno::ENOENT) => return Ok(nothing),
            Ok(()) => return Err("what is in it can be had only by taking it out".into()),
            Err(errno) => return Err(unreadable(errno.into())),
        },
        MapKind::RING_BUFFER | MapKind::USER_RING_BUFFER => {
            // Two pages of one word each: how much was taken out, and how much was put in (kernel/bpf/ringbuf.c).
            let memory = bpf::read_memory(file, 0, 2 * PAGE_SIZE as usize).map_err(unreadable)?;
            return match memory.iter().all(|byte| *byte == 0) {
                true => Ok(nothing),
                false => Err("it was used, and a new ring begins at 0".into()),
            };
        }
        _ => {}
    }
    let mut reading = Reading { map, file, stride: map.stride(cpus) as usize, keys: Vec::new(), values: Vec::new() };
    if !reading.batches(|errno| unreadable(errno.into()))? {
        reading.one_by_one().map_err(|errno| unreadable(errno.into()))?;
    }
    let Reading { keys, values, map: _, file: _, stride: _ } = reading;
    small_enough(keys.len() as u64 + values.len() as u64)?;
    Ok(MapContent::Entries { keys, values, cpus })
}

/// The keys of a map of maps and the numbers of those that are in it.
///
/// # Errors
/// Why they cannot be read.
pub fn inner(map: &BpfMap, file: BorrowedFd<'_>) -> Result<Vec<(Vec<u8>, u32)>, String> {
    let mut reading = Reading { map, file, stride: 4, keys: Vec::new(), values: Vec::new() };
    reading.one_by_one().map_err(|errno| format!("which maps are in it cannot be read: {errno}"))?;
    let (numbers, _) = reading.values.as_chunks();
    let keys = reading.keys.chunks_exact((map.key_size as usize).max(1)).map(<[u8]>::to_vec);
    Ok(keys.zip(numbers.iter().map(|bytes| u32::from_ne_bytes(*bytes))).collect())
}

fn small_enough(bytes: u64) -> Result<(), String> {
    if bytes <= MOST {
        return Ok(());
    }
    Err(format!("{} MiB are in it, and more than {} are not supported yet", bytes >> 20, MOST >> 20))
}

/// The next larger number of elements to ask for; `None` when one bucket was said to hold more than the map, which it does only while elements are being replaced.
fn more_than(room: usize, max_entries: u32) -> Option<usize> {
    let most = 2 * max_entries as usize;
    (room < most).then(|| (2 * room.max(1)).min(most))
}

struct Reading<'a> {
    map: &'a BpfMap,
    file: BorrowedFd<'a>,
    /// Bytes of a value.
    stride: usize,
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl Reading<'_> {
    /// Whether this kind of map is read in batches.
    fn batches(&mut self, failed: impl Fn(Errno) -> String) -> Result<bool, String> {
        let key_size = self.map.key_size as usize;
        let mut room = TOGETHER.min((MOST as usize / self.stride.max(1)).max(1)).min(self.map.max_entries as usize);
        let mut from = None;
        loop {
            let (mut keys, mut values) = (vec![0; key_size * room], vec![0; self.stride * room]);
            let before = from.clone();
            let found = bpf::lookup_batch(self.file, &mut from, (&mut keys, &mut values), room);
            let (count, last) = match found.map_err(&failed)? {
                Found::Some(count) => (count, false),
                Found::Last(count) => (count, true),
                // More elements than these are in one bucket.
                Found::TooMany => {
                    small_enough(((key_size + self.stride) * room) as u64)?;
                    let more = more_than(room, self.map.max_entries);
                    (from, room) = (before, more.ok_or("the kernel finds more in it than it can hold")?);
                    continue;
                }
                Found::Never => return Ok(false),
            };
            self.take(&keys[..key_size * count], &values[..self.stride * count]);
            if last || self.is_too_much() {
                return Ok(true);
            }
        }
    }

    fn one_by_one(&mut self) -> Result<(), Errno> {
        let mut value = vec![0; self.stride];
        let (mut key, mut next) = (None, vec![0; self.map.key_size as usize]);
        loop {
            match bpf::next_key(self.file, key.as_deref(), &mut next) {
                Ok(()) => {}
                Err(Errno::ENOENT) => return Ok(()),
                Err(errno) => return Err(errno),
            }
            match bpf::lookup(self.file, &next, &mut value) {
                Ok(()) => self.take(&next, &value),
                // A place of an array of maps in which there is none, or an entry that somebody has taken out meanwhile.
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
            if self.is_too_much() {
                return Ok(());
            }
            key = Some(next.clone());
        }
    }

    /// Takes elements in, of arrays those that are not zero, as all are in a new one.
    fn take(&mut self, keys: &[u8], values: &[u8]) {
        if !self.map.kind.is_array() || self.stride == 0 {
            self.keys.extend_from_slice(keys);
            self.values.extend_from_slice(values);
            return;
        }
        let pairs = keys.chunks_exact(self.map.key_size as usize).zip(values.chunks_exact(self.stride));
        for (key, value) in pairs.filter(|(_, value)| value.iter().any(|byte| *byte != 0)) {
            self.keys.extend_from_slice(key);
            self.values.extend_from_slice(value);
        }
    }

    fn is_too_much(&self) -> bool {
        (self.keys.len() + self.values.len()) as u64 > MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_asked_for_than_a_map_can_hold() {
        let mut asked = vec![4096];
        while let Some(more) = more_than(asked[asked.len() - 1], 5000) {
            asked.push(more);
        }
        assert_eq!(asked, [4096, 8192, 10_000]);
        assert_eq!((more_than(0, 1), more_than(2, 1)), (Some(2), None));
    }
}
