//! Where the pages of an object are read: through a descriptor, or where processes map it.

use crate::image::model::address::{Addr, PageRange};
use crate::image::model::id::Pid;
use crate::resources::bpf::MapSource;
use crate::sys::sysv::Attachment;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Where the pages of an object are read.
#[derive(Debug)]
pub enum PageSource {
    /// A descriptor of it.
    File(File),
    /// A System V segment that we have attached.
    Attached(Attachment),
    /// The memory of processes that map it.
    Mapped(MappedSource),
    /// A map of bpf(2).
    BpfMap(MapSource),
}

/// An object as the processes that map it see it.
#[derive(Debug)]
pub struct MappedSource {
    /// By offset in the object, ascending, without a gap: the part, the memory of a process, and the address in it.
    pieces: Vec<(PageRange, Arc<File>, Addr)>,
    ranges: Vec<PageRange>,
}

impl MappedSource {
    /// Opens the memory of each process: parts of the object in ascending order, without a gap, and where they are mapped. `ranges` are those that hold something.
    ///
    /// # Errors
    /// As open(2).
    pub(super) fn open(pieces: &[(PageRange, Pid, Addr)], ranges: Vec<PageRange>) -> io::Result<Self> {
        let mut memories: HashMap<Pid, Arc<File>> = HashMap::new();
        let mut opened = Vec::with_capacity(pieces.len());
        for &(pages, pid, at) in pieces {
            let memory = match memories.get(&pid) {
                Some(memory) => Arc::clone(memory),
                None => {
                    let memory = Arc::new(File::open(format!("/proc/{pid}/mem"))?);
                    memories.insert(pid, Arc::clone(&memory));
                    memory
                }
            };
            opened.push((pages, memory, at));
        }
        Ok(Self { pieces: opened, ranges })
    }

    /// What of the object is to be read, ascending.
    #[must_use]
    pub fn ranges(&self) -> &[PageRange] {
        &self.ranges
    }

    /// Fills `buf` from this offset of the object on.
    ///
    /// # Errors
    /// As pread(2) of `/proc/PID/mem`; EIO beyond the end of the object, [`io::ErrorKind::UnexpectedEof`] where nobody maps it.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let at = Addr(offset + done as u64);
            let index = self.pieces.partition_point(|(pages, _, _)| pages.end <= at);
            let piece = self.pieces.get(index).filter(|(pages, _, _)| pages.contains(at));
            let (pages, memory, start) = piece.ok_or(io::ErrorKind::UnexpectedEof)?;
            let end = (done as u64 + (pages.end.0 - at.0)).min(buf.len() as u64) as usize;
            memory.read_exact_at(&mut buf[done..end], start.0 + (at.0 - pages.start.0))?;
            done = end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_where_they_are_mapped() {
        let own = Pid(std::process::id().cast_signed());
        let (first, second) = (vec![1u8; 0x3000], vec![2u8; 0x3000]);
        let pieces = [
            (PageRange::new(0, 0x2000), own, Addr(first.as_ptr() as u64)),
            (PageRange::new(0x2000, 0x3000), own, Addr(second.as_ptr() as u64)),
        ];
        let source = MappedSource::open(&pieces, Vec::new()).unwrap();
        let mut read = vec![0; 0x2000];
        source.read_exact_at(&mut read, 0x1000).unwrap();
        assert_eq!(read[..0x1000], [1; 0x1000]);
        assert_eq!(read[0x1000..], [2; 0x1000]);
        assert_eq!(source.read_exact_at(&mut read, 0x2000).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
