//! A small valid snapshot, and memory to go with it.

use crate::image::model::Snapshot;
use crate::image::model::address::{Addr, PAGE_SIZE, PageRange};
use crate::image::model::aio::{AioEvent, AioRing};
use crate::image::model::credentials::Credentials;
use crate::image::model::event::{BusyPoll, Epoll, Pidfd, Timerfd};
use crate::image::model::file::{
    Description, FdEntry, FdTable, File, HeldFutex, Link, LockRange, OpenObject, PosixLock,
};
use crate::image::model::id::*;
use crate::image::model::inventory::{Clocks, Host, Inventory, Stats, XsaveLayout};
use crate::image::model::ipc::*;
use crate::image::model::memory::*;
use crate::image::model::pipe::{Pipe, Unread};
use crate::image::model::process::{FsContext, Process, ProcessState, Zombie};
use crate::image::model::signal::{QueuedSignal, SignalAction, SignalHandlers};
use crate::image::model::socket::datagram::{Datagram, Device, Membership, Waiting};
use crate::image::model::socket::netlink::Netlink;
use crate::image::model::socket::packet::{Bound, Kept, Packet, PacketMembership, Ring};
use crate::image::model::socket::tcp::{Agreed, Connection, Incoming, Outgoing, Role, Tcp, Window};
use crate::image::model::socket::unix::{Link as SocketLink, Message, PeerCredentials, SocketFile, Unix, Urgent};
use crate::image::model::socket::{Socket, SocketOption, State};
use crate::image::model::terminal::{Terminal, TerminalModes};
use crate::image::model::thread::*;
use crate::image::model::timer::{PosixTimer, TimerNotify, TimerValue};
use crate::image::model::tun::{Tun, TunInterface};
use crate::image::model::watch::{Fanotify, Mark, MarkScope, Watch};
use crate::image::{PageReader, PageRun, PageSink, WriteOptions, Writer, ZeroPolicy};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

/// Where the anonymous mapping of the sample begins; it is `ANON_PAGES` long.
pub const ANON: u64 = 0x10_0000;
/// Room for content in it.
pub const ANON_PAGES: u64 = 4096;
/// Where the private mapping of a file begins, four pages long.
pub const PRIVATE_FILE: u64 = 0x5000_0000;

pub const MM: ContentOwner = ContentOwner::Mm(MmId(0));
pub const SHM: ContentOwner = ContentOwner::SharedMemory(ShmId(0));
pub const FILE: ContentOwner = ContentOwner::File(FileId(1));

pub fn stats() -> Stats {
    Stats { processes: 1, threads: 2, resident: 3, written: 4, zero: 5, clean_file: 6, pause: 7 }
}

