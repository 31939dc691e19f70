//! An image all of whose bytes are at hand: sections are slices, blocks are handed out by several threads.

use super::content::{Unpacker, place};
use super::metadata::{Section, Walk, check_padding, known};
use super::random::Recent;
use super::window::Window;
use super::{ImageBytes, PageSink};
use crate::image::block::{BlockHead, Codec, MAX_HEAD_LEN};
use crate::image::coverage::Coverage;
use crate::image::digest::Digest;
use crate::image::error::{BlockFault, Error};
use crate::image::header::{HEADER_LEN, Header};
use crate::image::index::{IndexEntry, TRAILER_LEN, TRAILER_SECTION_LEN, Trailer};
use crate::image::model::Snapshot;
use crate::image::model::inventory::Stats;
use crate::image::model::memory::ContentOwner;
use crate::image::section::{Kind, Order, SECTION_HEADER_LEN, SectionHeader, padding};
use crate::image::versions::v1;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// See the module.
pub struct Mapped {
    bytes: Box<dyn ImageBytes>,
    read_by: Header,
    trailer: Trailer,
    stats: Stats,
    pub(super) index: Vec<IndexEntry>,
    /// Positions in `index`, for each owner by the end of the extent.
    pub(super) by_owner: HashMap<ContentOwner, Vec<usize>>,
    pub(super) recent: Mutex<Recent>,
}

/// A block whose checksum is not verified yet.
pub struct Block<'a> {
    pub head: BlockHead,
    pub offset: u64,
    crc: u32,
    payload: &'a [u8],
}

impl Mapped {
    /// Reads header and metadata from the front, trailer, index and statistics from the back.
    pub fn open(bytes: Box<dyn ImageBytes>) -> Result<(Header, Snapshot, Self), Error> {
        let all = bytes.bytes();
        let mut walk = Walk::begin(all)?;
        let (snapshot, _) = walk.snapshot()?;
        let header = walk.header;
        let trailer = read_trailer(all, &header)?;
        let stats = v1::decode(Kind::Stats, at_back(all, trailer.stats, Kind::Stats, &header)?)?;
        let index: Vec<IndexEntry> = v1::decode(Kind::Index, at_back(all, trailer.index, Kind::Index, &header)?)?;
        if index.len() as u64 != trailer.blocks || !index.is_sorted_by(|a, b| a.offset < b.offset) {
            return Err(Error::Inconsistent("the index"));
        }
        let by_owner = super::random::by_owner(&index);
        let recent = Mutex::new(Recent::default());
        Ok((header, snapshot, Self { bytes, read_by: header, trailer, stats, index, by_owner, recent }))
    }

    /// The statistics.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Bytes of the image.
    pub fn len(&self) -> u64 {
        self.bytes.bytes().len() as u64
    }

