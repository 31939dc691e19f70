//! All other threads that have the memory of a thread with a child of ours: while that works they stand in stubs, before a wait for its end.
//!
//! Any thread of a process may wait for a child of any other. The wait leaves the child to be reaped by who has made it, and ends as well when that has happened
//! (ECHILD): so none waits for ever, however the child ends.
//!
//! In other processes with the same memory nobody may wait for it so. There each waits for a word (futex(2)) of a robust list of the child, which the kernel goes through when
//! that ends, in whatever way: it marks each word and wakes one who waits for it (kernel/futex/core.c, `exit_robust_list`). Whoever comes later finds the word marked, or the
//! memory gone.

use super::super::deputy::Deputy;
use super::super::error::Error;
use super::super::memory::Memory;
use super::super::padding::Place;
use super::super::session;
use super::super::stub;
use super::super::tree::FrozenTree;
use super::stubs::{Stubs, Who};
use crate::image::model::address::{Addr, PAGE_SIZE};
use crate::image::model::id::Pid;

/// Bytes of the words for which other processes wait.
pub const WORDS: u64 = PAGE_SIZE;
/// Bytes of a `struct robust_list_head`: the first entry, where each has its word, and none that is being taken.
const HEAD: u64 = 24;
/// Bytes of an entry: the next one, and its word.
const ENTRY: u64 = 16;
const WORD: u64 = 8;
/// As many threads as may wait for such words. The kernel goes through 2048 of a list.
const MOST: usize = ((WORDS - HEAD) / ENTRY) as usize;

/// The threads. Left or dropped, they are where they were.
#[derive(Debug)]
pub(in crate::tracer) struct Bystanders<'a> {
    stubs: Stubs,
    /// How many of them are of the child's maker's process. They come first.
    own: usize,
    memory: &'a Memory,
}

impl<'a> Bystanders<'a> {
    /// Nobody.
    pub fn none(memory: &'a Memory) -> Self {
        Self { stubs: Stubs::default(), own: 0, memory }
    }

    /// Writes a stub for each thread of the process but the first, whose stub stands in `taken`, and for each of the other processes that have its memory.
    ///
    /// # Errors
    /// As [`Stubs::write`].
    pub fn prepare(
        tree: &mut FrozenTree,
        pid: Pid,
        others: &[Pid],
        taken: Place,
        memory: &'a Memory,
    ) -> Result<Self, Error> {
        let maps = session::read_maps(memory.pid())?;
        let own = tree.threads_of(pid).len().saturating_sub(1);
        let count: usize = others.iter().map(|other| tree.threads_of(*other).len()).sum();
        if count > MOST {
            return Err(Error::NoRoom { pid, what: "room for so many threads of other processes with its memory" });
        }
        let processes: Vec<(Pid, usize)> =
            [(pid, 1)].into_iter().chain(others.iter().map(|other| (*other, 0))).collect();
        let who = Who { processes: &processes, taken: Some(taken), undo: session::NOTHING };
        Ok(Self { stubs: Stubs::write(tree, who, &maps, memory)?, own, memory })
    }

    /// Sends them there. `words` is memory that nobody uses, for as long as the child lives.
    ///
    /// # Errors
    /// [`Error::Kernel`], [`Error::Vanished`].
    pub fn await_end_of(&mut self, child: &Deputy, words: Addr) -> Result<(), Error> {
        let options = u64::from(stub::WAIT_OPTIONS) | libc::WNOWAIT as u64;
        let args = [libc::P_PID as u64, child.pid().0 as u64, 0, options, 0, 0];
        let (own, others) = self.stubs.visits.split_at_mut(self.own);
        own.iter_mut().try_for_each(|thread| thread.stand_by(libc::SYS_waitid, args))?;
        if others.is_empty() {
            return Ok(());
        }
        let value = list(child, words, others.len() as u64, self.memory)?;
        for (thread, number) in others.iter_mut().zip(0..) {
            let word = words.add(HEAD + number * ENTRY + WORD);
            thread.stand_by(libc::SYS_futex, [word.0, libc::FUTEX_WAIT as u64, value, 0, 0, 0])?;
        }
        Ok(())
    }

    /// Puts them back. The child has ended.
    ///
    /// # Errors
    /// The first failure; what can be undone is undone nevertheless.
    pub fn leave(&mut self) -> Result<(), Error> {
        let left = self.stubs.visits.drain(..).map(|thread| thread.leave()).fold(Ok(()), Error::first);
        session::erase_after(left, self.stubs.places.drain(..), self.memory)
    }
}

impl Drop for Bystanders<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            error.log("putting threads back");
        }
    }
}

/// Gives the child its list, before anybody waits for it; what each word holds.
fn list(child: &Deputy, words: Addr, count: u64, memory: &Memory) -> Result<u64, Error> {
    let failed = |action| move |source| Error::Kernel { tid: child.pid().leader(), action, source };
    let own = child.syscall(libc::SYS_gettid, [0; 6])?.map_err(failed("asking for its number"))?;
    let value = own | u64::from(libc::FUTEX_WAITERS);
    // The last one leads back to the head.
    let entry = |number: u64| if number < count { words.0 + HEAD + number * ENTRY } else { words.0 };
    let entries = (0..count).flat_map(|number| [entry(number + 1), value]);
    let list: Vec<u8> = [entry(0), WORD, 0].into_iter().chain(entries).flat_map(u64::to_le_bytes).collect();
    memory.write(words, &list)?;
    let given = child.syscall(libc::SYS_set_robust_list, [words.0, HEAD, 0, 0, 0, 0])?;
    given.map_err(failed("giving it a robust list")).map(|_| value)
}
