//! Shared memory without a path: memfds and MAP_SHARED|MAP_ANONYMOUS.

use super::Findings;
use super::border::{Outsider, Tie};
use crate::image::model::id::{Pid, ShmId};
use crate::image::model::memory::{SharedMemory, SharedMemoryKind};
use crate::proc::fd_link::memfd_name;
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
    sources: Vec<Option<File>>,
    known: HashMap<(u64, u64), ShmId>,
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
        let page = meta.blksize();
        let flags = if page > 4096 { libc::MFD_HUGETLB | (page.trailing_zeros() << libc::MFD_HUGE_SHIFT) } else { 0 };
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

    /// The object of this device and inode, if it was entered.
    #[must_use]
    pub fn find(&self, dev: u64, ino: u64) -> Option<ShmId> {
        self.known.get(&(dev, ino)).copied()
    }

    /// Their ties to other processes.
    pub fn ties(&self) -> impl Iterator<Item = Tie> {
        self.known.keys().map(|&(dev, ino)| Tie::Memory(dev, ino))
    }

    /// Refuses those that a process outside has too.
    pub fn refuse_outside(&self, outsiders: &HashMap<Tie, Outsider>, findings: &mut Findings) {
        let mut known: Vec<_> = self.known.iter().collect();
        known.sort_by_key(|(_, id)| **id);
        for (&(dev, ino), id) in known {
            if let Some(outsider) = outsiders.get(&Tie::Memory(dev, ino)) {
                let (pid, what) = &self.holders[id.0 as usize];
                let reason = format!("{outsider}, which is outside, shares this memory");
                let remedy = "end that process, or dump the one that made both: snap dump PID of their common parent";
                findings.block(format!("pid {pid}"), what, reason, remedy);
            }
        }
    }

    /// The objects, and for each a descriptor of its memory, if one leads to it.
    #[must_use]
    pub fn finish(self) -> (Vec<SharedMemory>, Vec<Option<File>>) {
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
            self.sources[at] = Some(source);
            return Ok(id);
        }
        Ok(self.push(holder, inode, meta.size(), kind, Some(source)))
    }

    fn push(
        &mut self,
        (pid, what): (Pid, &str),
        inode: (u64, u64),
        size: u64,
        kind: SharedMemoryKind,
        source: Option<File>,
    ) -> ShmId {
        let id = ShmId(self.objects.len() as u32);
        self.sources.push(source);
        self.objects.push(SharedMemory { id, kind, size });
        self.holders.push((pid, what.to_owned()));
        self.known.insert(inode, id);
        id
    }
}
