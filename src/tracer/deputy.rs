//! A process of ours in a target's address space, or in a copy of it, that works for us while we live.
//!
//! It has descriptors of its own. It stands in the target's stub, at code that ends it. Its threads run code that does not end by itself: therefore it
//! is killed when we die (PTRACE_O_EXITKILL), which concerns nobody else.

use super::driver::Driver;
use super::error::Error;
use super::memory::Memory;
use super::padding;
use super::patience::Patience;
use super::seccomp::Call;
use super::session;
use super::stub::Stub;
use super::tasks;
use crate::image::model::address::{Addr, PageRange};
use crate::image::model::id::{Pid, Tid};
use crate::sys::ptrace::{self, Options, event};
use crate::sys::regset::{self, UserRegs};
use crate::sys::wait::{self, Flags, Status};
use crate::sys::{affinity, pidfd, sched};
use nix::errno::Errno;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Another thread of the same process.
const THREAD: u64 =
    (libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD) as u64;
/// close_range(2): have a table of one's own first.
const CLOSE_RANGE_UNSHARE: u64 = 1 << 1;
/// How long its memory may take to be given back.
const DEATH: Duration = Duration::from_secs(60);
/// How long what it does to the end may take.
const WORK: Duration = Duration::from_secs(60);
/// Flags of a thread that begins: interrupts are on, which nobody can change.
const FLAGS: u64 = 0x202;

/// The process; its first thread stands still and is called upon, the others work. Dropped, it is gone.
#[derive(Debug)]
pub struct Deputy {
    leader: Driver,
    pidfd: OwnedFd,
    stub: Stub,
    threads: Vec<Driver>,
    /// Bound to the OS thread that traces it.
    not_send: PhantomData<*const ()>,
}

/// What becomes of a deputy when we die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is killed.
    DiesWithUs,
    /// It does what it was told to the end, and ends.
    RunsOn,
}

/// The arguments of the call by which it lets go of all descriptors.
const CLOSE: [u64; 6] = [0, u32::MAX as u64, CLOSE_RANGE_UNSHARE, 0, 0, 0];

impl Deputy {
    /// Takes over a newborn that is traced since its birth and begins in the stub of its maker.
    pub(super) fn new(tid: Tid, stub: Stub, fate: Fate) -> Result<Self, Error> {
        let pid = Pid(tid.0);
        let pidfd = pidfd::open(pid).map_err(Error::of(tid, "opening a pidfd"))?;
        let deputy = Self { leader: Driver { pid, tid }, pidfd, stub, threads: Vec::new(), not_send: PhantomData };
        born(tid)?;
        let options = match fate {
            Fate::DiesWithUs => Options::SYSGOOD | Options::CLONE | Options::EXITKILL,
            Fate::RunsOn => Options::SYSGOOD,
        };
        ptrace::set_options(tid, options).map_err(deputy.leader.failed("having it die with us"))?;
        let closed = deputy.syscall(libc::SYS_close_range, CLOSE)?;
        closed.map_err(deputy.leader.failed("closing its descriptors"))?;
        Ok(deputy)
    }

