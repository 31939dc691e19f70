//! One process of a gathering: a stub for each of its threads, and a mapping of ours that its main thread holds.

use super::super::driver::Driver;
use super::super::error::Error;
use super::super::inject::Visit;
use super::super::memory::{Memory, RemotePtr};
use super::super::padding::{self, Place};
use super::super::session;
use super::super::stub::{self, Stub};
use super::super::thread::Stop;
use super::super::tree::FrozenTree;
use super::stubs::{Stubs, Who};
use super::way_back;
use crate::image::model::address::{Addr, PAGE_SIZE, PageRange};
use crate::image::model::id::{Pid, Tid};
use crate::sys::blob::INTERPRETER;
use crate::sys::ptrace;
use crate::sys::regset::{self, UserRegs};
use protocol::{Op, Task, check, pseudo};

/// Bytes of a stack.
const STACK: u64 = 4 << 10;
/// Offsets in the control page: the word that all wait for, the gate, flags, tasks, and the sentinel's operations.
const WORD: u64 = 0;
const GATE: u64 = 8;
const FLAGS: u64 = 16;
const PARENT: u64 = 24;
const TASK: u64 = 64;
const SENTINEL_TASK: u64 = 128;
const SENTINEL_OPS: u64 = 192;

/// How the main thread goes back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    /// By its stub.
    Out,
    /// The same, once that child has ended.
    Reaping(Tid),
}

#[derive(Debug)]
pub(super) struct Member {
    pid: Pid,
    memory: Memory,
    places: Vec<Place>,
    /// The main thread, and all others.
    host: Visit,
    others: Vec<Visit>,
    scratch: PageRange,
    /// Bytes for operations.
    ops: u64,
    mapped: bool,
}

/// Bytes of the part of the mapping that is executable.
fn code_len() -> u64 {
    (INTERPRETER.len() as u64 + way_back::ROOM).next_multiple_of(PAGE_SIZE)
}

impl Member {
    /// Writes a stub for each thread. There will be memory for `ops` operations, and `room` bytes.
    pub fn new(tree: &mut FrozenTree, pid: Pid, ops: usize, room: u64) -> Result<Self, Error> {
        let first = tree.threads_of(pid).first().ok_or(Error::Vanished(pid))?;
        let shown_as = Pid(first.tid.0);
        allow(tree, pid)?;
        let memory = Memory::open(shown_as)?;
        let maps = session::read_maps(shown_as)?;
        let ops = (ops as u64 * size_of::<Op>() as u64).next_multiple_of(PAGE_SIZE);
        let len = code_len() + PAGE_SIZE + 2 * STACK + ops + room.next_multiple_of(PAGE_SIZE);
        let scratch = padding::hole(&maps, len).ok_or(Error::NoRoom { pid, what: "hole for a mapping of ours" })?;
        let who = Who { processes: &[(pid, 0)], taken: None, undo: (Addr::NULL, scratch.len()) };
        let Stubs { places, visits } = Stubs::write(tree, who, &maps, &memory)?;
        let mut visits = visits.into_iter();
        let host = visits.next().ok_or(Error::Vanished(pid))?;
        Ok(Self { pid, memory, places, host, others: visits.collect(), scratch, ops, mapped: false })
    }

