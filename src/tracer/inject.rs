//! One thread at work for us: its registers point into a restoring stub, and it makes the system calls that we want.
//!
//! The order of every step is such that the thread, let go by our death before or after it, ends up as it was:
//! stub data before registers, registers before the signal mask; and back, the mask before the registers.

use super::batch::{self, Batch};
use super::call;
use super::driver::{Driver, Outcome};
use super::error::Error;
use super::memory::Memory;
use super::patience::Patience;
use super::stub::{Data, Stub};
use super::thread::{Stop, StoppedThread};
use crate::fault;
use crate::image::model::address::Addr;
use crate::image::model::id::Tid;
use crate::sys::ptrace::{self, event};
use crate::sys::ptrace_info;
use crate::sys::regset::{self, UserRegs};
use nix::errno::Errno;

/// Every signal. SIGKILL and SIGSTOP cannot be blocked.
const ALL_SIGNALS: u64 = u64::MAX;

/// Where a visited thread stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Where it was found.
    Untouched,
    /// In the stub, within or behind a call: a restart code in its registers would mean nothing there.
    InStub,
    /// In the delivery of a signal, from which the kernel returns to the program as from the stop in which it was found.
    Delivery,
}

/// A thread whose stub is written. Between [`Visit::call`] or [`Visit::answer`] and [`Visit::leave`] it stands in the stub.
#[derive(Debug)]
pub(super) struct Visit {
    driver: Driver,
    stub: Stub,
    /// Registers to put back at a stop of the kind in which they were found.
    saved: UserRegs,
    mask: u64,
    standing: Standing,
    /// Whether its stack pointer may not be the program's.
    has_own_stack: bool,
}

impl Visit {
    /// Writes what the stub is to put back for this thread. No thread may be in the stub.
    pub fn prepare(thread: &StoppedThread, stub: Stub, undo: (Addr, u64), memory: &Memory) -> Result<Self, Error> {
        let mask = thread.signal_mask()?;
        let data = Data { mapping: undo.0, len: undo.1, ..Data::of(&call::made_again(&thread.regs), mask) };
        memory.write(stub.data(), &data.bytes())?;
        Ok(Self::new(thread, stub, mask))
    }

    /// Writes what a batch is to put back for this thread, which stands in its stub. No other thread may be in the batch.
    pub fn prepare_batch(&self, batch: Addr, memory: &Memory) -> Result<(), Error> {
        memory.write(batch, &batch::data(&self.saved))
    }

    /// As [`Self::prepare`], for a thread that owes nothing and is to answer the batch behind its stub.
    pub fn prepare_for_batch(thread: &StoppedThread, stub: Stub, memory: &Memory) -> Result<Self, Error> {
        let mask = thread.signal_mask()?;
        let own = Data::of(&call::made_again(&thread.regs), mask).bytes();
        memory.write(stub.data(), &[own.as_slice(), &batch::data(&thread.regs)].concat())?;
        Ok(Self::new(thread, stub, mask))
    }

    fn new(thread: &StoppedThread, stub: Stub, mask: u64) -> Self {
        let driver = Driver { pid: thread.pid, tid: thread.tid };
        Self { driver, stub, saved: thread.regs, mask, standing: Standing::Untouched, has_own_stack: false }
    }

    pub fn tid(&self) -> Tid {
        self.driver.tid
    }

    pub fn driver(&self) -> Driver {
        self.driver
    }

    pub fn stub(&self) -> Stub {
        self.stub
    }

    /// The signal mask that it is given back.
    pub fn mask(&self) -> u64 {
        self.mask
    }

    /// Makes a call from one of the stub's entries. The thread stands behind the call's instruction then.
    pub fn call(&mut self, entry: Addr, number: u64, args: [u64; 6]) -> Result<Outcome, Error> {
        let [rdi, rsi, rdx, r10, r8, r9] = args;
        let (rax, rip) = (number, entry.0);
        self.set(&UserRegs { rax, rdi, rsi, rdx, r10, r8, r9, rip, orig_rax: u64::MAX, ..self.saved })?;
        if self.standing != Standing::InStub {
            self.standing = Standing::InStub;
            fault::pass(fault::Point::StubEntered)?;
            self.block(ALL_SIGNALS)?;
        }
        self.driver.through_call(number, Stub::after(entry))
    }

    /// Has the thread stand before a call in its stub, which it makes should we die, and not before.
    pub fn stand_by(&mut self, number: i64, args: [u64; 6]) -> Result<(), Error> {
        self.driver.aim(&self.saved, self.stub.call_entry(), number as u64, args)?;
        self.standing = Standing::InStub;
        self.block(ALL_SIGNALS)
    }

    /// Has the thread stand before code of ours that must lead to its stub, with `argument` in rdi and a stack of its own.
    pub fn stand_in_code(&mut self, entry: Addr, stack: Addr, argument: Addr) -> Result<(), Error> {
        let (rip, rsp, rdi) = (entry.0, stack.0, argument.0);
        self.has_own_stack = true;
        self.set(&UserRegs { rip, rsp, rdi, orig_rax: u64::MAX, ..self.saved })?;
        self.standing = Standing::InStub;
        self.block(ALL_SIGNALS)
    }

    /// Writes registers, with the stack pointer where that is not the program's.
    fn set(&self, regs: &UserRegs) -> Result<(), Error> {
        if self.has_own_stack {
            regset::set_all(self.tid(), regs).map_err(self.driver.failed("setting registers"))
        } else {
            self.driver.set(regs)
        }
    }