    /// See [`super::Image::restore_pages`].
    pub fn restore_pages(
        &self,
        header: &Header,
        snapshot: &Snapshot,
        sink: &dyn PageSink,
        workers: usize,
    ) -> Result<Stats, Error> {
        let blocks = self.scan(header, snapshot)?;
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let run = || {
            let result = self.place_blocks(&blocks, &next, &stop, sink);
            if result.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            result
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (1..workers.min(blocks.len())).map(|_| scope.spawn(run)).collect();
            let own = run();
            threads.into_iter().fold(own, |result, thread| match thread.join() {
                Ok(other) => result.and(other),
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        Ok(self.stats)
    }

    fn place_blocks(
        &self,
        blocks: &[Block<'_>],
        next: &AtomicUsize,
        stop: &AtomicBool,
        sink: &dyn PageSink,
    ) -> Result<(), Error> {
        let mut unpacker = Unpacker::new()?;
        let mut buffer = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let Some(block) = blocks.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            if !sink.wants(block.head.owner) {
                continue;
            }
            let content = self.content(block, &mut unpacker, &mut buffer)?;
            place(&block.head, content, sink)?;
        }
        Ok(())
    }

    /// The verified content of a block: a slice of the image, or `buffer` after it was unpacked.
    pub fn content<'b>(
        &'b self,
        block: &Block<'_>,
        unpacker: &mut Unpacker,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b [u8], Error> {
        let offset = block.offset;
        self.verify(block)?;
        match block.head.codec {
            Codec::Zero => Ok(&[]),
            Codec::Raw => Ok(self.stored(block)),
            Codec::Zstd => {
                unpacker.unpack(self.stored(block), block.head.content_len(), buffer, offset)?;
                Ok(buffer)
            }
            Codec::Reference => {
                let fault = Error::Block { offset, fault: BlockFault::Reference };
                let Ok(target) = self.block(block.head.reference) else { return Err(fault) };
                let carries = matches!(target.head.codec, Codec::Raw | Codec::Zstd);
                if !carries || target.offset >= offset || target.head.content_len() != block.head.content_len() {
                    return Err(fault);
                }
                self.content(&target, unpacker, buffer)
            }
        }
    }

    /// The bytes that a block stores.
    fn stored(&self, block: &Block<'_>) -> &[u8] {
        let start = block.offset as usize + SECTION_HEADER_LEN + block.head.content_at(block.offset);
        self.bytes.bytes().get(start..start + block.head.stored as usize).unwrap_or_default()
    }

    fn verify(&self, block: &Block<'_>) -> Result<(), Error> {
        let start = block.offset as usize + SECTION_HEADER_LEN;
        self.bytes.prepare(start..start + block.payload.len());
        if crc32c::crc32c(block.payload) != block.crc {
            return Err(Error::Checksum { kind: Kind::PageBlock.name(), offset: block.offset });
        }
        Ok(())
    }

    /// The block at an offset that nobody has vouched for.
    pub fn block(&self, offset: u64) -> Result<Block<'_>, Error> {
        let (_, header, payload) = slice_section(self.bytes.bytes(), offset)?;
        match known(&header, offset, &self.read_by)? {
            Some(Kind::PageBlock) => block_of(&header, payload, offset),
            Some(_) | None => Err(Error::Inconsistent("the index")),
        }
    }

    /// Looks at every section once: order, padding, heads, overlaps, index, digest. The content is left for later.
    fn scan(&self, image: &Header, snapshot: &Snapshot) -> Result<Vec<Block<'_>>, Error> {
        let all = self.bytes.bytes();
        let mut digest = Digest::of(image);
        let mut order = Order::default();
        let mut coverage = Coverage::new(snapshot);
        let mut window = Window::new(image.flags);
        let mut blocks = Vec::new();
        let mut back = (0, 0);
        let mut offset = HEADER_LEN as u64;
        loop {
            let (header_bytes, header, payload) = slice_section(all, offset)?;
            let kind = known(&header, offset, image)?;
            if let Some(kind) = kind {
                order.next(kind, offset)?;
            }
            if kind == Some(Kind::Trailer) {
                break;
            }
            digest.update(header_bytes);
            digest.update(&payload[..header.hashed as usize]);
            match kind {
                Some(Kind::PageBlock) => {
                    let block = block_of(&header, payload, offset)?;
                    coverage
                        .add(block.head.owner, block.head.runs.iter().copied())
                        .map_err(|fault| Error::Block { offset, fault })?;
                    window.next(&block.head, offset, || ())?;
                    blocks.push(block);
                }
                // Those that are known were verified when they were decoded, if this is where that was done.
                Some(Kind::Stats) => back.0 = offset,
                Some(Kind::Index) => back.1 = offset,
                Some(_) => {}
                None => verify_unknown(&header, payload, offset)?,
            }
            offset = next_section(all, offset, &header)?;
        }
        if back != (self.trailer.stats, self.trailer.index) {
            return Err(Error::Inconsistent("the trailer"));
        }
        self.finish_scan(offset, &digest, &blocks)?;
        Ok(blocks)
    }

    fn finish_scan(&self, trailer_at: u64, digest: &Digest, blocks: &[Block<'_>]) -> Result<(), Error> {
        if trailer_at + TRAILER_SECTION_LEN as u64 != self.len() {
            return Err(Error::TrailingBytes { offset: trailer_at + TRAILER_SECTION_LEN as u64 });
        }
        if digest.finish() != self.trailer.digest {
            return Err(Error::Digest);
        }
        let found = blocks.iter().map(|block| IndexEntry::of(&block.head, block.offset));
        if found.eq(self.index.iter().copied()) { Ok(()) } else { Err(Error::Inconsistent("the index")) }
    }
}

/// The header and the payload of the section at `offset`, which must lie inside.
fn slice_section(all: &[u8], offset: u64) -> Result<(&[u8; SECTION_HEADER_LEN], SectionHeader, &[u8]), Error> {
    let len = all.len() as u64;
    let rest = usize::try_from(offset).ok().and_then(|offset| all.get(offset..));
    let Some((bytes, rest)) = rest.and_then(|rest| rest.split_first_chunk::<SECTION_HEADER_LEN>()) else {
        return Err(Error::Truncated { offset: offset.min(len), needed: SECTION_HEADER_LEN as u64 });
    };
    let header = SectionHeader::decode(bytes, offset)?;
    let payload = usize::try_from(header.length).ok().and_then(|length| rest.get(..length));
    match payload {
        Some(payload) => Ok((bytes, header, payload)),
        None => Err(Error::Truncated { offset: len, needed: header.length - rest.len() as u64 }),
    }
}

/// Where the section behind this one begins. The section lies inside.
fn next_section(all: &[u8], offset: u64, header: &SectionHeader) -> Result<u64, Error> {
    let end = offset + SECTION_HEADER_LEN as u64 + header.length;
    let next = end + padding(end);
    match all.get(end as usize..next as usize) {
        Some(bytes) => check_padding(bytes, end).map(|()| next),
        None => Err(Error::Truncated { offset: all.len() as u64, needed: next - all.len() as u64 }),
    }
}

fn block_of<'a>(header: &SectionHeader, payload: &'a [u8], offset: u64) -> Result<Block<'a>, Error> {
    let front = &payload[..payload.len().min(MAX_HEAD_LEN)];
    let head = BlockHead::decode(front, offset, header.length, header.hashed)?;
    Ok(Block { head, offset, crc: header.crc, payload })
}

