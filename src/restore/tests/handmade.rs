//! Images of processes that never ran, and a place of its own for each restore of one.

use crate::image::model::Snapshot;
use crate::image::model::address::{Addr, PAGE_SIZE, PageRange};
use crate::image::model::credentials::Credentials;
use crate::image::model::file::{FdTable, File, Link};
use crate::image::model::id::{FdTableId, FileId, FsId, HandlersId, MmId, Pid};
use crate::image::model::memory::{Backing, ContentOwner, MmLayout, Prot, Vma};
use crate::image::model::process::{Process, Zombie};
use crate::image::model::signal::SignalHandlers;
use crate::image::model::thread::Thread;
use crate::image::tests::sample;
use crate::proc::{TaskDir, stat};
use crate::restore::readdress::Consequences;
use crate::restore::{Choices, Error, Filler, Outcome, Pages, host, restore};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};

pub const CODE: u64 = 0x1000_0000;
const DATA: u64 = 0x1001_0000;

/// An image of processes whose memory is given.
pub struct Handmade {
    pub snapshot: Snapshot,
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
pub fn alone<Body: FnOnce()>(body: Body) {
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
pub fn free_id() -> i32 {
    static NEXT: AtomicI32 = AtomicI32::new(29_000);
    loop {
        let id = NEXT.fetch_sub(1, Ordering::Relaxed);
        if !std::path::Path::new(&format!("/proc/{id}")).exists() {
            return id;
        }
    }
}

static UNCHANGED: Consequences = Consequences { blockers: Vec::new(), notices: Vec::new(), unlock: None };

pub fn choices() -> Choices<'static> {
    Choices::plain(&UNCHANGED)
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

pub fn thread(tid: i32, rip: u64, credentials: &Credentials) -> Thread {
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
pub fn handmade(code: &[u8]) -> Handmade {
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
    pub fn child(&mut self, parent: usize, code: &[u8]) -> usize {
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
    pub fn zombie(&mut self, status: i32) -> Pid {
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
    pub fn relations(&self) -> Vec<[Pid; 3]> {
        self.relations_with(|| {})
    }

    /// The same, with another look.
    pub fn relations_with(&self, look_too: impl FnOnce()) -> Vec<[Pid; 3]> {
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
