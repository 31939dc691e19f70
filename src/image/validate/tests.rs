//! Every rule of validation, broken once.

use super::snapshot as validate;
use crate::image::error::Error;
use crate::image::model::Snapshot;
use crate::image::model::address::{Addr, PageRange};
use crate::image::model::aio::{AioEvent, AioRing};
use crate::image::model::bpf::{BpfTypes, MapContent, MapKind, MapTypes};
use crate::image::model::file::{AsyncOwner, DescriptionLock, DescriptionLockKind, LockRange, OpenObject, OwnerTarget};
use crate::image::model::id::*;
use crate::image::model::inventory::XsaveComponent;
use crate::image::model::memory::{Backing, Inherited, MemoryPolicy, Prot, VmaFlags};
use crate::image::model::process::{EndedLeader, ProcessState};
use crate::image::model::timer::TimerNotify;
use crate::image::tests::sample;

type Break = fn(&mut Snapshot);

const NO_EVENT: AioEvent = AioEvent { data: 0, obj: 0, res: 0, res2: 0 };

/// Breaks the sample in each of these ways and expects it to be refused for the object that is named.
fn assert_refused(object: &str, breaks: &[Break]) {
    validate(&sample::snapshot()).expect("the sample is valid");
    for (i, break_it) in breaks.iter().enumerate() {
        let mut snapshot = sample::snapshot();
        break_it(&mut snapshot);
        match validate(&snapshot) {
            Err(Error::Model { object: found, .. }) => assert!(found.contains(object), "{object} {i}: {found}"),
            other => panic!("{object} {i}: {other:?}"),
        }
    }
}

#[test]
fn ids_must_be_places() {
    assert_refused("mm", &[|s| s.mms[0].id = MmId(1)]);
    assert_refused("shared memory", &[|s| s.shared_memory[0].id = ShmId(9)]);
    assert_refused("file", &[|s| s.files[1].id = FileId(0), |s| s.files.swap(0, 1)]);
    assert_refused("description", &[|s| s.descriptions[2].id = DescriptionId(u32::MAX)]);
    assert_refused("fd table", &[|s| s.fd_tables[0].id = FdTableId(1)]);
    assert_refused("fs context", &[|s| s.fs_contexts[0].id = FsId(1)]);
    assert_refused(
        "signal handlers 0",
        &[|s| s.signal_handlers[0].id = HandlersId(1), |s| s.signal_handlers[0].actions.truncate(63)],
    );
    assert_refused("pipe", &[|s| s.pipes[0].id = PipeId(1)]);
    assert_refused("seccomp filter", &[|s| s.seccomp_filters[0].id = SeccompId(1)]);
}

#[test]
fn references_must_be_in_range() {
    assert_refused("process 100", &[|s| s.processes[0].mm = MmId(1)]);
    assert_refused(
        "thread 101",
        &[
            |s| s.processes[0].threads[1].fd_table = FdTableId(1),
            |s| s.processes[0].threads[1].fs = FsId(1),
            |s| s.processes[0].threads[1].seccomp.filters.push(SeccompId(1)),
        ],
    );
    assert_refused("mm 0", &[|s| s.mms[0].exe = FileId(3)]);
    assert_refused(
        "mapping",
        &[
            |s| s.mms[0].vmas[1].backing = Backing::PrivateFile { file: FileId(3), offset: 0 },
            |s| s.mms[0].vmas[1].backing = Backing::SharedFile { file: FileId(3), offset: 0, may_write: true },
            |s| s.mms[0].vmas[1].backing = Backing::Shared { shm: ShmId(9), offset: 0, may_write: true },
            |s| s.mms[0].vmas[1].backing = Backing::PrivateShared { shm: ShmId(9), offset: 0 },
            |s| s.mms[0].vmas[1].backing = Backing::BpfMap { map: BpfMapId(9), offset: 0, may_write: true },
            |s| s.mms[0].vmas[1].backing = Backing::BpfMap { map: BpfMapId(0), offset: 0, may_write: true },
            |s| s.mms[0].vmas[1].backing = Backing::BpfMap { map: BpfMapId(3), offset: 0x2000, may_write: true },
        ],
    );
    assert_refused(
        "description",
        &[
            |s| s.descriptions[0].object = OpenObject::Regular(FileId(3)),
            |s| s.descriptions[0].object = OpenObject::Pipe { pipe: PipeId(1), write: true, quiet: false },
            |s| s.descriptions[0].object = OpenObject::Memfd(ShmId(9)),
            |s| s.descriptions[0].object = OpenObject::BpfMap(BpfMapId(8)),
        ],
    );
    assert_refused("fd table 0", &[|s| s.fd_tables[0].entries[0].description = DescriptionId(1000)]);
    assert_refused("fs context", &[|s| s.fs_contexts[0].cwd = FileId(3), |s| s.fs_contexts[0].root = FileId(3)]);
}

