//! Restores of processes that were never dumped: models made by hand, programs of a few instructions.
//!
//! A restore takes pids and descriptor numbers that it has found free. Other tests in the same process draw from the same tables at the same
//! time; so each test here has a process and a pid namespace of its own.

use super::readdress::Consequences;
use super::{Choices, Error, FilesPolicy, Filler, Outcome, Pages, restore};
use crate::image::model::Snapshot;
use crate::image::model::address::{Addr, PAGE_SIZE, PageRange};
use crate::image::model::credentials::Credentials;
use crate::image::model::file::{Description, FdEntry, FdTable, File, Link, OpenObject};
use crate::image::model::id::{DescriptionId, Fd, FdTableId, FileId, FsId, HandlersId, MmId, Pid, PipeId, Tid};
use crate::image::model::memory::{Backing, ContentOwner, MmLayout, Prot, Vma};
use crate::image::model::pipe::{Pipe, Unread};
use crate::image::model::process::{Process, Zombie};
use crate::image::model::signal::SignalHandlers;
use crate::image::model::thread::{RobustList, Thread};
use crate::image::tests::sample;
use crate::proc::{TaskDir, stat};
use crate::restore::host;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};

const CODE: u64 = 0x1000_0000;
const DATA: u64 = 0x1001_0000;

/// An image of processes whose memory is given.
struct Handmade {
    snapshot: Snapshot,
    pages: Vec<(MmId, Addr, Vec<u8>)>,
}

impl Pages for Handmade {
    fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    fn is_stream(&self) -> bool {
        false
    }

    fn restore(&self, filler: &Filler<'_>) -> Result<(), Error> {
        for (mm, addr, bytes) in &self.pages {
            filler
                .fill(ContentOwner::Mm(*mm), *addr, bytes)
                .map_err(|source| Error::Step { step: "filling".into(), source })?;
        }
        Ok(())
    }
}

/// Set in the process that runs a body.
const ALONE: &str = "SNAP_TEST_ALONE";