/// One process with two threads and one of everything.
pub fn snapshot() -> Snapshot {
    let mut snapshot = bare(100);
    snapshot.ipc = ipc();
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
    process.undo = vec![Undo { set: 0, semaphore: 1, adjustment: -3 }];
    process.threads.push(thread(101));
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

fn process(pid: i32) -> Process {
    Process {
        pid: Pid(pid),
        ppid: Pid(1),
        pgid: Pid(pid),
        sid: Pid(1),
        exit_signal: 17,
        controlling: None,
        state: ProcessState::Running,
        mm: MmId(0),
        threads: vec![thread(pid)],
        ended_leader: None,
        handlers: HandlersId(0),
        pending: Vec::new(),
        undo: Vec::new(),
        itimers: [TimerValue::default(); 3],
        timers: Vec::new(),
        rlimits: vec![[u64::MAX; 2]; 16],
        oom_score_adj: 0,
        child_subreaper: false,
        argv: Vec::new(),
        cgroups: Vec::new(),
        loginuid: u32::MAX,
        autogroup_nice: None,
    }
}

pub fn packet(id: u32) -> Socket {
    let device = Device { index: 1, name: "lo".into() };
    let asked = |kind, address| PacketMembership { device: device.clone(), kind, address, count: 1 };
    let memberships = vec![asked(0, vec![1, 0, 0x5e, 0, 0, 1]), asked(1, Vec::new())];
    let bytes = b"a header of a block and of a packet, and the packet".to_vec();
    let ring = Ring {
        version: 2,
        block_size: 8192,
        blocks: 2,
        frame_size: 2048,
        frames: 8,
        retire_timeout: 100,
        private: 16,
        features: 1,
        next: 1,
        kept: vec![Kept { slot: 0, start: 0, bytes }, Kept { slot: 1, start: 48, bytes: b"own".to_vec() }],
    };
    let state = Packet { protocol: 3, bound: Bound::Device(device), running: true, memberships, ring: Some(ring) };
    Socket { ino: 14, domain: 17, kind: 3, state: State::Packet(state), ..socket(id) }
}

pub fn netlink(id: u32) -> Socket {
    let state = Netlink { port: 77, groups: vec![1, 40], peer: [0, 2] };
    Socket { ino: 13, domain: 16, kind: 3, state: State::Netlink(state), ..socket(id) }
}

pub fn datagram(id: u32) -> Socket {
    let address = |last: u8| vec![2, 0, 0x1f, 0x90, 127, 0, 0, last, 0, 0, 0, 0, 0, 0, 0, 0];
    let state = Datagram {
        local: address(1),
        peer: Some(address(2)),
        groups: vec![Membership {
            group: address(3),
            device: Device { index: 1, name: "lo".into() },
            exclude: false,
            sources: vec![address(4)],
        }],
        queue: vec![Waiting { sender: address(5), bytes: b"datagram".to_vec() }],
        shutdown: 2,
    };
    Socket { ino: 12, domain: 2, protocol: 17, state: State::Datagram(state), ..socket(id) }
}

pub fn socket(id: u32) -> Socket {
    Socket {
        id: SocketId(id),
        ino: 11,
        domain: 1,
        kind: 2,
        protocol: 0,
        uid: 0,
        gid: 0,
        options: OptionsId(0),
        state: State::Unix(Unix {
            name: b"name".to_vec(),
            accepted: false,
            file: Some(SocketFile { path: b"/run/name".to_vec(), dev: 1, ino: 12, mode: 0o755, uid: 0, gid: 0 }),
            link: SocketLink::Outside { name: b"/dev/log".to_vec(), path: Some(b"/run/log".to_vec()) },
            shutdown: 1,
            reset: false,
            credentials: Some(PeerCredentials { pid: 100, uid: 0, gid: 0, groups: vec![4] }),
            queue: vec![Message {
                bytes: b"message".to_vec(),
                sender: b"\0other".to_vec(),
                files: vec![DescriptionId(0)],
                credentials: Some([100, 0, 0]),
                urgent: Urgent::No,
            }],
        }),
    }
}

pub fn connection(id: u32) -> Socket {
    let address = |port: u16| [&[2, 0][..], &port.to_be_bytes(), &[127, 0, 0, 1], &[0; 8]].concat();
    let connection = Connection {
        peer: address(80),
        inside: false,
        incoming: Incoming { sequence: u32::MAX, unread: b"heard".to_vec(), finished: false, shut: false },
        outgoing: Outgoing { sequence: 7, bytes: b"said".to_vec(), unsent: 2, finished: true, acknowledged: false },
        window: Window { snd_wl1: 1, snd_wnd: 2, max_window: 3, rcv_wnd: 4, rcv_wup: 5 },
        agreed: Agreed { mss: 1460, scales: Some((7, 10)), sack: true, timestamp: Some(9) },
    };
    let state = State::Tcp(Tcp { local: address(4711), role: Role::Connected(Box::new(connection)) });
    Socket { domain: 2, kind: 1, protocol: 6, ino: 12, state, ..socket(id) }
}

pub fn terminal(id: u32) -> Terminal {
    Terminal {
        id: TerminalId(id),
        index: 3,
        inside: true,
        modes: TerminalModes { flags: [1, 2, 3, 4], line: 0, characters: [5; 19], speeds: [38400; 2] },
        window: [24, 80, 0, 0],
        widowed: false,
        packet: false,
        locked: false,
        exclusive: false,
        mode: 0o620,
        uid: 0,
        gid: 5,
    }
}

fn ipc_owner(key: i32) -> IpcOwner {
    IpcOwner { key, uid: 1, gid: 2, creator_uid: 3, creator_gid: 4, mode: 0o640 }
}

fn segment(id: u32) -> SharedMemory {
    let segment = Segment {
        id: 98_310,
        owner: ipc_owner(7),
        size: 5000,
        destroyed: true,
        locked: true,
        huge_page: None,
        creator: Pid(100),
    };
    SharedMemory { id: ShmId(id), kind: SharedMemoryKind::SystemV(segment), size: 2 * PAGE_SIZE }
}

fn posix_queue() -> PosixQueue {
    PosixQueue {
        id: QueueId(0),
        name: b"jobs".to_vec(),
        named: true,
        dev: 20,
        ino: 77,
        mode: 0o640,
        uid: 1000,
        gid: 1000,
        max_messages: 10,
        message_size: 8192,
        messages: vec![
            PosixMessage { priority: 7, text: b"urgent".to_vec() },
            PosixMessage { priority: 0, text: b"later".to_vec() },
        ],
        notification: Some(Notification {
            pid: Pid(100),
            fd: Fd(3),
            event: NotificationEvent::Signal { signal: 10, value: 42 },
        }),
        changed: 5,
    }
}

fn ipc() -> Ipc {
    let semaphores = vec![Semaphore { value: 1, last: Pid(100) }, Semaphore { value: 32767, last: Pid(0) }];
    let messages = vec![crate::image::model::ipc::Message { kind: 5, text: b"hello".to_vec() }];
    let queue =
        MessageQueue { id: 6, owner: ipc_owner(-8), capacity: 16384, messages, sender: Pid(100), receiver: Pid(0) };
    Ipc {
        semaphores: vec![SemaphoreSet { id: 32_768, owner: ipc_owner(0), semaphores }],
        queues: vec![queue],
        posix_queues: vec![posix_queue()],
    }
}

fn zombie(pid: i32) -> Zombie {
    Zombie {
        pid: Pid(pid),
        ppid: Pid(100),
        pgid: Pid(100),
        sid: Pid(1),
        comm: b"ended".to_vec(),
        exit_signal: 17,
        status: 3 << 8,
        uid: 0,
        cpu_time: [1, 2],
    }
}

fn enrich(process: &mut Process) {
    let mut info = vec![0; 128];
    info[0] = 10;
    process.pending = vec![QueuedSignal { info }];
    process.timers = vec![PosixTimer {
        id: 7,
        clock: 1,
        notify: TimerNotify::Thread(34, Tid(101)),
        value: 5,
        time: TimerValue { remaining: 1, interval: 2 },
        overrun: 0,
    }];
    process.oom_score_adj = -1;
    process.argv = vec![b"sample".to_vec()];
    process.cgroups = vec!["0::/".into()];
    process.autogroup_nice = Some(0);
}

/// A thread that blocks no signal, is in no call, and has nothing registered.
pub fn thread(tid: i32) -> Thread {
    Thread {
        tid: Tid(tid),
        comm: b"sample".to_vec(),
        cpu: Cpu { regs: Registers::default(), xsave: vec![0; 576], debug: None },
        blocked: None,
        fd_table: FdTableId(0),
        fs: FsId(0),
        undo_list: None,
        io_context: None,
        signal_mask: 0,
        pending: Vec::new(),
        alt_stack: AltStack::default(),
        clear_child_tid: Addr::NULL,
        robust_list: RobustList::default(),
        rseq: None,
        credentials: credentials(),
        seccomp: Seccomp::default(),
        scheduling: Scheduling {
            policy: 0,
            flags: 0,
            nice: 0,
            priority: 0,
            deadline: [0; 3],
            uclamp: [0, 1024],
            affinity: Vec::new(),
            io_priority: 0,
            timer_slack: 50_000,
            core_cookie: 0,
        },
        settings: ThreadSettings {
            parent_death_signal: 0,
            tsc: 1,
            cpuid: true,
            io_flusher: false,
            mce_kill: 2,
            speculation: [0; 3],
            syscall_dispatch: None,
            memory_policy: None,
            personality: 0,
            cpu_time: 0,
        },
    }
}

/// Registers everything that a thread can have, and lets it sleep.
fn occupy(thread: &mut Thread) {
    thread.blocked = Some(BlockedSyscall {
        number: 35,
        args: [1, 2, 3, 4, 5, 6],
        resume: Resume::Remaining { nanos: 1000, exact: true },
    });
    thread.signal_mask = 1;
    thread.clear_child_tid = Addr(ANON);
    thread.robust_list = RobustList { head: Addr(ANON + 16), len: 24 };
    thread.rseq = Some(Rseq { address: Addr(ANON + 64), size: 32, signature: 0x5305_3053, flags: 0 });
    thread.seccomp = Seccomp { mode: 2, filters: vec![SeccompId(0)], no_new_privs: true };
    thread.scheduling.affinity = vec![3];
    thread.settings.speculation = [3; 3];
    thread.settings.cpu_time = 3;
}

fn credentials() -> Credentials {
    Credentials {
        uid: [0; 4],
        gid: [0; 4],
        groups: vec![4, 5],
        cap_inheritable: 0,
        cap_permitted: 1,
        cap_effective: 1,
        cap_bounding: 1,
        cap_ambient: 0,
        securebits: 0,
        lsm_label: Vec::new(),
        session_keyring: String::new(),
    }
}

pub fn vma(range: PageRange, backing: Backing) -> Vma {
    Vma {
        range,
        prot: Prot::READ | Prot::WRITE,
        backing,
        flags: VmaFlags::ACCOUNTED,
        pkey: 0,
        name: None,
        policy: None,
        huge: Vec::new(),
        guards: Vec::new(),
    }
}

fn mm() -> Mm {
    Mm {
        id: MmId(0),
        vmas: Vec::new(),
        layout: MmLayout::default(),
        auxv: Vec::new(),
        exe: FileId(0),
        dumpable: 1,
        coredump_filter: 0x33,
        thp_disable: 0,
        mdwe: 0,
        ksm_merge_any: false,
        membarrier: 0,
        lock_future: 0,
        xcomp_permitted: 0,
        inherited: None,
        remainders: Vec::new(),
    }
}

/// An AIO context with two events that nobody has taken.
fn ring(range: PageRange) -> Vma {
    let event = |data, res| AioEvent { data, obj: 0x1000, res, res2: 0 };
    let ring = AioRing { head: 126, events: vec![event(1, 4096), event(2, -5)] };
    Vma { prot: Prot::READ | Prot::WRITE, ..vma(range, Backing::AioRing(ring)) }
}

fn vmas() -> Vec<Vma> {
    let at = |start: u64, pages: u64| PageRange::new(start, start + pages * PAGE_SIZE);
    let mut arena = vma(at(ANON, ANON_PAGES), Backing::Anonymous);
    arena.huge = vec![at(0x20_0000, 512)];
    arena.name = Some("arena".into());
    vec![
        arena,
        vma(at(PRIVATE_FILE, 4), Backing::PrivateFile { file: FileId(0), offset: 0x1000 }),
        vma(at(0x6000_0000, 64), Backing::Shared { shm: ShmId(0), offset: 0, may_write: true }),
        vma(at(0x6100_0000, 4), Backing::PacketRing { ino: 14 }),
        ring(at(0x7f00_0000_0000, 1)),
        vma(at(0x7fff_0000_0000, 4), Backing::Vvar),
        vma(at(0x7fff_0000_4000, 2), Backing::Vdso),
        vma(at(0xffff_ffff_ff60_0000, 1), Backing::Vsyscall),
    ]
}

pub fn file(id: u32, path: &[u8], link: Link) -> File {
    File {
        in_memory: None,
        held: Vec::new(),
        id: FileId(id),
        path: path.to_vec(),
        link,
        dev: 1,
        ino: 2 + u64::from(id),
        mode: 0o100_755,
        uid: 0,
        gid: 0,
        size: 64 * PAGE_SIZE - 100,
        mtime: 3,
        rdev: 0,
        build_id: Some(vec![7; 20]),
    }
}

fn descriptions() -> Vec<Description> {
    let objects = [
        OpenObject::Regular(FileId(1)),
        OpenObject::Pipe { pipe: PipeId(0), write: false, quiet: false },
        OpenObject::Pipe { pipe: PipeId(0), write: true, quiet: false },
        OpenObject::Epoll(Epoll {
            items: Vec::new(),
            busy_poll: Some(BusyPoll { usecs: 50, budget: 8, prefer: true }),
        }),
        OpenObject::Timerfd(Timerfd { clock: 1, settime: 1, value: 7, interval: 8, ticks: 9 }),
        OpenObject::Pidfd(Pidfd::Gone(Some(256))),
        OpenObject::Inotify(vec![Watch { wd: 3, file: FileId(1), mask: 2 }]),
        OpenObject::Fanotify(Fanotify {
            flags: 0,
            event_flags: 0x8000,
            marks: vec![Mark { scope: MarkScope::Mount, file: FileId(0), flags: 0, mask: 2, ignored: 0 }],
        }),
        OpenObject::Tun(Tun {
            file: FileId(1),
            interface: Some(TunInterface { name: "tap0".into(), flags: 2, header: 12, send_buffer: 1 << 20 }),
        }),
    ];
    let describe = |(i, object)| Description {
        id: DescriptionId(i),
        object,
        flags: 0,
        position: 0,
        owner: None,
        locks: Vec::new(),
    };
    (0..).zip(objects).map(describe).collect()
}

/// The pages of every owner by address: both a target to dump and a place to restore to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory(pub BTreeMap<(ContentOwner, Addr), Vec<u8>>);

impl Memory {
    /// Puts a page that is filled by `seed`; 0 gives a zero page.
    pub fn put(&mut self, owner: ContentOwner, addr: u64, seed: u64) {
        self.0.insert((owner, Addr(addr)), page(seed));
    }

    /// Runs for all pages, adjacent ones joined.
    pub fn runs(&self, zero: ZeroPolicy) -> Vec<PageRun> {
        let mut runs: Vec<PageRun> = Vec::new();
        for &(owner, start) in self.0.keys() {
            let range = PageRange { start, end: start.add(PAGE_SIZE) };
            match runs.last_mut() {
                Some(last) if last.owner == owner && last.range.end == start => last.range.end = range.end,
                Some(_) | None => runs.push(PageRun { owner, range, zero }),
            }
        }
        runs
    }

    /// Without the pages that are zero.
    pub fn without_zero(&self) -> Self {
        Self(self.0.iter().filter(|(_, page)| page.iter().any(|&b| b != 0)).map(|(k, v)| (*k, v.clone())).collect())
    }
}

/// A page of bytes that follow from `seed` and do not compress; zero for 0.
pub fn page(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..PAGE_SIZE / 8).flat_map(|_| next()).collect()
}

