//! Maps of bpf(2), in a few words.

use super::bits;
use crate::image::model::Snapshot;
use crate::image::model::bpf::{BpfMap, BpfTypes, MapContent, MapTypes};
use crate::inspect::text::{bytes, printable};

/// Which map.
#[must_use]
pub fn label(map: &BpfMap) -> String {
    match map.name.is_empty() {
        true => format!("bpf-map:[{}]", map.number),
        false => format!("bpf-map:[{}] {}", map.number, printable(&map.name)),
    }
}

/// What is in it.
#[must_use]
pub fn content(map: &BpfMap) -> String {
    match &map.content {
        MapContent::Pinned(path) => format!("pinned as {}", printable(path)),
        MapContent::Memory(_) | MapContent::MemoryPages => {
            format!("{} elements in memory that can be mapped", map.max_entries)
        }
        MapContent::Entries { keys, .. } if keys.is_empty() && map.kind.is_queue() => "empty".to_owned(),
        MapContent::Entries { .. } if map.kind.is_array() => {
            format!("{} of {} elements are not zero", map.entries(), map.max_entries)
        }
        MapContent::EntryPages { .. } if map.kind.is_array() => format!("{} elements", map.max_entries),
        MapContent::Entries { .. } | MapContent::EntryPages { .. } => {
            format!("{} of {} entries", map.entries(), map.max_entries)
        }
        MapContent::Maps { keys: _, maps } => format!("{} of {} maps", maps.len(), map.max_entries),
    }
}

/// All that there is to say of it.
#[must_use]
pub fn map(snapshot: &Snapshot, map: &BpfMap) -> String {
    let shape = match (map.key_size, map.value_size) {
        (0, 0) => bytes(map.max_entries.into()),
        (0, value) => format!("of {} each", bytes(value.into())),
        (key, value) => format!("{} to {}", bytes(key.into()), bytes(value.into())),
    };
    let frozen = if map.frozen { ", frozen" } else { "" };
    let name = if map.name.is_empty() { String::new() } else { format!(" {}", printable(&map.name)) };
    let types = map.types.map_or_else(String::new, |MapTypes { of, key, value }| {
        let number = snapshot.bpf_types.get(of.0 as usize).map_or(0, |types| types.number);
        format!(", types {key} and {value} of BTF [{number}]")
    });
    format!("{} [{}]{name}, {shape}, {}{frozen}{types}", map.kind.name(), map.number, content(map))
}

/// Descriptions of types.
#[must_use]
pub fn types(types: &BpfTypes) -> String {
    format!("BTF [{}], {}", types.number, bytes(types.bytes.len() as u64))
}

/// The names of its flags, as linux/bpf.h has them without BPF_F_.
#[must_use]
pub fn flags(flags: u32) -> Vec<String> {
    const NAMES: [(u64, &str); 12] = [
        (1 << 0, "NO_PREALLOC"),
        (1 << 1, "NO_COMMON_LRU"),
        (1 << 2, "NUMA_NODE"),
        (1 << 5, "STACK_BUILD_ID"),
        (1 << 6, "ZERO_SEED"),
        (1 << 7, "RDONLY_PROG"),
        (1 << 8, "WRONLY_PROG"),
        (1 << 9, "CLONE"),
        (1 << 10, "MMAPABLE"),
        (1 << 11, "PRESERVE_ELEMS"),
        (1 << 12, "INNER_MAP"),
        (1 << 13, "LINK"),
    ];
    bits(flags.into(), &NAMES)
}
