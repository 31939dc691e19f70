//! Maps of bpf(2): made again with what was in them, or opened where they are pinned. Descriptions of types are loaded before them.

use super::descriptors::{OpenError, failed};
use super::filling::Filling;
use super::host::HostFacts;
use crate::blocker::Blocker;
use crate::image::model::Snapshot;
use crate::image::model::bpf::{BpfMap, MapContent, MapKind};
use crate::image::model::id::{BpfMapId, BpfTypesId};
use crate::proc::host;
use crate::resources::bpf::{holders, make};
use crate::sys::bpf::{self, Attributes, READ_ONLY, WRITE_ONLY};
use crate::sys::open;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

/// What this host has for the maps of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BpfFacts {
    /// Possible CPUs.
    cpus: u64,
    /// For each map: the number of the one that is pinned, or why it cannot be had.
    maps: Vec<Result<Option<u32>, String>>,
    /// For each BTF, why it cannot be loaded, if it cannot.
    types: Vec<Option<String>>,
}

impl BpfFacts {
    /// Tries for each map to make a small one of its kind, or to open the one that is pinned.
    #[must_use]
    pub fn probe(snapshot: &Snapshot) -> Self {
        let types: Vec<_> = snapshot.bpf_types.iter().map(|types| bpf::load_types(&types.bytes)).collect();
        let maps = snapshot.bpf_maps.iter().map(|map| match &map.content {
            MapContent::Pinned(path) => find(map, Path::new(OsStr::from_bytes(path))).map(Some),
            MapContent::Entries { .. }
            | MapContent::EntryPages { .. }
            | MapContent::Memory(_)
            | MapContent::MemoryPages
            | MapContent::Maps { .. } => attempt(map, &types)
                .map(|()| None)
                .map_err(|error| format!("this kernel makes no such map for snap: {error}")),
        });
        let maps = maps.collect();
        let types = types.into_iter().map(|loaded| loaded.err().map(|error| error.to_string())).collect();
        Self { cpus: host::possible_cpus().map_or(0, |(count, _)| count), maps, types }
    }
}

/// The number of the map that is pinned there and is like this one.
fn find(map: &BpfMap, path: &Path) -> Result<u32, String> {
    let file = bpf::pinned(path, READ_ONLY).map_err(|error| format!("nothing can be opened there: {error}"))?;
    let info = if holders::is_map(&file) { bpf::info(file.as_fd()).ok() } else { None };
    let info = info.ok_or("what is pinned there is no map")?;
    let now = (info.kind, info.key_size, info.value_size, info.max_entries, info.flags);
    if now != (map.kind.0, map.key_size, map.value_size, map.max_entries, map.flags) {
        return Err("the map that is pinned there is of another kind or size".into());
    }
    Ok(info.id)
}

/// Makes a map like this one with room for one entry, and opens it as those of a program are opened.
fn attempt(map: &BpfMap, types: &[io::Result<File>]) -> io::Result<()> {
    const TEMPLATE: BpfMap = BpfMap {
        id: BpfMapId(0),
        number: 0,
        name: Vec::new(),
        kind: MapKind::ARRAY,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        flags: 0,
        extra: 0,
        frozen: false,
        types: None,
        content: MapContent::Memory(Vec::new()),
    };
    let inner = map.kind.holds_maps().then(|| bpf::create(make::attributes(&TEMPLATE, None, None))).transpose()?;
    let types = map.types.and_then(|of| types.get(of.of.0 as usize)?.as_ref().ok());
    let wanted = make::attributes(map, inner.as_ref().map(AsFd::as_fd), types.map(AsFd::as_fd));
    let max_entries = if map.kind.is_queue() && map.value_size == 0 { 4096 } else { 1 };
    let made = bpf::create(Attributes { max_entries, ..wanted })?;
    let number = bpf::info(made.as_fd())?.id;
    bpf::map_by_id(number, READ_ONLY).map(drop)
}

