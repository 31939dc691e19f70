//! Shared memory without a path: memfds, MAP_SHARED|MAP_ANONYMOUS, and System V segments.

use super::border::{Outsider, Tie};
use super::sysv::{self, Uses};
use super::{CollectError, Findings};
use crate::image::model::address::{Addr, PAGE_SIZE, PageRange};
use crate::image::model::id::{Pid, ShmId};
use crate::image::model::ipc::Segment;
use crate::image::model::memory::{SharedMemory, SharedMemoryKind};
use crate::proc::fd_link::memfd_name;
use crate::proc::sysvipc;
use crate::sys::file_map;
use crate::sys::sysv::Attachment;
use nix::fcntl::{FcntlArg, fcntl};
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;

/// The shared memory objects of one dump, each once, with a descriptor through which their pages are read.
#[derive(Debug, Default)]
pub struct SharedMemoryTable {
    objects: Vec<SharedMemory>,
    /// Who was first seen to have each: the process, and its descriptor or mapping.
    holders: Vec<(Pid, String)>,
    sources: Vec<Option<Content>>,
    known: HashMap<(u64, u64), ShmId>,
    segments: HashMap<i32, ShmId>,
    /// All segments of the IPC namespace, as they were when the first was wanted.
    listed: Option<Vec<sysvipc::Segment>>,
}

/// Through what the memory of an object is read.
#[derive(Debug)]
pub enum Content {
    /// A descriptor.
    File(File),
    /// A System V segment that we have attached, and the parts of it that hold something.
    Attached(Attachment, Vec<PageRange>),
}

impl SharedMemoryTable {
    /// The memfd behind a descriptor or a link of `map_files`; `text` is what the link says.
    ///
    /// # Errors
    /// Why it cannot be saved.
    pub fn intern_memfd(
        &mut self,
        holder: (Pid, &str),
        file: &File,
        meta: &Metadata,
        text: &[u8],
    ) -> Result<ShmId, String> {
        if let Some(id) = self.readable(meta) {
            return Ok(id);
        }
        let name = memfd_name(text).ok_or("it is not a memfd")?;
        let seals = fcntl(file, FcntlArg::F_GET_SEALS).map_err(|e| format!("its seals cannot be read: {e}"))?;
        let size = |page: u64| libc::MFD_HUGETLB | (page.trailing_zeros() << libc::MFD_HUGE_SHIFT);
        let flags = file_map::huge_page(file).map_or(0, size);
        let kind = SharedMemoryKind::Memfd {
            name: String::from_utf8_lossy(name).into_owned(),
            flags,
            seals: seals.cast_unsigned(),
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
        };
        self.enter(holder, file, meta, kind)
    }

    /// The MAP_SHARED|MAP_ANONYMOUS object behind a link of `map_files`.
    ///
    /// # Errors
    /// Why it cannot be saved.
    pub fn intern_anonymous(&mut self, holder: (Pid, &str), file: &File, meta: &Metadata) -> Result<ShmId, String> {
        match self.readable(meta) {
            Some(id) => Ok(id),
            None => self.enter(holder, file, meta, SharedMemoryKind::Anonymous),
        }
    }

    /// The MAP_SHARED|MAP_ANONYMOUS|MAP_HUGETLB object behind a link of `map_files`.
    ///
    /// # Errors
    /// Why it cannot be saved.
    pub fn intern_huge(&mut self, holder: (Pid, &str), file: &File, meta: &Metadata) -> Result<ShmId, String> {
        let page_size = file_map::huge_page(file).ok_or("it is no memory of huge pages")?;
        match self.readable(meta) {
            Some(id) => Ok(id),
            None => self.enter(holder, file, meta, SharedMemoryKind::AnonymousHuge { page_size }),
        }
    }

    /// The object of this device and inode that no descriptor leads to yet: shared anonymous memory, or, with its name, a memfd. Of a memfd
    /// that is only mapped nobody can see or change again what is set here: its seals, owner and permissions.
    pub fn intern_mapped(&mut self, holder: (Pid, &str), dev: u64, ino: u64, memfd: Option<&[u8]>) -> ShmId {
        if let Some(id) = self.find(dev, ino) {
            return id;
        }
        let kind = match memfd {
            None => SharedMemoryKind::Anonymous,
            Some(name) => SharedMemoryKind::Memfd {
                name: String::from_utf8_lossy(name).into_owned(),
                flags: 0,
                seals: libc::F_SEAL_SEAL.cast_unsigned(),
                mode: 0o777,
                uid: nix::unistd::geteuid().as_raw(),
                gid: nix::unistd::getegid().as_raw(),
            },
        };
        self.push(holder, (dev, ino), 0, kind, None)
    }

