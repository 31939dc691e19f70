//! All other threads of a process whose first thread has a child of ours: while that works they stand in stubs, before a wait for its end.
//!
//! Any thread of a process may wait for a child of any other. The wait leaves the child to be reaped by who has made it, and ends as well when that has happened
//! (ECHILD): so none waits for ever, however the child ends.

use super::super::error::Error;
use super::super::memory::Memory;
use super::super::padding::Place;
use super::super::session;
use super::super::stub;
use super::super::tree::FrozenTree;
use super::stubs::{Stubs, Who};
use crate::image::model::id::{Pid, Tid};

/// The threads. Left or dropped, they are where they were.
#[derive(Debug)]
pub(in crate::tracer) struct Bystanders<'a> {
    stubs: Stubs,
    memory: &'a Memory,
}

impl<'a> Bystanders<'a> {
    /// Nobody.
    pub fn none(memory: &'a Memory) -> Self {
        Self { stubs: Stubs::default(), memory }
    }

    /// Writes a stub for each. The stub of the first thread stands in `taken`.
    ///
    /// # Errors
    /// As [`Stubs::write`].
    pub fn prepare(tree: &mut FrozenTree, pid: Pid, taken: Place, memory: &'a Memory) -> Result<Self, Error> {
        let maps = session::read_maps(memory.pid())?;
        let who = Who { pid, but: 1, taken: Some(taken), undo: session::NOTHING };
        Ok(Self { stubs: Stubs::write(tree, who, &maps, memory)?, memory })
    }

    /// Sends them there.
    ///
    /// # Errors
    /// [`Error::Kernel`], [`Error::Vanished`].
    pub fn await_end_of(&mut self, child: Tid) -> Result<(), Error> {
        let options = u64::from(stub::WAIT_OPTIONS) | libc::WNOWAIT as u64;
        let args = [libc::P_PID as u64, child.0 as u64, 0, options, 0, 0];
        self.stubs.visits.iter_mut().try_for_each(|thread| thread.stand_by(libc::SYS_waitid, args))
    }

    /// Puts them back. The child has ended.
    ///
    /// # Errors
    /// The first failure; what can be undone is undone nevertheless.
    pub fn leave(&mut self) -> Result<(), Error> {
        self.stubs.visits.drain(..).map(|thread| thread.leave()).fold(Ok(()), Result::and)?;
        self.stubs.places.drain(..).try_for_each(|place| session::erase(place, self.memory))
    }
}

impl Drop for Bystanders<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            tracing::error!("putting threads back: {error}");
        }
    }
}