/// What stands in the way, and what the user should know. Pure.
pub fn check(snapshot: &Snapshot, facts: &HostFacts) -> (Vec<String>, Vec<Blocker>) {
    let (mut notices, mut blockers) = (Vec::new(), Vec::new());
    for (types, lacks) in snapshot.bpf_types.iter().zip(&facts.bpf.types) {
        blockers.extend(lacks.as_ref().map(|error| Blocker {
            task: "the tree".into(),
            object: format!("BTF {}", types.number),
            reason: format!("this kernel does not take these descriptions of types: {error}"),
            remedy: "run snap restore with CAP_SYS_ADMIN, outside of containers, on a kernel that is not older".into(),
        }));
    }
    for (map, found) in snapshot.bpf_maps.iter().zip(&facts.bpf.maps) {
        let object = format!("BPF map {} of type {}", map.number, map.kind.name());
        let mut block = |reason: String, remedy: &str| {
            let (object, remedy) = (object.clone(), remedy.into());
            blockers.push(Blocker { task: "the tree".into(), object, reason, remedy });
        };
        match (&map.content, found) {
            (MapContent::Pinned(path), Err(reason)) => {
                let reason = format!("it was pinned as {}: {reason}", String::from_utf8_lossy(path));
                block(reason, "pin one like it there, which whoever has loaded its programs does");
            }
            (_, Err(reason)) => block(reason.clone(), "run snap restore with CAP_SYS_ADMIN, outside of containers"),
            (MapContent::Pinned(path), Ok(Some(number))) if *number != map.number => {
                let path = String::from_utf8_lossy(path);
                notices.push(format!(
                    "the BPF map that is pinned as {path} is another than at the dump, of the same kind"
                ));
            }
            (MapContent::Entries { keys: _, values: _, cpus } | MapContent::EntryPages { chunks: _, cpus }, Ok(_))
                if map.kind.is_per_cpu() && u64::from(*cpus) != facts.bpf.cpus =>
            {
                let reason =
                    format!("it has a value for each of {cpus} possible CPUs, and this machine has {}", facts.bpf.cpus);
                block(reason, "restore on a machine with as many possible CPUs");
            }
            (_, Ok(_)) => {}
        }
    }
    (notices, blockers)
}

/// The maps of an image, once they are made.
#[derive(Debug, Default)]
pub struct BpfMaps {
    /// Each with its number in this kernel.
    made: HashMap<BpfMapId, (u32, File)>,
    /// Descriptions of types, as [`Snapshot::bpf_types`] has them, each with its number.
    types: Vec<(u32, File)>,
    /// Those that are filled with pages of the image.
    filling: RwLock<HashMap<BpfMapId, (Filling, File)>>,
}

impl BpfMaps {
    /// Makes or opens all of them, those that hold others last.
    ///
    /// # Errors
    /// The first that could not be had.
    pub fn make(snapshot: &Snapshot, top: i32) -> Result<Self, OpenError> {
        let (outer, plain): (Vec<&BpfMap>, Vec<_>) = snapshot.bpf_maps.iter().partition(|map| map.kind.holds_maps());
        let mut maps = Self::default();
        for types in &snapshot.bpf_types {
            let error = || failed(format!("BTF {}", types.number));
            let loaded = bpf::load_types(&types.bytes).and_then(|loaded| open::lift(loaded, top)).map_err(error())?;
            let number = bpf::types_info(loaded.as_fd()).map_err(io::Error::from).map_err(error())?.id;
            maps.types.push((number, loaded));
        }
        for map in plain.into_iter().chain(outer) {
            let error = || failed(format!("BPF map {} of type {}", map.number, map.kind.name()));
            let made = maps.make_one(map).and_then(|made| open::lift(made, top)).map_err(error())?;
            let number = bpf::info(made.as_fd()).map_err(io::Error::from).map_err(error())?.id;
            if let Some(filling) = Filling::of(map, &made).map_err(error())? {
                let made = made.try_clone().and_then(|made| open::lift(made, top)).map_err(error())?;
                maps.filling.get_mut().unwrap_or_else(PoisonError::into_inner).insert(map.id, (filling, made));
            }
            maps.made.insert(map.id, (number, made));
        }
        Ok(maps)
    }

