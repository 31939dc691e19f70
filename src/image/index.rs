//! The index of page blocks and the trailer, which let a file be read from its end.

use super::block::{BlockHead, Codec};
use super::digest::DIGEST_LEN;
use super::header::u64_at;
use super::model::address::{Addr, PageRange};
use super::model::memory::ContentOwner;
use super::section::SECTION_HEADER_LEN;
use serde::{Deserialize, Serialize};

/// Where one block lies and what it can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// Offset of its section header in the image.
    pub offset: u64,
    /// Whose pages.
    pub owner: ContentOwner,
    /// From its lowest to its highest page; other blocks may have pages in between.
    pub extent: PageRange,
    /// How it is stored.
    pub codec: Codec,
}

impl IndexEntry {
    /// The entry of the block at `offset`.
    pub fn of(head: &BlockHead, offset: u64) -> Self {
        let start = head.runs.iter().map(|run| run.start).min().unwrap_or(Addr::NULL);
        let end = head.runs.iter().map(|run| run.end).max().unwrap_or(Addr::NULL);
        Self { offset, owner: head.owner, extent: PageRange { start, end }, codec: head.codec }
    }
}

/// The payload of the last section.
///
/// Little endian, 8 bytes each: offsets of the sections stats and index, number of blocks, length of the whole image;
/// then the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Offset of the section stats.
    pub stats: u64,
    /// Offset of the section index.
    pub index: u64,
    /// Number of page blocks.
    pub blocks: u64,
    /// Bytes of the image, trailer included.
    pub length: u64,
    /// [`super::digest::Digest`] of everything before the trailer.
    pub digest: [u8; DIGEST_LEN],
}

/// Bytes of the payload of a trailer.
pub const TRAILER_LEN: usize = 32 + DIGEST_LEN;

/// Bytes of the whole last section.
pub const TRAILER_SECTION_LEN: usize = SECTION_HEADER_LEN + TRAILER_LEN;

impl Trailer {
    /// Its bytes.
    pub fn encode(&self) -> [u8; TRAILER_LEN] {
        let mut out = [0; TRAILER_LEN];
        for (i, number) in [self.stats, self.index, self.blocks, self.length].into_iter().enumerate() {
            out[8 * i..8 * i + 8].copy_from_slice(&number.to_le_bytes());
        }
        out[32..].copy_from_slice(&self.digest);
        out
    }

    /// Takes its bytes apart.
    pub fn decode(bytes: &[u8; TRAILER_LEN]) -> Self {
        let mut digest = [0; DIGEST_LEN];
        digest.copy_from_slice(&bytes[32..]);
        let number = |i: usize| u64_at(bytes, 8 * i);
        Self { stats: number(0), index: number(1), blocks: number(2), length: number(3), digest }
    }
}