#[test]
fn processes_and_threads_must_form_a_tree() {
    assert_refused("the process tree", &[|s| s.processes.clear()]);
    assert_refused("the root", &[|s| s.inventory.root = Pid(7)]);
    assert_refused(
        "process 100",
        &[
            |s| s.processes[0].threads.clear(),
            |s| s.processes[0].threads.swap(0, 1),
            |s| s.processes[0].handlers = HandlersId(1),
            |s| {
                let credentials = s.processes[0].threads[0].credentials.clone();
                s.processes[0].ended_leader = Some(EndedLeader { comm: Vec::new(), status: 0, credentials });
            },
            |s| s.processes[0].rlimits = vec![[0; 2]; 65],
            |s| s.processes[0].state = ProcessState::Stopped { signal: 0, waited: false },
            |s| s.processes[0].pending[0].info.truncate(127),
            |s| s.processes[0].pending[0].info[0] = 65,
        ],
    );
    assert_refused(
        "thread",
        &[
            |s| s.processes[0].threads[1].tid = Tid(100),
            |s| s.processes[0].threads[1].tid = Tid(0),
            |s| s.processes[0].threads[1].tid = Tid(-5),
            |s| s.processes[0].threads[1].tid = Tid(4 << 20),
            |s| s.processes[0].threads[1].scheduling.core_group = 2,
        ],
    );
    assert_refused(
        "process 200",
        &[|s| {
            let mut child = s.processes[0].clone();
            (child.pid, child.ppid) = (Pid(200), Pid(300));
            child.threads.truncate(1);
            child.threads[0].tid = Tid(200);
            child.timers.clear();
            s.processes.push(child);
        }],
    );
}

#[test]
fn zombies_must_be_possible() {
    assert_refused(
        "zombie",
        &[
            |s| s.zombies[0].pid = Pid(0),
            |s| s.zombies[0].pid = Pid(101),
            |s| s.zombies[0].ppid = Pid(300),
            |s| s.zombies[0].exit_signal = 65,
            |s| s.zombies[0].status = 0x137f,
            |s| s.zombies[0].status = 3 << 8 | 9,
        ],
    );
    assert_refused("process 100", &[|s| s.processes[0].exit_signal = 65]);
}

#[test]
fn the_rest_of_a_system_call_stands_in_the_vdso() {
    let at = |at| {
        let mut snapshot = sample::snapshot();
        snapshot.mms[0].remainders[0].at = Addr(at);
        validate(&snapshot)
    };
    assert!(at(0x7fff_0000_4000).is_ok() && at(0x7fff_0000_5ffc).is_ok());
    assert!(at(0x7fff_0000_5ffd).is_err() && at(0x7fff_0000_3fff).is_err() && at(u64::MAX).is_err());
}

#[test]
fn memory_is_inherited_from_an_earlier_mm() {
    let inherits = |from, pages| Some(Inherited { from: MmId(from), pages });
    let two = |pages| {
        let mut snapshot = sample::snapshot();
        let mut mm = snapshot.mms[0].clone();
        (mm.id, mm.inherited) = (MmId(1), inherits(0, pages));
        snapshot.mms.push(mm);
        snapshot
    };
    let pages = |start, end| vec![PageRange::new(start, end)];
    assert!(validate(&two(pages(0x1000, 0x3000))).is_ok());
    assert!(validate(&two(pages(0x1000, 0x3001))).is_err());
    let mut cyclic = sample::snapshot();
    cyclic.mms[0].inherited = inherits(0, pages(0x1000, 0x2000));
    assert!(validate(&cyclic).is_err());
}

