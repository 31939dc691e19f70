//! The first 64 bytes of an image: what it is, and whether this program can read it.

use super::error::Error;
use super::model::address::PAGE_SIZE;
use bitflags::bitflags;
use std::fmt;

/// The version that [`super::Writer`] writes and up to which [`super::Image`] reads.
pub const FORMAT: u16 = 1;

/// Bytes of the header. Neither they nor their layout ever change, so that every version can name the next.
pub const HEADER_LEN: usize = 64;

/// Not ASCII first, then both line endings and a Ctrl-Z: a transfer in text mode shows at once.
const MAGIC: [u8; 8] = *b"\x89SNAP\r\n\x1a";

/// `EM_X86_64` of ELF.
const ARCHITECTURE: u16 = 62;

/// The oldest `snap` that reads format [`FORMAT`].
const READ_BY: ToolVersion = ToolVersion([0, 1, 0]);

/// The decoded header.
///
/// Little endian: magic 0..8, format 8..10, architecture 10..12, flags 12..16, page size 16..20, oldest `snap` that
/// reads it 20..26, zero 26..60, crc32c of bytes 0..60.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Version of the container.
    pub format: u16,
    /// What a reader has to be ready for.
    pub flags: HeaderFlags,
    /// The oldest `snap` that reads this image.
    pub read_by: ToolVersion,
}

bitflags! {
    /// What a reader has to be ready for before it has seen the sections.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct HeaderFlags: u32 {
        /// Blocks may refer to equal blocks before them: a reader of a stream keeps a window of them.
        const REFERENCES = 1;
    }
}

/// A version of `snap`: major, minor, patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ToolVersion(pub [u16; 3]);

impl fmt::Display for ToolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0[0], self.0[1], self.0[2])
    }
}

impl Header {
    /// The header of a new image.
    pub fn new(flags: HeaderFlags) -> Self {
        Self { format: FORMAT, flags, read_by: READ_BY }
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&self.format.to_le_bytes());
        out[10..12].copy_from_slice(&ARCHITECTURE.to_le_bytes());
        out[12..16].copy_from_slice(&self.flags.bits().to_le_bytes());
        out[16..20].copy_from_slice(&(PAGE_SIZE as u32).to_le_bytes());
        for (i, part) in self.read_by.0.iter().enumerate() {
            out[20 + 2 * i..22 + 2 * i].copy_from_slice(&part.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out[..60]);
        out[60..64].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Takes the bytes apart and decides whether this program can read what follows.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, Error> {
        if bytes[0..8] != MAGIC {
            return Err(Error::NotAnImage);
        }
        if crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(Error::HeaderDamaged);
        }
        let format = u16_at(bytes, 8);
        let read_by = ToolVersion([u16_at(bytes, 20), u16_at(bytes, 22), u16_at(bytes, 24)]);
        if format > FORMAT {
            return Err(Error::Newer { what: format!("format {format}"), read_by });
        }
        if format == 0 || bytes[26..60].iter().any(|&b| b != 0) {
            return Err(Error::HeaderDamaged);
        }
        if u16_at(bytes, 10) != ARCHITECTURE {
            return Err(Error::Architecture(u16_at(bytes, 10)));
        }
        if u64::from(u32_at(bytes, 16)) != PAGE_SIZE {
            return Err(Error::PageSize(u32_at(bytes, 16)));
        }
        let bits = u32_at(bytes, 12);
        let Some(flags) = HeaderFlags::from_bits(bits) else {
            return Err(Error::Newer { what: format!("header flags {bits:#x}"), read_by });
        };
        Ok(Self { format, flags, read_by })
    }
}

/// The little-endian number at `at`, which the caller knows to be inside.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The little-endian number at `at`, which the caller knows to be inside.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

/// The little-endian number at `at`, which the caller knows to be inside.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::{FORMAT, Header, HeaderFlags, READ_BY, ToolVersion};

    #[test]
    fn headers_are_read_as_they_were_written() {
        for flags in [HeaderFlags::empty(), HeaderFlags::REFERENCES] {
            let header = Header::new(flags);
            assert_eq!(Header::decode(&header.encode()).unwrap(), header);
            assert_eq!((header.format, header.flags), (FORMAT, flags));
        }
    }

    #[test]
    fn this_program_reads_what_it_writes() {
        let part = |text: &str| text.parse().unwrap();
        let own = ToolVersion([
            part(env!("CARGO_PKG_VERSION_MAJOR")),
            part(env!("CARGO_PKG_VERSION_MINOR")),
            part(env!("CARGO_PKG_VERSION_PATCH")),
        ]);
        assert!(READ_BY <= own, "images claim to need snap {READ_BY}, this is {own}");
    }
}
