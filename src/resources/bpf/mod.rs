//! Maps of bpf(2). What is in them is read through duplicates of the tree's descriptors; what the kernel's own programs do with one that the tree has, no freeze stops, so
//! that a map that anybody else has is refused, unless it is pinned: then it stays in the kernel, and a restore opens it again.

pub mod content;
mod fields;
pub mod holders;
pub mod make;
pub mod mapped;
mod source;
mod types;
mod walk;

use super::Findings;
use super::border::{Outsider, Tie};
use crate::image::model::bpf::{BpfMap, BpfTypes, MapContent, MapKind, MapTypes};
use crate::image::model::id::{BpfMapId, Fd, Pid, Tid};
use crate::proc::fdinfo::{self, FdInfo};
use crate::proc::{TaskDir, host, maps, processes};
use crate::sys::bpf::{self, MapInfo};
use crate::sys::task;
use content::Content;
pub use source::MapSource;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use types::Types;

/// The maps of a dump, each once, and the types that they have.
#[derive(Debug, Default)]
pub struct BpfMaps {
    maps: Vec<Found>,
    /// Descriptions of types.
    pub types: Types,
}

/// What a dump takes of them.
#[derive(Debug, Default)]
pub struct Finished {
    /// Descriptions of types.
    pub types: Vec<BpfTypes>,
    /// Maps.
    pub maps: Vec<BpfMap>,
    /// Where the pages of those are read in which there is much.
    pub sources: Vec<(BpfMapId, MapSource)>,
}

/// A map as it was found.
#[derive(Debug)]
struct Found {
    model: BpfMap,
    info: MapInfo,
    /// A descriptor that can read.
    file: File,
    /// Where it was found.
    task: String,
    object: String,
}

/// The number of the map behind a descriptor.
#[must_use]
pub fn number(info: &FdInfo) -> Option<u32> {
    std::str::from_utf8(info.value("map_id")?).ok()?.parse().ok()
}

impl BpfMaps {
    /// The map behind a descriptor.
    ///
    /// # Errors
    /// Why it cannot be saved.
    pub fn intern(&mut self, (tid, object): (Tid, &str), file: &File, shown: &FdInfo) -> Result<BpfMapId, String> {
        let known = number(shown).and_then(|number| self.maps.iter().find(|map| map.model.number == number));
        if let Some(known) = known {
            return Ok(known.model.id);
        }
        // One that only reads cannot be mapped either, see `restore::numbers`.
        let file = match shown.flags & libc::O_ACCMODE as u32 == libc::O_RDWR as u32 {
            true => file.try_clone(),
            false => number(shown).ok_or(io::ErrorKind::NotFound.into()).and_then(|id| bpf::map_by_id(id, 0)),
        };
        let file = file.map_err(|error| {
            format!("a descriptor of it that can read cannot be had, which takes CAP_SYS_ADMIN: {error}")
        })?;
        self.add(file, (format!("pid {tid}"), object.to_owned()))
    }

    fn add(&mut self, file: File, (task, object): (String, String)) -> Result<BpfMapId, String> {
        let id = BpfMapId(self.maps.len() as u32);
        let info =
            bpf::info(file.as_fd()).map_err(|errno| format!("what kind of map it is cannot be read: {errno}"))?;
        let shown = TaskDir::current().and_then(|this| fdinfo::read(&this, Fd(file.as_raw_fd()), &mut Vec::new()));
        let frozen = shown.ok().and_then(|shown| Some(shown.value("frozen")? == b"1"));
        let model = BpfMap {
            id,
            number: info.id,
            name: info.name.iter().copied().take_while(|byte| *byte != 0).collect(),
            kind: MapKind(info.kind),
            key_size: info.key_size,
            value_size: info.value_size,
            max_entries: info.max_entries,
            flags: info.flags,
            extra: info.extra,
            types: None,
            frozen: frozen.ok_or("whether it is frozen is not told by this kernel")?,
            content: MapContent::Pinned(Vec::new()),
        };
        self.maps.push(Found { model, info, file, task, object });
        Ok(id)
    }

    /// Their ties to other processes.
    pub fn ties(&self) -> impl Iterator<Item = Tie> {
        self.maps.iter().map(|map| Tie::BpfMap(map.model.number))
    }

    /// The map of which this is a page, if it is one of these.
    ///
    /// # Errors
    /// As [`mapped::Page::is_of`].
    pub fn mapped(&self, page: mapped::Page) -> io::Result<Option<&BpfMap>> {
        for map in self.maps.iter().filter(|map| map.model.is_mappable()) {
            if page.is_of(map.file.as_fd())? {
                return Ok(Some(&map.model));
            }
        }
        Ok(None)
    }