#[test]
fn timers_must_be_possible() {
    assert_refused(
        "process 100",
        &[
            |s| s.processes[0].timers[0].id = -1,
            |s| {
                let again = s.processes[0].timers[0];
                s.processes[0].timers.push(again);
            },
            |s| s.processes[0].timers[0].notify = TimerNotify::Signal(65),
            |s| s.processes[0].timers[0].notify = TimerNotify::Thread(10, Tid(102)),
        ],
    );
}

#[test]
fn threads_must_be_possible() {
    assert_refused(
        "thread 100",
        &[
            |s| s.processes[0].threads[0].comm = vec![b'x'; 16],
            |s| s.processes[0].threads[0].comm = vec![0],
            |s| s.processes[0].threads[0].cpu.xsave.truncate(575),
            |s| s.processes[0].threads[0].cpu.xsave.resize(577, 0),
            |s| s.processes[0].threads[0].cpu.xsave[512] = 4,
            |s| {
                s.processes[0].threads[0].pending =
                    vec![crate::image::model::signal::QueuedSignal { info: vec![0; 128] }]
            },
            |s| s.processes[0].threads[0].credentials.groups = vec![0; 65_537],
            |s| s.processes[0].threads[0].seccomp.mode = 3,
            |s| s.processes[0].threads[0].scheduling.nice = 20,
            |s| s.processes[0].threads[0].scheduling.affinity = vec![0; 129],
            |s| {
                s.processes[0].threads[0].settings.memory_policy = Some(MemoryPolicy { mode: 0, nodes: vec![0; 257] });
            },
            |s| {
                s.inventory.host.xsave.features = 7;
                s.inventory.host.xsave.size = 832;
                s.inventory.host.xsave.components = vec![XsaveComponent { bit: 2, offset: 576, size: 256 }];
                s.processes[0].threads[0].cpu.xsave[512] = 4;
            },
        ],
    );
    assert_refused(
        "seccomp filter",
        &[|s| s.seccomp_filters[0].program.clear(), |s| s.seccomp_filters[0].program = vec![0; 4097]],
    );
    assert_refused(
        "XSAVE",
        &[
            |s| s.inventory.host.xsave.size = 575,
            |s| s.inventory.host.xsave.size = u32::MAX,
            |s| s.inventory.host.xsave.features = 7,
            |s| s.inventory.host.xsave.components = vec![XsaveComponent { bit: 2, offset: 576, size: 1 }],
            |s| s.inventory.host.xsave.components = vec![XsaveComponent { bit: 64, offset: 576, size: 0 }],
            |s| s.inventory.host.xsave.components = vec![XsaveComponent { bit: 2, offset: u32::MAX, size: u32::MAX }],
            |s| s.inventory.host.xsave.components = vec![XsaveComponent { bit: 2, offset: 576, size: 0 }; 2],
        ],
    );
}

