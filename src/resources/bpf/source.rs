//! Much that is in a map, as pages of the image: the memory of an array, or entries in chunks of whole mebibytes, of which each is read by itself.

use super::walk::{From, Walk};
use crate::image::model::address::{PAGE_SIZE, PageRange};
use crate::image::model::bpf::{BpfMap, MapContent};
use crate::sys::bpf::MapMemory;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

/// Where the pages of a map are read.
#[derive(Debug)]
pub struct MapSource(Source);

#[derive(Debug)]
enum Source {
    Memory(MapMemory),
    Entries(Box<Entries>),
}

/// Entries that are read together.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Where they begin.
    pub from: From,
    /// How many they are.
    pub count: u32,
}

#[derive(Debug)]
struct Entries {
    /// What map it is, without what is in it.
    map: BpfMap,
    file: File,
    cpus: u32,
    chunks: Vec<Chunk>,
    /// Where in the pages each chunk begins.
    starts: Vec<u64>,
    /// The last chunk that was longer than a block of the image, which several of these have parts of.
    long: Mutex<Option<(usize, Vec<u8>)>>,
}

impl MapSource {
    /// The memory of an array.
    #[must_use]
    pub const fn memory(memory: MapMemory) -> Self {
        Self(Source::Memory(memory))
    }

    /// Entries.
    #[must_use]
    pub fn entries(map: &BpfMap, file: File, cpus: u32, chunks: Vec<Chunk>) -> Self {
        let spans = chunks.iter().map(|chunk| map.chunk_span(chunk.count, cpus));
        let starts = spans.scan(0, |next, span| Some(std::mem::replace(next, *next + span))).collect();
        let map = BpfMap { content: MapContent::Pinned(Vec::new()), ..map.clone() };
        Self(Source::Entries(Box::new(Entries { map, file, cpus, chunks, starts, long: Mutex::default() })))
    }

    /// The pages, and whether those that are zero are noted. Of entries they are, so that a restore sees when it has all of a chunk; what is behind them to the next mebibyte is left out.
    #[must_use]
    pub fn ranges(&self) -> Vec<(PageRange, bool)> {
        let Entries { map, cpus, chunks, starts, file: _, long: _ } = match &self.0 {
            Source::Memory(memory) => return vec![(PageRange::new(0, memory.len()), false)],
            Source::Entries(entries) => &**entries,
        };
        let mut ranges = Vec::new();
        for (chunk, start) in chunks.iter().zip(starts) {
            let used = start + map.chunk_len(chunk.count, *cpus).next_multiple_of(PAGE_SIZE);
            let end = start + map.chunk_span(chunk.count, *cpus);
            ranges.push((PageRange::new(*start, used), true));
            if used < end {
                ranges.push((PageRange::new(used, end), false));
            }
        }
        ranges
    }

    /// Reads bytes of the pages.
    ///
    /// # Errors
    /// As bpf(2); `Other` when somebody else has changed the map meanwhile.
    pub fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        match &self.0 {
            Source::Memory(memory) => memory.read(at, buf),
            Source::Entries(entries) => entries.read(at, buf),
        }
    }

    /// Calls `put` with the keys and values of all entries, some at a time.
    ///
    /// # Errors
    /// As [`Self::read`], and those of `put`.
    pub fn each(&self, mut put: impl FnMut(&[u8], &[u8]) -> io::Result<()>) -> io::Result<()> {
        let Source::Entries(entries) = &self.0 else { return Ok(()) };
        (0..entries.chunks.len()).try_for_each(|index| entries.walk(index, &mut put))
    }
}

impl Entries {
    fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let (mut at, mut rest) = (at, buf);
        while !rest.is_empty() {
            let index = self.starts.partition_point(|start| *start <= at).checked_sub(1);
            let index = index.ok_or(io::ErrorKind::UnexpectedEof)?;
            let (within, span) = (at - self.starts[index], self.map.chunk_span(self.chunks[index].count, self.cpus));
            let left = span.checked_sub(within).filter(|left| *left > 0).ok_or(io::ErrorKind::UnexpectedEof)?;
            let (part, behind) = rest.split_at_mut(rest.len().min(left as usize));
            self.part(index, within as usize, part)?;
            at += part.len() as u64;
            rest = behind;
        }
        Ok(())
    }

    /// A part of a chunk; behind its entries stands zero.
    fn part(&self, index: usize, within: usize, part: &mut [u8]) -> io::Result<()> {
        part.fill(0);
        if within as u64 >= self.map.chunk_len(self.chunks[index].count, self.cpus) {
            return Ok(());
        }
        let copy = |bytes: &[u8], part: &mut [u8]| {
            let bytes = bytes.get(within..).unwrap_or_default();
            let len = bytes.len().min(part.len());
            part[..len].copy_from_slice(&bytes[..len]);
        };
        if self.map.chunk_span(self.chunks[index].count, self.cpus) == BpfMap::CHUNK {
            copy(&self.chunk(index)?, part);
            return Ok(());
        }
        let mut long = self.long.lock().unwrap_or_else(PoisonError::into_inner);
        if long.as_ref().is_none_or(|(known, _)| *known != index) {
            *long = None;
            *long = Some((index, self.chunk(index)?));
        }
        if let Some((_, bytes)) = &*long {
            copy(bytes, part);
        }
        Ok(())
    }

    /// The keys of a chunk, unless it is of an array, and behind them the values.
    fn chunk(&self, index: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.walk(index, &mut |keys, values| {
            if !self.map.kind.is_array() {
                bytes.extend_from_slice(keys);
            }
            bytes.extend_from_slice(values);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn walk(&self, index: usize, put: &mut impl FnMut(&[u8], &[u8]) -> io::Result<()>) -> io::Result<()> {
        let Chunk { from, count } = &self.chunks[index];
        let mut walk = Walk::new(&self.map, self.file.as_fd(), self.map.stride(self.cpus) as usize, from.clone());
        match walk.step(*count as usize)? {
            Some((_, found)) if found == *count as usize => put(&walk.keys, &walk.values),
            _ => Err(io::Error::other(format!(
                "the BPF map {}, which somebody that cannot be found changes: pin it, or close it before the dump",
                self.map.number
            ))),
        }
    }
}
