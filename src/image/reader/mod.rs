//! Reading an image: from a mapped file in parallel and at random, or from a stream in one pass.

mod content;
mod mapped;
mod metadata;
mod random;
mod stream;
mod window;

use super::error::Error;
use super::header::Header;
use super::model::Snapshot;
use super::model::address::{Addr, PageRange};
use super::model::inventory::Stats;
use super::model::memory::ContentOwner;
use mapped::Mapped;
use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use stream::Stream;

/// Receives the pages of an image, from several threads at once and in no order.
pub trait PageSink: Sync {
    /// Whether it wants pages of this owner; of others it may get none.
    fn wants(&self, _owner: ContentOwner) -> bool {
        true
    }

    /// Puts `data` at `start`. It is made of whole pages.
    ///
    /// # Errors
    /// When it cannot; the restore ends.
    fn fill(&self, owner: ContentOwner, start: Addr, data: &[u8]) -> io::Result<()>;

    /// Makes pages zero beneath which something else lies.
    ///
    /// # Errors
    /// When it cannot; the restore ends.
    fn zero(&self, owner: ContentOwner, range: PageRange) -> io::Result<()>;
}

/// All bytes of an image: a mapping of its file, or a buffer.
pub trait ImageBytes: Send + Sync {
    /// The bytes.
    fn bytes(&self) -> &[u8];

    /// A part of them is about to be read.
    fn prepare(&self, range: Range<usize>) {
        let _ = range;
    }
}

impl ImageBytes for memmap2::Mmap {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn prepare(&self, range: Range<usize>) {
        // One call instead of a fault for every few pages; where the kernel has no such advice, faults do.
        let _ = self.advise_range(memmap2::Advice::PopulateRead, range.start, range.len());
    }
}

impl ImageBytes for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// An image whose metadata is read and valid. Its pages are not checked yet.
pub struct Image {
    header: Header,
    snapshot: Snapshot,
    source: Source,
}

enum Source {
    Mapped(Box<Mapped>),
    Stream(Mutex<Option<Box<Stream>>>),
}

impl Image {
    /// Opens an image all of whose bytes are at hand, such as [`memmap2::Mmap`].
    ///
    /// # Errors
    /// When header, metadata or trailer are not those of a valid image.
    pub fn open(bytes: impl ImageBytes + 'static) -> Result<Self, Error> {
        let (header, snapshot, mapped) = Mapped::open(Box::new(bytes))?;
        Ok(Self { header, snapshot, source: Source::Mapped(Box::new(mapped)) })
    }

    /// Reads the metadata of an image that arrives once and in order.
    ///
    /// # Errors
    /// When header or metadata are not those of a valid image, or reading fails.
    pub fn stream(input: impl Read + Send + 'static) -> Result<Self, Error> {
        let (header, snapshot, stream) = Stream::open(Box::new(input))?;
        Ok(Self { header, snapshot, source: Source::Stream(Mutex::new(Some(Box::new(stream)))) })
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Everything but the pages.
    #[must_use]
    pub const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The statistics of the dump; a stream gives them only with its pages.
    #[must_use]
    pub const fn stats(&self) -> Option<&Stats> {
        match &self.source {
            Source::Mapped(mapped) => Some(mapped.stats()),
            Source::Stream(_) => None,
        }
    }

    /// Bytes of the image; unknown of a stream.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        match &self.source {
            Source::Mapped(mapped) => Some(mapped.len()),
            Source::Stream(_) => None,
        }
    }

    /// Hands every page to `sink`, by `workers` threads (0: one for each CPU), and checks the whole image on the way. Only when it
    /// returns `Ok` may what was filled be used: the digest of a stream stands at its end. Waits for the end of a stream.
    ///
    /// # Errors
    /// When anything in the image is wrong, or the sink fails, or a stream is read for the second time.
    pub fn restore_pages(&self, sink: &dyn PageSink, workers: usize) -> Result<Stats, Error> {
        let cpus = || std::thread::available_parallelism().map_or(2, usize::from);
        let workers = if workers == 0 { cpus() } else { workers };
        match &self.source {
            Source::Mapped(mapped) => mapped.restore_pages(&self.header, &self.snapshot, sink, workers),
            Source::Stream(stream) => {
                let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
                stream.ok_or(Error::Stream)?.restore_pages(&self.snapshot, sink, workers)
            }
        }
    }

    /// Whether it is read once and in order.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(self.source, Source::Stream(_))
    }

    /// Checks everything that [`restore_pages`](Self::restore_pages) checks. Uses up a stream.
    ///
    /// # Errors
    /// When anything in the image is wrong.
    pub fn verify(&self) -> Result<Stats, Error> {
        self.restore_pages(&Nowhere, 0)
    }

    /// Reads from the pages of `owner` at `addr`, like read(2): returns how many bytes from the start of `buf` were read, up to the first
    /// page that the image does not hold. What its absence means, the mapping there tells: zero, or as in the file.
    ///
    /// # Errors
    /// When a block that holds the bytes is damaged, or the image is a stream.
    pub fn read_at(&self, owner: ContentOwner, addr: Addr, buf: &mut [u8]) -> Result<usize, Error> {
        match &self.source {
            Source::Mapped(mapped) => mapped.read_at(owner, addr, buf),
            Source::Stream(_) => Err(Error::Stream),
        }
    }

    /// The runs of pages that the image holds, in the order of the file and not joined.
    ///
    /// # Errors
    /// When a block is damaged, or the image is a stream.
    pub fn page_runs(&self) -> Result<Vec<(ContentOwner, PageRange)>, Error> {
        match &self.source {
            Source::Mapped(mapped) => mapped.page_runs(),
            Source::Stream(_) => Err(Error::Stream),
        }
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").field("header", &self.header).field("size", &self.size()).finish_non_exhaustive()
    }
}

/// Takes pages to have them checked.
struct Nowhere;

impl PageSink for Nowhere {
    fn fill(&self, _: ContentOwner, _: Addr, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn zero(&self, _: ContentOwner, _: PageRange) -> io::Result<()> {
        Ok(())
    }
}
