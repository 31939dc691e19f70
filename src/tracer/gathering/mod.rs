//! One thread works for us while all threads of some processes stand still, to the end of its work, whether we live or die.
//!
//! When we die, the kernel lets all of them run at once. So each is given something to do first. The *worker* runs a list of operations, then sets a word
//! and goes back to where it was. The other threads of its process wait for that word (futex(2)), in stubs of their own. In another process one thread waits
//! until the worker's *sentinel* is gone, a child that ends when that word is set; then it sets a word of its own, for which all others wait. While we live, only the
//! worker runs. The order in which they are sent there is such that nobody ever waits for somebody who does not know of it.

mod bystanders;
mod member;
mod stubs;
mod way_back;

pub(super) use bystanders::Bystanders;
pub use bystanders::WORDS;

use super::driver::BOUND;
use super::error::Error;
use super::memory::{Memory, RemotePtr};
use super::patience::Patience;
use super::tree::FrozenTree;
use super::twin;
use crate::fault::{self, Point};
use crate::image::model::address::PageRange;
use crate::image::model::id::{Pid, Tid};
use crate::sys::ptrace;
use crate::sys::wait::{self, Flags, Status};
use member::{Member, Way};
use protocol::{Op, check, pseudo};

/// Processes that stand by for one of them to work. Dropped, it leaves them as they were.
#[derive(Debug)]
pub struct Gathering {
    /// The worker's process comes first.
    members: Vec<Member>,
    sentinel: Option<Tid>,
    /// Whether the worker runs.
    works: bool,
    open: bool,
}

impl Gathering {
    /// Enters the processes, no two of which may share memory. The main thread of the first is to work, with memory for that many operations and `room` bytes of
    /// data.
    ///
    /// # Errors
    /// [`Error::Refused`] when a thread must not make calls for us or its process is stopped, [`Error::NoRoom`]; the target is as it was before.
    pub fn enter(tree: &mut FrozenTree, pids: &[Pid], ops: usize, room: u64) -> Result<Self, Error> {
        let mut gathering = Self { members: Vec::new(), sentinel: None, works: false, open: true };
        for (number, pid) in pids.iter().enumerate() {
            // Ours come before those of the worker.
            let (ops, room) = if number == 0 { (ops + 1, room) } else { (1, 0) };
            gathering.members.push(Member::new(tree, *pid, ops, room)?);
            gathering.members.last_mut().map_or(Ok(()), Member::map)?;
        }
        Ok(gathering)
    }

    fn worker(&mut self) -> Result<&mut Member, Error> {
        self.members.first_mut().ok_or(Error::Vanished(Pid(0)))
    }

    /// The memory that operations may use.
    #[must_use]
    pub fn room(&self) -> PageRange {
        self.members.first().map_or(PageRange::new(0, 0), Member::room)
    }

    /// The worker's memory.
    ///
    /// # Errors
    /// [`Error::Vanished`].
    pub fn memory(&self) -> Result<&Memory, Error> {
        self.members.first().map(Member::memory).ok_or(Error::Vanished(Pid(0)))
    }

    /// Has the worker perform operations. It does all of them, or, if we die before it has begun, none. They end with the
    /// first whose result fails its check. None may wait for long: nobody can stop them.
    ///
    /// # Errors
    /// [`Error::Vanished`] when its process was killed meanwhile, [`Error::Signalled`].
    pub fn perform(&mut self, ops: &[Op]) -> Result<(), Error> {
        self.stand_by(ops)?;
        fault::pass(Point::Gathered)?;
        self.works = true;
        self.worker()?.begin()?;
        fault::pass(Point::Exchanging)?;
        self.await_end()?;
        fault::pass(Point::Exchanged)?;
        Ok(())
    }

    /// Sends everybody to his place.
    fn stand_by(&mut self, ops: &[Op]) -> Result<(), Error> {
        let worker = self.worker()?;
        let sentinel = twin::bear(worker.host())?;
        self.sentinel = Some(sentinel);
        super::deputy::born(sentinel)?;
        let worker = self.worker()?;
        let gate = Op { nr: pseudo::SAME, check: check::EQUALS, indirect: 1, ..Op::default() };
        let gate = Op { args: [worker.gate().0, 1, 0, 0, 0, 0], ..gate };
        worker.send_host(&[&[gate], ops].concat(), Way::Reaping(sentinel))?;
        worker.send_sentinel(sentinel)?;
        worker.send_others()?;
        let gone = Op { nr: pseudo::GONE, args: [sentinel.0 as u64, 0, 0, 0, 0, 0], ..Op::default() };
        for member in self.members.iter_mut().skip(1) {
            member.send_host(&[gone], Way::Out)?;
            member.send_others()?;
        }
        Ok(())
    }

    /// Waits until the worker has done its work, and stops it where it waits for its sentinel.
    fn await_end(&mut self) -> Result<(), Error> {
        let worker = self.members.first_mut().ok_or(Error::Vanished(Pid(0)))?;
        let driver = worker.host().driver();
        self.works = false;
        let word = RemotePtr::<u32>::new(worker.word());
        let mut patience = Patience::new(BOUND);
        while worker.memory().get(word)? == 0 {
            match wait::wait(driver.tid, Flags::NOHANG | Flags::NOWAIT) {
                Ok(None) => {}
                Ok(Some(Status::Stopped { signal: libc::SIGSTOP, event: 0 })) => {
                    ptrace::cont(driver.tid, libc::SIGSTOP).map_err(driver.failed("stopping its process"))?;
                }
                Ok(Some(Status::Stopped { signal, event: 0 })) => {
                    return Err(Error::Signalled { tid: driver.tid, signal });
                }
                Ok(Some(Status::Stopped { .. })) => {
                    ptrace::cont(driver.tid, 0).map_err(driver.failed("letting it work"))?;
                }
                Ok(Some(Status::Exited(_) | Status::Killed(_))) => return Err(Error::Vanished(driver.pid)),
                Err(source) => return Err(driver.failed("waiting for its work")(source)),
            }
            // It must come to its end, however long that takes.
            if !patience.wait() {
                tracing::warn!("tid {} still works", driver.tid);
                patience.encouraged();
            }
        }
        worker.host().halt()
    }

    /// Has everybody go back to where he was.
    ///
    /// # Errors
    /// The first failure; what can be undone is undone nevertheless.
    pub fn leave(mut self) -> Result<(), Error> {
        self.undo()
    }

    fn undo(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.open) {
            return Ok(());
        }
        let ended = if self.works { self.await_end() } else { Ok(()) };
        let released = self.members.iter().map(Member::release).fold(Ok(()), Error::first);
        let dismissed = self.dismiss_sentinel();
        let left = self.members.iter_mut().rev().map(Member::leave).fold(Ok(()), Error::first);
        [released, dismissed, left].into_iter().fold(ended, Error::first)
    }

    /// Lets the sentinel end, and has the worker reap it.
    fn dismiss_sentinel(&mut self) -> Result<(), Error> {
        let Some(sentinel) = self.sentinel.take() else { return Ok(()) };
        let worker = self.worker()?;
        let _ = ptrace::detach(sentinel, 0);
        worker.reap(sentinel)
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            error.log("putting threads back");
        }
    }
}
