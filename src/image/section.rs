//! Sections: the tagged, checksummed parts that follow the header, and the order in which they may stand.

use super::error::Error;
use super::header::{ToolVersion, u16_at, u32_at, u64_at};
use std::fmt;

/// Bytes of a section header.
pub const SECTION_HEADER_LEN: usize = 32;

/// Every section starts at a multiple of this; what lies between is zero.
pub const SECTION_ALIGN: u64 = 8;

/// A reader that does not know a section with this flag must refuse the image; without it, skip the section.
pub const MUST_UNDERSTAND: u32 = 1;

/// What a section holds. The order of the numbers is the order in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "named after the lists of the snapshot")]
#[repr(u16)]
pub enum Kind {
    Inventory = 1,
    Processes = 2,
    Mms = 3,
    SharedMemory = 4,
    Files = 5,
    Descriptions = 6,
    FdTables = 7,
    FsContexts = 8,
    Pipes = 9,
    SeccompFilters = 10,
    Zombies = 11,
    Terminals = 12,
    Sockets = 13,
    SignalHandlers = 14,
    Ipc = 24,
    BpfMaps = 25,
    /// Pages; the only kind that may repeat.
    PageBlock = 0x100,
    Stats = 0x200,
    /// Where each block lies.
    Index = 0x201,
    /// Digest and total length.
    Trailer = 0x202,
}

impl Kind {
    /// All kinds in the order in which they stand.
    pub const ALL: [Self; 20] = [
        Self::Inventory,
        Self::Processes,
        Self::Mms,
        Self::SharedMemory,
        Self::Files,
        Self::Descriptions,
        Self::FdTables,
        Self::FsContexts,
        Self::Pipes,
        Self::SeccompFilters,
        Self::Zombies,
        Self::Terminals,
        Self::Sockets,
        Self::SignalHandlers,
        Self::Ipc,
        Self::BpfMaps,
        Self::PageBlock,
        Self::Stats,
        Self::Index,
        Self::Trailer,
    ];

    /// The kind with this number, if this version knows it.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u16 == number)
    }

    /// The name used in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inventory => "inventory",
            Self::Processes => "processes",
            Self::Mms => "mms",
            Self::SharedMemory => "shared memory",
            Self::Files => "files",
            Self::Descriptions => "descriptions",
            Self::FdTables => "fd tables",
            Self::FsContexts => "fs contexts",
            Self::Pipes => "pipes",
            Self::SeccompFilters => "seccomp filters",
            Self::Zombies => "zombies",
            Self::Terminals => "terminals",
            Self::Sockets => "sockets",
            Self::SignalHandlers => "signal handlers",
            Self::Ipc => "ipc",
            Self::BpfMaps => "BPF maps",
            Self::PageBlock => "page block",
            Self::Stats => "stats",
            Self::Index => "index",
            Self::Trailer => "trailer",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The 32 bytes before every payload.
///
/// Little endian: kind 0..2, version 2..4, flags 4..8, length 8..16, hashed 16..24, crc32c of the payload 24..28,
/// crc32c of bytes 0..28.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionHeader {
    /// Number of its [`Kind`].
    pub kind: u16,
    /// Version of that kind.
    pub version: u16,
    /// [`MUST_UNDERSTAND`].
    pub flags: u32,
    /// Bytes of the payload, which follows at once.
    pub length: u64,
    /// How many bytes from the start of the payload go into the digest of the image; the checksum stands for the rest.
    pub hashed: u64,
    /// Checksum of the payload.
    pub crc: u32,
}

impl SectionHeader {
    /// Its bytes.
    pub fn encode(&self) -> [u8; SECTION_HEADER_LEN] {
        let mut out = [0; SECTION_HEADER_LEN];
        out[0..2].copy_from_slice(&self.kind.to_le_bytes());
        out[2..4].copy_from_slice(&self.version.to_le_bytes());
        out[4..8].copy_from_slice(&self.flags.to_le_bytes());
        out[8..16].copy_from_slice(&self.length.to_le_bytes());
        out[16..24].copy_from_slice(&self.hashed.to_le_bytes());
        out[24..28].copy_from_slice(&self.crc.to_le_bytes());
        let crc = crc32c::crc32c(&out[..28]);
        out[28..32].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Takes the bytes of the header at `offset` apart.
    pub fn decode(bytes: &[u8; SECTION_HEADER_LEN], offset: u64) -> Result<Self, Error> {
        let header = Self {
            kind: u16_at(bytes, 0),
            version: u16_at(bytes, 2),
            flags: u32_at(bytes, 4),
            length: u64_at(bytes, 8),
            hashed: u64_at(bytes, 16),
            crc: u32_at(bytes, 24),
        };
        let intact = crc32c::crc32c(&bytes[..28]) == u32_at(bytes, 28);
        if !intact || header.hashed > header.length || header.flags & !MUST_UNDERSTAND != 0 {
            return Err(Error::SectionDamaged { offset });
        }
        Ok(header)
    }

    /// The kind, `None` for one that may be skipped.
    pub fn kind(&self, offset: u64, read_by: ToolVersion) -> Result<Option<Kind>, Error> {
        match Kind::from_number(self.kind) {
            Some(_) if self.flags != MUST_UNDERSTAND => Err(Error::SectionDamaged { offset }),
            Some(kind) => Ok(Some(kind)),
            None if self.flags & MUST_UNDERSTAND == 0 => Ok(None),
            None => Err(Error::Newer { what: format!("section kind {:#x}", self.kind), read_by }),
        }
    }
}

/// Zero bytes between a position and the next section.
pub fn padding(position: u64) -> u64 {
    position.wrapping_neg() % SECTION_ALIGN
}

/// Holds sections to their order: each kind once, ascending, none missing; page blocks any number of times.
#[derive(Debug, Default)]
pub struct Order {
    last: Option<Kind>,
}

impl Order {
    /// Takes the next section into account.
    pub fn next(&mut self, kind: Kind, offset: u64) -> Result<(), Error> {
        let last = self.last.replace(kind);
        if last == Some(kind) && kind != Kind::PageBlock {
            return Err(Error::Duplicate { kind, offset });
        }
        if last > Some(kind) {
            return Err(Error::OutOfOrder { kind, offset });
        }
        let between = Kind::ALL.into_iter().filter(|&k| Some(k) > last && k < kind && k != Kind::PageBlock);
        match between.min() {
            Some(missing) => Err(Error::Missing { kind: missing, offset }),
            None => Ok(()),
        }
    }
}
