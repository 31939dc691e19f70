//! The pipeline of pages: workers that each read a job, drop zero pages, compress, checksum and write while it is hot.

use super::WriteOptions;
use super::layout::{BlockBuffer, Layout};
use super::zero;
use crate::image::block::{BLOCK_SIZE, BlockHead, Codec, MAX_RUNS};
use crate::image::error::WriteError;
use crate::image::model::address::{Addr, PAGE_SIZE, PageRange};
use crate::image::model::memory::ContentOwner;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Gives the content of pages: the target's memory, as the dump reads it.
pub trait PageReader: Sync {
    /// Fills `buf` with the bytes of `runs`, one after the other; it is as long as all of them. Called by several threads at once.
    ///
    /// # Errors
    /// When a page cannot be read; the dump ends.
    fn read(&self, owner: ContentOwner, runs: &[PageRange], buf: &mut [u8]) -> io::Result<()>;
}

/// Consecutive pages to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// Whose.
    pub owner: ContentOwner,
    /// Which: addresses, or offsets in a shared object or file.
    pub range: PageRange,
    /// What becomes of pages that are zero.
    pub zero: ZeroPolicy,
}

/// What becomes of pages that turn out to be zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroPolicy {
    /// They are left out: a page that is absent from the image is zero (anonymous and shared memory).
    Drop,
    /// They are noted without content: something else lies beneath (private mappings of files).
    Keep,
}

/// What became of the pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageCounts {
    /// Bytes of pages that are stored, before compression.
    pub written: u64,
    /// Bytes of pages that were zero, left out or noted.
    pub zero: u64,
}

pub type ProgressFn<'a> = &'a (dyn Fn(u64, u64) -> io::Result<()> + Sync);

/// See [`super::Writer::pages`].
pub fn write(
    layout: &Layout,
    options: WriteOptions,
    runs: &[PageRun],
    reader: &dyn PageReader,
    progress: ProgressFn<'_>,
) -> Result<PageCounts, WriteError> {
    let total = runs.iter().map(|run| run.range.len()).sum::<u64>();
    let cpus = || std::thread::available_parallelism().map_or(2, usize::from);
    let wanted = if options.workers == 0 { cpus() } else { options.workers };
    let workers = wanted.min(total.div_ceil(BLOCK_SIZE as u64) as usize);
    let work = Work {
        layout,
        reader,
        options,
        progress,
        total,
        jobs: Mutex::new(Jobs::new(runs)),
        tally: Mutex::new((0, PageCounts::default())),
        stop: AtomicBool::new(false),
    };
    if workers <= 1 {
        work.run()?;
    } else {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (1..workers).map(|_| scope.spawn(|| work.run())).collect();
            let own = work.run();
            threads.into_iter().fold(own, |result, thread| match thread.join() {
                Ok(other) => result.and(other),
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
    }
    let tally = work.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(tally.1)
}

/// What all workers share.
struct Work<'a> {
    layout: &'a Layout,
    reader: &'a dyn PageReader,
    options: WriteOptions,
    progress: ProgressFn<'a>,
    total: u64,
    jobs: Mutex<Jobs<'a>>,
    tally: Mutex<(u64, PageCounts)>,
    stop: AtomicBool,
}

impl Work<'_> {
    fn run(&self) -> Result<(), WriteError> {
        let result = self.work();
        if result.is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
        result
    }

    fn work(&self) -> Result<(), WriteError> {
        let mut worker = Worker::new(self)?;
        let mut job = Job::default();
        while !self.stop.load(Ordering::Relaxed) {
            let more = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).next(&mut job);
            let Some(owner) = more else { break };
            let counts = worker.process(owner, &job)?;
            let done = self.count(job.len as u64, counts);
            (self.progress)(done, self.total).map_err(WriteError::Stopped)?;
        }
        Ok(())
    }

    fn count(&self, len: u64, counts: PageCounts) -> u64 {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.0 += len;
        tally.1.written += counts.written;
        tally.1.zero += counts.zero;
        tally.0
    }
}

/// The runs that no worker has taken yet.
pub struct Jobs<'a> {
    runs: &'a [PageRun],
    next: usize,
    /// Bytes taken of the run `next`.
    taken: u64,
}

/// Runs of one owner, at most a block of them.
#[derive(Default)]
pub struct Job {
    pub ranges: Vec<PageRange>,
    pub policies: Vec<ZeroPolicy>,
    len: usize,
}

impl<'a> Jobs<'a> {
    pub const fn new(runs: &'a [PageRun]) -> Self {
        Self { runs, next: 0, taken: 0 }
    }

    /// Fills `job` with the next runs and returns their owner; `None` when there are no more.
    pub fn next(&mut self, job: &mut Job) -> Option<ContentOwner> {
        job.ranges.clear();
        job.policies.clear();
        job.len = 0;
        let owner = self.runs.get(self.next)?.owner;
        while let Some(run) = self.runs.get(self.next) {
            let room = (BLOCK_SIZE - job.len) as u64;
            if run.owner != owner || room == 0 {
                break;
            }
            let start = run.range.start.add(self.taken);
            let end = start.add(room).min(run.range.end);
            let range = PageRange { start, end };
            job.ranges.push(range);
            job.policies.push(run.zero);
            job.len += range.len() as usize;
            self.taken += range.len();
            if end == run.range.end {
                self.next += 1;
                self.taken = 0;
            }
        }
        Some(owner)
    }
}