#[test]
fn mappings_must_be_possible() {
    let huge_tlb = |s: &mut Snapshot| s.mms[0].vmas[1].backing = Backing::HugeTlb { page_size: 2 << 20 };
    assert_refused("mapping", &[huge_tlb]);
    assert_refused(
        "mapping",
        &[
            |s| s.mms[0].vmas[0].range.start = Addr(1),
            |s| s.mms[0].vmas[0].range.end = s.mms[0].vmas[0].range.start,
            |s| s.mms[0].vmas[8].backing = Backing::Anonymous,
            |s| s.mms[0].vmas[0].prot = Prot::from_bits_retain(8),
            |s| s.mms[0].vmas[0].flags = VmaFlags::from_bits_retain(1 << 31),
            |s| s.mms[0].vmas[0].pkey = 16,
            |s| s.mms[0].vmas[0].name = Some("x".repeat(80)),
            |s| s.mms[0].vmas[0].policy = Some(MemoryPolicy { mode: 0, nodes: vec![0; 257] }),
            |s| s.mms[0].vmas[0].huge = vec![PageRange::new(0x20_1000, 0x40_1000)],
            |s| s.mms[0].vmas[0].huge = vec![PageRange::new(0x400_0000, 0x420_0000)],
            |s| s.mms[0].vmas[0].huge = vec![PageRange::new(0x20_0000, 0x40_0000); 2],
            |s| s.mms[0].vmas[0].guards = vec![PageRange::new(0, 0x1000)],
            |s| s.mms[0].vmas[1].backing = Backing::PrivateFile { file: FileId(0), offset: 1 },
            |s| s.mms[0].vmas[1].backing = Backing::PrivateFile { file: FileId(0), offset: !4095 },
            |s| s.mms[0].vmas[1].backing = Backing::HugeTlb { page_size: 0 },
            |s| s.mms[0].vmas[5].prot = Prot::READ,
            |s| s.mms[0].vmas[5].backing = Backing::AioRing(AioRing { head: 127, events: Vec::new() }),
            |s| s.mms[0].vmas[5].backing = Backing::AioRing(AioRing { head: 0, events: vec![NO_EVENT; 127] }),
        ],
    );
    assert_refused(
        "mm 0",
        &[
            |s| s.mms[0].vmas.swap(0, 1),
            |s| s.mms[0].vmas[0].range.end = Addr(sample::PRIVATE_FILE + 4096),
            |s| s.mms[0].auxv.push(1),
            |s| s.mms[0].dumpable = 3,
            |s| s.mms[0].layout.start_brk = Addr(1),
        ],
    );
    assert_refused("shared memory 0", &[|s| s.shared_memory[0].size = u64::MAX]);
}

#[test]
fn files_and_descriptors_must_be_possible() {
    assert_refused(
        "file 0",
        &[
            |s| s.files[0].path.clear(),
            |s| s.files[0].path = vec![b'/'; 4097],
            |s| s.files[0].path.push(0),
            |s| s.files[0].size = u64::MAX,
            |s| s.files[0].build_id = Some(vec![0; 65]),
            |s| (s.files[0].link, s.files[0].in_memory) = (crate::image::model::file::Link::Unlinked, Some(7)),
            |s| s.files[0].link = crate::image::model::file::Link::OtherName(Vec::new()),
        ],
    );
    assert_refused(
        "description 0",
        &[
            |s| s.descriptions[0].owner = Some(AsyncOwner { target: OwnerTarget::None, signal: -1 }),
            |s| {
                let (kind, range) = (DescriptionLockKind::Flock, LockRange { start: 5, end: Some(4) });
                s.descriptions[0].locks = vec![DescriptionLock { kind, exclusive: true, range, holder: None }];
            },
        ],
    );
    assert_refused(
        "fd table 0",
        &[
            |s| s.fd_tables[0].entries.swap(0, 1),
            |s| s.fd_tables[0].entries[1].fd = Fd(0),
            |s| s.fd_tables[0].entries[0].fd = Fd(-1),
            |s| s.fd_tables[0].locks[0].fd = Fd(3),
            |s| s.fd_tables[0].locks[0].range.start = u64::MAX,
        ],
    );
    assert_refused("fs context 0", &[|s| s.fs_contexts[0].umask = 0o1000]);
    assert_refused(
        "pipe 0",
        &[
            |s| s.pipes[0].capacity = 0,
            |s| s.pipes[0].capacity = 5000,
            |s| s.pipes[0].unread[0].bytes = vec![0; 65_537],
            |s| s.pipes[0].fifo = Some(FileId(3)),
            |s| s.pipes[0].unread[0].bytes.clear(),
        ],
    );
}

