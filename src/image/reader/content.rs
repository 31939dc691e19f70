//! From the stored form of a block to its pages.

use super::PageSink;
use crate::image::block::{BlockHead, Codec};
use crate::image::error::{BlockFault, Error};
use crate::image::model::address::Addr;
use std::io;

/// Unpacks zstd; the buffer bounds what comes out.
pub struct Unpacker {
    zstd: zstd::bulk::Decompressor<'static>,
}

impl Unpacker {
    /// An unpacker for one thread.
    pub fn new() -> Result<Self, Error> {
        let zstd = zstd::bulk::Decompressor::new().map_err(|source| Error::Io { offset: 0, source })?;
        Ok(Self { zstd })
    }

    /// Unpacks `stored`, which must give exactly `len` bytes, into `out`.
    pub fn unpack(&mut self, stored: &[u8], len: usize, out: &mut Vec<u8>, offset: u64) -> Result<(), Error> {
        out.resize(len, 0);
        match self.zstd.decompress_to_buffer(stored, out.as_mut_slice()) {
            Ok(n) if n == len => Ok(()),
            Ok(_) | Err(_) => Err(Error::Block { offset, fault: BlockFault::Compression }),
        }
    }
}

/// Hands the pages of a block to the sink; `content` is as long as the runs.
pub fn place(head: &BlockHead, content: &[u8], sink: &dyn PageSink) -> Result<(), Error> {
    let owner = head.owner;
    let failed = |addr: Addr| move |source: io::Error| Error::Sink { owner, addr, source };
    let mut rest = content;
    for &run in &head.runs {
        match head.codec {
            Codec::Zero => sink.zero(owner, run).map_err(failed(run.start))?,
            Codec::Raw | Codec::Zstd | Codec::Reference => {
                let (data, after) = rest.split_at(run.len() as usize);
                rest = after;
                sink.fill(owner, run.start, data).map_err(failed(run.start))?;
            }
        }
    }
    Ok(())
}