    /// Whether nothing is known of this object but where it is mapped.
    #[must_use]
    pub fn wants_source(&self, id: ShmId) -> bool {
        self.sources[id.0 as usize].is_none()
    }

    /// Notes how large an object is that no descriptor leads to.
    pub fn set_size(&mut self, id: ShmId, size: u64) {
        self.objects[id.0 as usize].size = size;
    }

    fn readable(&self, meta: &Metadata) -> Option<ShmId> {
        self.find(meta.dev(), meta.ino()).filter(|id| !self.wants_source(*id))
    }

    /// The System V segment with this identifier, of which `name` is what a mapping of it says; `file` is a descriptor of its memory, if one can be had.
    ///
    /// # Errors
    /// Why it cannot be saved.
    pub fn intern_segment(
        &mut self,
        holder: (Pid, &str),
        id: i32,
        name: &[u8],
        page: u64,
        file: Option<File>,
    ) -> Result<ShmId, String> {
        if let Some(&known) = self.segments.get(&id) {
            return Ok(known);
        }
        let listed = self.listed().map_err(|e| e.to_string())?.iter().find(|segment| segment.entry.id == id).copied();
        let listed = listed.ok_or("it is not among the segments of the IPC namespace of snap")?;
        let key = std::str::from_utf8(name).ok().and_then(|name| u32::from_str_radix(name.get(5..13)?, 16).ok());
        let key = key.ok_or("its name does not tell its key")?.cast_signed();
        self.enter_segment(holder, &listed, key, (page > PAGE_SIZE).then_some(page), file)
    }

    /// The segments of a tree that nobody has attached.
    ///
    /// # Errors
    /// /proc that cannot be read.
    pub fn add_detached(&mut self, uses: &Uses, findings: &mut Findings) -> Result<(), CollectError> {
        for segment in self.listed()?.to_vec() {
            let is_known = self.segments.contains_key(&segment.entry.id);
            if is_known || !sysv::remembered(uses, &segment.entry, [segment.cpid, segment.lpid]) {
                continue;
            }
            let object = sysv::object(crate::sys::sysv::Kind::Segment, &segment.entry);
            if segment.nattch > 0 {
                let reason = "the tree has used it, and processes outside have it attached";
                findings.block("the tree", object, reason, "end those processes, or remove it (ipcrm -m)");
            } else if let Err(reason) = self.enter_segment((Pid(0), &object), &segment, segment.entry.key, None, None) {
                findings.block("the tree", object, reason, "remove it (ipcrm -m), or run as root");
            }
        }
        Ok(())
    }

    /// Refuses segments with more attachments than the tree has: `attached` says how many mappings of each there are.
    pub fn refuse_unseen(&self, attached: &HashMap<ShmId, u64>, findings: &mut Findings) {
        for segment in self.listed.iter().flatten() {
            let Some(id) = self.segments.get(&segment.entry.id) else { continue };
            if segment.nattch > attached.get(id).copied().unwrap_or(0) {
                let (pid, what) = &self.holders[id.0 as usize];
                let reason = "a process outside that cannot be seen has this memory attached";
                findings.block(format!("pid {pid}"), what, reason, "run as root to see which");
            }
        }
    }

    fn listed(&mut self) -> Result<&[sysvipc::Segment], crate::proc::Error> {
        if self.listed.is_none() {
            self.listed = Some(sysvipc::segments(&mut Vec::new())?);
        }
        Ok(self.listed.as_deref().unwrap_or_default())
    }

    fn enter_segment(
        &mut self,
        (pid, what): (Pid, &str),
        listed: &sysvipc::Segment,
        key: i32,
        huge_page: Option<u64>,
        file: Option<File>,
    ) -> Result<ShmId, String> {
        const SHM_DEST: u32 = 0o1000;
        const SHM_LOCKED: u32 = 0o2000;
        let sysvipc::Segment { entry, size, cpid, lpid: _, nattch: _, swap } = *listed;
        let whole = size.next_multiple_of(huge_page.unwrap_or(PAGE_SIZE));
        let attach = || attach(entry.id, whole, swap > 0).map_err(|e| format!("it cannot be attached: {e}"));
        let content = match file {
            Some(file) => Content::File(file),
            None => attach()?,
        };
        let huge_page = match &content {
            Content::Attached(attachment, _) if huge_page.is_none() => page_of(attachment.range())?,
            _ => huge_page,
        };
        let id = ShmId(self.objects.len() as u32);
        let segment = Segment {
            id: entry.id,
            owner: sysv::owner(&entry, key),
            size,
            destroyed: entry.perms & SHM_DEST != 0,
            locked: entry.perms & SHM_LOCKED != 0,
            huge_page,
            creator: cpid,
        };
        self.sources.push(Some(content));
        self.objects.push(SharedMemory { id, kind: SharedMemoryKind::SystemV(segment), size: whole });
        self.holders.push((pid, what.to_owned()));
        self.segments.insert(entry.id, id);
        Ok(id)
    }

