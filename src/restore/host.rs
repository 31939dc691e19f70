//! What a restore must know of this host and of `snap` itself, gathered once before anything is planned.

use super::aio::AioFacts;
use super::bpf::BpfFacts;
use super::core_scheduling::CoreScheduling;
use super::holders::{self, Holder};
use super::locks::{self, Foreign};
use super::queues::{self, Present};
use super::sockets::taken::{self, Taken};
use super::sysv::SystemV;
use super::vdso::{Entry, entries};
use crate::fault::{Pretence, pretends};
use crate::image::model::Snapshot;
use crate::image::model::address::PageRange;
use crate::image::model::credentials::Credentials;
use crate::image::model::file::{File, OpenObject};
use crate::image::model::id::{FileId, Tid};
use crate::image::model::inventory::{XsaveComponent, XsaveLayout};
use crate::proc::TaskDir;
use crate::proc::build_id;
use crate::proc::host::own_vdso;
use crate::proc::maps::{self, Mapping};
use crate::proc::status;
use crate::resources::file::path;
use crate::resources::{credentials, named_memory, robust};
use crate::sys::{cpuid, event, own, probe, tun};
use std::collections::BTreeSet;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Facts about the host, `snap`, and what the image names there.
#[derive(Clone, Debug)]
pub struct HostFacts {
    /// Mappings of `snap`.
    pub used: Vec<PageRange>,
    /// `[vvar]`, `[vvar_vclock]` and `[vdso]`, in order.
    pub vdso: Vec<PageRange>,
    /// Whether the kernel has sealed them.
    pub vdso_sealed: bool,
    /// GNU build id of the vdso.
    pub vdso_build_id: Vec<u8>,
    /// Its entry points, by their offsets.
    pub vdso_entries: Vec<Entry>,
    /// XSAVE layout.
    pub xsave: XsaveLayout,
    /// XSAVE components that `snap` may use.
    pub xcomp_permitted: u64,
    /// XSAVE components that CPU and kernel have for a process that may use them.
    pub xcomp_supported: u64,
    /// What `snap` may do.
    pub credentials: Credentials,
    /// Whether this user namespace forbids setgroups(2).
    pub setgroups_denied: bool,
    /// Speculation control of `snap`.
    pub speculation: [u32; 3],
    /// Limits of `snap`.
    pub limits: Vec<[u64; 2]>,
    /// Pid of `snap`.
    pub pid: i32,
    /// Bytes of the interpreter.
    pub code_len: usize,
    /// Session of `snap`.
    pub session: i32,
    /// Process group of `snap`.
    pub group: i32,
    /// Descriptors that `snap` has open.
    pub descriptors: BTreeSet<i32>,
    /// Ids of the image that are taken here, and by whom.
    pub taken: Vec<(Tid, Holder)>,
    /// Addresses of sockets of the image that cannot be had here.
    pub addresses: Vec<Taken>,
    /// What stands under the path of each file of the image.
    pub files: Vec<Result<Found, Lost>>,
    /// Shared memory whose name is gone, and which is made again.
    pub missing: BTreeSet<FileId>,
    /// Locks that others hold of files of the image.
    pub locks: Vec<Foreign>,
    /// Whether `enabled` of transparent huge pages is `always`.
    pub huge_always: bool,
    /// Whether timers can be made under their old ids.
    pub timer_ids: bool,
    /// Whether timerfds can be given expirations.
    pub timer_ticks: bool,
    /// Whether `snap` may make timerfds that wake the machine.
    pub timer_alarms: bool,
    /// Which interfaces of /dev/net/tun that the image names are here.
    pub interfaces: BTreeSet<String>,
    /// Whether `snap` may hold off the sleep of the machine by EPOLLWAKEUP.
    pub wake_locks: bool,
    /// A terminal of `snap`, by path.
    pub terminal: Option<Vec<u8>>,
    /// Maps of bpf(2).
    pub bpf: BpfFacts,
    /// What has the names of POSIX message queues of the image.
    pub queues: Vec<Present>,
    /// What contexts of Linux AIO can be had.
    pub aio: AioFacts,
    /// Core scheduling.
    pub core_scheduling: CoreScheduling,
    /// System V IPC.
    pub system_v: SystemV,
    /// The program of `snap`: path, device and inode number.
    pub exe: Option<(Vec<u8>, u64, u64)>,
}

impl HostFacts {
    /// Whether an interface that a descriptor of /dev/net/tun is attached to is not here.
    #[must_use]
    pub fn interfaces_missing(&self, snapshot: &Snapshot) -> bool {
        tun_interfaces(snapshot).any(|name| !self.interfaces.contains(name))
    }