    /// Has the main thread map memory, and writes the interpreter there.
    pub fn map(&mut self) -> Result<(), Error> {
        let prot = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE) as u64;
        let (start, len) = (self.scratch.start.0, self.scratch.len());
        let stub = self.host.stub();
        let tid = self.host.tid();
        let failed = |action| move |source| Error::Kernel { tid, action, source };
        let mapped = self.host.call(stub.map_entry(), libc::SYS_mmap as u64, [start, len, prot, flags, u64::MAX, 0])?;
        let at = mapped.result.map_err(failed("mapping memory in the target"))?;
        self.mapped = true;
        // A kernel before 4.17 takes the address for a hint.
        self.scratch = PageRange::new(at, at + len);
        self.memory.put(RemotePtr::new(stub.mapping()), at)?;
        let kept = self.call(libc::SYS_madvise, [at, len, libc::MADV_DONTFORK as u64, 0, 0, 0])?;
        kept.map_err(failed("keeping memory from children"))?;
        let prot = (libc::PROT_READ | libc::PROT_EXEC) as u64;
        let made = self.call(libc::SYS_mprotect, [at, code_len(), prot, 0, 0, 0])?;
        made.map_err(failed("making memory executable"))?;
        // What the kernel has not made yet cannot be lacking later.
        self.memory.write(self.control(0), &vec![0; (len - code_len()) as usize])?;
        self.memory.write(self.scratch.start, INTERPRETER)
    }

    fn call(&mut self, number: i64, args: [u64; 6]) -> Result<nix::Result<u64>, Error> {
        let entry = self.host.stub().call_entry();
        self.host.call(entry, number as u64, args).map(|outcome| outcome.result)
    }

    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    pub fn host(&mut self) -> &mut Visit {
        &mut self.host
    }

    fn control(&self, offset: u64) -> Addr {
        self.scratch.start.add(code_len() + offset)
    }

    fn ops(&self) -> Addr {
        self.control(PAGE_SIZE + 2 * STACK)
    }

    /// What is left for the operations' data.
    pub fn room(&self) -> PageRange {
        PageRange { start: self.ops().add(self.ops), end: self.scratch.end }
    }

    /// Address of the word that says that all is done.
    pub fn word(&self) -> Addr {
        self.control(WORD)
    }

    /// Address of the word without which the worker goes back at once.
    pub fn gate(&self) -> Addr {
        self.control(GATE)
    }

    /// Has the main thread stand before operations, behind which it sets the word and goes back.
    pub fn send_host(&mut self, ops: &[Op], way: Way) -> Result<(), Error> {
        let stub = self.host.stub();
        let saved = *self.host.saved();
        let back = self.scratch.start.add((INTERPRETER.len() as u64).next_multiple_of(16));
        let (target, child) = match way {
            Way::Out => (Stub::after(stub.call_entry()), None),
            Way::Reaping(child) => (stub.after_forking(), Some(child)),
        };
        let code = way_back::code(&saved, self.word(), self.control(FLAGS), target, child);
        self.memory.write(back, &code)?;
        self.memory.put(RemotePtr::new(self.control(FLAGS)), saved.eflags)?;
        self.write_task(TASK, self.ops(), ops, back)?;
        let stack = self.control(PAGE_SIZE + STACK);
        self.host.stand_in_code(self.scratch.start, stack, self.control(TASK))
    }

    /// Has a child of the main thread, which stands at its birth, stand before a wait for the word, with which it ends.
    pub fn send_sentinel(&mut self, child: Tid) -> Result<(), Error> {
        let op = |nr: i64, args: [u64; 2]| Op { nr: nr as u32, args: [args[0], args[1], 0, 0, 0, 0], ..Op::default() };
        let parent = self.control(PARENT).0;
        let ops = [
            // Nobody would set the word if its process were killed.
            op(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as u64, libc::SIGKILL as u64]),
            Op { store: parent, ..op(libc::SYS_getppid, [0; 2]) },
            Op { check: check::EQUALS, indirect: 1, ..op(i64::from(pseudo::SAME), [parent, self.pid.0 as u64]) },
            op(i64::from(pseudo::WAIT), [self.word().0, 1]),
        ];
        let end = self.host.stub().end_entry();
        self.write_task(SENTINEL_TASK, self.control(SENTINEL_OPS), &ops, end)?;
        let driver = Driver { pid: Pid(child.0), tid: child };
        let (rip, rsp) = (self.scratch.start.0, self.control(PAGE_SIZE + 2 * STACK).0);
        let regs = UserRegs { rip, rsp, rdi: self.control(SENTINEL_TASK).0, orig_rax: u64::MAX, ..driver.regs()? };
        regset::set_all(child, &regs).map_err(driver.failed("setting registers"))
    }

    /// Has all other threads stand before a wait for the word.
    pub fn send_others(&mut self) -> Result<(), Error> {
        let args = [self.word().0, libc::FUTEX_WAIT as u64, 0, 0, 0, 0];
        self.others.iter_mut().try_for_each(|other| other.stand_by(libc::SYS_futex, args))
    }

    fn write_task(&self, offset: u64, at: Addr, ops: &[Op], exit: Addr) -> Result<(), Error> {
        let bytes: Vec<u8> = ops.iter().flat_map(Op::words).flat_map(u64::to_le_bytes).collect();
        self.memory.write(at, &bytes)?;
        let Task { ops, count, done, failure, exit } =
            Task { ops: at.0, count: ops.len() as u64, exit: exit.0, ..Task::default() };
        let words = [ops, count, done, failure as u64, exit].map(u64::to_le_bytes);
        self.memory.write(self.control(offset), &words.concat())
    }

    /// Opens the gate, and lets the main thread work.
    pub fn begin(&mut self) -> Result<(), Error> {
        self.memory.put(RemotePtr::new(self.gate()), 1_u64)?;
        let driver = self.host.driver();
        ptrace::cont(driver.tid, 0).map_err(driver.failed("letting it work"))
    }

    /// Sets the word.
    pub fn release(&self) -> Result<(), Error> {
        if self.mapped { self.memory.put(RemotePtr::new(self.word()), 1_u32) } else { Ok(()) }
    }

    /// Has the main thread wait for the end of its child.
    pub fn reap(&mut self, child: Tid) -> Result<(), Error> {
        let args = [libc::P_PID as u64, child.0 as u64, 0, u64::from(stub::WAIT_OPTIONS), 0, 0];
        let tid = self.host.tid();
        let reaped = self.call(libc::SYS_waitid, args)?;
        reaped.map(drop).map_err(|source| Error::Kernel { tid, action: "reaping the child", source })
    }

    /// Puts everybody back.
    pub fn leave(&mut self) -> Result<(), Error> {
        let others = self.others.drain(..).rev().map(|other| other.leave()).fold(Ok(()), Error::first);
        let unmapped = if std::mem::take(&mut self.mapped) { self.unmap() } else { Ok(()) };
        let host = self.host.leave();
        let left = [unmapped, host].into_iter().fold(others, Error::first);
        session::erase_after(left, self.places.drain(..), &self.memory)
    }

    fn unmap(&mut self) -> Result<(), Error> {
        self.host.park()?;
        let unmapped = self.host.through_call(libc::SYS_munmap, self.host.stub().after_unmapping())?;
        let (tid, action) = (self.host.tid(), "unmapping memory in the target");
        unmapped.map(drop).map_err(|source| Error::Kernel { tid, action, source })
    }
}

/// Whether threads can hold something for us.
fn allow(tree: &FrozenTree, pid: Pid) -> Result<(), Error> {
    for thread in tree.threads_of(pid) {
        if let Stop::Group(_) = thread.stop {
            let reason = "it is stopped: what it holds for us would stay away should snap die".into();
            return Err(Error::Refused { tid: thread.tid, reason, remedy: "let it go on (SIGCONT)" });
        }
    }
    Ok(())
}