#[test]
fn bpf_maps_hold_what_such_maps_can_hold() {
    fn memory(len: usize) -> MapContent {
        MapContent::Memory(vec![1; len])
    }
    assert_refused(
        "BPF map 0",
        &[
            |s| s.bpf_maps[0].id = BpfMapId(1),
            |s| s.bpf_maps[0].name = vec![b'x'; 16],
            |s| s.bpf_maps[0].name = b"a\0b".to_vec(),
            |s| s.bpf_maps[0].key_size = u32::MAX,
            |s| s.bpf_maps[0].key_size = 0,
            |s| s.bpf_maps[0].key_size = 3,
            |s| s.bpf_maps[0].value_size = 5,
            |s| s.bpf_maps[0].max_entries = 1,
            |s| s.bpf_maps[0].kind = MapKind(3),
            |s| s.bpf_maps[0].kind = MapKind::QUEUE,
            |s| s.bpf_maps[0].kind = MapKind::PERCPU_HASH,
            |s| s.bpf_maps[0].kind = MapKind::ARRAY,
            |s| s.bpf_maps[0].content = memory(1),
            |s| s.bpf_maps[0].content = s.bpf_maps[2].content.clone(),
            |s| s.bpf_maps[0].content = MapContent::Pinned(b"devices".to_vec()),
            |s| s.bpf_maps[0].types = Some(MapTypes { of: BpfTypesId(1), key: 1, value: 1 }),
            |s| s.bpf_maps[0].types = Some(MapTypes { of: BpfTypesId(0), key: 1, value: 0 }),
            |s| s.bpf_maps[0].types = Some(MapTypes { of: BpfTypesId(0), key: 1 << 20, value: 1 }),
            // So large that their bytes are 0 again.
            |s| {
                let map = &mut s.bpf_maps[0];
                (map.kind, map.key_size, map.value_size, map.max_entries) =
                    (MapKind::PERCPU_HASH, 1, 1 << 30, u32::MAX);
                map.content = MapContent::Entries { keys: vec![0; 1 << 19], values: Vec::new(), cpus: 1 << 15 };
            },
        ],
    );
    assert_refused(
        "BPF map 1",
        &[
            |s| s.bpf_maps[1].max_entries = 1999,
            |s| s.bpf_maps[1].kind = MapKind::ARRAY,
            |s| s.bpf_maps[1].content = MapContent::Entries { keys: Vec::new(), values: Vec::new(), cpus: 0 },
        ],
    );
    assert_refused(
        "BPF map 2",
        &[
            |s| s.bpf_maps[2].content = MapContent::Maps { keys: vec![0; 4], maps: vec![BpfMapId(8)] },
            |s| s.bpf_maps[2].content = MapContent::Maps { keys: vec![0; 4], maps: vec![BpfMapId(2)] },
            |s| s.bpf_maps[2].content = MapContent::Maps { keys: vec![0; 3], maps: vec![BpfMapId(0)] },
            |s| s.bpf_maps[2].content = MapContent::Maps { keys: Vec::new(), maps: Vec::new() },
        ],
    );
    assert_refused(
        "BTF 0",
        &[
            |s| s.bpf_types[0].id = BpfTypesId(1),
            |s| s.bpf_types[0].bytes.truncate(23),
            |s| s.bpf_types[0].bytes.resize(BpfTypes::MOST + 1, 0),
        ],
    );
    assert_refused(
        "BPF map 6",
        &[
            |s| s.bpf_maps[6].max_entries = 500,
            |s| s.bpf_maps[6].kind = MapKind::ARRAY,
            |s| s.bpf_maps[6].kind = MapKind::QUEUE,
            |s| s.bpf_maps[6].content = MapContent::EntryPages { chunks: vec![500, 0], cpus: 1 },
            |s| s.bpf_maps[6].value_size = 1 << 20,
            |s| (s.bpf_maps[6].value_size, s.bpf_maps[6].max_entries) = (1 << 30, u32::MAX),
        ],
    );
    assert_refused("BPF map 7", &[|s| s.bpf_maps[7].flags = 0, |s| s.bpf_maps[7].kind = MapKind::HASH]);
    assert_refused("BPF map 3", &[|s| s.bpf_maps[3].content = memory(16385)]);
}
