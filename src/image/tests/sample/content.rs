//! Memory to go with the sample, and whole images that are made of both.

use super::{ANON, FILE, MAP, MM, PRIVATE_FILE, SHM, snapshot, stats};
use crate::image::model::Snapshot;
use crate::image::model::address::{Addr, PAGE_SIZE, PageRange};
use crate::image::model::memory::ContentOwner;
use crate::image::{PageReader, PageRun, PageSink, WriteOptions, Writer, ZeroPolicy};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

/// The pages of every owner by address: both a target to dump and a place to restore to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory(pub BTreeMap<(ContentOwner, Addr), Vec<u8>>);

impl Memory {
    /// Puts a page that is filled by `seed`; 0 gives a zero page.
    pub fn put(&mut self, owner: ContentOwner, addr: u64, seed: u64) {
        self.0.insert((owner, Addr(addr)), page(seed));
    }

    /// Runs for all pages, adjacent ones joined.
    pub fn runs(&self, zero: ZeroPolicy) -> Vec<PageRun> {
        let mut runs: Vec<PageRun> = Vec::new();
        for &(owner, start) in self.0.keys() {
            let range = PageRange { start, end: start.add(PAGE_SIZE) };
            match runs.last_mut() {
                Some(last) if last.owner == owner && last.range.end == start => last.range.end = range.end,
                Some(_) | None => runs.push(PageRun { owner, range, zero }),
            }
        }
        runs
    }

    /// Without the pages that are zero.
    pub fn without_zero(&self) -> Self {
        Self(self.0.iter().filter(|(_, page)| page.iter().any(|&b| b != 0)).map(|(k, v)| (*k, v.clone())).collect())
    }
}

/// A page of bytes that follow from `seed` and do not compress; zero for 0.
pub fn page(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..PAGE_SIZE / 8).flat_map(|_| next()).collect()
}

impl PageReader for Memory {
    fn read(&self, owner: ContentOwner, runs: &[PageRange], buf: &mut [u8]) -> io::Result<()> {
        assert_eq!(buf.len() as u64, runs.iter().map(|run| run.len()).sum::<u64>());
        let addresses = runs.iter().flat_map(|run| (run.start.0..run.end.0).step_by(PAGE_SIZE as usize));
        for (addr, out) in addresses.zip(buf.chunks_exact_mut(PAGE_SIZE as usize)) {
            out.copy_from_slice(self.0.get(&(owner, Addr(addr))).ok_or(io::ErrorKind::NotFound)?);
        }
        Ok(())
    }
}

/// Collects what is restored; a page that comes twice is a failure.
#[derive(Debug, Default)]
pub struct Collect(pub Mutex<Memory>);

impl Collect {
    pub fn memory(self) -> Memory {
        self.0.into_inner().unwrap()
    }
}

impl PageSink for Collect {
    fn fill(&self, owner: ContentOwner, start: Addr, data: &[u8]) -> io::Result<()> {
        assert_eq!(data.len() % PAGE_SIZE as usize, 0);
        for (i, page) in data.chunks_exact(PAGE_SIZE as usize).enumerate() {
            let addr = start.add(i as u64 * PAGE_SIZE);
            let before = self.0.lock().unwrap().0.insert((owner, addr), page.to_vec());
            assert_eq!(before, None, "{owner:?} {addr}");
        }
        Ok(())
    }

    fn zero(&self, owner: ContentOwner, range: PageRange) -> io::Result<()> {
        let zeros = vec![0; range.len() as usize];
        self.fill(owner, range.start, &zeros)
    }
}

/// A stream that keeps what is written.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl io::Write for Shared {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A whole image in memory.
pub fn image(snapshot: &Snapshot, memory: &Memory, zero: ZeroPolicy, options: WriteOptions) -> Vec<u8> {
    let out = Shared::default();
    let mut writer = Writer::stream("sample".as_ref(), out.clone(), options).unwrap();
    writer.snapshot(snapshot).unwrap();
    writer.pages(&memory.runs(zero), memory, &|_, _| Ok(())).unwrap();
    let length = writer.complete(&stats()).unwrap().publish().unwrap();
    let bytes = std::mem::take(&mut *out.0.lock().unwrap());
    assert_eq!(bytes.len() as u64, length);
    bytes
}

/// A small image that has every kind of section and every codec but raw.
pub fn small_image() -> Vec<u8> {
    let mut memory = Memory::default();
    memory.0.insert((MM, Addr(ANON)), vec![1; PAGE_SIZE as usize]);
    memory.put(MM, PRIVATE_FILE, 0);
    memory.0.insert((SHM, Addr(0)), vec![2; PAGE_SIZE as usize]);
    memory.0.insert((FILE, Addr(0)), vec![1; PAGE_SIZE as usize]);
    memory.0.insert((MAP, Addr(0)), vec![1; PAGE_SIZE as usize]);
    let options = WriteOptions { workers: 1, compression: Some(1), references: true };
    image(&snapshot(), &memory, ZeroPolicy::Keep, options)
}

/// A small image with a raw block.
pub fn raw_image() -> Vec<u8> {
    let mut memory = Memory::default();
    memory.put(MM, ANON, 1);
    image(&snapshot(), &memory, ZeroPolicy::Keep, WriteOptions { workers: 1, ..WriteOptions::default() })
}
