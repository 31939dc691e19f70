//! The last blocks that carry content, to which a block may refer.

use crate::image::block::{BlockHead, Codec, REFERENCE_WINDOW};
use crate::image::error::{BlockFault, Error};
use crate::image::header::HeaderFlags;
use std::collections::VecDeque;

/// What is remembered of each block besides its offset and the length of its content; empty unless the header announces references.
pub struct Window<T> {
    blocks: VecDeque<(u64, usize, T)>,
    capacity: usize,
}

impl<T> Window<T> {
    /// A window for an image with these flags.
    pub fn new(flags: HeaderFlags) -> Self {
        let capacity = if flags.contains(HeaderFlags::REFERENCES) { REFERENCE_WINDOW } else { 0 };
        Self { blocks: VecDeque::new(), capacity }
    }

    /// Goes on to the block at `offset`. If it refers to another, gives what was remembered of that one; if it has content, remembers `own`.
    pub fn next(&mut self, head: &BlockHead, offset: u64, own: impl FnOnce() -> T) -> Result<Option<&T>, Error> {
        let len = head.content_len();
        match head.codec {
            Codec::Zero => Ok(None),
            Codec::Reference => {
                let target = self.blocks.iter().find(|entry| entry.0 == head.reference && entry.1 == len);
                let target = target.ok_or(Error::Block { offset, fault: BlockFault::Reference })?;
                Ok(Some(&target.2))
            }
            Codec::Raw | Codec::Zstd => {
                if self.capacity > 0 {
                    if self.blocks.len() == self.capacity {
                        self.blocks.pop_front();
                    }
                    self.blocks.push_back((offset, len, own()));
                }
                Ok(None)
            }
        }
    }
}
