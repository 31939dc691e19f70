//! Goes through a map, so many entries at a time. Nobody sees it: a look at an entry of a map that forgets does not count as a use when it is user space that looks
//! (kernel/bpf/hashtab.c, `htab_lru_map_lookup_elem_sys`).

use crate::image::model::bpf::BpfMap;
use crate::sys::bpf::{self, Found};
use nix::errno::Errno;
use std::io;
use std::os::fd::BorrowedFd;

/// On the way through a map.
#[derive(Debug)]
pub struct Walk<'a> {
    map: &'a BpfMap,
    file: BorrowedFd<'a>,
    /// Bytes of a value.
    stride: usize,
    /// Whether this kind of map is read in batches.
    batches: bool,
    from: From,
    ended: bool,
    /// The keys of the last step.
    pub keys: Vec<u8>,
    /// The values of the last step.
    pub values: Vec<u8>,
}

/// Where in a map a step begins: behind a key, or at a bucket of a hash, as the kernel says; `None` at the beginning.
pub type From = Option<Vec<u8>>;

impl<'a> Walk<'a> {
    /// Begins somewhere. Values have `stride` bytes each.
    #[must_use]
    pub const fn new(map: &'a BpfMap, file: BorrowedFd<'a>, stride: usize, from: From) -> Self {
        Self { map, file, stride, batches: true, from, ended: false, keys: Vec::new(), values: Vec::new() }
    }

    /// The same for maps of which each key is asked for.
    #[must_use]
    pub fn one_by_one(map: &'a BpfMap, file: BorrowedFd<'a>, stride: usize) -> Self {
        Self { batches: false, ..Self::new(map, file, stride, None) }
    }

    /// Takes a step: up to `room` entries, or as many as are in the next bucket of a hash. Where it began, and how many there are; `None` at the end.
    ///
    /// # Errors
    /// As bpf(2); `StorageFull` where one bucket has more than [`BpfMap::CHUNK_MOST`] bytes.
    pub fn step(&mut self, room: usize) -> io::Result<Option<(From, usize)>> {
        while !self.ended {
            let before = self.from.clone();
            let count = if self.batches { self.batch(room)? } else { Some(self.several(room)?) };
            match count {
                Some(0) => {}
                Some(count) => return Ok(Some((before, count))),
                None => self.batches = false,
            }
        }
        Ok(None)
    }

    fn batch(&mut self, room: usize) -> io::Result<Option<usize>> {
        let (key_size, mut room) = (self.map.key_size as usize, room);
        loop {
            for (bytes, len) in [(&mut self.keys, key_size * room), (&mut self.values, self.stride * room)] {
                // The last step has left as many, as a rule.
                if bytes.len() != len {
                    *bytes = vec![0; len];
                }
            }
            let mut from = self.from.clone();
            let found = bpf::lookup_batch(self.file, &mut from, (&mut self.keys, &mut self.values), room)?;
            let count = match found {
                Found::Some(count) => count,
                Found::Last(count) => {
                    self.ended = true;
                    count
                }
                // More elements than these are in one bucket.
                Found::TooMany => {
                    let more = more_than(room, self.map.max_entries);
                    room = more.ok_or_else(|| io::Error::other("the kernel finds more in it than it can hold"))?;
                    if ((key_size + self.stride) * room) as u64 > 2 * BpfMap::CHUNK_MOST {
                        return Err(io::ErrorKind::StorageFull.into());
                    }
                    continue;
                }
                Found::Never => return Ok(None),
            };
            self.from = from;
            self.keys.truncate(key_size * count);
            self.values.truncate(self.stride * count);
            return Ok(Some(count));
        }
    }

    fn several(&mut self, room: usize) -> io::Result<usize> {
        let mut value = vec![0; self.stride];
        let mut next = vec![0; self.map.key_size as usize];
        self.keys.clear();
        self.values.clear();
        for _ in 0..room {
            match bpf::next_key(self.file, self.from.as_deref(), &mut next) {
                Ok(()) => {}
                Err(Errno::ENOENT) => {
                    self.ended = true;
                    break;
                }
                Err(errno) => return Err(errno.into()),
            }
            match bpf::lookup(self.file, &next, &mut value) {
                Ok(()) => {
                    self.keys.extend_from_slice(&next);
                    self.values.extend_from_slice(&value);
                }
                // A place of an array of maps in which there is none, or an entry that somebody has taken out meanwhile.
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
            self.from = Some(next.clone());
        }
        Ok(self.keys.len() / next.len().max(1))
    }
}

/// The next larger number of elements to ask for; `None` when one bucket was said to hold more than the map, which it does only while elements are being replaced.
fn more_than(room: usize, max_entries: u32) -> Option<usize> {
    let most = 2 * max_entries as usize;
    (room < most).then(|| (2 * room.max(1)).min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_asked_for_than_a_map_can_hold() {
        let mut asked = vec![4096];
        while let Some(more) = more_than(asked[asked.len() - 1], 5000) {
            asked.push(more);
        }
        assert_eq!(asked, [4096, 8192, 10_000]);
        assert_eq!((more_than(0, 1), more_than(2, 1)), (Some(2), None));
    }
}