fn verify_unknown(header: &SectionHeader, payload: &[u8], offset: u64) -> Result<(), Error> {
    if crc32c::crc32c(payload) == header.crc { Ok(()) } else { Err(Error::Checksum { kind: "unknown", offset }) }
}

/// The trailer, which is the last of the bytes.
fn read_trailer(all: &[u8], image: &Header) -> Result<Trailer, Error> {
    let truncated = Error::Truncated { offset: all.len() as u64, needed: TRAILER_SECTION_LEN as u64 };
    let Some(at) = all.len().checked_sub(TRAILER_SECTION_LEN) else { return Err(truncated) };
    let section = match Section::at(all, at as u64, image) {
        Ok(section) if section.kind == Kind::Trailer => section,
        Ok(_) | Err(_) => return Err(truncated),
    };
    if section.header.length != TRAILER_LEN as u64 || section.header.hashed != 0 {
        return Err(Error::Inconsistent("the trailer"));
    }
    let payload = verified(all, &section)?;
    let Some(bytes) = payload.first_chunk::<TRAILER_LEN>() else { return Err(Error::Inconsistent("the trailer")) };
    let trailer = Trailer::decode(bytes);
    if trailer.length == all.len() as u64 { Ok(trailer) } else { Err(Error::Inconsistent("the trailer")) }
}

/// The payload of a section that the trailer names.
fn at_back<'a>(all: &'a [u8], offset: u64, kind: Kind, image: &Header) -> Result<&'a [u8], Error> {
    let section = Section::at(all, offset, image)?;
    if section.kind != kind || section.header.hashed != section.header.length {
        return Err(Error::Inconsistent("the trailer"));
    }
    verified(all, &section)
}

fn verified<'a>(all: &'a [u8], section: &Section) -> Result<&'a [u8], Error> {
    let (_, _, payload) = slice_section(all, section.offset)?;
    if crc32c::crc32c(payload) != section.header.crc {
        return Err(Error::Checksum { kind: section.kind.name(), offset: section.offset });
    }
    Ok(payload)
}

impl Section {
    fn at(all: &[u8], offset: u64, image: &Header) -> Result<Self, Error> {
        let (_, header, _) = slice_section(all, offset)?;
        match known(&header, offset, image)? {
            Some(kind) => Ok(Self { kind, offset, header }),
            None => Err(Error::Inconsistent("the trailer")),
        }
    }
}
