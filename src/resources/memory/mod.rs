//! Address spaces: what stands behind each mapping.

mod flags;

use super::border;
use super::file::{DELETED, FileTable};
use super::mapped_only::{Found, MappedOnly, Nature};
use super::shared_memory::SharedMemoryTable;
use super::{CollectError, Findings, aio, bpf, named_memory};
use crate::image::model::address::PageRange;
use crate::image::model::aio::AioRing;
use crate::image::model::id::{BpfMapId, FileId, Pid, ShmId};
use crate::image::model::memory::{Backing, ContentOwner, MemoryPolicy, Vma};
use crate::proc::fd_link::{self, FdLink, memfd_name};
use crate::proc::maps::Mapping;
use crate::proc::vm_flags::VmFlags;
use crate::proc::{self, TaskDir, smaps};
use crate::sys::pagemap::Pages;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Collects the mappings of one address space.
pub struct Mappings<'a> {
    /// The process.
    pub pid: Pid,
    /// Its folder in /proc.
    pub task: &'a TaskDir,
    /// Files by path.
    pub files: &'a mut FileTable,
    /// Shared memory objects.
    pub shared: &'a mut SharedMemoryTable,
    /// Objects that no descriptor leads to.
    pub mapped: &'a mut MappedOnly,
    /// Blockers.
    pub findings: &'a mut Findings,
    /// Pages that are there, ascending.
    pub found: &'a [(PageRange, Pages)],
    /// Rings of AIO contexts; `None` where they were not asked, so that nothing is known against them.
    pub rings: Option<&'a aio::Rings>,
    /// Objects that earlier mappings named: device, inode and text of the mapping.
    pub seen: HashMap<(u64, u64, Vec<u8>), Object>,
}

/// The object behind a mapping with an inode.
#[derive(Clone, Copy, Debug)]
pub enum Object {
    /// A file by path.
    File(FileId),
    /// Memory without a path.
    Shared(ShmId),
}