    fn make_one(&self, map: &BpfMap) -> io::Result<File> {
        let inner: Vec<BorrowedFd<'_>> = match &map.content {
            MapContent::Pinned(path) => {
                let path = Path::new(OsStr::from_bytes(path));
                return find(map, path).map_err(io::Error::other).and_then(|number| bpf::map_by_id(number, READ_ONLY));
            }
            MapContent::Maps { keys: _, maps } => {
                let inner = maps.iter().filter_map(|id| Some(self.made.get(id)?.1.as_fd())).collect::<Vec<_>>();
                if inner.len() != maps.len() {
                    return Err(io::ErrorKind::NotFound.into());
                }
                inner
            }
            MapContent::Entries { .. }
            | MapContent::EntryPages { .. }
            | MapContent::Memory(_)
            | MapContent::MemoryPages => Vec::new(),
        };
        let types = map.types.and_then(|of| Some(self.types.get(of.of.0 as usize)?.1.as_fd()));
        make::make(map, &inner, types)
    }

    /// Takes pages of a map.
    ///
    /// # Errors
    /// As bpf(2); `NotFound` for a map that takes none.
    pub fn fill(&self, id: BpfMapId, at: u64, data: &[u8]) -> io::Result<()> {
        let filling = self.filling.read().unwrap_or_else(PoisonError::into_inner);
        let (filling, made) = filling.get(&id).ok_or(io::ErrorKind::NotFound)?;
        filling.fill(at, data, made)
    }

    /// Closes them, but for those that are filled.
    pub fn release(&mut self) {
        (self.made, self.types) = Default::default();
    }

    /// Sees that all pages have come, does what comes last, and closes the maps.
    ///
    /// # Errors
    /// The first map that could not be had.
    pub fn complete(&self, snapshot: &Snapshot) -> Result<(), OpenError> {
        for (id, (filling, made)) in self.filling.write().unwrap_or_else(PoisonError::into_inner).drain() {
            let Some(map) = snapshot.bpf_maps.get(id.0 as usize) else { continue };
            let what = format!("BPF map {} of type {}", map.number, map.kind.name());
            filling.complete(map, &made).map_err(failed(what))?;
        }
        Ok(())
    }

    /// A description of descriptions of types.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn open_types(&self, id: BpfTypesId) -> Result<File, OpenError> {
        let loaded = self.types.get(id.0 as usize).ok_or(io::ErrorKind::NotFound.into());
        loaded.and_then(|(number, _)| bpf::types_by_id(*number)).map_err(failed(format!("BTF {id}")))
    }

    /// A description of a map.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn open(&self, id: BpfMapId, flags: u32) -> Result<File, OpenError> {
        let error = || failed(format!("BPF map {id}"));
        let (number, _) = self.made.get(&id).ok_or(io::ErrorKind::NotFound.into()).map_err(error())?;
        let access = match flags as i32 & libc::O_ACCMODE {
            libc::O_RDONLY => READ_ONLY,
            libc::O_WRONLY => WRITE_ONLY,
            _ => 0,
        };
        bpf::map_by_id(*number, access).map_err(error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::sample;

    #[test]
    fn types_that_the_kernel_does_not_take_are_found_before_anything_is_made() {
        let mut snapshot = sample::snapshot();
        let facts = BpfFacts::probe(&snapshot);
        let may = facts.types == [None];
        // A type of a kind that does not exist.
        snapshot.bpf_types[0].bytes[31] = 31;
        let lacks = BpfFacts::probe(&snapshot).types.remove(0).expect("a reason");
        // Only root may load any.
        assert!(!may || lacks.contains("Invalid argument"), "{lacks}");
    }
}
