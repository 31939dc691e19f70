//! Moving one stopped task from system call to system call.

use super::error::Error;
use super::patience::Patience;
use super::tasks;
use crate::image::model::address::Addr;
use crate::image::model::id::{Pid, Tid};
use crate::sys::ptrace::{self, event};
use crate::sys::regset::{self, UserRegs};
use crate::sys::wait::{self, Flags, Status};
use nix::errno::Errno;
use std::time::Duration;

/// How long a call may take that is made in a target's name.
pub(super) const BOUND: Duration = Duration::from_secs(10);
/// SIGTRAP with the bit that PTRACE_O_TRACESYSGOOD sets.
const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;

/// A task that this OS thread traces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Driver {
    pub pid: Pid,
    pub tid: Tid,
}

/// What came of a system call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    /// What the kernel returned.
    pub result: Result<u64, Errno>,
    /// The task that it gave birth to, by its id in our pid namespace.
    pub newborn: Option<Tid>,
}

/// What a system call has returned.
pub(super) fn returned(rax: u64) -> Result<u64, Errno> {
    const MAX_ERRNO: u64 = -4095i64 as u64;
    if rax < MAX_ERRNO { Ok(rax) } else { Err(Errno::from_raw(-(rax as i64) as i32)) }
}

impl Driver {
    /// Makes a call with `regs` as all other registers. The task stands behind the call's instruction then.
    pub fn call(self, regs: &UserRegs, entry: Addr, number: u64, args: [u64; 6]) -> Result<Outcome, Error> {
        self.aim(regs, entry, number, args)?;
        self.through_call(number, entry.add(2))
    }

    /// Points a stopped task at a call instruction.
    pub fn aim(self, regs: &UserRegs, entry: Addr, number: u64, args: [u64; 6]) -> Result<(), Error> {
        let [rdi, rsi, rdx, r10, r8, r9] = args;
        let regs = UserRegs { rax: number, rdi, rsi, rdx, r10, r8, r9, rip: entry.0, orig_rax: u64::MAX, ..*regs };
        self.set(&regs)
    }

    /// Writes registers up to and with the flags.
    pub fn set(self, regs: &UserRegs) -> Result<(), Error> {
        regset::set_up_to_flags(self.tid, regs).map_err(self.failed("setting registers"))
    }

    pub fn regs(self) -> Result<UserRegs, Error> {
        regset::general(self.tid).map_err(self.failed("reading registers"))
    }

    /// Runs on to the end of the next call, which must be `number` and return to `after`.
    pub fn through_call(self, number: u64, after: Addr) -> Result<Outcome, Error> {
        let mut newborn = None;
        for _ in ["entry", "exit"] {
            self.resume(0)?;
            newborn = self.await_syscall_stop()?.or(newborn);
        }
        let regs = self.regs()?;
        if (regs.orig_rax, regs.rip) != (number, after.0) {
            return Err(Error::Astray { tid: self.tid, rip: Addr(regs.rip) });
        }
        Ok(Outcome { result: returned(regs.rax), newborn })
    }

    fn resume(self, signal: i32) -> Result<(), Error> {
        ptrace::syscall(self.tid, signal).map_err(self.failed("resuming"))
    }

    /// Waits for the entry to or the exit from a call, past every other stop.
    fn await_syscall_stop(self) -> Result<Option<Tid>, Error> {
        let mut newborn = None;
        loop {
            match self.next_stop()? {
                (SYSCALL_STOP, 0) => return Ok(newborn),
                (libc::SIGSTOP, 0) => self.resume(libc::SIGSTOP)?,
                (signal, 0) => return Err(Error::Signalled { tid: self.tid, signal }),
                (_, event::CLONE | event::FORK | event::VFORK) => {
                    newborn = ptrace::event_message(self.tid).ok().map(|tid| Tid(tid as i32));
                    self.resume(0)?;
                }
                _ => self.resume(0)?,
            }
        }
    }

    /// Interrupts a task that stands somewhere else and waits until it is in the stop that an interrupt makes. No instruction of
    /// its program runs.
    pub fn return_to_interrupt(self) -> Result<(), Error> {
        let mut signal = 0;
        loop {
            // Any stop takes back a pending interrupt, so that it is asked anew each time.
            ptrace::interrupt(self.tid).map_err(self.failed("interrupting"))?;
            ptrace::cont(self.tid, signal).map_err(self.failed("resuming"))?;
            match self.next_stop()? {
                (_, event::STOP) => return Ok(()),
                (libc::SIGSTOP, 0) => signal = libc::SIGSTOP,
                _ => signal = 0,
            }
        }
    }

    /// Waits for the next stop: its signal and its event.
    pub fn next_stop(self) -> Result<(i32, i32), Error> {
        let mut patience = Patience::new(BOUND);
        loop {
            match wait::wait(self.tid, Flags::NOHANG | Flags::NOWAIT) {
                Ok(Some(Status::Stopped { signal, event })) => return Ok((signal, event)),
                Ok(Some(Status::Exited(_) | Status::Killed(_))) | Err(Errno::ECHILD) => {
                    return Err(Error::Vanished(self.pid));
                }
                Ok(None) | Err(Errno::EINTR) => {}
                Err(source) => return Err(self.failed("waiting for its call")(source)),
            }
            if !patience.wait() {
                return Err(Error::Unstoppable { tid: self.tid, bound: BOUND, reason: tasks::occupation(self.tid) });
            }
        }
    }

    /// An error that names the task; ESRCH means that its process is gone.
    pub fn failed(self, action: &'static str) -> impl Fn(Errno) -> Error {
        move |source| match source {
            Errno::ESRCH => Error::Vanished(self.pid),
            source => Error::Kernel { tid: self.tid, action, source },
        }
    }
}