/// One thread with its buffers.
struct Worker<'w, 'a> {
    work: &'w Work<'a>,
    buffer: BlockBuffer,
    packer: Option<Packer>,
    runs: Vec<PageRange>,
    zeros: Vec<PageRange>,
}

struct Packer {
    zstd: zstd::bulk::Compressor<'static>,
    buffer: BlockBuffer,
}

impl<'w, 'a> Worker<'w, 'a> {
    fn new(work: &'w Work<'a>) -> Result<Self, WriteError> {
        let packer = match work.options.compression {
            None => None,
            Some(level) => {
                let zstd = zstd::bulk::Compressor::new(level).map_err(WriteError::Compression)?;
                Some(Packer { zstd, buffer: BlockBuffer::for_block() })
            }
        };
        Ok(Self { work, buffer: BlockBuffer::for_block(), packer, runs: Vec::new(), zeros: Vec::new() })
    }

    /// Reads a job and writes what it holds.
    fn process(&mut self, owner: ContentOwner, job: &Job) -> Result<PageCounts, WriteError> {
        let content = self.buffer.content(job.len);
        self.work.reader.read(owner, &job.ranges, content).map_err(|source| WriteError::Read {
            owner,
            range: PageRange {
                start: job.ranges.iter().map(|r| r.start).min().unwrap_or_default(),
                end: job.ranges.iter().map(|r| r.end).max().unwrap_or_default(),
            },
            source,
        })?;
        let kept = drop_zeros(content, job, &mut self.runs, &mut self.zeros);
        if kept > 0 {
            self.write_content(owner, kept)?;
        }
        for runs in self.zeros.chunks(MAX_RUNS) {
            let head = BlockHead { owner, runs: runs.to_vec(), codec: Codec::Zero, stored: 0, reference: 0 };
            self.work.layout.block(head, &mut self.buffer, 0, None)?;
        }
        Ok(PageCounts { written: kept as u64, zero: (job.len - kept) as u64 })
    }

    /// Writes the first `len` bytes of the buffer, which belong to `self.runs`.
    fn write_content(&mut self, owner: ContentOwner, len: usize) -> Result<(), WriteError> {
        let content = self.buffer.content(len);
        let hash = self.work.options.references.then(|| blake3::hash(content));
        let packed = match &mut self.packer {
            Some(packer) => packer.pack(content)?,
            None => None,
        };
        let runs = self.runs.clone();
        let head = |codec, stored: usize| BlockHead { owner, runs, codec, stored: stored as u32, reference: 0 };
        match (&mut self.packer, packed) {
            (Some(packer), Some(stored)) => {
                let crc = crc32c::crc32c(packer.buffer.content(stored));
                self.work.layout.block(head(Codec::Zstd, stored), &mut packer.buffer, crc, hash)
            }
            (Some(_) | None, _) => {
                let crc = crc32c::crc32c(content);
                self.work.layout.block(head(Codec::Raw, len), &mut self.buffer, crc, hash)
            }
        }
    }
}

impl Packer {
    /// Compresses into the own buffer; `None` when that saves less than a sixteenth.
    fn pack(&mut self, content: &[u8]) -> Result<Option<usize>, WriteError> {
        let room = content.len() - content.len() / 16;
        match self.zstd.compress_to_buffer(content, self.buffer.content(room)) {
            Ok(len) => Ok(Some(len)),
            // zstd has no error of its own kind: that it needs more room is the only thing that happens to valid input.
            Err(_) => Ok(None),
        }
    }
}

/// Moves the pages that are not zero to the front and returns their bytes. `runs` gets where they belong, `zeros` the
/// zero pages that have to be noted.
fn drop_zeros(content: &mut [u8], job: &Job, runs: &mut Vec<PageRange>, zeros: &mut Vec<PageRange>) -> usize {
    runs.clear();
    zeros.clear();
    let page_size = PAGE_SIZE as usize;
    let (mut from, mut to) = (0, 0);
    for (range, policy) in job.ranges.iter().zip(&job.policies) {
        let mut addr = range.start;
        while addr < range.end {
            let page = from..from + page_size;
            if !zero::is_zero(&content[page.clone()]) {
                if from != to {
                    content.copy_within(page, to);
                }
                to += page_size;
                append(runs, addr);
            } else if *policy == ZeroPolicy::Keep {
                append(zeros, addr);
            }
            from += page_size;
            addr = addr.add(PAGE_SIZE);
        }
    }
    to
}

/// Adds a page to the last run if it follows it, else as a run of its own.
pub fn append(runs: &mut Vec<PageRange>, page: Addr) {
    let end = page.add(PAGE_SIZE);
    match runs.last_mut() {
        Some(last) if last.end == page => last.end = end,
        Some(_) | None => runs.push(PageRange { start: page, end }),
    }
}