    /// Looks into all of them. `outsiders` has a process outside for each that one has, `leaks` says whether they are saved all the same.
    pub fn finish(
        mut self,
        (outsiders, inside): (&HashMap<Tie, Outsider>, &[Pid]),
        leaks: bool,
        findings: &mut Findings,
    ) -> Finished {
        if self.maps.is_empty() {
            return Finished { types: self.types.finish(), ..Finished::default() };
        }
        let (mut users, pins) = match self.holders() {
            Ok(found) => found,
            Err(error) => {
                let Found { task, object, .. } = &self.maps[0];
                let reason = format!("who else in the kernel has this BPF map cannot be told: {error}");
                findings.block(task, object, reason, "run snap dump with CAP_SYS_ADMIN");
                return Finished::default();
            }
        };
        self.add_mapped(inside, &mut users);
        let cpus = host::possible_cpus().map_or(0, |(count, _)| count as u32);
        let numbers: HashMap<u32, BpfMapId> = self.maps.iter().map(|map| (map.model.number, map.model.id)).collect();
        let mut sources = Vec::new();
        for map in &mut self.maps {
            let number = map.model.number;
            let outsider = outsiders.get(&Tie::BpfMap(number)).map(|outsider| format!("{outsider}, which is outside,"));
            let other = outsider.or_else(|| users.get(&number).cloned());
            if let Some(path) = pins.get(&number) {
                map.stay(path, findings);
                continue;
            }
            let shared = other.is_some();
            if other.is_some_and(|other| !map.part(&other, leaks, findings)) {
                continue;
            }
            let described = map.described(&mut self.types);
            let found = described.and_then(|()| map.look((cpus, shared), &numbers, &self.types));
            match found {
                Ok((content, source)) => {
                    map.model.content = content;
                    sources.extend(source.map(|source| (map.model.id, source)));
                }
                Err(reason) => findings.block(&map.task, &map.object, reason, "close it before the dump, or pin it"),
            }
        }
        Finished { types: self.types.finish(), maps: self.maps.into_iter().map(|map| map.model).collect(), sources }
    }

    /// Who in the kernel has each map besides, and where it is pinned.
    fn holders(&self) -> io::Result<(HashMap<u32, String>, HashMap<u32, PathBuf>)> {
        let all = self.numbers();
        let pins = holders::pins(&all)?;
        // What is in a pinned map stays there.
        let inside = all.iter().copied().filter(|number| !pins.contains_key(number)).collect();
        Ok((holders::users(&all, &inside)?, pins))
    }

    fn numbers(&self) -> HashSet<u32> {
        self.maps.iter().map(|map| map.model.number).collect()
    }

    /// Takes in the maps that are in maps which come back with the tree, once all tables are known.
    pub fn add_inner(&mut self, findings: &mut Findings) {
        if !self.maps.iter().any(|map| map.model.kind.holds_maps()) {
            return;
        }
        // Mounts that cannot be read are told of in the end.
        let pins = holders::pins(&self.numbers()).unwrap_or_default();
        for at in 0..self.maps.len() {
            let outer = &self.maps[at];
            if !outer.model.kind.holds_maps() || pins.contains_key(&outer.model.number) {
                continue;
            }
            let (task, number) = (outer.task.clone(), outer.model.number);
            // Those of one that cannot be read are refused with it.
            for (_, inner) in content::inner(&outer.model, outer.file.as_fd()).unwrap_or_default() {
                if self.maps.iter().any(|map| map.model.number == inner) {
                    continue;
                }
                let object = format!("BPF map {inner}, which is in BPF map {number}");
                let file = bpf::map_by_id(inner, 0).map_err(|error| format!("it cannot be opened: {error}"));
                if let Err(reason) = file.and_then(|file| self.add(file, (task.clone(), object.clone()))) {
                    findings.block(&task, object, reason, "run snap dump with CAP_SYS_ADMIN");
                }
            }
        }
    }

    /// Takes in who outside maps the memory of one, without a descriptor of it.
    fn add_mapped(&self, inside: &[Pid], users: &mut HashMap<u32, String>) {
        if !self.maps.iter().any(|map| map.model.is_mappable()) {
            return;
        }
        let others = processes().into_iter().filter(|pid| !inside.contains(pid) && *pid != task::own_pid());
        for pid in others {
            let mappings = TaskDir::process(pid).and_then(|task| maps::read(&task, &mut Vec::new()));
            for mapping in mappings.unwrap_or_default().iter().filter(|mapping| mapping.name.raw == mapped::NAME) {
                let page = mapped::Page::of(pid, mapping.range, mapping.offset);
                if let Ok(Some(map)) = page.and_then(|page| self.mapped(page)) {
                    let who = || format!("pid {pid}, which is outside, maps its memory at {} and", mapping.range);
                    users.entry(map.number).or_insert_with(who);
                }
            }
        }
    }
}

impl Found {
    /// Notes that it is pinned.
    fn stay(&mut self, path: &Path, findings: &mut Findings) {
        self.model.content = MapContent::Pinned(path.as_os_str().as_bytes().to_vec());
        findings.warnings.push(format!(
            "the BPF map {} stays in the kernel, pinned as {}, with all that is in it: a restore opens it again",
            self.model.number,
            path.display()
        ));
    }

