//! The content of pages: read from the target's memory while it stands still, or from the objects behind it.

use crate::image::PageReader;
use crate::image::model::address::{Addr, PageRange};
use crate::image::model::id::Pid;
use crate::image::model::memory::ContentOwner;
use crate::resources::mapped_only::PageSource;
use crate::sys::process_vm::{self, MAX_VECTORS};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Reads pages of a frozen tree.
pub struct TargetPages<'a> {
    /// Address spaces, by their ids.
    pub memories: &'a [Option<TargetMemory>],
    /// Shared objects and unlinked files.
    pub sources: &'a HashMap<ContentOwner, PageSource>,
}

impl PageReader for TargetPages<'_> {
    fn read(&self, owner: ContentOwner, runs: &[PageRange], buf: &mut [u8]) -> io::Result<()> {
        match owner {
            ContentOwner::Mm(id) => {
                let memory = self.memories.get(id.0 as usize).and_then(Option::as_ref);
                memory.ok_or(io::ErrorKind::NotFound)?.read(runs, buf)
            }
            ContentOwner::SharedMemory(_) | ContentOwner::File(_) | ContentOwner::BpfMap(_) => {
                match self.sources.get(&owner).ok_or(io::ErrorKind::NotFound)? {
                    PageSource::File(file) => each(runs, buf, |at, part| read_object(file, part, at)),
                    PageSource::Attached(attachment) => each(runs, buf, |at, part| Ok(attachment.read(at.0, part)?)),
                    PageSource::BpfMap(source) => each(runs, buf, |at, part| source.read(at.0, part)),
                    PageSource::Mapped(source) => each(runs, buf, |at, part| source.read_exact_at(part, at.0)),
                }
            }
        }
    }
}

/// An address space that stands still.
pub struct TargetMemory {
    pid: Pid,
    /// `/proc/PID/mem`. It reads what the protection forbids, and leaves pages that are shared copy-on-write shared.
    file: File,
    /// Where there may be such pages, ascending: process_vm_readv(2), which is faster, would unshare them.
    shared: Vec<PageRange>,
}

impl TargetMemory {
    /// Opens the memory of a process.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(pid: Pid, shared: Vec<PageRange>) -> io::Result<Self> {
        Ok(Self { pid, file: File::open(format!("/proc/{pid}/mem"))?, shared })
    }

    fn read(&self, runs: &[PageRange], buf: &mut [u8]) -> io::Result<()> {
        let done = if self.is_exclusive(runs) { self.read_exclusive(runs, buf) } else { 0 };
        let mut before = 0;
        each(runs, buf, |at, part| {
            let known = done.saturating_sub(before).min(part.len());
            before += part.len();
            self.file.read_exact_at(&mut part[known..], at.add(known as u64).0)
        })
    }

    fn is_exclusive(&self, runs: &[PageRange]) -> bool {
        runs.len() <= MAX_VECTORS
            && runs.iter().all(|run| {
                let at = self.shared.partition_point(|shared| shared.end <= run.start);
                self.shared.get(at).is_none_or(|shared| shared.start >= run.end)
            })
    }

    /// Reads as much as the protection allows; how much that is.
    fn read_exclusive(&self, runs: &[PageRange], buf: &mut [u8]) -> usize {
        let ranges: Vec<(Addr, usize)> = runs.iter().map(|run| (run.start, run.len() as usize)).collect();
        process_vm::read_scattered(self.pid, &ranges, buf).unwrap_or(0)
    }
}

/// Gives each run its part of the buffer.
fn each(runs: &[PageRange], buf: &mut [u8], mut read: impl FnMut(Addr, &mut [u8]) -> io::Result<()>) -> io::Result<()> {
    let mut rest = buf;
    for run in runs {
        let (part, after) = rest.split_at_mut(run.len() as usize);
        read(run.start, part)?;
        rest = after;
    }
    Ok(())
}

/// Reads all of `buf`. A file may end within its last page, the rest of which is zero.
fn read_object(file: &File, buf: &mut [u8], at: Addr) -> io::Result<()> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], at.0 + done as u64) {
            Ok(0) => {
                buf[done..].fill(0);
                return Ok(());
            }
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
