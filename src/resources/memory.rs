//! Address spaces: what stands behind each mapping.

use super::file::FileTable;
use super::shared_memory::SharedMemoryTable;
use super::{CollectError, Findings};
use crate::image::model::address::PageRange;
use crate::image::model::id::{FileId, Pid};
use crate::image::model::memory::{Backing, MemoryPolicy, Vma, VmaFlags};
use crate::proc::TaskDir;
use crate::proc::fd_link::memfd_name;
use crate::proc::smaps;
use crate::proc::vm_flags::VmFlags;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

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
    /// Blockers.
    pub findings: &'a mut Findings,
    /// Objects that earlier mappings named: device, inode and text of the mapping.
    seen: HashMap<(u64, u64, Vec<u8>), Object>,
}

/// The object behind a mapping with an inode.
#[derive(Clone, Copy, Debug)]
enum Object {
    File(FileId),
    Shared(crate::image::model::id::ShmId),
}

impl<'a> Mappings<'a> {
    /// A collector of the mappings of `pid`.
    pub fn new(
        pid: Pid,
        task: &'a TaskDir,
        files: &'a mut FileTable,
        shared: &'a mut SharedMemoryTable,
        findings: &'a mut Findings,
    ) -> Self {
        Self { pid, task, files, shared, findings, seen: HashMap::new() }
    }

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
                    flags: flags(vma.flags),
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
        check_flags(vma)?;
        // The inode of a System V segment is its id, which may be 0.
        if mapping.ino == 0 && !mapping.name.raw.starts_with(b"/") {
            return Ok(Backing::Anonymous);
        }
        if vma.flags.contains(VmFlags::HUGETLB) && mapping.name.raw == b"/anon_hugepage (deleted)" {
            return match mapping.shared {
                false => Ok(Backing::HugeTlb { page_size: vma.kernel_page_size }),
                true => Err("shared anonymous huge pages are not supported yet".into()),
            };
        }
        let offset = mapping.offset;
        Ok(match (self.object(vma)?, mapping.shared) {
            (Object::File(file), false) => Backing::PrivateFile { file, offset },
            (Object::File(file), true) => {
                Backing::SharedFile { file, offset, may_write: vma.flags.contains(VmFlags::MAY_WRITE) }
            }
            (Object::Shared(shm), false) => Backing::PrivateShared { shm, offset },
            (Object::Shared(shm), true) => Backing::Shared { shm, offset },
        })
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
        if name.starts_with(b"/SYSV") {
            return Err("System V shared memory is not supported yet".into());
        }
        if name == b"/[aio] (deleted)" {
            return Err("Linux AIO contexts are not supported yet".into());
        }
        let anonymous = name == b"/dev/zero (deleted)" || name.starts_with(b"[anon_shmem:");
        // A file that was unlinked may have had such a name as well.
        if (anonymous || memfd_name(name).is_some()) && mapping.dev == internal_device()? {
            let (file, meta) = self.map_file(mapping.range)?;
            let holder = (self.pid, &*format!("mapping {} {}", mapping.range, String::from_utf8_lossy(name)));
            return if anonymous {
                self.shared.intern_anonymous(holder, &file, &meta).map(Object::Shared)
            } else {
                self.shared.intern_memfd(holder, &file, &meta, name).map(Object::Shared)
            };
        }
        let meta = self.metadata(vma)?;
        if meta.file_type().is_char_device() && meta.rdev() != libc::makedev(1, 5) {
            return Err("it maps a device".into());
        }
        let task = format!("pid {}", self.pid);
        let id = self.files.intern(&meta, name, &task).map_err(|blocker| blocker.reason)?;
        if vma.flags.contains(VmFlags::MAY_EXEC) && meta.file_type().is_file() {
            self.note_build_id(id, mapping.range);
        }
        if meta.file_type().is_file() && self.files.wants_content(id) {
            let (content, _) = self.map_file(mapping.range)?;
            self.files.set_content(id, content);
        }
        Ok(Object::File(id))
    }

    /// Attributes of the mapped file: by its path where that still leads to it, else through `map_files`.
    fn metadata(&self, vma: &smaps::Vma) -> Result<Metadata, String> {
        let mapping = &vma.mapping;
        if let Ok(meta) = std::fs::symlink_metadata(OsStr::from_bytes(&mapping.name.raw))
            && meta.ino() == mapping.ino
            && meta.dev() == mapping.dev
        {
            return Ok(meta);
        }
        Ok(self.map_file(mapping.range)?.1)
    }

    fn map_file(&self, range: PageRange) -> Result<(File, Metadata), String> {
        let file = self.task.open(&format!("map_files/{range}"));
        file.map_err(|e| e.to_string())
            .and_then(|file| file.metadata().map(|meta| (file, meta)).map_err(|e| e.to_string()))
            .map_err(|e| format!("the mapped file cannot be opened, which takes CAP_CHECKPOINT_RESTORE: {e}"))
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
            self.files.set_build_id(id, crate::proc::build_id::of_file(&opened).ok().flatten());
        }
    }
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

/// Mappings that no flag of mmap(2) gives back.
fn check_flags(vma: &smaps::Vma) -> Result<(), String> {
    if let Some(code) = vma.unknown_flags.first() {
        return Err(format!("VmFlags has `{}`, which this version does not know", String::from_utf8_lossy(code)));
    }
    let refused = [
        (VmFlags::IO | VmFlags::PFN_MAP | VmFlags::MIXED_MAP, "it maps a device's memory"),
        (VmFlags::SHADOW_STACK, "shadow stacks are not supported"),
        (
            VmFlags::UFFD_MISSING | VmFlags::UFFD_WRITE_PROTECT | VmFlags::UFFD_MINOR,
            "it is registered with a userfaultfd, whose state cannot be saved",
        ),
        (VmFlags::SYNC, "MAP_SYNC mappings are not supported"),
    ];
    match refused.iter().find(|(flags, _)| vma.flags.intersects(*flags)) {
        Some((_, reason)) => Err((*reason).into()),
        None => Ok(()),
    }
}

fn flags(flags: VmFlags) -> VmaFlags {
    const PAIRS: [(VmFlags, VmaFlags); 15] = [
        (VmFlags::GROWS_DOWN, VmaFlags::GROWS_DOWN),
        (VmFlags::LOCKED, VmaFlags::LOCKED),
        (VmFlags::LOCK_ON_FAULT, VmaFlags::LOCK_ON_FAULT),
        (VmFlags::NO_RESERVE, VmaFlags::NO_RESERVE),
        (VmFlags::DONT_COPY, VmaFlags::DONT_FORK),
        (VmFlags::WIPE_ON_FORK, VmaFlags::WIPE_ON_FORK),
        (VmFlags::DONT_DUMP, VmaFlags::DONT_DUMP),
        (VmFlags::HUGE_PAGE, VmaFlags::HUGE_PAGE),
        (VmFlags::NO_HUGE_PAGE, VmaFlags::NO_HUGE_PAGE),
        (VmFlags::MERGEABLE, VmaFlags::MERGEABLE),
        (VmFlags::SEQUENTIAL, VmaFlags::SEQUENTIAL),
        (VmFlags::RANDOM, VmaFlags::RANDOM),
        (VmFlags::SEALED, VmaFlags::SEALED),
        (VmFlags::ACCOUNT, VmaFlags::ACCOUNTED),
        (VmFlags::DROPPABLE, VmaFlags::DROPPABLE),
    ];
    PAIRS.iter().filter(|(kernel, _)| flags.contains(*kernel)).fold(VmaFlags::empty(), |all, (_, ours)| all | *ours)
}
