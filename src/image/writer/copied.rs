//! Pages that somebody copies straight into the file: who does so gives each block its place, and this puts the blocks around them.

use super::layout::{BlockBuffer, Layout};
use super::pages::{Job, Jobs, PageCounts, PageRun, ProgressFn, ZeroPolicy, append};
use crate::image::block::{BlockHead, Codec, HEAD_LEN, MAX_RUNS, RUN_LEN};
use crate::image::error::WriteError;
use crate::image::model::address::{PAGE_SIZE, PageRange};
use crate::image::model::memory::ContentOwner;
use crate::image::section::SECTION_HEADER_LEN;
use std::io;

/// Copies pages of one owner into the file of an image, which has its own idea of how: no buffer of ours lies between.
pub trait PageCopier {
    /// Copies what is not zero of each job, and tells where to. Blocks stand one behind the other, in any order: a job of which something is
    /// kept takes its place from where the last one ends: [`Place::content`], and its pages from there.
    ///
    /// # Errors
    /// See [`CopyError`].
    fn copy(
        &mut self,
        jobs: &[Vec<PageRange>],
        place: Place,
        progress: &(dyn Fn(u64) -> io::Result<()> + Sync),
    ) -> Result<Vec<Copied>, CopyError>;
}

/// Why nothing was copied.
#[derive(Debug)]
pub enum CopyError {
    /// Progress said so: the image is given up.
    Stopped(io::Error),
    /// It cannot be done this way. What was copied so far is in nobody's way.
    Unable,
}

/// Where blocks go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Offset of the first one in the file.
    pub start: u64,
    /// Bytes before the content of a block without runs.
    pub head: u64,
    /// Bytes more for each run of pages.
    pub head_run: u64,
}

impl Place {
    /// Offset of the content of a block that begins at `offset` and has so many runs.
    #[must_use]
    pub const fn content(self, offset: u64, runs: usize) -> u64 {
        (offset + self.head + self.head_run * runs as u64).next_multiple_of(PAGE_SIZE)
    }
}

/// What became of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Bit N of word N/64: page N of the job, counted through its runs, is not zero and was copied.
    pub kept: [u64; 4],
    /// Offset of these pages in the file, one behind the other.
    pub content: u64,
    /// Their CRC-32C.
    pub crc: u32,
}

const _: () = assert!(MAX_RUNS == 4 * 64);

/// A block whose content is there.
struct Block {
    runs: Vec<PageRange>,
    pages: usize,
    content: u64,
    crc: u32,
}

/// Has `runs`, all of one owner, copied; `None` when that cannot be done.
pub fn write(
    layout: &Layout,
    runs: &[PageRun],
    copier: &mut dyn PageCopier,
    progress: ProgressFn<'_>,
) -> Result<Option<PageCounts>, WriteError> {
    let Some(owner) = runs.first().map(|run| run.owner) else { return Ok(Some(PageCounts::default())) };
    let total = runs.iter().map(|run| run.range.len()).sum();
    let jobs = cut(runs);
    let ranges: Vec<Vec<PageRange>> = jobs.iter().map(|job| job.ranges.clone()).collect();
    let head = (SECTION_HEADER_LEN + HEAD_LEN) as u64;
    let place = Place { start: layout.position(), head, head_run: RUN_LEN as u64 };
    let copied = match copier.copy(&ranges, place, &|done| progress(done, total)) {
        Ok(copied) => copied,
        Err(CopyError::Stopped(source)) => return Err(WriteError::Stopped(source)),
        Err(CopyError::Unable) => return Ok(None),
    };
    let Some((blocks, zeros)) = blocks(&jobs, &copied, place) else { return Ok(None) };
    let written = blocks.iter().map(|block| block.pages as u64 * PAGE_SIZE).sum();
    let mut buffer = BlockBuffer::new(0);
    put_around(layout, owner, blocks, &mut buffer)?;
    for runs in zeros.chunks(MAX_RUNS) {
        let head = BlockHead { owner, runs: runs.to_vec(), codec: Codec::Zero, stored: 0, reference: 0 };
        layout.block(head, &mut buffer, 0, None)?;
    }
    progress(total, total).map_err(WriteError::Stopped)?;
    Ok(Some(PageCounts { written, zero: total - written }))
}

fn cut(runs: &[PageRun]) -> Vec<Job> {
    let mut jobs = Jobs::new(runs);
    let next = || {
        let mut job = Job::default();
        jobs.next(&mut job).map(|_| job)
    };
    std::iter::from_fn(next).collect()
}

/// The blocks in the order of the file, and zero pages that must be noted; `None` when the places are not what they must be.
fn blocks(jobs: &[Job], copied: &[Copied], place: Place) -> Option<(Vec<Block>, Vec<PageRange>)> {
    if jobs.len() != copied.len() {
        return None;
    }
    let mut zeros = Vec::new();
    let mut blocks: Vec<Block> =
        jobs.iter().zip(copied).filter_map(|(job, copied)| block(job, copied, &mut zeros)).collect();
    blocks.sort_unstable_by_key(|block| block.content);
    let mut offset = place.start;
    for block in &blocks {
        if block.content != place.content(offset, block.runs.len()) {
            return None;
        }
        offset = block.content + block.pages as u64 * PAGE_SIZE;
    }
    Some((blocks, zeros))
}

/// The block of a job, if anything of it was kept.
fn block(job: &Job, copied: &Copied, zeros: &mut Vec<PageRange>) -> Option<Block> {
    let mut block = Block { runs: Vec::new(), pages: 0, content: copied.content, crc: copied.crc };
    let mut number = 0;
    for (range, policy) in job.ranges.iter().zip(&job.policies) {
        let mut page = range.start;
        while page < range.end {
            if copied.kept.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1) {
                append(&mut block.runs, page);
                block.pages += 1;
            } else if *policy == ZeroPolicy::Keep {
                append(zeros, page);
            }
            number += 1;
            page = page.add(PAGE_SIZE);
        }
    }
    (block.pages > 0).then_some(block)
}

fn put_around(
    layout: &Layout,
    owner: ContentOwner,
    blocks: Vec<Block>,
    buffer: &mut BlockBuffer,
) -> Result<(), WriteError> {
    for Block { runs, pages, content, crc } in blocks {
        let stored = (pages as u64 * PAGE_SIZE) as u32;
        let head = BlockHead { owner, runs, codec: Codec::Raw, stored, reference: 0 };
        layout.block_around(&head, content, crc, buffer)?;
    }
    Ok(())
}
