//! Puts what pages of the image hold into maps of bpf(2), as they come, in whatever order: memory at its place, entries by the chunk, as soon as all of one is there.

use crate::image::model::address::PAGE_SIZE;
use crate::image::model::bpf::{BpfMap, MapContent};
use crate::resources::bpf::make;
use crate::sys::affinity;
use crate::sys::bpf::MapMemory;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

/// How a map is filled.
#[derive(Debug)]
pub struct Filling(Kind);

#[derive(Debug)]
enum Kind {
    /// Until it is full: while somebody can write to it so, it cannot be frozen.
    Memory(Mutex<Option<MapMemory>>),
    Entries(Box<Entries>),
}

#[derive(Debug)]
struct Entries {
    /// What map it is.
    map: BpfMap,
    cpus: u32,
    /// Where each chunk begins, how many entries are in it, and how many before it.
    chunks: Vec<(u64, u32, u32)>,
    open: Mutex<Open>,
    /// Of a map that forgets: where alone it is filled, by one thread at a time, as in the copy that the dump has made.
    cpu: Option<Mutex<usize>>,
}

/// Chunks of which something has come.
#[derive(Debug, Default)]
struct Open {
    /// What there is of each, and how many bytes that are.
    parts: HashMap<usize, (Vec<u8>, usize)>,
    /// Chunks that are in the map.
    done: usize,
}

impl Filling {
    /// How a map that was made is filled, if it is with pages.
    ///
    /// # Errors
    /// As mmap(2), sched_getaffinity(2).
    pub fn of(map: &BpfMap, made: &File) -> io::Result<Option<Self>> {
        let kind = match &map.content {
            MapContent::MemoryPages => {
                Kind::Memory(Mutex::new(Some(MapMemory::new(made.as_fd(), map.memory_len(), true)?)))
            }
            MapContent::EntryPages { chunks, cpus } => Kind::Entries(Box::new(Entries::new(map, chunks, *cpus)?)),
            MapContent::Entries { .. } | MapContent::Memory(_) | MapContent::Maps { .. } | MapContent::Pinned(_) => {
                return Ok(None);
            }
        };
        Ok(Some(Self(kind)))
    }

    /// Takes bytes of the pages, for the map that was made. No byte comes twice.
    ///
    /// # Errors
    /// As bpf(2); `InvalidData` for bytes where there are none.
    pub fn fill(&self, at: u64, data: &[u8], made: &File) -> io::Result<()> {
        match &self.0 {
            Kind::Memory(memory) => match &*memory.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(memory) => memory.write(at, data),
                None => Err(io::ErrorKind::InvalidData.into()),
            },
            Kind::Entries(entries) => entries.fill(at, data, made),
        }
    }

    /// Sees that everything is there, and does what comes last.
    ///
    /// # Errors
    /// As [`make::complete`]; `InvalidData` where something has not come.
    pub fn complete(&self, map: &BpfMap, made: &File) -> io::Result<()> {
        match &self.0 {
            Kind::Memory(memory) => *memory.lock().unwrap_or_else(PoisonError::into_inner) = None,
            Kind::Entries(entries) => {
                if entries.open.lock().unwrap_or_else(PoisonError::into_inner).done != entries.chunks.len() {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "pages of it are missing in the image"));
                }
            }
        }
        make::complete(map, made.as_fd())
    }
}

impl Entries {
    fn new(map: &BpfMap, counts: &[u32], cpus: u32) -> io::Result<Self> {
        let (mut start, mut before, mut chunks) = (0u64, 0u32, Vec::new());
        for count in counts {
            chunks.push((start, *count, before));
            start = start.saturating_add(map.chunk_span(*count, cpus));
            before = before.saturating_add(*count);
        }
        let content = MapContent::Pinned(Vec::new());
        let cpu = if map.kind.forgets() { Some(Mutex::new(affinity::first()?)) } else { None };
        Ok(Self { map: BpfMap { content, ..map.clone() }, cpus, chunks, open: Mutex::default(), cpu })
    }

    fn fill(&self, at: u64, data: &[u8], made: &File) -> io::Result<()> {
        let (mut at, mut rest) = (at, data);
        while !rest.is_empty() {
            let index = self.chunks.partition_point(|(start, ..)| *start <= at).checked_sub(1);
            let index = index.ok_or(io::ErrorKind::InvalidData)?;
            let (start, count, _) = self.chunks[index];
            let left = self.map.chunk_span(count, self.cpus).saturating_sub(at - start);
            if left == 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let (part, behind) = rest.split_at(usize::try_from(left).unwrap_or(usize::MAX).min(rest.len()));
            if let Some(whole) = self.take(index, (at - start) as usize, part) {
                self.put(index, &whole, made)?;
                self.open.lock().unwrap_or_else(PoisonError::into_inner).done += 1;
            }
            at += part.len() as u64;
            rest = behind;
        }
        Ok(())
    }

    /// Keeps a part of a chunk; the whole when that was the last one.
    fn take(&self, index: usize, within: usize, part: &[u8]) -> Option<Vec<u8>> {
        let (_, count, _) = self.chunks[index];
        let len = self.map.chunk_len(count, self.cpus).next_multiple_of(PAGE_SIZE) as usize;
        let part = &part[..part.len().min(len.saturating_sub(within))];
        if part.is_empty() {
            return None;
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (bytes, come) = open.parts.entry(index).or_insert_with(|| (vec![0; len], 0));
        bytes[within..within + part.len()].copy_from_slice(part);
        *come += part.len();
        if *come < len { None } else { open.parts.remove(&index).map(|(bytes, _)| bytes) }
    }

    fn put(&self, index: usize, bytes: &[u8], made: &File) -> io::Result<()> {
        let (_, count, before) = self.chunks[index];
        let values = self.map.stride(self.cpus) as usize * count as usize;
        let made = made.as_fd();
        if self.map.kind.is_array() {
            let values = &bytes[..values];
            // As all are in a new one.
            if values.iter().all(|byte| *byte == 0) {
                return Ok(());
            }
            let keys: Vec<u8> = (before..before + count).flat_map(u32::to_ne_bytes).collect();
            return make::put(&self.map, made, (&keys, values), self.cpus);
        }
        let (keys, rest) = bytes.split_at(self.map.key_size as usize * count as usize);
        let entries = (keys, &rest[..values]);
        match &self.cpu {
            None => make::put(&self.map, made, entries, self.cpus),
            Some(cpu) => {
                let cpu = cpu.lock().unwrap_or_else(PoisonError::into_inner);
                make::put_on(*cpu, &self.map, made, entries, self.cpus)
            }
        }
    }
}
