//! Maps of bpf(2).

use super::ensure;
use crate::image::error::Error;
use crate::image::model::Snapshot;
use crate::image::model::bpf::{BpfMap, BpfTypes, MapContent};

/// PATH_MAX.
const PATH_MAX: usize = 4096;

/// More bytes than a key or a value can have (KMALLOC_MAX_SIZE).
const SIZE_MAX: u32 = 1 << 30;

/// More possible CPUs than any kernel has.
const CPUS_MAX: u32 = 1 << 16;

pub fn types(types: &BpfTypes) -> Result<(), Error> {
    let object = || format!("BTF {}", types.id);
    let len = types.bytes.len();
    // What is in it the kernel looks through.
    ensure((BpfTypes::HEAD..=BpfTypes::MOST).contains(&len), object, "has an impossible size")
}

pub fn map(map: &BpfMap, snapshot: &Snapshot) -> Result<(), Error> {
    let object = || format!("BPF map {}", map.id);
    let name = map.name.len() <= BpfMap::NAME_MAX && !map.name.contains(&0);
    ensure(name, object, "has an impossible name")?;
    ensure(map.key_size <= SIZE_MAX && map.value_size <= SIZE_MAX, object, "has an impossible size")?;
    if let Some(types) = map.types {
        let described = (types.of.0 as usize) < snapshot.bpf_types.len();
        ensure(described, object, "has types of a BTF that is not in the image")?;
        let sane = types.value != 0 && types.key.max(types.value) <= BpfTypes::LAST;
        ensure(sane, object, "has types with impossible numbers")?;
    }
    match &map.content {
        MapContent::Pinned(path) => {
            let sane = path.starts_with(b"/") && path.len() <= PATH_MAX && !path.contains(&0);
            ensure(sane, object, "is pinned under an impossible path")
        }
        MapContent::Memory(memory) => {
            let fits = map.is_mappable() && memory.len() as u64 <= map.memory_len();
            ensure(fits, object, "has memory that it cannot have")
        }
        MapContent::MemoryPages => ensure(map.is_mappable(), object, "has memory that it cannot have"),
        MapContent::EntryPages { chunks, cpus } => entry_pages(map, chunks, *cpus),
        MapContent::Entries { keys, values, cpus } => {
            let kind = map.kind.is_known() && !map.kind.holds_maps();
            ensure(kind, object, "has entries that it cannot have")?;
            let sane = if map.kind.is_per_cpu() { (1..CPUS_MAX).contains(cpus) } else { *cpus == 1 };
            ensure(sane, object, "has values of an impossible number of CPUs")?;
            let bytes = (map.entries() as u64).checked_mul(map.stride(*cpus));
            ensure(bytes == Some(values.len() as u64), object, "has not a value for each key")?;
            ensure(keys.is_empty() || !map.kind.is_queue(), object, "has entries that nobody can read")?;
            self::keys(map, keys)
        }
        MapContent::Maps { keys, maps } => {
            ensure(map.kind.holds_maps() && !maps.is_empty(), object, "has maps that it cannot have")?;
            ensure(
                keys.len() as u64 == maps.len() as u64 * u64::from(map.key_size),
                object,
                "has not a map for each key",
            )?;
            for inner in maps {
                let inner = snapshot.bpf_maps.get(inner.0 as usize);
                let sane = inner.is_some_and(|inner| !inner.kind.holds_maps());
                ensure(sane, object, "has a map that it cannot have")?;
            }
            self::keys(map, keys)
        }
    }
}

/// Entries in pages: no more than fit, of arrays all.
fn entry_pages(map: &BpfMap, chunks: &[u32], cpus: u32) -> Result<(), Error> {
    let object = || format!("BPF map {}", map.id);
    let kind = map.kind.is_known() && !map.kind.holds_maps() && !map.kind.is_queue();
    ensure(kind && map.key_size > 0, object, "has entries that it cannot have")?;
    let sane = if map.kind.is_per_cpu() { (1..CPUS_MAX).contains(&cpus) } else { cpus == 1 };
    ensure(sane, object, "has values of an impossible number of CPUs")?;
    let sane = |count: &u32| *count > 0 && map.chunk_len(*count, cpus) <= BpfMap::CHUNK_MOST;
    ensure(chunks.iter().all(sane), object, "has an impossible chunk of entries")?;
    let (count, most) = (map.entries() as u64, u64::from(map.max_entries));
    let fits = if map.kind.is_array() { count == most && map.key_size == 4 } else { count <= most };
    ensure(fits, object, "has an impossible number of keys")
}

/// Whole keys, no more than fit, and of arrays those that there are.
fn keys(map: &BpfMap, keys: &[u8]) -> Result<(), Error> {
    let object = || format!("BPF map {}", map.id);
    if keys.is_empty() {
        return Ok(());
    }
    let whole = map.key_size > 0 && keys.len().is_multiple_of(map.key_size as usize);
    ensure(whole && map.entries() as u64 <= u64::from(map.max_entries), object, "has an impossible number of keys")?;
    if map.kind.is_array() {
        let (numbers, rest) = keys.as_chunks();
        let numbers = numbers.iter().map(|bytes| u32::from_ne_bytes(*bytes));
        let sane = map.key_size == 4 && rest.is_empty() && numbers.clone().is_sorted_by(|a, b| a < b);
        let sane = sane && numbers.max().is_none_or(|last| last < map.max_entries);
        ensure(sane, object, "is an array with an impossible number")?;
    }
    Ok(())
}
