//! The image: a versioned container of sections around the [`model`], and the pages.
//!
//! ```text
//! header | inventory processes mms ... | page block, page block, ... | stats | index | trailer
//! ```
//!
//! One pass writes it and one pass reads it, so that it can travel through a pipe; on a disk it is written and read in
//! parallel and at random. The bytes are laid down in `docs/image-format.md`.
//!
//! - [`Writer`] takes a [`Snapshot`](model::Snapshot), then pages through a [`PageReader`], then the statistics.
//! - [`Image`] gives the snapshot, then hands the pages to a [`PageSink`].
//! - Whatever [`Image`] returns has passed `validate`: every id of the model is in range, every list is sane.
//!
//! Architecture invariant: this module knows no kernel; it depends on serde, postcard, zstd and checksums alone.
//! Architecture invariant: reading never panics and never allocates more than the input justifies.

pub mod model;

mod block;
mod checksum;
mod coverage;
mod digest;
mod error;
mod header;
mod index;
mod reader;
mod section;
mod validate;
mod versions;
mod writer;

pub use block::{BLOCK_SIZE, Codec};
pub use error::{BlockFault, Error, WriteError, unreadable};
pub use header::{Header, HeaderFlags, ToolVersion};
pub use reader::{Image, ImageBytes, PageSink};
pub use section::Kind;
pub use writer::{
    Complete, Copied, CopyError, ImageFile, PageCopier, PageCounts, PageReader, PageRun, Place, WriteOptions, Writer,
    ZeroPolicy,
};

#[cfg(test)]
pub(crate) mod tests;