impl PageReader for Memory {
    fn read(&self, owner: ContentOwner, runs: &[PageRange], buf: &mut [u8]) -> io::Result<()> {
        assert_eq!(buf.len() as u64, runs.iter().map(|run| run.len()).sum::<u64>());
        let addresses = runs.iter().flat_map(|run| (run.start.0..run.end.0).step_by(PAGE_SIZE as usize));
        for (addr, out) in addresses.zip(buf.chunks_exact_mut(PAGE_SIZE as usize)) {
            out.copy_from_slice(self.0.get(&(owner, Addr(addr))).ok_or(io::ErrorKind::NotFound)?);
        }
        Ok(())
    }
}

/// Collects what is restored; a page that comes twice is a failure.
#[derive(Debug, Default)]
pub struct Collect(pub Mutex<Memory>);

impl Collect {
    pub fn memory(self) -> Memory {
        self.0.into_inner().unwrap()
    }
}

impl PageSink for Collect {
    fn fill(&self, owner: ContentOwner, start: Addr, data: &[u8]) -> io::Result<()> {
        assert_eq!(data.len() % PAGE_SIZE as usize, 0);
        for (i, page) in data.chunks_exact(PAGE_SIZE as usize).enumerate() {
            let addr = start.add(i as u64 * PAGE_SIZE);
            let before = self.0.lock().unwrap().0.insert((owner, addr), page.to_vec());
            assert_eq!(before, None, "{owner:?} {addr}");
        }
        Ok(())
    }

