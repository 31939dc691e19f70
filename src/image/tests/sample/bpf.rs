//! Maps of bpf(2).

use crate::image::model::bpf::{BpfMap, BpfTypes, MapContent, MapKind, MapTypes};
use crate::image::model::id::{BpfMapId, BpfTypesId};

fn bpf_map(id: u32, kind: MapKind, content: MapContent) -> BpfMap {
    BpfMap {
        id: BpfMapId(id),
        number: 70 + id,
        name: b"counters".to_vec(),
        kind,
        key_size: 4,
        value_size: 4,
        max_entries: 2000,
        flags: 0,
        extra: 0,
        frozen: id == 1,
        types: (id == 0).then_some(MapTypes { of: BpfTypesId(0), key: 1, value: 1 }),
        content,
    }
}

/// An int of four bytes.
pub(super) fn bpf_types() -> Vec<BpfTypes> {
    let mut bytes = vec![0x9f, 0xeb, 1, 0];
    // Bytes of the head; types from 0, 16 bytes; names from 16, 5 bytes.
    for word in [24u32, 0, 16, 16, 5, 1, 1 << 24, 4, 32] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(b"\0int\0");
    vec![BpfTypes { id: BpfTypesId(0), number: 90, bytes }]
}

pub(super) fn bpf_maps() -> Vec<BpfMap> {
    let entries = |keys: &[u32], values: Vec<u8>, cpus| {
        let keys = keys.iter().flat_map(|key| key.to_le_bytes()).collect();
        MapContent::Entries { keys, values, cpus }
    };
    let maps = MapContent::Maps { keys: vec![0, 0, 0, 0, 5, 0, 0, 0], maps: vec![BpfMapId(0), BpfMapId(0)] };
    vec![
        bpf_map(0, MapKind::HASH, entries(&[9, 7], vec![3; 8], 1)),
        bpf_map(1, MapKind::PERCPU_ARRAY, entries(&[0, 1999], vec![4; 32], 2)),
        bpf_map(2, MapKind::ARRAY_OF_MAPS, maps),
        BpfMap { flags: BpfMap::MAPPABLE, ..bpf_map(3, MapKind::ARRAY, MapContent::Memory(vec![5; 4097])) },
        bpf_map(4, MapKind(14), MapContent::Pinned(b"/sys/fs/bpf/devices".to_vec())),
        BpfMap { key_size: 0, ..bpf_map(5, MapKind::QUEUE, entries(&[], Vec::new(), 1)) },
        bpf_map(6, MapKind::HASH, MapContent::EntryPages { chunks: vec![500, 1], cpus: 1 }),
        BpfMap { flags: BpfMap::MAPPABLE, ..bpf_map(7, MapKind::ARRAY, MapContent::MemoryPages) },
    ]
}