/// Runs `body`, a closure written in the test itself, as pid 1 of a pid namespace of its own.
fn alone<Body: FnOnce()>(body: Body) {
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let path = std::any::type_name::<Body>().strip_suffix("::{{closure}}").expect("a closure in the test");
    let name = path.split_once("::").expect("a path").1;
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    if !nix::unistd::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let output = unshare
        .arg("--")
        .arg(std::env::current_exe().expect("the path of this test"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .stdin(Stdio::null())
        .output()
        .expect("unshare of util-linux");
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    // The name must have matched, or nothing has been tested.
    assert!(output.status.success() && text.contains("1 passed"), "{name}: {}\n{text}", output.status);
}

/// Ids that nobody holds, each given out once.
fn free_id() -> i32 {
    static NEXT: AtomicI32 = AtomicI32::new(29_000);
    loop {
        let id = NEXT.fetch_sub(1, Ordering::Relaxed);
        if !std::path::Path::new(&format!("/proc/{id}")).exists() {
            return id;
        }
    }
}

static UNCHANGED: Consequences = Consequences { blockers: Vec::new(), notices: Vec::new(), unlock: None };

fn choices() -> Choices<'static> {
    Choices {
        files: FilesPolicy::Check,
        ignore_changed: &[],
        inherit: &[],
        orphan: false,
        new_pid_namespace: false,
        new_ipc_namespace: false,
        readdressed: &UNCHANGED,
    }
}

/// A file of this host.
fn file(id: u32, path: &str) -> File {
    let meta = std::fs::metadata(path).unwrap();
    let mut file = sample::file(id, path.as_bytes(), Link::Named);
    (file.dev, file.ino, file.mode, file.size, file.rdev) =
        (meta.dev(), meta.ino(), meta.mode(), meta.size(), meta.rdev());
    file.mtime = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
    file.build_id = None;
    file
}

fn vma(start: u64, prot: Prot) -> Vma {
    let mut vma = sample::vma(PageRange::new(start, start + PAGE_SIZE), Backing::Anonymous);
    vma.prot = prot;
    vma
}

fn thread(tid: i32, rip: u64, credentials: &Credentials) -> Thread {
    let mut thread = sample::thread(tid);
    thread.cpu.xsave = vec![0; host::xsave_layout().size as usize];
    // MXCSR as after reset.
    thread.cpu.xsave[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
    let regs = &mut thread.cpu.regs;
    (regs.rip, regs.rsp, regs.cs, regs.ss, regs.eflags, regs.orig_rax) =
        (rip, DATA + 0x800, 0x33, 0x2b, 0x202, u64::MAX);
    thread.credentials = credentials.clone();
    thread
}

/// A process that runs `code` at [`CODE`], with one page of data at [`DATA`].
fn handmade(code: &[u8]) -> Handmade {
    let pid = free_id();
    let mut snapshot = sample::bare(pid);
    let host = &mut snapshot.inventory.host;
    host.boot_id = crate::proc::host::read().unwrap().boot_id;
    host.xsave = host::xsave_layout();
    snapshot.files = vec![file(0, "/"), file(1, "/bin/true")];
    let facts = host::probe(&snapshot).unwrap();
    let mm = &mut snapshot.mms[0];
    mm.vmas = vec![vma(CODE, Prot::READ | Prot::EXEC), vma(DATA, Prot::READ | Prot::WRITE)];
    mm.layout = MmLayout {
        start_code: Addr(CODE),
        end_code: Addr(CODE + 0x1000),
        start_data: Addr(DATA),
        end_data: Addr(DATA + 0x1000),
        start_brk: Addr(DATA + 0x1000),
        brk: Addr(DATA + 0x1000),
        start_stack: Addr(DATA),
        arg_start: Addr(DATA),
        arg_end: Addr(DATA),
        env_start: Addr(DATA),
        env_end: Addr(DATA),
    };
    mm.exe = FileId(1);
    let process = &mut snapshot.processes[0];
    process.sid = Pid(pid);
    process.threads = vec![thread(pid, CODE, &facts.credentials)];
    process.rlimits = facts.limits.clone();
    Handmade { snapshot, pages: vec![(MmId(0), Addr(CODE), page(code))] }
}

fn page(code: &[u8]) -> Vec<u8> {
    let mut page = code.to_vec();
    page.resize(PAGE_SIZE as usize, 0x90);
    page
}

impl Handmade {
    /// Adds a child of `parent` that runs `code`; its group and session are those of its parent. Returns its place.
    fn child(&mut self, parent: usize, code: &[u8]) -> usize {
        let snapshot = &mut self.snapshot;
        let place = snapshot.processes.len();
        let mut process = snapshot.processes[0].clone();
        let above = &snapshot.processes[parent];
        (process.pid, process.ppid, process.pgid, process.sid) = (Pid(free_id()), above.pid, above.pgid, above.sid);
        let mm = MmId(snapshot.mms.len() as u32);
        let table = FdTableId(snapshot.fd_tables.len() as u32);
        let fs = FsId(snapshot.fs_contexts.len() as u32);
        process.mm = mm;
        process.handlers = HandlersId(snapshot.signal_handlers.len() as u32);
        snapshot.signal_handlers.push(SignalHandlers { id: process.handlers, ..snapshot.signal_handlers[0].clone() });
        process.threads.truncate(1);
        let thread = &mut process.threads[0];
        (thread.tid, thread.fd_table, thread.fs) = (process.pid.leader(), table, fs);
        snapshot.processes.push(process);
        let mut space = snapshot.mms[0].clone();
        space.id = mm;
        snapshot.mms.push(space);
        snapshot.fd_tables.push(FdTable { id: table, entries: Vec::new(), locks: Vec::new() });
        let mut context = snapshot.fs_contexts[0].clone();
        context.id = fs;
        snapshot.fs_contexts.push(context);
        self.pages.push((mm, Addr(CODE), page(code)));
        place
    }

    /// Adds a child of the root that was not reaped.
    fn zombie(&mut self, status: i32) -> Pid {
        let root = &self.snapshot.processes[0];
        let (pid, ppid, pgid, sid) = (Pid(free_id()), root.pid, root.pgid, root.sid);
        let uid = root.threads[0].credentials.uid[0];
        let comm = b"ended".to_vec();
        let exit_signal = libc::SIGCHLD;
        let zombie = Zombie { pid, ppid, pgid, sid, comm, exit_signal, status, uid, cpu_time: [0; 2] };
        self.snapshot.zombies.push(zombie);
        pid
    }

    /// Restores it as nobody's child and looks at every process: parent, group, session. Ends them.
    fn relations(&self) -> Vec<[Pid; 3]> {
        self.relations_with(|| {})
    }

    /// The same, with another look.
    fn relations_with(&self, look_too: impl FnOnce()) -> Vec<[Pid; 3]> {
        let outcome = restore(self, &Choices { orphan: true, ..choices() }, false, None).unwrap();
        assert_eq!(outcome, Outcome::Left(self.snapshot.processes[0].pid));
        let look = |process: &Process| {
            let stat = stat::read(&TaskDir::process(process.pid).unwrap(), &mut Vec::new()).unwrap();
            [stat.ppid, stat.pgrp, stat.session]
        };
        let found = self.snapshot.processes.iter().map(look).collect();
        look_too();
        for process in &self.snapshot.processes {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.pid.0), nix::sys::signal::Signal::SIGKILL)
                .unwrap();
        }
        found
    }
}

