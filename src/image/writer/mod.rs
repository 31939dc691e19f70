//! Writing an image: metadata, pages through a pipeline of workers, statistics, trailer.

mod copied;
mod layout;
mod output;
mod pages;
mod zero;

pub use copied::{Copied, CopyError, PageCopier, Place};
pub use output::ImageFile;
pub use pages::{PageCounts, PageReader, PageRun, ZeroPolicy};

use super::coverage::Coverage;
use super::error::{BlockFault, WriteError};
use super::header::{Header, HeaderFlags};
use super::index::{TRAILER_SECTION_LEN, Trailer};
use super::model::Snapshot;
use super::model::address::PAGE_SIZE;
use super::model::inventory::Stats;
use super::section::Kind;
use super::validate;
use super::versions::v1;
use layout::Layout;
use output::Output;
use std::io::Write;
use std::path::Path;

/// How an image is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteOptions {
    /// zstd level of the pages, `None` to store them as they are.
    pub compression: Option<i32>,
    /// Threads that read, compress and write pages; 0 for one for each CPU.
    pub workers: usize,
    /// Whether blocks of equal content are stored once, at the cost of hashing all content.
    pub references: bool,
}

/// An image in the making. Dropped before [`Writer::complete`] and [`Complete::publish`], it leaves no file.
///
/// The order of calls is [`snapshot`](Self::snapshot), [`pages`](Self::pages) any number of times,
/// [`complete`](Self::complete).
#[derive(Debug)]
pub struct Writer {
    layout: Layout,
    options: WriteOptions,
    /// The pages so far; `None` before the snapshot.
    coverage: Option<Coverage>,
}

impl Writer {
    /// Begins an image in a file; `name` is for messages.
    ///
    /// # Errors
    /// When the header cannot be written.
    pub fn file(name: &Path, file: impl ImageFile + 'static, options: WriteOptions) -> Result<Self, WriteError> {
        Self::begin(Output::file(name, Box::new(file)), options)
    }

    /// Begins an image that is written in one pass, without seeking; `name` is for messages.
    ///
    /// # Errors
    /// When the header cannot be written.
    pub fn stream(name: &Path, stream: impl Write + Send + 'static, options: WriteOptions) -> Result<Self, WriteError> {
        Self::begin(Output::stream(name, Box::new(stream)), options)
    }

    fn begin(output: Output, options: WriteOptions) -> Result<Self, WriteError> {
        let flags = if options.references { HeaderFlags::REFERENCES } else { HeaderFlags::empty() };
        Ok(Self { layout: Layout::begin(output, &Header::new(flags))?, options, coverage: None })
    }

    /// Writes everything but the pages, once, and before them.
    ///
    /// # Errors
    /// When the snapshot would not pass the checks of a reader, or the output fails.
    pub fn snapshot(&mut self, snapshot: &Snapshot) -> Result<(), WriteError> {
        validate::snapshot(snapshot).map_err(WriteError::Model)?;
        self.coverage = Some(Coverage::new(snapshot));
        for (kind, payload) in v1::encode_snapshot(snapshot)? {
            self.layout.section(kind, &payload)?;
        }
        Ok(())
    }

    /// Reads `runs` through `reader` and writes them, by several threads at once. No page may be named twice in an image.
    /// `progress` is told the bytes that are done, of the sum of the runs; its error ends the work.
    ///
    /// # Errors
    /// When reading or the output fails, or `progress` says so. The image cannot be completed afterwards.
    pub fn pages(
        &mut self,
        runs: &[PageRun],
        reader: &dyn PageReader,
        progress: &(dyn Fn(u64, u64) -> std::io::Result<()> + Sync),
    ) -> Result<PageCounts, WriteError> {
        self.check(runs)?;
        pages::write(&self.layout, self.options, runs, reader, progress)
    }

    /// As [`Self::pages`] for runs of one owner, which `copier` copies into the file if it can.
    ///
    /// # Errors
    /// As [`Self::pages`].
    pub fn pages_copied(
        &mut self,
        runs: &[PageRun],
        copier: &mut dyn PageCopier,
        reader: &dyn PageReader,
        progress: &(dyn Fn(u64, u64) -> std::io::Result<()> + Sync),
    ) -> Result<PageCounts, WriteError> {
        self.check(runs)?;
        match copied::write(&self.layout, runs, copier, progress)? {
            Some(counts) => Ok(counts),
            None => pages::write(&self.layout, self.options, runs, reader, progress),
        }
    }

    /// Whether a reader will accept these runs.
    fn check(&mut self, runs: &[PageRun]) -> Result<(), WriteError> {
        for &PageRun { owner, range, zero: _ } in runs {
            let aligned = range.start.0.is_multiple_of(PAGE_SIZE) && range.end.0.is_multiple_of(PAGE_SIZE);
            let fault = match &mut self.coverage {
                None => Err(BlockFault::Owner(owner)),
                Some(_) if range.is_empty() || !aligned => Err(BlockFault::Run(range)),
                Some(coverage) => coverage.add(owner, [range]),
            };
            fault.map_err(|fault| WriteError::Pages { owner, fault })?;
        }
        Ok(())
    }

    /// Writes statistics, index and trailer. The file is whole then, but neither durable nor under its name.
    ///
    /// # Errors
    /// When the output fails.
    pub fn complete(mut self, stats: &Stats) -> Result<Complete, WriteError> {
        let stats_at = self.layout.section(Kind::Stats, &v1::encode(Kind::Stats, stats)?)?;
        let index = self.layout.take_index();
        let index_at = self.layout.section(Kind::Index, &v1::encode(Kind::Index, &index)?)?;
        let (position, digest) = self.layout.so_far();
        let length = position + TRAILER_SECTION_LEN as u64;
        let trailer = Trailer { stats: stats_at, index: index_at, blocks: index.len() as u64, length, digest };
        self.layout.section(Kind::Trailer, &trailer.encode())?;
        Ok(Complete { output: self.layout.finish()?, length })
    }
}

/// A whole image without its name, or a stream that is written.
#[derive(Debug)]
pub struct Complete {
    output: Output,
    length: u64,
}

impl Complete {
    /// Makes it durable and gives it its name. Returns its bytes.
    ///
    /// # Errors
    /// When that fails; no file of it is left then.
    pub fn publish(self) -> Result<u64, WriteError> {
        self.output.publish(self.length)?;
        Ok(self.length)
    }

    /// Bytes of the image.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.length
    }

    /// Never: an image has a header.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }
}