    /// The object of this device and inode, if it was entered.
    #[must_use]
    pub fn find(&self, dev: u64, ino: u64) -> Option<ShmId> {
        self.known.get(&(dev, ino)).copied()
    }

    /// Their ties to other processes.
    pub fn ties(&self) -> impl Iterator<Item = Tie> {
        let segments = self.segments.keys().map(|&id| Tie::Segment(id));
        self.known.keys().map(|&(dev, ino)| Tie::Memory(dev, ino)).chain(segments)
    }

    /// Refuses those that a process outside has too.
    pub fn refuse_outside(&self, outsiders: &HashMap<Tie, Outsider>, findings: &mut Findings) {
        let segments = self.segments.iter().map(|(&segment, id)| (Tie::Segment(segment), id));
        let mut known: Vec<_> = self.known.iter().map(|(&(dev, ino), id)| (Tie::Memory(dev, ino), id)).collect();
        known.extend(segments);
        known.sort_by_key(|(_, id)| **id);
        for (tie, id) in known {
            if let Some(outsider) = outsiders.get(&tie) {
                let (pid, what) = &self.holders[id.0 as usize];
                let reason = format!("{outsider}, which is outside, shares this memory");
                let remedy = "end that process, or dump the one that made both: snap dump PID of their common parent";
                findings.block(format!("pid {pid}"), what, reason, remedy);
            }
        }
    }

    /// The objects, and for each its memory, if anything leads to it.
    #[must_use]
    pub fn finish(self) -> (Vec<SharedMemory>, Vec<Option<Content>>) {
        (self.objects, self.sources)
    }

    fn enter(
        &mut self,
        holder: (Pid, &str),
        file: &File,
        meta: &Metadata,
        kind: SharedMemoryKind,
    ) -> Result<ShmId, String> {
        let source = file.try_clone().map_err(|e| format!("its descriptor cannot be duplicated: {e}"))?;
        let inode = (meta.dev(), meta.ino());
        if let Some(&id) = self.known.get(&inode) {
            let at = id.0 as usize;
            self.objects[at] = SharedMemory { id, kind, size: meta.size() };
            self.sources[at] = Some(Content::File(source));
            return Ok(id);
        }
        Ok(self.push(holder, inode, meta.size(), kind, Some(Content::File(source))))
    }

    fn push(
        &mut self,
        (pid, what): (Pid, &str),
        inode: (u64, u64),
        size: u64,
        kind: SharedMemoryKind,
        source: Option<Content>,
    ) -> ShmId {
        let id = ShmId(self.objects.len() as u32);
        self.sources.push(source);
        self.objects.push(SharedMemory { id, kind, size });
        self.holders.push((pid, what.to_owned()));
        self.known.insert(inode, id);
        id
    }
}

/// Attaches a segment for reading, and finds which of its pages are there. Where some are in swap, all may be.
fn attach(id: i32, len: u64, swapped: bool) -> nix::Result<Content> {
    let attachment = Attachment::reading(id, len)?;
    let mut ranges: Vec<PageRange> = Vec::new();
    for (page, _) in (0..).zip(attachment.resident()?).filter(|(_, resident)| *resident || swapped) {
        let start = page * PAGE_SIZE;
        match ranges.last_mut() {
            Some(last) if last.end.0 == start => last.end = Addr(start + PAGE_SIZE),
            _ => ranges.push(PageRange::new(start, start + PAGE_SIZE)),
        }
    }
    Ok(Content::Attached(attachment, ranges))
}

/// SHM_HUGETLB: bytes of a page of a segment that we have attached, where they are huge.
fn page_of(range: PageRange) -> Result<Option<u64>, String> {
    let own = crate::proc::TaskDir::current().map_err(|e| e.to_string())?;
    let vmas = crate::proc::smaps::read(&own, &mut Vec::new()).map_err(|e| e.to_string())?;
    let page = vmas.iter().find(|vma| vma.mapping.range.start == range.start).map(|vma| vma.kernel_page_size);
    Ok(page.filter(|page| *page > PAGE_SIZE))
}