    /// Its pid, which nobody else knows.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.leader.pid
    }

    /// A descriptor that means this process and no other.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Its memory.
    ///
    /// # Errors
    /// [`Error::Proc`].
    pub fn memory(&self) -> Result<Memory, Error> {
        Memory::open(self.pid())
    }

    /// A hole of its address space.
    ///
    /// # Errors
    /// [`Error::NoRoom`], [`Error::Proc`].
    pub fn hole(&self, len: u64) -> Result<PageRange, Error> {
        let what = "hole for a mapping of ours";
        padding::hole(&session::read_maps(self.pid())?, len).ok_or(Error::NoRoom { pid: self.pid(), what })
    }

    /// Makes a system call in its name.
    ///
    /// # Errors
    /// The outer error is ours.
    pub fn syscall(&self, number: i64, args: [u64; 6]) -> Result<Result<u64, Errno>, Error> {
        let regs = self.leader.regs()?;
        self.leader.call(&regs, self.stub.child_entry(), number as u64, args).map(|outcome| outcome.result)
    }

    /// Has it run wherever and as urgently as this thread, whatever the target may.
    ///
    /// # Errors
    /// [`Error::Kernel`] when that is not allowed and the target would have it wait for all others.
    pub fn schedule_as_own(&self) -> Result<(), Error> {
        let tid = self.leader.tid;
        let failed = Error::of(tid, "scheduling it");
        let cpus = affinity::get(Tid(0)).map_err(&failed)?;
        affinity::set(tid, &cpus).map_err(&failed)?;
        let now = sched::attributes(tid).map_err(&failed)?;
        let nice = sched::own_nice().map_err(&failed)?;
        let wanted = sched::SchedAttr { nice, ..sched::SchedAttr::default() };
        let is_patient = now.policy == libc::SCHED_OTHER as u32 && now.nice <= nice.max(0);
        match sched::set_attributes(tid, &wanted) {
            Err(source) if !is_patient => Err(failed(source)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Starts another thread of it at `entry` with `argument` in rdi. All signals are blocked in it.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    pub fn start(&mut self, entry: Addr, stack: Addr, argument: Addr) -> Result<(), Error> {
        let regs = self.leader.regs()?;
        let args = [THREAD, 0, 0, 0, 0, 0];
        let made = self.leader.call(&regs, self.stub.child_entry(), libc::SYS_clone as u64, args)?;
        made.result.map_err(self.leader.failed("making a thread"))?;
        let tid = made.newborn.ok_or(Error::Astray { tid: self.leader.tid, rip: self.stub.child_entry() })?;
        let thread = Driver { pid: self.pid(), tid };
        self.threads.push(thread);
        born(tid)?;
        begin(thread, entry, stack, argument)
    }

    /// Has its first thread run code to its end, at `entry` with `argument` in rdi, and waits for that. `begun` is told when it has begun, and
    /// changes nothing of that.
    ///
    /// # Errors
    /// [`Error::Signalled`] for one that was killed, [`Error::Unstoppable`] for one that does not end; what `begun` says.
    pub fn run(
        &self,
        entry: Addr,
        stack: Addr,
        argument: Addr,
        begun: &dyn Fn() -> io::Result<()>,
    ) -> Result<(), Error> {
        let tid = self.leader.tid;
        begin(self.leader, entry, stack, argument)?;
        let told = begun();
        let mut patience = Patience::new(WORK);
        loop {
            match wait::wait(tid, Flags::NOHANG | Flags::NOWAIT) {
                Ok(Some(Status::Exited(_))) => return Ok(told?),
                Ok(Some(Status::Killed(signal) | Status::Stopped { signal, .. })) => {
                    return Err(Error::Signalled { tid, signal });
                }
                Ok(None) | Err(Errno::EINTR) => {}
                Err(source) => return Err(self.leader.failed("waiting for its work")(source)),
            }
            if !patience.wait() {
                return Err(Error::Unstoppable { tid, bound: WORK, reason: tasks::occupation(tid) });
            }
        }
    }

    /// Where a thread has to go to end.
    #[must_use]
    pub fn exit(&self) -> Addr {
        self.stub.end_entry()
    }

    /// How many threads still run.
    ///
    /// # Errors
    /// [`Error::Signalled`] for one that is at a fault or was killed.
    pub fn running(&self) -> Result<usize, Error> {
        let mut running = 0;
        for thread in &self.threads {
            match wait::wait(thread.tid, Flags::NOHANG | Flags::NOWAIT) {
                Ok(None) => running += 1,
                Ok(Some(Status::Exited(_))) => {}
                Ok(Some(Status::Killed(signal) | Status::Stopped { signal, .. })) => {
                    return Err(Error::Signalled { tid: thread.tid, signal });
                }
                Err(source) => return Err(thread.failed("waiting for its work")(source)),
            }
        }
        Ok(running)
    }

    /// Stops every thread that still runs, for good.
    ///
    /// # Errors
    /// [`Error::Unstoppable`].
    pub fn halt(&self) -> Result<(), Error> {
        for thread in &self.threads {
            let _ = ptrace::interrupt(thread.tid);
            match thread.next_stop() {
                Ok(_) | Err(Error::Vanished(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Deputy {
    fn drop(&mut self) {
        let _ = pidfd::send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        // The first thread can be reaped when all others are.
        for task in self.threads.iter().chain([&self.leader]) {
            let mut patience = Patience::new(DEATH);
            while matches!(wait::wait(task.tid, Flags::NOHANG), Ok(None | Some(Status::Stopped { .. }))) {
                if !patience.wait() {
                    tracing::error!("pid {}, which works for us, does not end", self.leader.pid);
                    return;
                }
            }
        }
    }
}

/// Has a stopped thread begin to run code of ours.
fn begin(thread: Driver, entry: Addr, stack: Addr, argument: Addr) -> Result<(), Error> {
    let UserRegs { cs, ss, ds, es, fs, gs, fs_base, gs_base, .. } = thread.regs()?;
    let regs = UserRegs {
        rip: entry.0,
        rsp: stack.0,
        rdi: argument.0,
        eflags: FLAGS,
        orig_rax: u64::MAX,
        cs,
        ss,
        ds,
        es,
        fs,
        gs,
        fs_base,
        gs_base,
        ..regset::zeroed()
    };
    regset::set_all(thread.tid, &regs).map_err(thread.failed("setting registers"))?;
    ptrace::cont(thread.tid, 0).map_err(thread.failed("letting it work"))
}

/// Waits for the first stop of a task that is traced from birth.
pub(super) fn born(tid: Tid) -> Result<Driver, Error> {
    let driver = Driver { pid: Pid(tid.0), tid };
    match driver.next_stop()? {
        (_, event::STOP) => Ok(driver),
        _ => Err(Error::Astray { tid, rip: Addr(driver.regs()?.rip) }),
    }
}

/// What a deputy calls before it works, as a filter sees it.
pub(super) fn close_call(stub: Stub) -> Call {
    Call { number: libc::SYS_close_range as u64, args: CLOSE, ip: Stub::after(stub.child_entry()) }
}
