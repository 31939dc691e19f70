//! Page blocks: up to 1 MiB of content, gathered from up to 256 runs of one owner.

use super::error::{BlockFault, Error};
use super::header::{u16_at, u32_at, u64_at};
use super::model::address::{Addr, PAGE_SIZE, PageRange};
use super::model::id::{BpfMapId, FileId, MmId, ShmId};
use super::model::memory::ContentOwner;
use super::section::SECTION_HEADER_LEN;
use serde::{Deserialize, Serialize};

/// Most bytes of content in one block.
pub const BLOCK_SIZE: usize = 1 << 20;

/// Most runs in one block: one for each page.
pub const MAX_RUNS: usize = BLOCK_SIZE / PAGE_SIZE as usize;

/// How far back a reference may reach, in blocks that carry content: what a reader of a stream must keep.
pub const REFERENCE_WINDOW: usize = 16;

/// Bytes of a head before its runs.
pub const HEAD_LEN: usize = 32;

/// Bytes of a run.
pub const RUN_LEN: usize = 16;

/// Most bytes of a head with its runs.
pub const MAX_HEAD_LEN: usize = HEAD_LEN + MAX_RUNS * RUN_LEN;

/// How the content of a block is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u16)]
pub enum Codec {
    /// As it is, from a page-aligned place of the file.
    Raw = 0,
    /// One zstd frame.
    Zstd = 1,
    /// Not at all: every page is zero, and must be so after a restore although something else lies beneath.
    Zero = 2,
    /// The content is that of an earlier block.
    Reference = 3,
}

/// What stands before the content of a block.
///
/// Little endian: owner kind 0..2 (0 mm, 1 shared memory, 2 file), codec 2..4, owner id 4..8, number of runs 8..12,
/// offset of the content from the start of the head 12..16, bytes stored 16..20, zero 20..24, offset in the image of the
/// block referred to 24..32, then for each run its start and its length in bytes, 8 bytes each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockHead {
    /// Whose pages.
    pub owner: ContentOwner,
    /// Where they belong, in the order of the content.
    pub runs: Vec<PageRange>,
    /// How they are stored.
    pub codec: Codec,
    /// Bytes stored.
    pub stored: u32,
    /// Offset in the image of the section referred to; 0 unless the codec is [`Codec::Reference`].
    pub reference: u64,
}

impl BlockHead {
    /// Bytes of the head with its runs.
    pub fn encoded_len(&self) -> usize {
        HEAD_LEN + self.runs.len() * RUN_LEN
    }

    /// Bytes from the start of the head to the content, for a section that begins at `offset`.
    pub fn content_at(&self, offset: u64) -> usize {
        content_at(self.codec, self.runs.len(), offset)
    }

    /// Bytes of content: the sum of the runs, 0 for [`Codec::Zero`].
    pub fn content_len(&self) -> usize {
        match self.codec {
            Codec::Raw | Codec::Zstd | Codec::Reference => self.runs.iter().map(|run| run.len() as usize).sum(),
            Codec::Zero => 0,
        }
    }

    /// Writes the head into the first [`encoded_len`](Self::encoded_len) bytes of `out`.
    pub fn encode(&self, offset: u64, out: &mut [u8]) {
        let (kind, id) = owner_numbers(self.owner);
        out[0..2].copy_from_slice(&kind.to_le_bytes());
        out[2..4].copy_from_slice(&(self.codec as u16).to_le_bytes());
        out[4..8].copy_from_slice(&id.to_le_bytes());
        out[8..12].copy_from_slice(&(self.runs.len() as u32).to_le_bytes());
        out[12..16].copy_from_slice(&(self.content_at(offset) as u32).to_le_bytes());
        out[16..20].copy_from_slice(&self.stored.to_le_bytes());
        out[20..24].fill(0);
        out[24..32].copy_from_slice(&self.reference.to_le_bytes());
        for (run, out) in self.runs.iter().zip(out[HEAD_LEN..].chunks_exact_mut(RUN_LEN)) {
            out[..8].copy_from_slice(&run.start.0.to_le_bytes());
            out[8..].copy_from_slice(&run.len().to_le_bytes());
        }
    }