    /// The registers that it is given back.
    pub fn saved(&self) -> &UserRegs {
        &self.saved
    }

    /// Has the thread answer a batch; with what registers it has done so. It stands in the delivery of the batch's signal then.
    pub fn answer(&mut self, batch: Batch) -> Result<UserRegs, Error> {
        self.driver.aim(&self.saved, batch.entry(), 0, [0; 6])?;
        self.standing = Standing::InStub;
        fault::pass(fault::Point::StubEntered)?;
        self.block(ALL_SIGNALS & !(1 << (batch.signal - 1)))?;
        let failed = self.driver.failed("letting it answer");
        ptrace::cont(self.tid(), 0).map_err(&failed)?;
        fault::pass(fault::Point::Answering)?;
        loop {
            let signal = match self.driver.next_stop()? {
                (signal, 0) if signal == batch.signal => {
                    let regs = self.driver.regs()?;
                    if regs.rip == batch.end().0 {
                        self.standing = Standing::Delivery;
                        return Ok(regs);
                    }
                    // One that somebody else has sent: nobody would have seen it.
                    0
                }
                (libc::SIGSTOP, 0) => libc::SIGSTOP,
                (signal, 0) => return Err(Error::Signalled { tid: self.tid(), signal }),
                _ => 0,
            };
            ptrace::cont(self.tid(), signal).map_err(&failed)?;
        }
    }

    /// Stops a thread in the middle of a batch.
    pub fn halt(&self) -> Result<(), Error> {
        ptrace::interrupt(self.tid()).map_err(self.driver.failed("interrupting"))?;
        self.driver.next_stop().map(drop)
    }

    /// Moves a thread that has answered out of the batch, to its stub's way out: another thread's may come to stand there.
    pub fn park(&mut self) -> Result<(), Error> {
        let regs = UserRegs { rip: Stub::after(self.stub.call_entry()).0, orig_rax: u64::MAX, ..self.saved };
        self.set(&regs)?;
        self.standing = Standing::InStub;
        self.block(ALL_SIGNALS)
    }

    fn block(&self, mask: u64) -> Result<(), Error> {
        ptrace_info::set_signal_mask(self.tid(), mask).map_err(self.driver.failed("blocking signals"))
    }

    /// Its registers now.
    pub fn regs(&self) -> Result<UserRegs, Error> {
        self.driver.regs()
    }

    /// Lets the stub go on to the end of its own next call.
    pub fn through_call(&self, number: i64, after: Addr) -> Result<Result<u64, Errno>, Error> {
        self.driver.through_call(number as u64, after).map(|outcome| outcome.result)
    }

    /// Moves a thread that stands in the stub to the way out.
    pub fn to_way_out(&self) -> Result<(), Error> {
        let regs = UserRegs { rip: Stub::after(self.stub.call_entry()).0, orig_rax: u64::MAX, ..self.driver.regs()? };
        self.driver.set(&regs)
    }

    /// Puts the thread back into a stop that ends as the one in which it was found would, with its own mask and registers.
    pub fn leave(&self) -> Result<(), Error> {
        if self.standing == Standing::InStub {
            self.driver.return_to_interrupt()?;
        }
        let failed = self.driver.failed("restoring the signal mask");
        ptrace_info::set_signal_mask(self.tid(), self.mask).map_err(failed)?;
        self.set(&self.saved)?;
        let now = self.driver.regs()?;
        if now == self.saved { Ok(()) } else { Err(Error::Astray { tid: self.tid(), rip: Addr(now.rip) }) }
    }
}

/// How long that may take. A worker waits for its sentinel ([`super::Gathering`]), which stands still if we have frozen it: it must be let go of to end.
const LEAVING: std::time::Duration = std::time::Duration::from_millis(500);

/// Lets a thread run that a killed predecessor left in a stub, until it has come out of it, and looks at it anew.
pub(super) fn run_out(thread: &mut StoppedThread, inside: &dyn Fn(u64) -> bool) -> Result<(), Error> {
    let driver = Driver { pid: thread.pid, tid: thread.tid };
    let mut patience = Patience::new(LEAVING);
    while inside(thread.regs.rip) {
        ptrace::cont(driver.tid, 0).map_err(driver.failed("letting it leave a stale stub"))?;
        let has_time = patience.wait();
        *thread = StoppedThread::new(thread.pid, thread.tid, interrupt(driver)?, driver.regs()?);
        if thread.stop == Stop::Interrupted
            && let Some(undone) = call::undo_interruption(&thread.regs)
        {
            regset::set_up_to_flags(driver.tid, &undone).map_err(driver.failed("setting registers"))?;
            (thread.regs, thread.undone) = (undone, true);
        }
        if !has_time && inside(thread.regs.rip) {
            return Err(Error::Leaving(driver.tid));
        }
    }
    Ok(())
}

/// Stops a running thread, past the delivery of signals.
fn interrupt(driver: Driver) -> Result<Stop, Error> {
    let failed = driver.failed("interrupting");
    ptrace::interrupt(driver.tid).map_err(&failed)?;
    loop {
        let signal = match driver.next_stop()? {
            (libc::SIGTRAP, event::STOP) => return Ok(Stop::Interrupted),
            (signal, event::STOP) => return Ok(Stop::Group(signal)),
            (signal, 0) if signal & 0x80 == 0 => signal,
            _ => 0,
        };
        ptrace::interrupt(driver.tid).and_then(|()| ptrace::cont(driver.tid, signal)).map_err(&failed)?;
    }
}
