//! The digest of a whole image, without a second pass over its pages.
//!
//! It is blake3 over the header and, for each section before the trailer in order, its 32-byte header and the first
//! `hashed` bytes of its payload. Metadata is hashed whole. Of a page block only the head is hashed; its content is
//! represented by the crc32c in the section header, which is itself hashed. The digest therefore finds blocks that are
//! exchanged, dropped, repeated or taken from another image; it is no proof against somebody who forges a crc32c.

use super::header::{HEADER_LEN, Header};

/// The hash so far.
#[derive(Debug)]
pub struct Digest(blake3::Hasher);

/// Bytes of a digest.
pub const DIGEST_LEN: usize = 32;

impl Digest {
    /// A digest that has taken in the header.
    pub fn new(header: &[u8; HEADER_LEN]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(header);
        Self(hasher)
    }

    /// A digest that has taken in this header.
    pub fn of(header: &Header) -> Self {
        Self::new(&header.encode())
    }

    /// Takes in a part of a section.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest.
    pub fn finish(&self) -> [u8; DIGEST_LEN] {
        *self.0.finalize().as_bytes()
    }
}
