//! Where the pages of an image go: into the skeleton, into shared memory, into unlinked files.

use super::bpf::BpfMaps;
use super::sysv::Objects;
use crate::image::model::address::{Addr, PageRange};
use crate::image::model::fork::common;
use crate::image::model::id::{FileId, MmId, Pid, ShmId};
use crate::image::model::memory::ContentOwner;
use crate::sys::arena::Arena;
use crate::sys::{file_map, process_vm};
use nix::errno::Errno;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

/// Zeros to write where something else lies beneath.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// Takes pages from several threads at once.
#[derive(Debug)]
pub struct Filler<'a> {
    /// Who gets the pages of each address space.
    spaces: HashMap<MmId, Vec<Space>>,
    /// Anonymous shared memory, mapped here too.
    arenas: &'a HashMap<ShmId, Arena>,
    /// System V segments, attached here, and shared memory with a name.
    objects: &'a Objects,
    /// Memfds.
    memfds: &'a HashMap<ShmId, File>,
    /// Unlinked files.
    files: &'a HashMap<FileId, File>,
    /// Maps of bpf(2).
    maps: &'a BpfMaps,
    /// Whether shared memory and files are filled.
    shared: bool,
    /// Owners whose pages are wanted later and come only once.
    later: HashSet<MmId>,
    /// These pages.
    kept: Mutex<Vec<Page>>,
}

/// A piece of content for later.
#[derive(Clone, Debug)]
pub struct Page {
    /// Whose.
    pub owner: ContentOwner,
    /// Where it belongs.
    pub start: Addr,
    /// The bytes.
    pub data: Vec<u8>,
}

/// The address space of a skeleton.
#[derive(Debug)]
struct Space {
    pid: Pid,
    /// Its memory, for pages of mappings that it may not write.
    memory: Arc<File>,
    /// Which pages of its owner it gets; `None` for all.
    only: Option<Vec<PageRange>>,
}

impl<'a> Filler<'a> {
    /// Fills nothing but what is shared, and that only if it is to.
    #[must_use]
    pub fn new(
        arenas: &'a HashMap<ShmId, Arena>,
        objects: &'a Objects,
        memfds: &'a HashMap<ShmId, File>,
        (files, maps): (&'a HashMap<FileId, File>, &'a BpfMaps),
        shared: bool,
    ) -> Self {
        let (later, kept) = (HashSet::new(), Mutex::default());
        Self { spaces: HashMap::new(), arenas, objects, memfds, files, maps, shared, later, kept }
    }

    /// Fills a skeleton too: with the pages of its own, and with copies of those that are only in the image of another.
    ///
    /// # Errors
    /// As open(2).
    pub fn add(&mut self, pid: Pid, own: MmId, copied: &[(MmId, Vec<PageRange>)]) -> io::Result<()> {
        let memory = Arc::new(File::options().write(true).open(format!("/proc/{pid}/mem"))?);
        let mut add = |mm: MmId, only| {
            self.spaces.entry(mm).or_default().push(Space { pid, memory: Arc::clone(&memory), only });
        };
        add(own, None);
        copied.iter().for_each(|(from, pages)| add(*from, Some(pages.clone())));
        Ok(())
    }

    /// Keeps the pages of these, which are wanted later.
    pub fn keep(&mut self, later: HashSet<MmId>) {
        self.later = later;
    }

    /// What was kept.
    pub fn into_kept(self) -> Vec<Page> {
        self.kept.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether pages of this owner are of any use.
    #[must_use]
    pub fn wants(&self, owner: ContentOwner) -> bool {
        self.is_kept(owner) || self.has_place(owner)
    }

    fn is_kept(&self, owner: ContentOwner) -> bool {
        matches!(owner, ContentOwner::Mm(id) if self.later.contains(&id))
    }

    fn has_place(&self, owner: ContentOwner) -> bool {
        match owner {
            ContentOwner::Mm(id) => self.spaces.contains_key(&id),
            ContentOwner::SharedMemory(_) | ContentOwner::BpfMap(_) => self.shared,
            // Shared memory that still has its name is as it was.
            ContentOwner::File(id) => self.shared && self.file(id).is_some(),
        }
    }

    /// Puts bytes where they belong.
    ///
    /// # Errors
    /// What the kernel says, or `NotFound` for an owner that the plan does not know.
    pub fn fill(&self, owner: ContentOwner, start: Addr, data: &[u8]) -> io::Result<()> {
        if self.is_kept(owner) {
            let page = Page { owner, start, data: data.to_vec() };
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(page);
        }
        if !self.has_place(owner) {
            return Ok(());
        }
        match owner {
            ContentOwner::Mm(id) => {
                self.spaces.get(&id).into_iter().flatten().try_for_each(|space| space.fill(start, data))
            }
            ContentOwner::SharedMemory(shm) => self.fill_shared(shm, start, data),
            ContentOwner::BpfMap(id) => self.maps.fill(id, start.0, data),
            ContentOwner::File(file) => match self.file(file) {
                Some(file) => write_within(file, data, start.0),
                None => Err(io::ErrorKind::NotFound.into()),
            },
        }
    }

    fn file(&self, id: FileId) -> Option<&File> {
        self.files.get(&id).or_else(|| self.objects.files.get(id))
    }

    fn fill_shared(&self, shm: ShmId, start: Addr, data: &[u8]) -> io::Result<()> {
        if let Some(arena) = self.arenas.get(&shm) {
            return arena.write(arena.range().start.add(start.0), data);
        }
        if let Some(segment) = self.objects.segments.get(&shm) {
            return Ok(segment.write(start.0, data)?);
        }
        match self.memfds.get(&shm) {
            Some(memfd) => write_within(memfd, data, start.0),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Writes zeros.
    ///
    /// # Errors
    /// As for [`Filler::fill`].
    pub fn zero(&self, owner: ContentOwner, range: PageRange) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let len = (range.end.0 - at.0).min(ZEROS.len() as u64);
            self.fill(owner, at, &ZEROS[..len as usize])?;
            at = at.add(len);
        }
        Ok(())
    }
}

impl Space {
    fn fill(&self, start: Addr, data: &[u8]) -> io::Result<()> {
        let all = [PageRange { start, end: start.add(data.len() as u64) }];
        let Some(only) = &self.only else { return self.write(start, data) };
        let first = only.partition_point(|range| range.end <= start);
        for part in common(&all, &only[first..]) {
            let at = (part.start.0 - start.0) as usize;
            self.write(part.start, &data[at..at + part.len() as usize])?;
        }
        Ok(())
    }

    fn write(&self, start: Addr, data: &[u8]) -> io::Result<()> {
        match process_vm::write_all(self.pid, start, data) {
            // A page that a debugger changed in memory that never was writable.
            Err(Errno::EFAULT) => self.memory.write_all_at(data, start.0),
            result => result.map_err(Into::into),
        }
    }
}

/// Writes what lies before the end of a file: its last page is stored whole, but the file must not grow.
fn write_within(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
    let left = usize::try_from(file.metadata()?.len().saturating_sub(offset)).unwrap_or(usize::MAX);
    let data = &data[..data.len().min(left)];
    match file_map::huge_page(file) {
        Some(page) => file_map::write_huge(file, page, offset, data),
        None => file.write_all_at(data, offset),
    }
}
