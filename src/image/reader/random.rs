//! Reading single addresses from a mapped image, through the index.

use super::content::Unpacker;
use super::mapped::Mapped;
use crate::image::block::{BlockHead, Codec};
use crate::image::error::Error;
use crate::image::index::IndexEntry;
use crate::image::model::address::{Addr, PageRange};
use crate::image::model::memory::ContentOwner;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};

/// Blocks kept ready for the next read nearby.
const RECENT: usize = 8;

/// The blocks that were read last, verified and unpacked.
#[derive(Default)]
pub struct Recent(VecDeque<Arc<Ready>>);

/// A block with its content.
struct Ready {
    offset: u64,
    head: BlockHead,
    content: Vec<u8>,
}

/// The blocks of each owner, ordered by the end of their extents.
pub fn by_owner(index: &[IndexEntry]) -> HashMap<ContentOwner, Vec<usize>> {
    let mut map: HashMap<ContentOwner, Vec<usize>> = HashMap::new();
    for (i, entry) in index.iter().enumerate() {
        map.entry(entry.owner).or_default().push(i);
    }
    for blocks in map.values_mut() {
        blocks.sort_by_key(|&i| index[i].extent.end);
    }
    map
}

impl Mapped {
    /// See [`super::Image::read_at`].
    pub fn read_at(&self, owner: ContentOwner, addr: Addr, buf: &mut [u8]) -> Result<usize, Error> {
        let mut done = 0;
        while done < buf.len() {
            let Some(at) = addr.0.checked_add(done as u64) else { break };
            let read = self.read_some(owner, Addr(at), &mut buf[done..])?;
            if read == 0 {
                break;
            }
            done += read;
        }
        Ok(done)
    }

    /// See [`super::Image::page_runs`].
    pub fn page_runs(&self) -> Result<Vec<(ContentOwner, PageRange)>, Error> {
        let mut runs = Vec::new();
        for entry in &self.index {
            let block = self.block(entry.offset)?;
            runs.extend(block.head.runs.iter().map(|&run| (block.head.owner, run)));
        }
        Ok(runs)
    }

    /// Reads from the one run that holds `addr`, 0 when there is none.
    fn read_some(&self, owner: ContentOwner, addr: Addr, buf: &mut [u8]) -> Result<usize, Error> {
        let blocks = self.by_owner.get(&owner).map_or(&[][..], Vec::as_slice);
        let first = blocks.partition_point(|&i| self.index[i].extent.end <= addr);
        for entry in blocks[first..].iter().map(|&i| self.index[i]) {
            if !entry.extent.contains(addr) {
                continue;
            }
            let read = copy_from(&*self.ready(entry.offset)?, owner, addr, buf);
            if read > 0 {
                return Ok(read);
            }
        }
        Ok(0)
    }

    fn ready(&self, offset: u64) -> Result<Arc<Ready>, Error> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ready) = recent.0.iter().find(|ready| ready.offset == offset) {
            return Ok(Arc::clone(ready));
        }
        let block = self.block(offset)?;
        let mut buffer = Vec::new();
        let content = self.content(&block, &mut Unpacker::new()?, &mut buffer)?.to_vec();
        let ready = Arc::new(Ready { offset, head: block.head, content });
        if recent.0.len() == RECENT {
            recent.0.pop_front();
        }
        recent.0.push_back(Arc::clone(&ready));
        Ok(ready)
    }
}

fn copy_from(ready: &Ready, owner: ContentOwner, addr: Addr, buf: &mut [u8]) -> usize {
    let mut at = 0;
    for run in ready.head.runs.iter().filter(|_| ready.head.owner == owner) {
        if run.contains(addr) {
            let skip = addr.0 - run.start.0;
            let len = buf.len().min((run.len() - skip) as usize);
            if ready.head.codec == Codec::Zero {
                buf[..len].fill(0);
            } else {
                let from = at + skip as usize;
                buf[..len].copy_from_slice(&ready.content[from..from + len]);
            }
            return len;
        }
        at += run.len() as usize;
    }
    0
}
