//! The order of an image being written: gives each section its offset and keeps the digest and the index.

use super::output::{Access, Output};
use crate::image::block::{BLOCK_SIZE, BlockHead, Codec, MAX_HEAD_LEN, REFERENCE_WINDOW};
use crate::image::checksum;
use crate::image::digest::{DIGEST_LEN, Digest};
use crate::image::error::WriteError;
use crate::image::header::Header;
use crate::image::index::IndexEntry;
use crate::image::model::address::PAGE_SIZE;
use crate::image::section::{Kind, MUST_UNDERSTAND, SECTION_HEADER_LEN, SectionHeader, padding};
use crate::image::versions;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// An output and what was put into it. Several threads append blocks at once.
#[derive(Debug)]
pub struct Layout {
    output: Output,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    position: u64,
    digest: Digest,
    index: Vec<IndexEntry>,
    /// The last blocks that carry content, for references: hash of the content, length, offset.
    recent: VecDeque<(blake3::Hash, usize, u64)>,
}

impl Layout {
    /// Writes the header.
    pub fn begin(output: Output, header: &Header) -> Result<Self, WriteError> {
        let bytes = header.encode();
        output.write_at(&bytes, 0)?;
        let position = bytes.len() as u64;
        let digest = Digest::of(header);
        let state = State { position, digest, index: Vec::new(), recent: VecDeque::new() };
        Ok(Self { output, state: Mutex::new(state) })
    }

    /// Appends a section whose payload is hashed whole and returns its offset.
    pub fn section(&mut self, kind: Kind, payload: &[u8]) -> Result<u64, WriteError> {
        let length = payload.len() as u64;
        // The trailer holds the digest and cannot be in it.
        let hashed = if kind == Kind::Trailer { 0 } else { length };
        let mut state = self.lock();
        let offset = state.position;
        let header = section_header(kind, length, hashed, crc32c::crc32c(payload)).encode();
        let mut bytes = Vec::with_capacity(header.len() + payload.len() + 8);
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(payload);
        state.digest.update(&bytes);
        bytes.resize(bytes.len() + padding(bytes.len() as u64) as usize, 0);
        state.position += bytes.len() as u64;
        drop(state);
        self.output.write_at(&bytes, offset)?;
        Ok(offset)
    }

    /// Appends a page block whose content stands in `buffer`; `crc` is the checksum of that content, `hash` its hash
    /// when references are wanted. Where an equal block is near, a reference to it is written instead.
    pub fn block(
        &self,
        mut head: BlockHead,
        buffer: &mut BlockBuffer,
        crc: u32,
        hash: Option<blake3::Hash>,
    ) -> Result<(), WriteError> {
        let mut state = self.lock();
        let offset = state.position;
        let content = head.content_len();
        let mut crc = crc;
        if let Some(hash) = hash {
            if let Some(earlier) = state.recall(hash, content) {
                head = BlockHead { codec: Codec::Reference, stored: 0, reference: earlier, ..head };
                crc = 0;
            } else {
                state.remember(hash, content, offset);
            }
        }
        let bytes = buffer.frame(&head, offset, crc);
        state.digest.update(&bytes[..SECTION_HEADER_LEN + head.encoded_len()]);
        state.index.push(IndexEntry::of(&head, offset));
        state.position += bytes.len() as u64;
        match self.output.access() {
            Access::Random => {
                drop(state);
                self.output.write_at(bytes, offset)
            }
            Access::Ordered => self.output.write_at(bytes, offset),
        }
    }

    /// Offset of the next section.
    pub fn position(&self) -> u64 {
        self.lock().position
    }

    /// Puts a page block around content that stands in the file already: at `content`, which is where it belongs if this block is the next.
    pub fn block_around(
        &self,
        head: &BlockHead,
        content: u64,
        crc: u32,
        buffer: &mut BlockBuffer,
    ) -> Result<(), WriteError> {
        let mut state = self.lock();
        let offset = state.position;
        let bytes = buffer.front(head, offset, crc);
        debug_assert_eq!(offset + bytes.len() as u64, content);
        state.digest.update(&bytes[..SECTION_HEADER_LEN + head.encoded_len()]);
        state.index.push(IndexEntry::of(head, offset));
        state.position = content + u64::from(head.stored);
        drop(state);
        self.output.write_at(bytes, offset)
    }

    /// The entries of all blocks.
    pub fn take_index(&mut self) -> Vec<IndexEntry> {
        std::mem::take(&mut self.lock().index)
    }

    /// Position and digest before the next section.
    pub fn so_far(&self) -> (u64, [u8; DIGEST_LEN]) {
        let state = self.lock();
        (state.position, state.digest.finish())
    }

    /// The output, into which everything was written.
    pub fn finish(self) -> Result<Output, WriteError> {
        Ok(self.output)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn recall(&self, hash: blake3::Hash, len: usize) -> Option<u64> {
        self.recent.iter().find(|entry| entry.0 == hash && entry.1 == len).map(|entry| entry.2)
    }

    fn remember(&mut self, hash: blake3::Hash, len: usize, offset: u64) {
        if self.recent.len() == REFERENCE_WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back((hash, len, offset));
    }
}

fn section_header(kind: Kind, length: u64, hashed: u64, crc: u32) -> SectionHeader {
    let version = versions::version(kind);
    SectionHeader { kind: kind as u16, version, flags: MUST_UNDERSTAND, length, hashed, crc }
}

/// Room in front of the content for the section header, the head, and the way to the next page of the file.
const HEADROOM: usize = (SECTION_HEADER_LEN + MAX_HEAD_LEN + PAGE_SIZE as usize).next_multiple_of(PAGE_SIZE as usize);

/// A reused buffer in which a block is put together, so that it is written by one call and never copied.
#[derive(Debug)]
pub struct BlockBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl BlockBuffer {
    /// A buffer for `capacity` bytes of content, which begin at a page of memory.
    pub fn new(capacity: usize) -> Self {
        let bytes = vec![0; HEADROOM + capacity + 2 * PAGE_SIZE as usize];
        let skew = bytes.as_ptr().align_offset(PAGE_SIZE as usize).min(PAGE_SIZE as usize);
        Self { bytes, start: skew + HEADROOM }
    }

    /// A buffer for a block of the largest size.
    pub fn for_block() -> Self {
        Self::new(BLOCK_SIZE)
    }

    /// The content.
    pub fn content(&mut self, len: usize) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + len]
    }

    /// The whole section, put around the content that is in the buffer.
    fn frame(&mut self, head: &BlockHead, offset: u64, content_crc: u32) -> &[u8] {
        let section_at = self.start - self.front(head, offset, content_crc).len();
        let end = self.start + head.stored as usize;
        let end_padding = padding((end - section_at) as u64) as usize;
        self.bytes[end..end + end_padding].fill(0);
        &self.bytes[section_at..end + end_padding]
    }

    /// What stands before the content.
    fn front(&mut self, head: &BlockHead, offset: u64, content_crc: u32) -> &[u8] {
        let (start, stored) = (self.start, head.stored as usize);
        let front = head.content_at(offset);
        let head_at = start - front;
        self.bytes[head_at..start].fill(0);
        head.encode(offset, &mut self.bytes[head_at..start]);
        let crc = crc32c::crc32c(&self.bytes[head_at..start]);
        let crc = checksum::combine(crc, content_crc, head.stored);
        let header = section_header(Kind::PageBlock, (front + stored) as u64, head.encoded_len() as u64, crc);
        let section_at = head_at - SECTION_HEADER_LEN;
        self.bytes[section_at..head_at].copy_from_slice(&header.encode());
        &self.bytes[section_at..start]
    }
}
