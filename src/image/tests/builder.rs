//! An independent builder of images, written from `docs/image-format.md` alone: it shares no constant, no layout and no
//! checksum code with the writer, so that a wrong change of the format cannot go unseen.

use crate::image::model::Snapshot;
use crate::image::model::inventory::Stats;
use serde::Serialize;

/// An image under construction.
pub struct Builder {
    pub bytes: Vec<u8>,
    /// What the digest is taken of.
    hashed: Vec<u8>,
    /// The encoded entries of the index.
    index: Vec<Vec<u8>>,
}

/// CRC-32C, bit by bit.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// The 64 bytes at the start, with a valid checksum.
pub fn header(format: u16, flags: u32) -> Vec<u8> {
    let mut out = b"\x89SNAP\r\n\x1a".to_vec();
    out.extend(format.to_le_bytes());
    out.extend(62u16.to_le_bytes());
    out.extend(flags.to_le_bytes());
    out.extend(4096u32.to_le_bytes());
    out.extend([0, 0, 1, 0, 0, 0]);
    out.resize(60, 0);
    let crc = crc32c(&out);
    out.extend(crc.to_le_bytes());
    out
}

impl Builder {
    /// An image with its header.
    pub fn new(flags: u32) -> Self {
        let bytes = header(1, flags);
        Self { hashed: bytes.clone(), bytes, index: Vec::new() }
    }

    /// Appends any section; `hashed` leading bytes of the payload go into the digest.
    pub fn section(&mut self, kind: u16, version: u16, flags: u32, payload: &[u8], hashed: usize) -> &mut Self {
        let mut header = Vec::new();
        header.extend(kind.to_le_bytes());
        header.extend(version.to_le_bytes());
        header.extend(flags.to_le_bytes());
        header.extend((payload.len() as u64).to_le_bytes());
        header.extend((hashed as u64).to_le_bytes());
        header.extend(crc32c(payload).to_le_bytes());
        let crc = crc32c(&header);
        header.extend(crc.to_le_bytes());
        self.hashed.extend(&header);
        self.hashed.extend(&payload[..hashed]);
        self.bytes.extend(header);
        self.bytes.extend(payload);
        while !self.bytes.len().is_multiple_of(8) {
            self.bytes.push(0);
        }
        self
    }

    /// Appends a section of metadata.
    pub fn metadata(&mut self, kind: u16, value: &impl Serialize) -> &mut Self {
        let payload = postcard::to_stdvec(value).unwrap();
        self.section(kind, 1, 1, &payload, payload.len())
    }

    /// Appends all lists of a snapshot.
    pub fn snapshot(&mut self, snapshot: &Snapshot) -> &mut Self {
        self.metadata(1, &snapshot.inventory)
            .metadata(2, &snapshot.processes)
            .metadata(3, &snapshot.mms)
            .metadata(4, &snapshot.shared_memory)
            .metadata(5, &snapshot.files)
            .metadata(6, &snapshot.descriptions)
            .metadata(7, &snapshot.fd_tables)
            .metadata(8, &snapshot.fs_contexts)
            .metadata(9, &snapshot.pipes)
            .metadata(10, &snapshot.seccomp_filters)
            .metadata(11, &snapshot.zombies)
            .metadata(12, &snapshot.terminals)
            .metadata(13, &(&snapshot.socket_options, &snapshot.sockets))
            .metadata(14, &snapshot.signal_handlers)
            .metadata(24, &snapshot.ipc)
            .metadata(25, &(&snapshot.bpf_types, &snapshot.bpf_maps))
    }

    /// Appends a page block of the first address space.
    pub fn block(&mut self, codec: u16, runs: &[(u64, u64)], content: &[u8], reference: u64) -> &mut Self {
        self.block_of(0, 0, codec, runs, content, reference)
    }

    /// Appends a page block of any owner.
    pub fn block_of(
        &mut self,
        owner_kind: u16,
        owner: u32,
        codec: u16,
        runs: &[(u64, u64)],
        content: &[u8],
        reference: u64,
    ) -> &mut Self {
        let at = self.bytes.len();
        let head_len = 32 + 16 * runs.len();
        let mut content_at = head_len;
        while codec == 0 && !(at + 32 + content_at).is_multiple_of(4096) {
            content_at += 1;
        }
        let mut payload = Vec::new();
        payload.extend(owner_kind.to_le_bytes());
        payload.extend(codec.to_le_bytes());
        payload.extend(owner.to_le_bytes());
        payload.extend((runs.len() as u32).to_le_bytes());
        payload.extend((content_at as u32).to_le_bytes());
        payload.extend((content.len() as u32).to_le_bytes());
        payload.extend([0; 4]);
        payload.extend(reference.to_le_bytes());
        for (start, len) in runs {
            payload.extend(start.to_le_bytes());
            payload.extend(len.to_le_bytes());
        }
        payload.resize(content_at, 0);
        payload.extend(content);
        let low = runs.iter().map(|run| run.0).min().unwrap_or(0);
        let high = runs.iter().map(|run| run.0.wrapping_add(run.1)).max().unwrap_or(0);
        let numbers = [at as u64, u64::from(owner_kind), u64::from(owner), low, high, u64::from(codec)];
        self.index.push(numbers.into_iter().flat_map(varint).collect());
        self.section(0x100, 1, 1, &payload, head_len)
    }

    /// Appends statistics, index and trailer.
    pub fn finish(&mut self, stats: &Stats) -> Vec<u8> {
        let stats_at = self.bytes.len() as u64;
        self.metadata(0x200, stats);
        let index_at = self.bytes.len() as u64;
        let mut index = varint(self.index.len() as u64);
        index.extend(self.index.concat());
        self.section(0x201, 1, 1, &index, index.len());
        self.trailer(stats_at, index_at)
    }

    /// Appends a trailer that names these places.
    pub fn trailer(&mut self, stats_at: u64, index_at: u64) -> Vec<u8> {
        let length = self.bytes.len() as u64 + 32 + 64;
        let mut payload = Vec::new();
        for number in [stats_at, index_at, self.index.len() as u64, length] {
            payload.extend(number.to_le_bytes());
        }
        payload.extend(blake3::hash(&self.hashed).as_bytes());
        self.section(0x202, 1, 1, &payload, 0);
        std::mem::take(&mut self.bytes)
    }
}

/// LEB128, as postcard writes integers.
fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}