    /// Whether this file of the image is the program that `snap` itself runs.
    #[must_use]
    pub fn is_own_program(&self, file: &File) -> bool {
        let found = self.files.get(file.id.0 as usize).and_then(|found| found.as_ref().ok());
        match (&self.exe, found) {
            (Some((path, dev, ino)), Some(found)) => (path, *dev, *ino) == (&file.path, found.dev, found.ino),
            (Some(_), None) | (None, _) => false,
        }
    }
}

/// What stands under a path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in the model")]
pub struct Found {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub size: u64,
    pub mtime: i64,
    pub rdev: u64,
    pub build_id: Option<Vec<u8>>,
    pub in_memory: Option<u32>,
    pub held: Vec<u32>,
}

/// Why nothing is seen under a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// In words.
    pub reason: String,
    /// Whether another user might see something.
    pub is_denied: bool,
}

/// Gathers them.
///
/// # Errors
/// When /proc does not tell what it always tells.
pub fn probe(snapshot: &Snapshot) -> io::Result<HostFacts> {
    let mut buffer = Vec::new();
    let this = TaskDir::current().map_err(io::Error::other)?;
    let mappings = maps::read(&this, &mut buffer).map_err(io::Error::other)?;
    let status = status::read(&this, &mut buffer).map_err(io::Error::other)?;
    let vdso_parts = vdso_parts(&mappings);
    let (vdso_build_id, vdso_entries) = own_vdso_facts(&mut buffer)?;
    Ok(HostFacts {
        used: mappings.iter().map(|mapping| mapping.range).collect(),
        vdso_sealed: pretends(Pretence::SealedVdso) || vdso_sealed(&this)?,
        vdso_build_id,
        vdso_entries,
        vdso: vdso_parts,
        xsave: pretended(xsave_layout()),
        xcomp_permitted: own::xcomp_permitted(),
        xcomp_supported: probe::xcomp_supported().unwrap_or(0),
        credentials: credentials::collect(&status, own::securebits(), Vec::new(), String::new()),
        setgroups_denied: std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny"),
        speculation: own::speculation(),
        limits: own::limits()?,
        pid: nix::unistd::getpid().as_raw(),
        code_len: crate::sys::blob::INTERPRETER.len(),
        session: nix::unistd::getsid(None)?.as_raw(),
        group: nix::unistd::getpgrp().as_raw(),
        descriptors: this.fds().map_err(io::Error::other)?.into_iter().map(|fd| fd.0).collect(),
        taken: holders::probe(snapshot),
        addresses: taken::probe(snapshot),
        files: snapshot.files.iter().map(find).collect(),
        missing: missing(snapshot),
        locks: locks::foreign(snapshot),
        huge_always: std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
            .is_ok_and(|text| text.contains("[always]")),
        timer_ids: own::has_timer_ids() && !pretends(Pretence::NoTimerIds),
        timer_ticks: event::has_timer_ticks(),
        timer_alarms: event::timerfd(libc::CLOCK_BOOTTIME_ALARM).is_ok(),
        interfaces: tun_interfaces(snapshot).filter(|name| tun::exists(name)).map(str::to_owned).collect(),
        wake_locks: event::may_hold_off_sleep(),
        terminal: terminal(),
        bpf: BpfFacts::probe(snapshot),
        queues: queues::probe(snapshot),
        aio: AioFacts::probe(&mut buffer),
        core_scheduling: CoreScheduling::probe(),
        system_v: SystemV::probe(snapshot)?,
        exe: own_program(),
    })
}

fn tun_interfaces(snapshot: &Snapshot) -> impl Iterator<Item = &str> {
    snapshot.descriptions.iter().filter_map(|description| match &description.object {
        OpenObject::Tun(tun) => tun.interface.as_ref().map(|interface| interface.name.as_str()),
        _ => None,
    })
}

/// What a test wants of it.
fn pretended(layout: XsaveLayout) -> XsaveLayout {
    const AVX: u64 = 1 << 2;
    if pretends(Pretence::NoAvx) { XsaveLayout { features: layout.features & !AVX, ..layout } } else { layout }
}

/// The XSAVE layout of this CPU; empty where it has none.
#[must_use]
pub fn xsave_layout() -> XsaveLayout {
    let Some(layout) = cpuid::XsaveLayout::of_this_cpu() else { return XsaveLayout::default() };
    let components = layout.components.iter().map(|c| XsaveComponent { bit: c.bit, offset: c.offset, size: c.size });
    XsaveLayout { features: layout.features, size: layout.size, components: components.collect() }
}