    /// Whether it may be parted from somebody else who has it.
    fn part(&self, other: &str, leaks: bool, findings: &mut Findings) -> bool {
        let number = self.model.number;
        if leaks {
            findings.warnings.push(format!(
                "{other} has the BPF map {number} too, and goes on with it: a restored tree has one of its own"
            ));
        } else {
            let reason = format!("{other} has this BPF map too, and would go on with the old one");
            let remedy = format!(
                "pin it (bpftool map pin id {number} /sys/fs/bpf/NAME), or use --allow-leak: the tree gets a map of its own"
            );
            findings.block(&self.task, &self.object, reason, remedy);
        }
        leaks
    }

    /// Takes in what its keys and values are, which must be nothing that cannot be had again.
    fn described(&mut self, types: &mut Types) -> Result<(), String> {
        let Self { model, info, file: _, task: _, object: _ } = self;
        if !model.kind.is_known() || info.types == 0 {
            return Ok(());
        }
        let found = types.of_map(info.types).and_then(|of| {
            fields::look(types.bytes(of), info.value_type)?;
            Ok(MapTypes { of, key: info.key_type, value: info.value_type })
        });
        model.types = Some(found.map_err(|reason| format!("a BPF map of type {}: {reason}", model.kind.name()))?);
        Ok(())
    }

    /// What is in it, on a machine with so many possible CPUs, and whether somebody else has it. `numbers` are the maps of the tree.
    fn look(
        &self,
        (cpus, shared): (u32, bool),
        numbers: &HashMap<u32, BpfMapId>,
        types: &Types,
    ) -> Result<Content, String> {
        const NUMA_NODE: u32 = 1 << 2;
        let Self { model, info, file, task: _, object: _ } = self;
        let name = model.kind.name();
        if let Some(reason) = refusal(model.kind) {
            return Err(format!("a BPF map of type {name}: {reason}"));
        }
        if !model.kind.is_known() {
            return Err(format!("a BPF map of type {name}, which this version does not know"));
        }
        if info.device != 0 {
            return Err(format!("a BPF map of type {name} in a network device"));
        }
        if info.vmlinux_value_type != 0 {
            return Err(format!("a BPF map of type {name} whose values are of a type of the kernel's own"));
        }
        if model.flags & NUMA_NODE != 0 && has_nodes() {
            return Err(format!("a BPF map of type {name} on one NUMA node: which, nothing tells"));
        }
        let content = match model.kind.holds_maps() {
            false => content::read(model, file, cpus, shared),
            true => self.inner(numbers).map(|inner| (inner, None)),
        };
        let (content, source) = content.map_err(|reason| format!("a BPF map of type {name}: {reason}"))?;
        if model.kind.forgets() {
            let copy = BpfMap { content: content.clone(), ..model.clone() };
            make::copy(&copy, source.as_ref(), types.file(model.types)).map_err(|error| match error.kind() {
                io::ErrorKind::StorageFull => format!(
                    "a BPF map of type {name} that is so full that the kernel drops some of it when it is filled again"
                ),
                _ => format!("a BPF map of type {name}, of which no copy can be made: {error}"),
            })?;
        }
        Ok((content, source))
    }

    fn inner(&self, numbers: &HashMap<u32, BpfMapId>) -> Result<MapContent, String> {
        let (mut keys, mut maps) = (Vec::new(), Vec::new());
        for (key, number) in content::inner(&self.model, self.file.as_fd())? {
            keys.extend(key);
            maps.push(*numbers.get(&number).ok_or_else(|| format!("the map {number} in it cannot be saved"))?);
        }
        match maps.is_empty() {
            true => Err("it holds no map, and which maps it takes nothing else tells".into()),
            false => Ok(MapContent::Maps { keys, maps }),
        }
    }
}

/// Whether memory can be on one NUMA node or another.
fn has_nodes() -> bool {
    let nodes = std::fs::read("/sys/devices/system/node/possible").unwrap_or_default();
    host::parse_cpu_list(&nodes).is_none_or(|(count, _)| count != 1)
}

/// Why no map of this kind can be made again.
fn refusal(kind: MapKind) -> Option<&'static str> {
    Some(match kind.0 {
        3 => "it holds programs, which cannot be read back as they were given",
        4 => "it holds performance counters",
        7 => "only a program in the kernel can put stacks into it",
        8 => "it holds cgroups, which nothing tells",
        14 | 16 | 25 => "where its packets go cannot be read whole",
        15 | 17 | 18 | 20 => "it holds sockets, which cannot be read",
        19 | 21 | 24 | 28 | 29 | 32 => "what is in it belongs to objects of the kernel",
        26 => "it holds programs that the kernel calls",
        30 => "what was put into it cannot be read",
        33 => "its memory has pointers to itself in the kernel",
        34 => "it holds places in the code of programs",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_known_or_refused_for_a_reason() {
        for kind in (1..=34).map(MapKind) {
            assert_ne!(kind.is_known(), refusal(kind).is_some(), "{}", kind.name());
            assert!(!kind.name().starts_with("type"), "{kind:?}");
        }
        assert!(!MapKind(35).is_known() && refusal(MapKind(35)).is_none());
    }
}
