//! A twin: a copy of an address space, shared copy-on-write, that stands still while the target runs on. And a child that shares the address
//! space of a target which stands still.
//!
//! The host thread makes the child, which makes the twin and ends, so that the twin belongs to nobody in the tree. Child and
//! twin stand in the stub, at code that ends them, and are killed should we die. The host's stub reaps the child whether we live or die.

use super::deputy::{self, Deputy, Fate};
use super::driver::Driver;
use super::error::Error;
use super::gathering::{self, Bystanders};
use super::inject::Visit;
use super::memory::Memory;
use super::seccomp::Call;
use super::stub::{self, Stub};
use crate::image::model::address::{Addr, PageRange};
use crate::image::model::id::{Pid, Tid};
use crate::sys::ptrace;

/// Shares memory and descriptors with its parent; nobody is told of its end.
const CHILD: u64 = (libc::CLONE_VM | libc::CLONE_FILES) as u64;
/// Copies the memory, shares descriptors until it has let go of them.
const TWIN: u64 = libc::CLONE_FILES as u64;

/// A stopped copy of an address space without descriptors. Dropped, it is gone.
///
/// It does not hold what fork(2) does not copy: mappings with MADV_DONTFORK or MADV_WIPEONFORK, and shared memory, which changes on.
#[derive(Debug)]
pub struct Twin {
    deputy: Deputy,
    /// Whether no seccomp filter watches what it calls.
    is_free: bool,
}

impl Twin {
    /// Its pid, which nobody else knows.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.deputy.pid()
    }

    /// Its memory.
    ///
    /// # Errors
    /// [`Error::Proc`].
    pub fn memory(&self) -> Result<Memory, Error> {
        self.deputy.memory()
    }

    /// The process that it is; `None` when a filter watches what that calls.
    pub fn deputy(&mut self) -> Option<&mut Deputy> {
        self.is_free.then_some(&mut self.deputy)
    }
}

/// The calls that making a twin takes.
pub(super) fn calls(stub: Stub) -> [Call; 6] {
    let [child, close, wait, exit] = child_calls(stub);
    let ip = Stub::after(stub.child_entry());
    [
        child,
        Call { number: libc::SYS_clone as u64, args: [TWIN, 0, 0, 0, 0, 0], ip },
        close,
        Call { number: libc::SYS_setsid as u64, args: [0; 6], ip },
        wait,
        exit,
    ]
}

/// The calls that making a child takes.
fn child_calls(stub: Stub) -> [Call; 4] {
    let wait = [libc::P_PID as u64, 0, 0, u64::from(stub::WAIT_OPTIONS), 0, 0];
    [
        Call { number: libc::SYS_clone as u64, args: [CHILD, 0, 0, 0, 0, 0], ip: Stub::after(stub.fork_entry()) },
        deputy::close_call(stub),
        Call { number: libc::SYS_waitid as u64, args: wait, ip: stub.after_reaping() },
        Call { number: libc::SYS_exit as u64, args: [0; 6], ip: stub.after_end() },
    ]
}

/// Has the host thread make a twin.
pub(super) fn make(host: &mut Visit, is_free: bool) -> Result<Twin, Error> {
    let stub = host.stub();
    let child = bear(host)?;
    let twin = twin_of(child, stub);
    // The child ends, and the host goes on only when it has.
    let child = Driver { pid: Pid(child.0), tid: child };
    ptrace::detach(child.tid, 0).map_err(child.failed("letting the child end"))?;
    reap(host)?;
    twin.map(|deputy| Twin { deputy, is_free })
}

/// Has the host thread make a child. The host waits for its end then, by [`reap`].
pub(super) fn bear(host: &mut Visit) -> Result<Tid, Error> {
    let stub = host.stub();
    let [clone, ..] = child_calls(stub);
    let born = host.call(stub.fork_entry(), clone.number, clone.args)?;
    if let Err(source) = born.result {
        host.to_way_out()?;
        return Err(Error::Kernel { tid: host.tid(), action: "making a child", source });
    }
    born.newborn.ok_or(Error::Astray { tid: host.tid(), rip: stub.fork_entry() })
}

/// Has the host reap its child.
fn reap(host: &Visit) -> Result<(), Error> {
    let reaped = host.through_call(libc::SYS_waitid, host.stub().after_reaping())?;
    reaped.map(drop).map_err(|source| Error::Kernel { tid: host.tid(), action: "reaping the child", source })
}

/// Has the child make the twin, and the twin let go of all descriptors.
fn twin_of(child: Tid, stub: Stub) -> Result<Deputy, Error> {
    let [_, clone, _, setsid, ..] = calls(stub);
    let child = deputy::born(child)?;
    let made = child.call(&child.regs()?, stub.child_entry(), clone.number, clone.args)?;
    made.result.map_err(child.failed("copying the address space"))?;
    let tid = made.newborn.ok_or(Error::Astray { tid: child.tid, rip: stub.child_entry() })?;
    let twin = Deputy::new(tid, stub, Fate::DiesWithUs)?;
    // A zombie that init is slow to reap would keep the ids of the target's session and group taken.
    let left = twin.syscall(setsid.number as i64, setsid.args)?;
    left.map_err(|source| Error::Kernel { tid, action: "leaving the target's session", source })?;
    Ok(twin)
}

/// A child in the memory of a target that stands still, with the scratch mapping for its own. It must be [ended](Self::end) before anything else is
/// asked of the session that lends it.
#[derive(Debug)]
pub struct Child<'a> {
    deputy: Option<Deputy>,
    host: &'a Visit,
    scratch: PageRange,
    /// Who must not run before it has ended.
    others: Bystanders<'a>,
}

impl<'a> Child<'a> {
    pub(super) fn make(
        host: &'a mut Visit,
        scratch: PageRange,
        fate: Fate,
        mut others: Bystanders<'a>,
    ) -> Result<Self, Error> {
        let stub = host.stub();
        let tid = bear(host)?;
        // The last bytes are theirs.
        let words = Addr(scratch.end.0.saturating_sub(gathering::WORDS));
        let scratch = if fate == Fate::RunsOn { PageRange::new(scratch.start.0, words.0) } else { scratch };
        let deputy = Deputy::new(tid, stub, fate);
        let deputy = deputy.and_then(|deputy| others.await_end_of(&deputy, words).map(|()| deputy));
        match deputy {
            Ok(deputy) => Ok(Self { deputy: Some(deputy), host, scratch, others }),
            Err(error) => {
                let _ = ptrace::detach(tid, 0);
                reap(host)?;
                Err(error)
            }
        }
    }

    /// The mapping that it may use, and that is gone when we die.
    #[must_use]
    pub fn scratch(&self) -> PageRange {
        self.scratch
    }

    /// The process.
    ///
    /// # Errors
    /// [`Error::Vanished`] once it has ended.
    pub fn deputy(&mut self) -> Result<&mut Deputy, Error> {
        self.deputy.as_mut().ok_or(Error::Vanished(Pid(self.host.tid().0)))
    }

    /// Ends it, and has the host reap it. Whoever had to wait for that goes back to where he was.
    ///
    /// # Errors
    /// [`Error::Kernel`], [`Error::Vanished`].
    pub fn end(mut self) -> Result<(), Error> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), Error> {
        match self.deputy.take() {
            Some(deputy) => {
                drop(deputy);
                reap(self.host).and(self.others.leave())
            }
            None => Ok(()),
        }
    }
}

impl Drop for Child<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::error!("reaping a child: {error}");
        }
    }
}