    /// Takes a head apart. `payload` is the section at `offset` or as much of its beginning as is there, at least
    /// [`MAX_HEAD_LEN`] bytes of it unless it is shorter; `length` and `hashed` are those of its section header.
    pub fn decode(payload: &[u8], offset: u64, length: u64, hashed: u64) -> Result<Self, Error> {
        let fault = |fault| Error::Block { offset, fault };
        if payload.len() < HEAD_LEN {
            return Err(fault(BlockFault::Head));
        }
        let count = u32_at(payload, 8) as usize;
        if count == 0 || count > MAX_RUNS || payload.len() < HEAD_LEN + count * RUN_LEN {
            return Err(fault(BlockFault::Head));
        }
        let codec = codec(u16_at(payload, 2)).map_err(fault)?;
        let owner = owner(u16_at(payload, 0), u32_at(payload, 4)).map_err(fault)?;
        let runs = payload[HEAD_LEN..HEAD_LEN + count * RUN_LEN].chunks_exact(RUN_LEN).map(run);
        let runs = runs.collect::<Result<Vec<_>, _>>().map_err(fault)?;
        let head = Self { owner, runs, codec, stored: u32_at(payload, 16), reference: u64_at(payload, 24) };
        let fits = head.content_at(offset) as u64 == u64::from(u32_at(payload, 12))
            && head.content_at(offset) as u64 + u64::from(head.stored) == length
            && head.encoded_len() as u64 == hashed
            && u32_at(payload, 20) == 0;
        if fits && head.lengths_agree() { Ok(head) } else { Err(fault(BlockFault::Head)) }
    }

    /// Whether the bytes stored are as many as the codec allows.
    fn lengths_agree(&self) -> bool {
        let total = self.runs.iter().try_fold(0u64, |sum, run| sum.checked_add(run.len()));
        let Some(total) = total else { return false };
        let fits_block = total <= BLOCK_SIZE as u64;
        let refers = self.reference != 0;
        match self.codec {
            Codec::Raw => fits_block && u64::from(self.stored) == total && !refers,
            Codec::Zstd => fits_block && self.stored > 0 && u64::from(self.stored) < total && !refers,
            Codec::Zero => self.stored == 0 && !refers,
            Codec::Reference => fits_block && self.stored == 0 && refers,
        }
    }
}

/// Raw content begins at a page of the file, so that it can be mapped; other content at once.
fn content_at(codec: Codec, runs: usize, offset: u64) -> usize {
    let head = HEAD_LEN + runs * RUN_LEN;
    match codec {
        Codec::Raw => {
            let end = offset.wrapping_add((SECTION_HEADER_LEN + head) as u64);
            head + (end.wrapping_neg() % PAGE_SIZE) as usize
        }
        Codec::Zstd | Codec::Zero | Codec::Reference => head,
    }
}

fn run(bytes: &[u8]) -> Result<PageRange, BlockFault> {
    let (start, len) = (u64_at(bytes, 0), u64_at(bytes, 8));
    let end = start.wrapping_add(len);
    let range = PageRange { start: Addr(start), end: Addr(end) };
    if len == 0 || end < start || start % PAGE_SIZE != 0 || len % PAGE_SIZE != 0 {
        return Err(BlockFault::Run(range));
    }
    Ok(range)
}

fn codec(number: u16) -> Result<Codec, BlockFault> {
    match number {
        0 => Ok(Codec::Raw),
        1 => Ok(Codec::Zstd),
        2 => Ok(Codec::Zero),
        3 => Ok(Codec::Reference),
        other => Err(BlockFault::Codec(other)),
    }
}

fn owner(kind: u16, id: u32) -> Result<ContentOwner, BlockFault> {
    match kind {
        0 => Ok(ContentOwner::Mm(MmId(id))),
        1 => Ok(ContentOwner::SharedMemory(ShmId(id))),
        2 => Ok(ContentOwner::File(FileId(id))),
        3 => Ok(ContentOwner::BpfMap(BpfMapId(id))),
        _ => Err(BlockFault::Head),
    }
}

fn owner_numbers(owner: ContentOwner) -> (u16, u32) {
    match owner {
        ContentOwner::Mm(id) => (0, id.0),
        ContentOwner::SharedMemory(id) => (1, id.0),
        ContentOwner::File(id) => (2, id.0),
        ContentOwner::BpfMap(id) => (3, id.0),
    }
}