impl Mappings<'_> {
    /// The model of every mapping; those that cannot be restored are left out and noted as blockers.
    ///
    /// # Errors
    /// A kernel interface that failed.
    pub fn collect(
        &mut self,
        vmas: &[smaps::Vma],
        policies: &HashMap<u64, MemoryPolicy>,
    ) -> Result<Vec<Vma>, CollectError> {
        let mut model = Vec::with_capacity(vmas.len());
        for vma in vmas {
            match self.backing(vma) {
                Ok(backing) => model.push(Vma {
                    range: vma.mapping.range,
                    prot: vma.mapping.prot,
                    backing,
                    flags: flags::of(vma.flags),
                    pkey: vma.protection_key.unwrap_or(0),
                    name: vma.mapping.anon_name().map(|name| String::from_utf8_lossy(name).into_owned()),
                    policy: policies.get(&vma.mapping.range.start.0).cloned(),
                    huge: Vec::new(),
                    guards: Vec::new(),
                }),
                Err(reason) => self.findings.block(
                    format!("pid {}", self.pid),
                    format!("mapping {} {}", vma.mapping.range, String::from_utf8_lossy(&vma.mapping.name.raw)),
                    reason,
                    "unmap it before the dump",
                ),
            }
        }
        Ok(model)
    }

    fn backing(&mut self, vma: &smaps::Vma) -> Result<Backing, String> {
        let mapping = &vma.mapping;
        match mapping.name.raw.as_slice() {
            b"[vdso]" => return Ok(Backing::Vdso),
            b"[vsyscall]" => return Ok(Backing::Vsyscall),
            name if name.starts_with(b"[vvar") => return Ok(Backing::Vvar),
            _ => {}
        }
        let ring = ring(mapping);
        let is_map = mapping.name.raw == bpf::mapped::NAME;
        flags::check(vma, ring.is_some() || is_map)?;
        if is_map && mapping.shared {
            // Which it is follows once all descriptors are known, see `dump::rings`.
            let may_write = vma.flags.contains(VmFlags::MAY_WRITE);
            return Ok(Backing::BpfMap { map: BpfMapId(u32::MAX), offset: mapping.offset, may_write });
        }
        if let Some(ino) = ring {
            return Ok(Backing::PacketRing { ino });
        }
        // The inode of a System V segment is its id, which may be 0.
        if mapping.ino == 0 && !mapping.name.raw.starts_with(b"/") {
            return Ok(Backing::Anonymous);
        }
        if is_anonymous_huge(vma) && !mapping.shared {
            return Ok(Backing::HugeTlb { page_size: vma.kernel_page_size });
        }
        if mapping.name.raw == aio::NAME {
            return self.ring(vma);
        }
        let offset = mapping.offset;
        let object = self.object(vma)?;
        self.note(vma, object);
        Ok(match (object, mapping.shared) {
            (Object::File(file), false) => Backing::PrivateFile { file, offset },
            (Object::File(file), true) => {
                self.carry(vma, file)?;
                Backing::SharedFile { file, offset, may_write: vma.flags.contains(VmFlags::MAY_WRITE) }
            }
            (Object::Shared(shm), false) => Backing::PrivateShared { shm, offset },
            (Object::Shared(shm), true) => {
                Backing::Shared { shm, offset, may_write: vma.flags.contains(VmFlags::MAY_WRITE) }
            }
        })
    }

    fn ring(&self, vma: &smaps::Vma) -> Result<Backing, String> {
        let ring = match self.rings {
            None => AioRing { head: 0, events: Vec::new() },
            Some(rings) => rings.get(&vma.mapping.range).cloned().unwrap_or_else(|| Err(aio::FOREIGN.to_owned()))?,
        };
        if vma.protection_key.unwrap_or(0) != 0 {
            return Err("the ring of an AIO context has a protection key".into());
        }
        Ok(Backing::AioRing(ring))
    }

    /// Shared memory that has a name: its content goes into the image too.
    fn carry(&mut self, vma: &smaps::Vma, id: FileId) -> Result<(), String> {
        let file = self.files.get(id);
        let is_wanted = vma.flags.contains(VmFlags::MAY_WRITE) || named_memory::is_posix(file);
        if !is_wanted || !self.files.may_be_memory(id) {
            return Ok(());
        }
        let opened = match named_memory::open(file) {
            Some(file) => file,
            None => match self.map_file(vma.mapping.range) {
                Ok((file, _)) => file,
                // What lies on a disk needs no reading.
                Err(_) if !self.is_on_memory(id) => return Ok(()),
                Err(error) => return Err(format!("its content, which goes with the machine, cannot be read: {error}")),
            },
        };
        if named_memory::travels(self.files.get(id), &opened) {
            self.files.set_content(id, opened);
        }
        Ok(())
    }

    /// The same of a file that may not be opened.
    fn is_on_memory(&self, id: FileId) -> bool {
        let directory = super::file::path(self.files.get(id)).and_then(Path::parent);
        directory.and_then(|directory| File::open(directory).ok()).is_none_or(|file| named_memory::is_memory(&file))
    }

    fn object(&mut self, vma: &smaps::Vma) -> Result<Object, String> {
        let key = (vma.mapping.dev, vma.mapping.ino, vma.mapping.name.raw.clone());
        if let Some(&object) = self.seen.get(&key) {
            return Ok(object);
        }
        let object = self.identify(vma)?;
        self.seen.insert(key, object);
        Ok(object)
    }

    fn identify(&mut self, vma: &smaps::Vma) -> Result<Object, String> {
        let mapping = &vma.mapping;
        let name = mapping.name.raw.as_slice();
        // A file that was unlinked may have had such a name as well.
        if border::is_segment(name) && (mapping.dev == internal_device()? || vma.flags.contains(VmFlags::HUGETLB)) {
            return self.segment(vma).map(Object::Shared);
        }
        if name == b"/secretmem (deleted)" {
            return Err("secret memory (memfd_secret), which nobody but its owner can read".into());
        }
        if is_anonymous_huge(vma) {
            return self.shared_huge(vma).map(Object::Shared);
        }
        let anonymous = name == b"/dev/zero (deleted)" || name.starts_with(b"[anon_shmem:");
        let huge = memfd_name(name).is_some() && vma.flags.contains(VmFlags::HUGETLB);
        if huge || (anonymous || memfd_name(name).is_some()) && mapping.dev == internal_device()? {
            return self.shared_memory(vma, anonymous).map(Object::Shared);
        }
        let id = match self.files.find(mapping.dev, mapping.ino, name) {
            Some(known) => known,
            None => match self.metadata(vma)? {
                Some(meta) => {
                    self.files.intern(&meta, name, &format!("pid {}", self.pid)).map_err(|blocker| blocker.reason)?
                }
                None => self.nameless(vma)?,
            },
        };
        self.take_file(vma, id).map(|()| Object::File(id))
    }

    /// What has to be known of a file because it is mapped.
    fn take_file(&mut self, vma: &smaps::Vma, id: FileId) -> Result<(), String> {
        let file = self.files.get(id);
        let kind = file.mode & libc::S_IFMT;
        if kind == libc::S_IFBLK || kind == libc::S_IFCHR && file.rdev != libc::makedev(1, 5) {
            return Err("it maps a device".into());
        }
        if kind != libc::S_IFREG {
            return Ok(());
        }
        if vma.flags.contains(VmFlags::MAY_EXEC) {
            self.note_build_id(id, vma.mapping.range);
        }
        if self.files.wants_content(id) && !self.files.is_guessed(id) {
            let content = self.map_file(vma.mapping.range).map_err(|error| unopened(&error))?.0;
            self.files.set_content(id, content);
        }
        Ok(())
    }

    fn segment(&mut self, vma: &smaps::Vma) -> Result<ShmId, String> {
        let mapping = &vma.mapping;
        let name = mapping.name.raw.as_slice();
        let what = format!("mapping {} {}", mapping.range, String::from_utf8_lossy(name));
        // Without the right to open it, snap attaches it itself.
        let file = self.map_file(mapping.range).ok().map(|(file, _)| file);
        self.shared.intern_segment((self.pid, &what), mapping.ino as i32, name, vma.kernel_page_size, file)
    }

    /// Shared anonymous huge pages: which of them are there only a descriptor tells.
    fn shared_huge(&mut self, vma: &smaps::Vma) -> Result<ShmId, String> {
        let mapping = &vma.mapping;
        if let Some(known) = self.shared.find(mapping.dev, mapping.ino) {
            return Ok(known);
        }
        let what = format!("mapping {} of shared huge pages", mapping.range);
        let (file, meta) = self.map_file(mapping.range).map_err(|error| unopened(&error))?;
        self.shared.intern_huge((self.pid, &what), &file, &meta)
    }

    /// Memory without a path: through `map_files`, or as it is mapped.
    fn shared_memory(&mut self, vma: &smaps::Vma, anonymous: bool) -> Result<ShmId, String> {
        let mapping = &vma.mapping;
        if let Some(known) = self.shared.find(mapping.dev, mapping.ino) {
            return Ok(known);
        }
        let name = mapping.name.raw.as_slice();
        let what = format!("mapping {} {}", mapping.range, String::from_utf8_lossy(name));
        let holder = (self.pid, what.as_str());
        match self.map_file(mapping.range) {
            Ok((file, meta)) if anonymous => self.shared.intern_anonymous(holder, &file, &meta),
            Ok((file, meta)) => self.shared.intern_memfd(holder, &file, &meta, name),
            Err(proc::Error::Permission { .. }) => {
                let memfd = if anonymous { None } else { memfd_name(name) };
                let id = self.shared.intern_mapped(holder, mapping.dev, mapping.ino, memfd);
                let nature = Nature { holder: (self.pid, what), in_memory: true, complaint: unknowable(vma) };
                self.mapped.enter(ContentOwner::SharedMemory(id), nature);
                Ok(id)
            }
            Err(error) => Err(unopened(&error)),
        }
    }

    /// A file whose name is gone and that cannot be opened.
    fn nameless(&mut self, vma: &smaps::Vma) -> Result<FileId, String> {
        let mapping = &vma.mapping;
        let name = mapping.name.raw.as_slice();
        let path = name.strip_suffix(DELETED).unwrap_or(name);
        let found = self.mapped.names.find(mapping.dev, mapping.ino, path);
        let (in_memory, complaint) = match found {
            Ok(Found::Named(meta)) => {
                let id = self.files.intern(&meta, name, &format!("pid {}", self.pid));
                return id.map_err(|blocker| blocker.reason);
            }
            Ok(Found::Nameless { in_memory }) => (in_memory, None),
            Err(reason) => (false, Some(format!("{reason}; to open the file itself takes CAP_CHECKPOINT_RESTORE"))),
        };
        let id = self.files.intern_nameless(mapping.dev, mapping.ino, name);
        let what = format!("mapping {} {}", mapping.range, String::from_utf8_lossy(name));
        self.mapped.enter(ContentOwner::File(id), Nature { holder: (self.pid, what), in_memory, complaint });
        Ok(id)
    }

    /// Notes where an object is mapped that cannot be read otherwise.
    fn note(&mut self, vma: &smaps::Vma, object: Object) {
        let owner = match object {
            Object::File(id) => ContentOwner::File(id),
            Object::Shared(id) => ContentOwner::SharedMemory(id),
        };
        let range = vma.mapping.range;
        let hidden: Vec<PageRange> = if vma.mapping.shared {
            Vec::new()
        } else {
            let first = self.found.partition_point(|(pages, _)| pages.end <= range.start);
            let within = self.found[first..].iter().take_while(|(pages, _)| pages.start < range.end);
            within.filter(|(_, kind)| !kind.contains(Pages::FILE)).map(|(pages, _)| *pages).collect()
        };
        self.mapped.note(owner, self.pid, range, vma.mapping.offset, &hidden);
    }

    /// Attributes of the mapped file: by its path where that still leads to it, else through `map_files`. `None` for one that has lost its name
    /// and may not be opened.
    fn metadata(&self, vma: &smaps::Vma) -> Result<Option<Metadata>, String> {
        let mapping = &vma.mapping;
        if let Ok(meta) = std::fs::symlink_metadata(OsStr::from_bytes(&mapping.name.raw))
            && meta.ino() == mapping.ino
            && meta.dev() == mapping.dev
        {
            return Ok(Some(meta));
        }
        match self.map_file(mapping.range) {
            Ok((_, meta)) => Ok(Some(meta)),
            Err(proc::Error::Permission { .. }) if mapping.name.raw.ends_with(DELETED) => Ok(None),
            Err(error) => Err(unopened(&error)),
        }
    }

    fn map_file(&self, range: PageRange) -> Result<(File, Metadata), proc::Error> {
        let name = format!("map_files/{range}");
        let file = self.task.open(&name)?;
        let meta = file.metadata();
        meta.map(|meta| (file, meta)).map_err(|source| proc::Error::Io { path: name, source })
    }

    fn note_build_id(&mut self, id: FileId, range: PageRange) {
        let file = self.files.get(id);
        if file.build_id.is_some() {
            return;
        }
        let (dev, ino) = (file.dev, file.ino);
        let same = |opened: &File| opened.metadata().is_ok_and(|meta| meta.dev() == dev && meta.ino() == ino);
        let by_path = File::open(OsStr::from_bytes(&file.path)).ok().filter(same);
        if let Some(opened) = by_path.or_else(|| Some(self.map_file(range).ok()?.0)) {
            self.files.set_build_id(id, proc::build_id::of_file(&opened).ok().flatten());
        }
    }
}

