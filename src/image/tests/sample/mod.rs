//! A small valid snapshot, and memory to go with it.

mod bpf;
mod content;
mod files;
mod ipc;
mod memory;
mod process;
mod sockets;

pub use content::{Collect, Memory, image, page, raw_image, small_image};
pub use files::{file, terminal};
pub use memory::vma;
pub use process::thread;
pub use sockets::{connection, datagram, netlink, packet, socket};

use crate::image::model::Snapshot;
use crate::image::model::address::{Addr, PAGE_SIZE};
use crate::image::model::file::{FdEntry, FdTable, File, HeldFutex, Link, LockRange, PosixLock};
use crate::image::model::id::*;
use crate::image::model::inventory::{Clocks, Host, Inventory, Stats, XsaveLayout};
use crate::image::model::ipc::{Ipc, Undo};
use crate::image::model::memory::*;
use crate::image::model::pipe::{Pipe, Unread};
use crate::image::model::process::FsContext;
use crate::image::model::signal::{SignalAction, SignalHandlers};
use crate::image::model::socket::SocketOption;
use crate::image::model::thread::SeccompFilter;
use bpf::{bpf_maps, bpf_types};
use files::descriptions;
use ipc::{ipc, segment};
use memory::{mm, vmas};
use process::{enrich, occupy, process, zombie};

/// Where the anonymous mapping of the sample begins; it is `ANON_PAGES` long.
pub const ANON: u64 = 0x10_0000;
/// Room for content in it.
pub const ANON_PAGES: u64 = 4096;
/// Where the private mapping of a file begins, four pages long.
pub const PRIVATE_FILE: u64 = 0x5000_0000;

pub const MM: ContentOwner = ContentOwner::Mm(MmId(0));
pub const SHM: ContentOwner = ContentOwner::SharedMemory(ShmId(0));
pub const FILE: ContentOwner = ContentOwner::File(FileId(1));
pub const MAP: ContentOwner = ContentOwner::BpfMap(BpfMapId(6));

pub fn stats() -> Stats {
    Stats { processes: 1, threads: 2, resident: 3, written: 4, zero: 5, clean_file: 6, pause: 7 }
}

/// One process with two threads and one of everything.
pub fn snapshot() -> Snapshot {
    let mut snapshot = bare(100);
    snapshot.ipc = ipc();
    snapshot.bpf_types = bpf_types();
    snapshot.bpf_maps = bpf_maps();
    snapshot.shared_memory =
        vec![SharedMemory { id: ShmId(0), kind: SharedMemoryKind::Anonymous, size: 64 * PAGE_SIZE }];
    snapshot.files.push(file(1, b"/tmp/gone", Link::Unlinked));
    let held = vec![HeldFutex { offset: 64, word: 100, inherits: false }];
    snapshot.files.push(File { in_memory: Some(7), held, ..file(2, b"/dev/shm/named", Link::Named) });
    snapshot.shared_memory.push(segment(1));
    snapshot.descriptions = descriptions();
    let entry = |i| FdEntry { fd: Fd(i), description: DescriptionId(i as u32), close_on_exec: i == 2 };
    snapshot.fd_tables[0].entries = (0..3).map(entry).collect();
    snapshot.fd_tables[0].locks =
        vec![PosixLock { fd: Fd(0), exclusive: true, range: LockRange { start: 0, end: None } }];
    let hello = Unread { packet: false, bytes: b"hello".to_vec() };
    snapshot.pipes =
        vec![Pipe { id: PipeId(0), ino: 9, fifo: None, capacity: 65536, unread: vec![hello], uid: 0, gid: 0 }];
    snapshot.seccomp_filters = vec![SeccompFilter { id: SeccompId(0), flags: 0, program: vec![0x7fff_0000_0000_0006] }];
    snapshot.zombies = vec![zombie(102)];
    snapshot.terminals = vec![terminal(0)];
    snapshot.sockets = vec![socket(0), connection(1), datagram(2), netlink(3), packet(4)];
    let process = &mut snapshot.processes[0];
    enrich(process);
    process.threads[0].undo = vec![Undo { set: 0, semaphore: 1, adjustment: -3 }];
    process.threads.push(thread(101));
    process.threads[1].scheduling.core_group = 1;
    process.threads.iter_mut().for_each(occupy);
    let mm = &mut snapshot.mms[0];
    mm.vmas = vmas();
    mm.remainders = vec![Remainder { at: Addr(0x7fff_0000_5f80), code: vec![0x0f, 0x05, 0xff, 0xe1] }];
    mm.auxv = vec![6, 4096, 0, 0];
    snapshot
}

/// One process with one thread, whose address space is empty and that has nothing open.
pub fn bare(pid: i32) -> Snapshot {
    Snapshot {
        inventory: inventory(pid),
        processes: vec![process(pid)],
        zombies: Vec::new(),
        mms: vec![mm()],
        shared_memory: Vec::new(),
        files: vec![file(0, b"/usr/bin/sample", Link::Named)],
        descriptions: Vec::new(),
        fd_tables: vec![FdTable { id: FdTableId(0), entries: Vec::new(), locks: Vec::new() }],
        fs_contexts: vec![FsContext { id: FsId(0), cwd: FileId(0), root: FileId(0), umask: 0o22 }],
        signal_handlers: vec![SignalHandlers { id: HandlersId(0), actions: vec![SignalAction::default(); 64] }],
        pipes: Vec::new(),
        terminals: Vec::new(),
        socket_options: vec![vec![SocketOption { level: 1, name: 2, value: vec![1, 0, 0, 0] }]],
        sockets: Vec::new(),
        ipc: Ipc::default(),
        bpf_types: Vec::new(),
        bpf_maps: Vec::new(),
        seccomp_filters: Vec::new(),
    }
}

fn inventory(pid: i32) -> Inventory {
    Inventory {
        tool: "0.1.0".into(),
        root: Pid(pid),
        comm: "sample".into(),
        host: Host {
            node: "node".into(),
            release: "6.18".into(),
            boot_id: "boot".into(),
            cpu: "cpu".into(),
            xsave: XsaveLayout { features: 3, size: 576, components: Vec::new() },
            vdso_build_id: vec![1; 20],
            vdso: vec![2; 64],
        },
        clocks: Clocks { realtime: 3, monotonic: 2, boottime: 1 },
    }
}
