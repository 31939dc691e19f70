//! An image that arrives once and in order: one thread reads and checks, others place pages. Memory is bounded by the number of workers,
//! and by the window of references where the header announces them.

use super::PageSink;
use super::content::{Unpacker, place};
use super::metadata::{Section, Walk};
use super::window::Window;
use crate::image::block::{BLOCK_SIZE, BlockHead, Codec, MAX_HEAD_LEN};
use crate::image::coverage::Coverage;
use crate::image::error::Error;
use crate::image::header::Header;
use crate::image::index::{IndexEntry, TRAILER_LEN, Trailer};
use crate::image::model::Snapshot;
use crate::image::model::address::PAGE_SIZE;
use crate::image::model::inventory::Stats;
use crate::image::section::Kind;
use crate::image::versions::v1;
use std::io::{BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

type Input = BufReader<Box<dyn Read + Send>>;

/// Most bytes of the payload of a page block.
const MAX_BLOCK_PAYLOAD: u64 = (MAX_HEAD_LEN + BLOCK_SIZE) as u64 + PAGE_SIZE;

/// More threads than this gain nothing behind one that reads.
const MAX_WORKERS: usize = 16;

/// See the module.
pub struct Stream {
    walk: Walk<Input>,
    /// The first section behind the metadata, whose header is read.
    first: Section,
}

/// A block read from the stream and verified.
struct Arrived {
    head: BlockHead,
    offset: u64,
    stored: Stored,
}

/// The stored content of a block, which a window of references may share.
#[derive(Clone)]
struct Stored {
    codec: Codec,
    payload: Arc<Vec<u8>>,
    /// Where the content begins in the payload.
    at: usize,
}

impl Stream {
    /// Reads header and metadata.
    pub fn open(input: Box<dyn Read + Send>) -> Result<(Header, Snapshot, Self), Error> {
        let mut walk = Walk::begin(BufReader::with_capacity(64 << 10, input))?;
        let (snapshot, first) = walk.snapshot()?;
        Ok((walk.header, snapshot, Self { walk, first }))
    }

    /// See [`super::Image::restore_pages`].
    pub fn restore_pages(self, snapshot: &Snapshot, sink: &dyn PageSink, workers: usize) -> Result<Stats, Error> {
        let workers = workers.clamp(1, MAX_WORKERS);
        let (send, receive) = sync_channel(workers);
        let (back, free) = sync_channel(2 * workers);
        let receive = Arc::new(Mutex::new(receive));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let placers: Vec<_> = (0..workers)
                .map(|_| {
                    let (receive, back, stop) = (Arc::clone(&receive), back.clone(), &stop);
                    scope.spawn(move || {
                        let result = place_arrivals(&receive, &back, sink);
                        stop.fetch_or(result.is_err(), Ordering::Relaxed);
                        result
                    })
                })
                .collect();
            // The placers hold the only receivers: when the last is gone, sending fails.
            drop(receive);
            let window = Window::new(self.walk.header.flags);
            let read = self.read(snapshot, Feed { send, free, window, stop: &stop });
            // A placer that fails is the cause of what the reader then sees.
            let placed = placers.into_iter().map(|placer| match placer.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            placed.fold(Ok(()), Result::and).and(read)
        })
    }

    fn read(mut self, snapshot: &Snapshot, mut feed: Feed<'_>) -> Result<Stats, Error> {
        let mut coverage = Coverage::new(snapshot);
        let mut index = Vec::new();
        let mut section = self.first;
        while section.kind == Kind::PageBlock {
            let offset = section.offset;
            let mut block = self.block(&section, feed.free.try_recv().unwrap_or_default())?;
            coverage
                .add(block.head.owner, block.head.runs.iter().copied())
                .map_err(|fault| Error::Block { offset, fault })?;
            index.push(IndexEntry::of(&block.head, offset));
            let own = || block.stored.clone();
            if let Some(target) = feed.window.next(&block.head, offset, own)?.cloned() {
                block.stored = target;
            }
            if feed.stop.load(Ordering::Relaxed) || feed.send.send(block).is_err() {
                return Err(Error::Stream);
            }
            section = self.walk.section()?;
        }
        drop(feed);
        self.rest(section, &index)
    }

    /// Reads the payload of a page block and verifies it.
    fn block(&mut self, section: &Section, mut payload: Vec<u8>) -> Result<Arrived, Error> {
        let Section { kind, offset, header } = *section;
        if header.length > MAX_BLOCK_PAYLOAD {
            return Err(Error::TooLong { kind, offset, length: header.length });
        }
        payload.resize(header.length as usize, 0);
        self.walk.fill(&mut payload)?;
        if crc32c::crc32c(&payload) != header.crc {
            return Err(Error::Checksum { kind: kind.name(), offset });
        }
        self.walk.digest.update(&payload[..header.hashed as usize]);
        self.walk.end_padding()?;
        let front = &payload[..payload.len().min(MAX_HEAD_LEN)];
        let head = BlockHead::decode(front, offset, header.length, header.hashed)?;
        let stored = Stored { codec: head.codec, at: head.content_at(offset), payload: Arc::new(payload) };
        Ok(Arrived { head, offset, stored })
    }

    /// Reads what follows the pages.
    fn rest(mut self, section: Section, index: &[IndexEntry]) -> Result<Stats, Error> {
        let stats_at = self.expect(&section, Kind::Stats)?;
        let stats = v1::decode(Kind::Stats, &self.walk.payload(&section)?)?;
        let section = self.walk.section()?;
        let index_at = self.expect(&section, Kind::Index)?;
        let written: Vec<IndexEntry> = v1::decode(Kind::Index, &self.walk.payload(&section)?)?;
        if written != index {
            return Err(Error::Inconsistent("the index"));
        }
        let section = self.walk.section()?;
        let digest = self.walk.digest.finish();
        self.expect(&section, Kind::Trailer)?;
        if section.header.length != TRAILER_LEN as u64 || section.header.hashed != 0 {
            return Err(Error::Inconsistent("the trailer"));
        }
        let payload = self.walk.payload(&section)?;
        let Some(bytes) = payload.first_chunk() else { return Err(Error::Inconsistent("the trailer")) };
        let trailer = Trailer::decode(bytes);
        let expected = Trailer {
            stats: stats_at,
            index: index_at,
            blocks: index.len() as u64,
            length: self.walk.position,
            ..trailer
        };
        if trailer != expected {
            return Err(Error::Inconsistent("the trailer"));
        }
        if trailer.digest != digest {
            return Err(Error::Digest);
        }
        self.walk.end()?;
        Ok(stats)
    }

    fn expect(&self, section: &Section, kind: Kind) -> Result<u64, Error> {
        if section.kind == kind { Ok(section.offset) } else { Err(Error::Missing { kind, offset: section.offset }) }
    }
}

/// The side of the channels that the reading thread has.
struct Feed<'a> {
    send: SyncSender<Arrived>,
    /// Buffers that come back.
    free: Receiver<Vec<u8>>,
    window: Window<Stored>,
    /// A placer has failed.
    stop: &'a AtomicBool,
}

/// The work of a placer: takes blocks until there are no more.
fn place_arrivals(
    receive: &Mutex<Receiver<Arrived>>,
    back: &SyncSender<Vec<u8>>,
    sink: &dyn PageSink,
) -> Result<(), Error> {
    let mut unpacker = Unpacker::new()?;
    let mut buffer = Vec::new();
    loop {
        let next = receive.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Arrived { head, offset, stored }) = next else { return Ok(()) };
        let bytes = stored.payload.get(stored.at..).unwrap_or_default();
        let content = match stored.codec {
            Codec::Zstd => {
                unpacker.unpack(bytes, head.content_len(), &mut buffer, offset)?;
                &buffer
            }
            Codec::Raw | Codec::Zero | Codec::Reference => bytes,
        };
        place(&head, content, sink)?;
        if let Ok(payload) = Arc::try_unwrap(stored.payload) {
            let _ = back.try_send(payload);
        }
    }
}