    fn zero(&self, owner: ContentOwner, range: PageRange) -> io::Result<()> {
        let zeros = vec![0; range.len() as usize];
        self.fill(owner, range.start, &zeros)
    }
}

/// A stream that keeps what is written.
#[derive(Clone, Debug, Default)]
pub struct Shared(pub Arc<Mutex<Vec<u8>>>);

impl io::Write for Shared {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A whole image in memory.
pub fn image(snapshot: &Snapshot, memory: &Memory, zero: ZeroPolicy, options: WriteOptions) -> Vec<u8> {
    let out = Shared::default();
    let mut writer = Writer::stream("sample".as_ref(), out.clone(), options).unwrap();
    writer.snapshot(snapshot).unwrap();
    writer.pages(&memory.runs(zero), memory, &|_, _| Ok(())).unwrap();
    let length = writer.complete(&stats()).unwrap().publish().unwrap();
    let bytes = std::mem::take(&mut *out.0.lock().unwrap());
    assert_eq!(bytes.len() as u64, length);
    bytes
}

/// A small image that has every kind of section and every codec but raw.
pub fn small_image() -> Vec<u8> {
    let mut memory = Memory::default();
    memory.0.insert((MM, Addr(ANON)), vec![1; PAGE_SIZE as usize]);
    memory.put(MM, PRIVATE_FILE, 0);
    memory.0.insert((SHM, Addr(0)), vec![2; PAGE_SIZE as usize]);
    memory.0.insert((FILE, Addr(0)), vec![1; PAGE_SIZE as usize]);
    let options = WriteOptions { workers: 1, compression: Some(1), references: true };
    image(&snapshot(), &memory, ZeroPolicy::Keep, options)
}

/// A small image with a raw block.
pub fn raw_image() -> Vec<u8> {
    let mut memory = Memory::default();
    memory.put(MM, ANON, 1);
    image(&snapshot(), &memory, ZeroPolicy::Keep, WriteOptions { workers: 1, ..WriteOptions::default() })
}
