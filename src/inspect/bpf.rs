//! Maps of bpf(2) and descriptions of types, as a part of `snap inspect FILE ipc`.

use super::json::Raw;
use super::names;
use super::text::count;
use crate::image::model::Snapshot;
use crate::image::model::bpf::{BpfMap, BpfTypes, MapContent, MapTypes};
use crate::image::model::file::OpenObject;
use crate::image::model::id::DescriptionId;
use serde::Serialize;
use std::fmt;

/// A map of bpf(2).
#[derive(Debug, Serialize)]
pub struct OneMap {
    /// Its number in the kernel of the dump.
    id: u32,
    name: Raw,
    kind: String,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: Vec<String>,
    frozen: bool,
    /// Where it is pinned; then nothing of it is in the image.
    pinned: Option<Raw>,
    /// What its keys and values are.
    types: Option<Types>,
    /// Entries in the image.
    entries: usize,
    /// How many descriptors of it there are.
    descriptors: usize,
    #[serde(skip)]
    text: String,
}

/// Numbers of types, and of the BTF that describes them.
#[derive(Debug, Serialize)]
struct Types {
    btf: u32,
    key: u32,
    value: u32,
}

/// Descriptions of types.
#[derive(Debug, Serialize)]
pub struct OneBtf {
    /// Its number in the kernel of the dump.
    id: u32,
    bytes: usize,
    /// How many maps have types of it.
    maps: usize,
    descriptors: usize,
    #[serde(skip)]
    text: String,
}

impl fmt::Display for OneMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "BPF map: {}, {}", self.text, count(self.descriptors as u64, "descriptor"))
    }
}

impl fmt::Display for OneBtf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [maps, descriptors] =
            [(self.maps, "map"), (self.descriptors, "descriptor")].map(|(number, what)| count(number as u64, what));
        writeln!(f, "BPF types: {}, {maps}, {descriptors}", self.text)
    }
}

/// A map.
pub fn map(snapshot: &Snapshot, map: &BpfMap) -> OneMap {
    let types = map.types.map(|MapTypes { of, key, value }| {
        let btf = snapshot.bpf_types.get(of.0 as usize).map_or(0, |types| types.number);
        Types { btf, key, value }
    });
    OneMap {
        id: map.number,
        name: Raw(map.name.clone()),
        kind: map.kind.name(),
        key_size: map.key_size,
        value_size: map.value_size,
        max_entries: map.max_entries,
        flags: names::bpf::flags(map.flags),
        frozen: map.frozen,
        pinned: match &map.content {
            MapContent::Pinned(path) => Some(Raw(path.clone())),
            MapContent::Entries { .. }
            | MapContent::EntryPages { .. }
            | MapContent::Memory(_)
            | MapContent::MemoryPages
            | MapContent::Maps { .. } => None,
        },
        types,
        entries: map.entries(),
        descriptors: descriptors(snapshot, &OpenObject::BpfMap(map.id)),
        text: names::bpf::map(snapshot, map),
    }
}

/// Descriptions of types.
pub fn types(snapshot: &Snapshot, types: &BpfTypes) -> OneBtf {
    OneBtf {
        id: types.number,
        bytes: types.bytes.len(),
        maps: snapshot.bpf_maps.iter().filter(|map| map.types.is_some_and(|of| of.of == types.id)).count(),
        descriptors: descriptors(snapshot, &OpenObject::BpfTypes(types.id)),
        text: names::bpf::types(types),
    }
}

/// How many descriptors of an object there are.
fn descriptors(snapshot: &Snapshot, object: &OpenObject) -> usize {
    let entries = snapshot.fd_tables.iter().flat_map(|table| &table.entries);
    let is_of = |id: DescriptionId| {
        snapshot.descriptions.get(id.0 as usize).is_some_and(|description| description.object == *object)
    };
    entries.filter(|entry| is_of(entry.description)).count()
}
