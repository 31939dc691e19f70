//! Maps of bpf(2).

use super::id::{BpfMapId, BpfTypesId};
use serde::{Deserialize, Serialize};

/// A map of bpf(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfMap {
    /// Its place in [`super::Snapshot::bpf_maps`].
    pub id: BpfMapId,
    /// Its number in the kernel of the dump. Another kernel gives it another.
    pub number: u32,
    /// Its name, at most 15 bytes.
    pub name: Vec<u8>,
    /// What kind of map it is.
    pub kind: MapKind,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// The most entries, or bytes of a ring.
    pub max_entries: u32,
    /// BPF_F_*, of those that last.
    pub flags: u32,
    /// What the flags of one kind need besides.
    pub extra: u64,
    /// BPF_MAP_FREEZE: user space does not write to it any more.
    pub frozen: bool,
    /// What its keys and values are, where that is described.
    pub types: Option<MapTypes>,
    /// What was in it.
    pub content: MapContent,
}

/// Which types the keys and values of a map are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapTypes {
    /// Where they are described.
    pub of: BpfTypesId,
    /// The number of the keys' type there; 0 for none.
    pub key: u32,
    /// That of the values'.
    pub value: u32,
}

/// Descriptions of types (BTF, Documentation/bpf/btf.rst) as they were loaded into the kernel, which keeps them unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfTypes {
    /// Its place in [`super::Snapshot::bpf_types`].
    pub id: BpfTypesId,
    /// Its number in the kernel of the dump. Another kernel gives it another.
    pub number: u32,
    /// All of it, at most [`Self::MOST`] bytes.
    #[serde(with = "super::bytes")]
    pub bytes: Vec<u8>,
}

impl BpfTypes {
    /// BTF_MAX_SIZE of include/linux/btf.h.
    pub const MOST: usize = 16 << 20;

    /// Bytes of its head.
    pub const HEAD: usize = 24;

    /// BTF_MAX_TYPE of include/uapi/linux/btf.h: the highest number of a type.
    pub const LAST: u32 = 0x000f_ffff;
}

/// What is in a map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MapContent {
    /// Entries, in the order in which the kernel gave them. Those of an array that are zero are left out.
    Entries {
        /// The keys, one behind the other.
        #[serde(with = "super::bytes")]
        keys: Vec<u8>,
        /// The values, of [`BpfMap::stride`] bytes each.
        #[serde(with = "super::bytes")]
        values: Vec<u8>,
        /// Possible CPUs of the machine, of each of which there is a value; 1 where all have the same.
        cpus: u32,
    },
    /// The memory of an array that can be mapped (BPF_F_MMAPABLE), without the zeros at its end.
    Memory(#[serde(with = "super::bytes")] Vec<u8>),
    /// The same, as pages of the image ([`ContentOwner::BpfMap`](super::memory::ContentOwner::BpfMap)).
    MemoryPages,
    /// Entries as pages of the image, in chunks. Each begins at a multiple of [`BpfMap::CHUNK`]: the keys, one behind the other, but none of an array, whose elements
    /// are all there; then the values.
    EntryPages {
        /// How many entries are in each chunk.
        chunks: Vec<u32>,
        /// As of [`Self::Entries`].
        cpus: u32,
    },
    /// Other maps.
    Maps {
        /// The keys, one behind the other.
        #[serde(with = "super::bytes")]
        keys: Vec<u8>,
        /// The map of each.
        maps: Vec<BpfMapId>,
    },
    /// It is pinned under this path, and stays in the kernel.
    Pinned(Vec<u8>),
}

impl BpfMap {
    /// Most bytes of a name.
    pub const NAME_MAX: usize = 15;

    /// BPF_F_MMAPABLE.
    pub const MAPPABLE: u32 = 1 << 10;

    /// Chunks of entries in pages begin at multiples of this.
    pub const CHUNK: u64 = 1 << 20;

    /// Most bytes of a chunk.
    pub const CHUNK_MOST: u64 = 256 << 20;

    /// Whether its memory can be mapped as an array.
    #[must_use]
    pub const fn is_mappable(&self) -> bool {
        matches!(self.kind, MapKind::ARRAY) && self.flags & Self::MAPPABLE != 0
    }

    /// Bytes of a value as bpf(2) takes it: where each CPU has its own, of all of them, each in whole words.
    #[must_use]
    pub fn stride(&self, cpus: u32) -> u64 {
        match self.kind.is_per_cpu() {
            true => u64::from(self.value_size).next_multiple_of(8) * u64::from(cpus),
            false => u64::from(self.value_size),
        }
    }

    /// Bytes of the memory of an array that can be mapped, in whole pages.
    #[must_use]
    pub fn memory_len(&self) -> u64 {
        let element = u64::from(self.value_size).next_multiple_of(8);
        (element * u64::from(self.max_entries)).next_multiple_of(super::address::PAGE_SIZE)
    }

    /// Bytes of so many entries in pages, without what is behind them.
    #[must_use]
    pub fn chunk_len(&self, count: u32, cpus: u32) -> u64 {
        let key = if self.kind.is_array() { 0 } else { self.key_size };
        (u64::from(key) + self.stride(cpus)).saturating_mul(count.into())
    }

    /// The same to where the next chunk begins.
    #[must_use]
    pub fn chunk_span(&self, count: u32, cpus: u32) -> u64 {
        self.chunk_len(count, cpus).checked_next_multiple_of(Self::CHUNK).unwrap_or(u64::MAX)
    }