/// The inode of the socket whose memory is mapped: whether it has a ring is seen when all sockets are known.
fn ring(mapping: &Mapping) -> Option<u64> {
    match fd_link::parse(&mapping.name.raw) {
        FdLink::Socket(ino) if mapping.shared && mapping.offset == 0 => Some(ino),
        _ => None,
    }
}

fn unopened(error: &proc::Error) -> String {
    format!("the mapped file cannot be opened, which takes CAP_CHECKPOINT_RESTORE: {error}")
}

/// MAP_ANONYMOUS|MAP_HUGETLB.
fn is_anonymous_huge(vma: &smaps::Vma) -> bool {
    vma.flags.contains(VmFlags::HUGETLB) && vma.mapping.name.raw == b"/anon_hugepage (deleted)"
}

/// What only a descriptor of a memfd could tell and this mapping of it makes necessary.
fn unknowable(vma: &smaps::Vma) -> Option<String> {
    let reason = if vma.flags.contains(VmFlags::HUGETLB) {
        "which of its huge pages are there"
    } else if vma.mapping.shared && !vma.flags.contains(VmFlags::MAY_WRITE) {
        "why it may never be written to (its seals)"
    } else {
        return None;
    };
    Some(format!("nothing tells {reason} but the memfd itself, and to open that takes CAP_CHECKPOINT_RESTORE"))
}

/// Device of the kernel's own tmpfs, which has the memfds and the shared anonymous memory.
fn internal_device() -> Result<u64, String> {
    let name = c"snap";
    nix::sys::memfd::memfd_create(name, nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
        .map_err(std::io::Error::from)
        .and_then(|fd| File::from(fd).metadata())
        .map(|meta| meta.dev())
        .map_err(|e| format!("no memfd to compare it with: {e}"))
}
