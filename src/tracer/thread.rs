//! A stopped thread: what can be asked of it while the tree it belongs to is held.

use super::call::{self, Blocked};
use super::error::Error;
use crate::image::model::id::{Pid, Tid};
use crate::proc::status::{self, Status};
use crate::proc::{self, ThreadName};
use crate::sys::ptrace_info::{self, Queue, RawSiginfo, RseqConfiguration, SockFilter, SyscallUserDispatch};
use crate::sys::regset::{self, UserRegs};
use nix::errno::Errno;
use std::cell::OnceCell;
use std::rc::Rc;

/// How a thread came to stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// We interrupted it.
    Interrupted,
    /// Its process was in group stop before, by this signal, and stays so.
    Group(i32),
}

/// What was found before, for what does not change while the thread stands still, but for what we do to it.
fn once<T: Copy>(known: &OnceCell<T>, ask: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    match known.get() {
        Some(known) => Ok(*known),
        None => ask().map(|found| *known.get_or_init(|| found)),
    }
}

/// Reads the `status` of a thread.
pub(super) fn read_status(pid: Pid, tid: Tid, buffer: &mut Vec<u8>) -> Result<Status, proc::Error> {
    status::read(&ThreadName::new(pid, tid), buffer)
}

/// A thread that stands still for as long as the [`super::FrozenTree`] that lends it lives.
#[derive(Debug)]
pub struct StoppedThread {
    pub(super) pid: Pid,
    pub(super) tid: Tid,
    pub(super) stop: Stop,
    pub(super) regs: UserRegs,
    /// The kernel had ended its call with EINTR, which was undone.
    pub(super) undone: bool,
    status: OnceCell<Rc<Status>>,
    signal_mask: OnceCell<u64>,
    rseq: OnceCell<Option<RseqConfiguration>>,
    dispatch: OnceCell<Option<SyscallUserDispatch>>,
}

impl StoppedThread {
    pub(super) fn new(pid: Pid, tid: Tid, stop: Stop, regs: UserRegs) -> Self {
        let (status, signal_mask) = (OnceCell::new(), OnceCell::new());
        let (rseq, dispatch) = (OnceCell::new(), OnceCell::new());
        Self { pid, tid, stop, regs, undone: false, status, signal_mask, rseq, dispatch }
    }

    /// Its `status`, as it was when somebody first asked for it during this stop.
    ///
    /// # Errors
    /// [`Error::Proc`], [`Error::Vanished`].
    pub fn status(&self) -> Result<Rc<Status>, Error> {
        if let Some(known) = self.status.get() {
            return Ok(Rc::clone(known));
        }
        let read = read_status(self.pid, self.tid, &mut Vec::new());
        let status = read.map_err(|error| match error {
            gone if gone.is_vanished() => Error::Vanished(self.pid),
            other => Error::Proc { path: format!("/proc/{}/status", self.tid), source: std::io::Error::other(other) },
        })?;
        Ok(self.learn(status))
    }

    /// What [`Self::status`] says from now on, unless it was asked before.
    pub(super) fn learn(&self, status: Status) -> Rc<Status> {
        Rc::clone(self.status.get_or_init(|| Rc::new(status)))
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Its id.
    #[must_use]
    pub fn tid(&self) -> Tid {
        self.tid
    }

    /// How it came to stand still.
    #[must_use]
    pub fn stop(&self) -> Stop {
        self.stop
    }

    /// General registers as the stop found them: inside of a call, `orig_rax` is its number and `rax` the kernel's code.
    #[must_use]
    pub fn regs(&self) -> &UserRegs {
        &self.regs
    }

    /// The call in the middle of which it was stopped.
    #[must_use]
    pub fn blocked(&self) -> Option<Blocked> {
        call::blocked(&self.regs)
    }

    /// Whether the kernel had ended that call with EINTR, as it does with those that it never restarts.
    #[must_use]
    pub fn is_undone(&self) -> bool {
        self.undone
    }

    /// The XSAVE area in standard format.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    pub fn xstate(&self) -> Result<Vec<u8>, Error> {
        regset::xstate(self.tid).map_err(Error::of(self.tid, "reading the XSAVE area"))
    }

    /// Debug registers 0 to 3, 6 and 7; `None` when no breakpoint is enabled.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    pub fn debug_registers(&self) -> Result<Option<[u64; 6]>, Error> {
        regset::debug(self.tid).map_err(Error::of(self.tid, "reading debug registers"))
    }

    /// The signal mask to which it returns, bit N-1 for signal N.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    pub fn signal_mask(&self) -> Result<u64, Error> {
        once(&self.signal_mask, || ptrace_info::signal_mask(self.tid))
            .map_err(Error::of(self.tid, "reading the signal mask"))
    }

    /// Pending signals in order.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    pub fn pending(&self, queue: Queue) -> Result<Vec<RawSiginfo>, Error> {
        ptrace_info::pending(self.tid, queue).map_err(Error::of(self.tid, "reading pending signals"))
    }

    /// Its rseq(2) registration.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    pub fn rseq(&self) -> Result<Option<RseqConfiguration>, Error> {
        once(&self.rseq, || ptrace_info::rseq(self.tid)).map_err(Error::of(self.tid, "reading the rseq registration"))
    }

    /// Its syscall user dispatch, if on. Before Linux 6.4 nobody can see it.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    pub fn syscall_user_dispatch(&self) -> Result<Option<SyscallUserDispatch>, Error> {
        let ask = || match ptrace_info::syscall_user_dispatch(self.tid) {
            Err(Errno::EIO) => Ok(None),
            answer => answer,
        };
        once(&self.dispatch, ask).map_err(Error::of(self.tid, "reading syscall user dispatch"))
    }

    /// Its seccomp filters with their SECCOMP_FILTER_FLAG_*, newest first. The thread must be in filter mode.
    ///
    /// # Errors
    /// [`Error::Kernel`] with EACCES without CAP_SYS_ADMIN, EINVAL for a thread that is not in filter mode.
    pub fn seccomp_filters(&self) -> Result<Vec<(Vec<SockFilter>, u64)>, Error> {
        let fail = Error::of(self.tid, "reading seccomp filters");
        let mut filters = Vec::new();
        while let Some(program) = ptrace_info::seccomp_filter(self.tid, filters.len()).map_err(&fail)? {
            let flags = ptrace_info::seccomp_flags(self.tid, filters.len()).map_err(&fail)?;
            filters.push((program, flags));
        }
        Ok(filters)
    }
}