    /// Bytes of its pages in the image, if it has any there.
    #[must_use]
    pub fn pages_len(&self) -> Option<u64> {
        match &self.content {
            MapContent::MemoryPages => Some(self.memory_len()),
            MapContent::EntryPages { chunks, cpus } => {
                let spans = chunks.iter().map(|count| self.chunk_span(*count, *cpus));
                Some(spans.fold(0, u64::saturating_add))
            }
            MapContent::Entries { .. } | MapContent::Memory(_) | MapContent::Maps { .. } | MapContent::Pinned(_) => {
                None
            }
        }
    }

    /// How many entries of its own are in the image.
    #[must_use]
    pub fn entries(&self) -> usize {
        match &self.content {
            MapContent::Entries { keys, values: _, cpus: _ } => keys.len() / (self.key_size as usize).max(1),
            MapContent::Maps { keys: _, maps } => maps.len(),
            MapContent::Memory(_) | MapContent::MemoryPages => self.max_entries as usize,
            MapContent::EntryPages { chunks, cpus: _ } => chunks.iter().map(|count| *count as usize).sum(),
            MapContent::Pinned(_) => 0,
        }
    }
}

/// BPF_MAP_TYPE_* of linux/bpf.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MapKind(pub u32);

impl MapKind {
    /// BPF_MAP_TYPE_HASH.
    pub const HASH: Self = Self(1);
    /// BPF_MAP_TYPE_ARRAY.
    pub const ARRAY: Self = Self(2);
    /// BPF_MAP_TYPE_PERCPU_HASH.
    pub const PERCPU_HASH: Self = Self(5);
    /// BPF_MAP_TYPE_PERCPU_ARRAY.
    pub const PERCPU_ARRAY: Self = Self(6);
    /// BPF_MAP_TYPE_LRU_HASH.
    pub const LRU_HASH: Self = Self(9);
    /// BPF_MAP_TYPE_LRU_PERCPU_HASH.
    pub const LRU_PERCPU_HASH: Self = Self(10);
    /// BPF_MAP_TYPE_LPM_TRIE.
    pub const LPM_TRIE: Self = Self(11);
    /// BPF_MAP_TYPE_ARRAY_OF_MAPS.
    pub const ARRAY_OF_MAPS: Self = Self(12);
    /// BPF_MAP_TYPE_HASH_OF_MAPS.
    pub const HASH_OF_MAPS: Self = Self(13);
    /// BPF_MAP_TYPE_QUEUE.
    pub const QUEUE: Self = Self(22);
    /// BPF_MAP_TYPE_STACK.
    pub const STACK: Self = Self(23);
    /// BPF_MAP_TYPE_RINGBUF.
    pub const RING_BUFFER: Self = Self(27);
    /// BPF_MAP_TYPE_USER_RINGBUF.
    pub const USER_RING_BUFFER: Self = Self(31);

    /// By number.
    const NAMES: [&str; 35] = [
        "unspec",
        "hash",
        "array",
        "prog_array",
        "perf_event_array",
        "percpu_hash",
        "percpu_array",
        "stack_trace",
        "cgroup_array",
        "lru_hash",
        "lru_percpu_hash",
        "lpm_trie",
        "array_of_maps",
        "hash_of_maps",
        "devmap",
        "sockmap",
        "cpumap",
        "xskmap",
        "sockhash",
        "cgroup_storage",
        "reuseport_sockarray",
        "percpu_cgroup_storage",
        "queue",
        "stack",
        "sk_storage",
        "devmap_hash",
        "struct_ops",
        "ringbuf",
        "inode_storage",
        "task_storage",
        "bloom_filter",
        "user_ringbuf",
        "cgrp_storage",
        "arena",
        "insn_array",
    ];

    /// Its name as bpftool(8) has it.
    #[must_use]
    pub fn name(self) -> String {
        Self::NAMES.get(self.0 as usize).map_or_else(|| format!("type {}", self.0), |name| (*name).to_owned())
    }

    /// Whether each CPU has a value of its own.
    #[must_use]
    pub const fn is_per_cpu(self) -> bool {
        matches!(self, Self::PERCPU_HASH | Self::PERCPU_ARRAY | Self::LRU_PERCPU_HASH)
    }

    /// Whether its keys are the numbers below [`BpfMap::max_entries`], all of which it has at any time.
    #[must_use]
    pub const fn is_array(self) -> bool {
        matches!(self, Self::ARRAY | Self::PERCPU_ARRAY | Self::ARRAY_OF_MAPS)
    }

    /// Whether the kernel drops entries of it when it wants room.
    #[must_use]
    pub const fn forgets(self) -> bool {
        matches!(self, Self::LRU_HASH | Self::LRU_PERCPU_HASH)
    }

    /// Whether it holds other maps.
    #[must_use]
    pub const fn holds_maps(self) -> bool {
        matches!(self, Self::ARRAY_OF_MAPS | Self::HASH_OF_MAPS)
    }

    /// Whether it is one that is made again while it is empty, for what is in it nobody can read without taking it away.
    #[must_use]
    pub const fn is_queue(self) -> bool {
        matches!(self, Self::QUEUE | Self::STACK | Self::RING_BUFFER | Self::USER_RING_BUFFER)
    }

    /// Whether one can be made again with what is in it.
    #[must_use]
    pub const fn is_known(self) -> bool {
        self.is_queue()
            || self.holds_maps()
            || matches!(
                self,
                Self::HASH
                    | Self::ARRAY
                    | Self::PERCPU_HASH
                    | Self::PERCPU_ARRAY
                    | Self::LRU_HASH
                    | Self::LRU_PERCPU_HASH
                    | Self::LPM_TRIE
            )
    }
}