/// `mov eax, 34; syscall; jmp` back: pause(2) for ever.
const PAUSE: [u8; 9] = [0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];

/// Reaps one child and exits with the byte of its status at `offset`.
fn reap_and_exit(offset: u8) -> Vec<u8> {
    [
        &[0xbf, 0xff, 0xff, 0xff, 0xff][..], // mov edi, -1
        &[0xbe, 0x00, 0x01, 0x01, 0x10],     // mov esi, DATA + 0x100
        &[0x31, 0xd2, 0x45, 0x31, 0xd2],     // xor edx, edx; xor r10d, r10d
        &[0xb8, 61, 0, 0, 0, 0x0f, 0x05],    // wait4
        &[0x0f, 0xb6, 0x7e, offset],         // movzx edi, byte [rsi + offset]
        &[0xb8, 231, 0, 0, 0, 0x0f, 0x05],   // exit_group
    ]
    .concat()
}

#[test]
fn a_parent_reaps_its_child() {
    alone(|| {
        let mut image = handmade(&reap_and_exit(1));
        image.child(0, &exit_group(42));
        assert_eq!(restore(&image, &choices(), false, None).unwrap(), Outcome::Exited(42));
    });
}

#[test]
fn a_parent_reaps_children_that_had_ended() {
    alone(|| {
        let mut image = handmade(&reap_and_exit(1));
        image.zombie(7 << 8);
        assert_eq!(restore(&image, &choices(), false, None).unwrap(), Outcome::Exited(7));
        for signal in [libc::SIGKILL, libc::SIGSEGV, libc::SIGTERM] {
            let mut image = handmade(&reap_and_exit(0));
            image.zombie(signal);
            assert_eq!(restore(&image, &choices(), false, None).unwrap(), Outcome::Exited(signal));
        }
    });
}

#[test]
fn parents_groups_and_sessions_are_as_they_were() {
    alone(|| {
        let mut image = handmade(&PAUSE);
        let job = image.child(0, &PAUSE);
        let second = image.child(0, &PAUSE);
        let daemon = image.child(0, &PAUSE);
        let grandchild = image.child(daemon, &PAUSE);
        let (dead_leader, dead_group) = (Pid(free_id()), Pid(free_id()));
        let processes = &mut image.snapshot.processes;
        processes[job].pgid = processes[job].pid;
        processes[second].pgid = processes[job].pid;
        (processes[daemon].sid, processes[daemon].pgid) = (dead_leader, dead_leader);
        (processes[grandchild].sid, processes[grandchild].pgid) = (dead_leader, dead_group);
        let wanted: Vec<[Pid; 3]> = processes.iter().map(|process| [process.ppid, process.pgid, process.sid]).collect();
        let found = image.relations();
        assert_eq!(found[1..], wanted[1..]);
        assert_eq!(found[0][1..], wanted[0][1..]);
    });
}

#[test]
fn members_of_sessions_that_are_led_elsewhere_are_adopted() {
    alone(|| {
        let mut image = handmade(&PAUSE);
        let middle = image.child(0, &PAUSE);
        let leader = image.child(middle, &PAUSE);
        let nephew = image.child(0, &PAUSE);
        let below = image.child(middle, &PAUSE);
        let child = image.child(nephew, &PAUSE);
        let stranger = image.child(0, &PAUSE);
        let zombie = image.zombie(3 << 8);
        let dead = Pid(free_id());
        let processes = &mut image.snapshot.processes;
        let session = processes[leader].pid;
        for member in [leader, nephew, child] {
            (processes[member].sid, processes[member].pgid) = (session, session);
        }
        processes[child].pgid = processes[child].pid;
        (image.snapshot.zombies[0].sid, image.snapshot.zombies[0].pgid) = (session, session);
        for member in [below, stranger] {
            (processes[member].sid, processes[member].pgid) = (dead, dead);
        }
        let wanted: Vec<[Pid; 3]> = processes.iter().map(|process| [process.ppid, process.pgid, process.sid]).collect();
        let found = image.relations_with(|| {
            let stat = stat::read(&TaskDir::process(zombie).unwrap(), &mut Vec::new()).unwrap();
            assert_eq!((stat.state, stat.ppid, stat.session), (b'Z', wanted[1][0], session));
        });
        assert_eq!(found[1..], wanted[1..]);
    });
}