fn vdso_parts(mappings: &[Mapping]) -> Vec<PageRange> {
    let names: [&[u8]; 3] = [b"[vvar]", b"[vvar_vclock]", b"[vdso]"];
    mappings
        .iter()
        .filter(|mapping| names.contains(&mapping.name.raw.as_slice()))
        .map(|mapping| mapping.range)
        .collect()
}

/// CONFIG_MSEAL_SYSTEM_MAPPINGS: `sl` among the flags of `[vdso]`.
fn vdso_sealed(this: &TaskDir) -> io::Result<bool> {
    let mut text = Vec::new();
    let text = String::from_utf8_lossy(this.read_into("smaps", &mut text).map_err(io::Error::other)?).into_owned();
    let after = text.lines().skip_while(|line| !line.ends_with("[vdso]"));
    let flags = after.skip(1).find(|line| line.starts_with("VmFlags:"));
    Ok(flags.is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "sl")))
}

fn own_program() -> Option<(Vec<u8>, u64, u64)> {
    let path = std::fs::read_link("/proc/self/exe").ok()?;
    let meta = std::fs::metadata("/proc/self/exe").ok()?;
    Some((path.as_os_str().as_bytes().to_vec(), meta.dev(), meta.ino()))
}

fn find(file: &File) -> Result<Found, Lost> {
    let path = path(file).ok_or_else(|| Lost { reason: "it has no name".into(), is_denied: false })?;
    let lost = |error: io::Error| Lost {
        reason: error.to_string(),
        is_denied: error.kind() == io::ErrorKind::PermissionDenied,
    };
    let meta = std::fs::symlink_metadata(path).map_err(lost)?;
    Ok(Found {
        dev: meta.dev(),
        ino: meta.ino(),
        mode: meta.mode(),
        size: meta.size(),
        mtime: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
        rdev: meta.rdev(),
        build_id: build_id(file, path),
        in_memory: content(file, path, &meta),
        held: words(file, path, &meta),
    })
}

/// Of shared memory, whose times do not tell that it was changed: as far as it went at the dump.
fn content(file: &File, path: &Path, meta: &Metadata) -> Option<u32> {
    file.in_memory.filter(|_| meta.is_file())?;
    let opened = std::fs::File::open(path).ok()?;
    named_memory::checksum(&opened, meta.size().min(file.size), &file.held).ok()
}

/// Words of the robust futexes that the tree has held, as far as they are there.
fn words(file: &File, path: &Path, meta: &Metadata) -> Vec<u32> {
    if file.held.is_empty() || !meta.is_file() {
        return Vec::new();
    }
    let Ok(opened) = std::fs::File::open(path) else { return Vec::new() };
    file.held.iter().map_while(|held| robust::word(&opened, held).ok()).collect()
}

/// Shared memory that has none of its names any more, in directories that are there.
fn missing(snapshot: &Snapshot) -> BTreeSet<FileId> {
    let is_gone = |file: &File| {
        let missing = |path: &Path| {
            let found = std::fs::symlink_metadata(path);
            let is_gone = found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
            is_gone && path.parent().is_some_and(Path::is_dir)
        };
        path(file).is_some_and(missing)
    };
    let memory = || snapshot.files.iter().filter(|file| file.in_memory.is_some());
    let same = |one: &File, other: &File| (one.dev, one.ino) == (other.dev, other.ino);
    let all_gone = |file: &&File| memory().filter(|other| same(file, other)).all(is_gone);
    memory().filter(all_gone).map(|file| file.id).collect()
}

/// Read only where the image has one to compare it with.
fn build_id(file: &File, path: &Path) -> Option<Vec<u8>> {
    file.build_id.as_ref()?;
    let opened = std::fs::File::open(path).ok()?;
    build_id::of_file(&opened).ok().flatten()
}

fn terminal() -> Option<Vec<u8>> {
    let own = [0, 1, 2].into_iter().find_map(|fd| {
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
        let path = link.as_os_str().as_bytes();
        (path.starts_with(b"/dev/pts/") || path.starts_with(b"/dev/tty")).then(|| path.to_vec())
    });
    own.or_else(|| std::fs::File::open("/dev/tty").ok().map(|_| b"/dev/tty".to_vec()))
}

/// Build id and entry points of the vdso, or of the one that a test asks for.
fn own_vdso_facts(buffer: &mut Vec<u8>) -> io::Result<(Vec<u8>, Vec<Entry>)> {
    let vdso = own_vdso(buffer).map_err(io::Error::other)?.unwrap_or_default();
    let id = || build_id::of_bytes(&vdso).unwrap_or_default();
    Ok(if pretends(Pretence::BareVdso) {
        (b"bare".to_vec(), Vec::new())
    } else if pretends(Pretence::OtherVdso) {
        (b"other".to_vec(), entries(&vdso))
    } else {
        (id(), entries(&vdso))
    })
}
