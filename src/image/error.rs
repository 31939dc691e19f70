//! What can be wrong with an image, and what can fail while one is written.

use super::header::ToolVersion;
use super::model::address::{Addr, PageRange};
use super::model::memory::ContentOwner;
use super::section::Kind;
use std::io;
use std::path::PathBuf;

/// Why an image cannot be read. Except for [`Error::Sink`] all of them mean a bad image (exit code 6).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The magic is missing.
    #[error("not a snap image")]
    NotAnImage,
    /// There is not a byte.
    #[error("it is empty")]
    Empty,
    /// The header does not fit its checksum or its own rules.
    #[error("the header is damaged")]
    HeaderDamaged,
    /// Made by a newer version with something that this one does not know.
    #[error("{what} is not known to this version: use snap version {read_by} or newer")]
    Newer {
        /// What is new.
        what: String,
        /// The oldest version that reads the image.
        read_by: ToolVersion,
    },
    /// Made on another kind of CPU (ELF `e_machine`).
    #[error("made on another architecture (ELF machine {0})")]
    Architecture(u16),
    /// Made with pages of another size.
    #[error("made with pages of {0} bytes")]
    PageSize(u32),
    /// The image ends too early.
    #[error("truncated: {needed} more bytes should follow at offset {offset}")]
    Truncated {
        /// Where something is missing.
        offset: u64,
        /// How much was expected there.
        needed: u64,
    },
    /// Reading failed.
    #[error("reading at offset {offset}: {source}")]
    Io {
        /// Where.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// A section header does not fit its checksum or its own rules.
    #[error("the section header at offset {offset} is damaged")]
    SectionDamaged {
        /// Where it begins.
        offset: u64,
    },
    /// A payload does not fit its checksum.
    #[error("the section at offset {offset} ({kind}) does not fit its checksum")]
    Checksum {
        /// What it should hold, `unknown` for a kind of a newer version.
        kind: &'static str,
        /// Where its header begins.
        offset: u64,
    },
    /// Bytes that must be zero are not.
    #[error("the padding at offset {offset} is not zero")]
    Padding {
        /// Where it begins.
        offset: u64,
    },
    /// A section stands before another that should precede it.
    #[error("the section {kind} at offset {offset} is out of order")]
    OutOfOrder {
        /// Which.
        kind: Kind,
        /// Where.
        offset: u64,
    },
    /// A section stands there twice.
    #[error("the section {kind} is repeated at offset {offset}")]
    Duplicate {
        /// Which.
        kind: Kind,
        /// Where the second one begins.
        offset: u64,
    },
    /// A section is not there.
    #[error("the section {kind} is missing before offset {offset}")]
    Missing {
        /// Which.
        kind: Kind,
        /// Where a later one begins.
        offset: u64,
    },
    /// A section is longer than its kind can be.
    #[error("the section {kind} at offset {offset} claims {length} bytes")]
    TooLong {
        /// Which.
        kind: Kind,
        /// Where.
        offset: u64,
        /// What it claims.
        length: u64,
    },
    /// The content of a section makes no sense.
    #[error("the section {kind} cannot be decoded: {reason}")]
    Decode {
        /// Which.
        kind: Kind,
        /// Why.
        reason: String,
    },
    /// The model contradicts itself.
    #[error("{object}: {reason}")]
    Model {
        /// Which object of the model.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A page block makes no sense.
    #[error("the page block at offset {offset}: {fault}")]
    Block {
        /// Where its section begins.
        offset: u64,
        /// What is wrong with it.
        fault: BlockFault,
    },
    /// The index or the trailer does not describe the image around it.
    #[error("{0} does not fit the image")]
    Inconsistent(&'static str),
    /// The digest of the whole is another.
    #[error("the image does not fit its digest")]
    Digest,
    /// Something follows the trailer.
    #[error("bytes follow the end of the image at offset {offset}")]
    TrailingBytes {
        /// Where the image ended.
        offset: u64,
    },
    /// The pages of a stream were already read, or cannot be read at random.
    #[error("the image is a stream: its pages can be read once, and in order")]
    Stream,
    /// Whoever receives the pages failed.
    #[error("placing {owner:?} at {addr}: {source}")]
    Sink {
        /// Whose page.
        owner: ContentOwner,
        /// Where.
        addr: Addr,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// What helps.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotAnImage => "name a file that snap dump has written",
            Self::Empty => "see what the dump has said that should have written it",
            Self::Newer { what: _, read_by: _ } => "install that version of snap",
            Self::Architecture(_) | Self::PageSize(_) => "restore it on a host of the kind that it comes from",
            Self::Io { offset: _, source } => unreadable(source),
            _ => "an image cannot be mended: take another copy, or dump again",
        }
    }
}

/// What helps where a file cannot be read that should be an image.
#[must_use]
pub fn unreadable(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "images are readable for their owner alone: ask them, or root",
        io::ErrorKind::NotFound => "check the name; snap dump PID writes snap-PID.snap where it is run",
        io::ErrorKind::IsADirectory => "name a file that snap dump has written",
        _ => "see that the whole file can be read",
    }
}

/// What is wrong with a page block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockFault {
    /// The head does not add up.
    #[error("its head is malformed")]
    Head,
    /// A codec that does not exist.
    #[error("unknown codec {0}")]
    Codec(u16),
    /// An owner that is not in the model.
    #[error("its owner {0:?} does not exist")]
    Owner(ContentOwner),
    /// A run that is empty, unaligned, or wraps around.
    #[error("the run {0} is malformed")]
    Run(PageRange),
    /// A run outside of what its owner can hold.
    #[error("the run {0} lies outside of every mapping that can hold it")]
    Outside(PageRange),
    /// A page that is there twice.
    #[error("the run {0} overlaps another")]
    Overlap(PageRange),
    /// zstd cannot unpack it into what it should be.
    #[error("it does not decompress")]
    Compression,
    /// It refers to a block that is not there, not before it, or too far away.
    #[error("it refers to no usable block")]
    Reference,
}

/// Why an image could not be written. An unfinished file is gone by then.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file system is full, or a quota or size limit is reached.
    #[error("{path}: no space left for the image ({written} bytes were written): {source}")]
    NoSpace {
        /// The image, or `stream`.
        path: PathBuf,
        /// How much of it was there.
        written: u64,
        /// ENOSPC, EDQUOT or EFBIG.
        source: io::Error,
    },
    /// Writing failed for another reason.
    #[error("{path}: {action}: {source}")]
    Output {
        /// The image, or `stream`.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Pages could not be read from the target.
    #[error("reading {owner:?} at {range}: {source}")]
    Read {
        /// Whose pages.
        owner: ContentOwner,
        /// The whole extent that was asked for.
        range: PageRange,
        /// Why.
        source: io::Error,
    },
    /// The caller's progress function ended it.
    #[error(transparent)]
    Stopped(io::Error),
    /// zstd refused the level or failed.
    #[error("compressing: {0}")]
    Compression(io::Error),
    /// The model cannot be encoded.
    #[error("encoding {kind}: {reason}")]
    Encode {
        /// Which section.
        kind: Kind,
        /// Why.
        reason: String,
    },
    /// The snapshot would not be accepted when the image is read.
    #[error("the snapshot is inconsistent: {0}")]
    Model(Error),
    /// A run of pages would not be accepted when the image is read, or stands before the snapshot.
    #[error("pages of {owner:?}: {fault}")]
    Pages {
        /// Whose pages.
        owner: ContentOwner,
        /// What is wrong with them.
        fault: BlockFault,
    },
}