#[test]
fn a_failed_step_of_a_child_is_named_and_leaves_no_process() {
    alone(|| {
        let mut image = handmade(&PAUSE);
        let child = image.child(0, &PAUSE);
        let other = image.child(child, &PAUSE);
        let processes = &mut image.snapshot.processes;
        processes[other].threads[0].robust_list = RobustList { head: Addr(0x1000), len: 7 };
        let pids: Vec<Pid> = processes.iter().map(|process| process.pid).collect();
        let Err(Error::Step { step, source: _ }) = restore(&image, &choices(), false, None) else {
            panic!("not failed")
        };
        assert!(step.starts_with(&format!("pid {}: set_robust_list", pids[other])), "{step}");
        for pid in pids {
            assert!(!std::path::Path::new(&format!("/proc/{pid}/exe")).exists());
        }
    });
}

/// `mov edi, code; mov eax, 231; syscall`.
fn exit_group(code: u8) -> Vec<u8> {
    vec![0xbf, code, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05]
}

#[test]
fn a_process_of_three_instructions_exits_with_its_code() {
    alone(|| {
        let image = handmade(&exit_group(42));
        assert_eq!(restore(&image, &choices(), false, None).unwrap(), Outcome::Exited(42));
    });
}

#[test]
fn a_taken_pid_is_a_blocker_that_names_its_holder() {
    alone(|| {
        let mut image = handmade(&exit_group(1));
        image.snapshot.processes[0].threads[0].tid = Tid(1);
        let Err(Error::Blocked(blockers)) = restore(&image, &choices(), false, None) else { panic!("not refused") };
        assert_eq!(blockers.len(), 1);
        assert!(blockers[0].reason.starts_with("taken by "), "{}", blockers[0]);
    });
}

#[test]
fn a_failed_step_is_named_and_leaves_no_process() {
    alone(|| {
        let mut image = handmade(&exit_group(1));
        let process = &mut image.snapshot.processes[0];
        process.threads[0].robust_list = RobustList { head: Addr(0x1000), len: 7 };
        let pid = process.pid;
        let Err(Error::Step { step, source }) = restore(&image, &choices(), false, None) else { panic!("not failed") };
        assert!(step.contains("set_robust_list"), "{step}");
        assert_eq!(source.raw_os_error(), Some(libc::EINVAL));
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    });
}

#[test]
fn unread_bytes_of_a_pipe_are_read_by_a_second_thread() {
    alone(|| {
        // read(7, rsp, 16); exit_group(first byte): the main thread spins meanwhile.
        let code = [
            &[0xeb, 0xfe][..],                 // jmp .
            &[0xbf, 7, 0, 0, 0],               // mov edi, 7
            &[0x48, 0x89, 0xe6],               // mov rsi, rsp
            &[0xba, 16, 0, 0, 0],              // mov edx, 16
            &[0x31, 0xc0, 0x0f, 0x05],         // read
            &[0x0f, 0xb6, 0x3c, 0x24],         // movzx edi, byte [rsp]
            &[0xb8, 231, 0, 0, 0, 0x0f, 0x05], // exit_group
        ]
        .concat();
        let mut image = handmade(&code);
        let snapshot = &mut image.snapshot;
        let credentials = snapshot.processes[0].threads[0].credentials.clone();
        snapshot.processes[0].threads.push(thread(free_id(), CODE + 2, &credentials));
        snapshot.pipes.push(Pipe {
            id: PipeId(0),
            ino: 1,
            fifo: None,
            capacity: 4096,
            unread: vec![Unread { packet: false, bytes: b"*rest".to_vec() }],
            uid: 0,
            gid: 0,
        });
        snapshot.descriptions.push(Description {
            id: DescriptionId(0),
            object: OpenObject::Pipe { pipe: PipeId(0), write: false, quiet: false },
            flags: 0,
            position: 0,
            owner: None,
            locks: Vec::new(),
        });
        let entry = FdEntry { fd: Fd(7), description: DescriptionId(0), close_on_exec: false };
        snapshot.fd_tables[0].entries.push(entry);
        assert_eq!(restore(&image, &choices(), false, None).unwrap(), Outcome::Exited(i32::from(b'*')));
    });
}
