//! Questions that only a task itself can answer: system calls made in its place, answers read from the scratch mapping.

use super::CollectError;
use super::signal::{ACTION_SIZE, SIGNALS};
use crate::image::model::address::{Addr, PageRange};
use crate::image::model::id::Tid;
use crate::tracer::{ANSWERS, Question, RemoteSession, StoppedThread};
use nix::errno::Errno;
use std::io;

/// Bytes of the scratch mapping that one answer may take.
pub const SLOT: u64 = 4096;

/// Asks through one remote session.
pub struct Asker<'s, 't> {
    session: &'s mut RemoteSession<'t>,
}

impl<'s, 't> Asker<'s, 't> {
    /// An asker over an open session.
    pub fn new(session: &'s mut RemoteSession<'t>) -> Self {
        Self { session }
    }

    /// A thread of the process.
    ///
    /// # Errors
    /// When there is no such thread.
    pub fn thread(&self, tid: Tid) -> Result<&StoppedThread, CollectError> {
        self.session.tree().thread(tid).ok_or_else(|| CollectError::at(tid, "finding the thread")(Errno::ESRCH))
    }

    /// The scratch mapping.
    #[must_use]
    pub fn mapping(&self) -> PageRange {
        self.session.scratch()
    }

    /// The address in the target, `offset` bytes into the scratch mapping, to which a call writes its answer.
    #[must_use]
    pub fn scratch(&self, offset: u64) -> Addr {
        self.session.scratch().start.add(offset)
    }

    /// Makes a call in the place of `tid`: the outer error is ours, the inner is what the kernel told the target.
    ///
    /// # Errors
    /// When the call could not be made.
    pub fn call(
        &mut self,
        tid: Tid,
        action: &'static str,
        number: i64,
        args: [u64; 6],
    ) -> Result<io::Result<u64>, CollectError> {
        self.session
            .syscall(tid, number, args)
            .map(|result| result.map_err(io::Error::from))
            .map_err(|source| CollectError::Remote { tid, action, source })
    }

    /// Puts questions to a thread, in one go where that can be done, and returns in order what those calls returned that are to be kept.
    ///
    /// # Errors
    /// When a call could not be made.
    pub fn answers(
        &mut self,
        tid: Tid,
        action: &'static str,
        questions: &[Question],
    ) -> Result<[Option<u64>; ANSWERS], CollectError> {
        self.answers_and_dispositions(tid, action, questions, None)
    }

    /// As [`Self::answers`]. With an offset into the scratch mapping, the `struct sigaction` of each signal is written there as well.
    ///
    /// # Errors
    /// As [`Self::answers`]; when rt_sigaction(2) failed.
    pub fn answers_and_dispositions(
        &mut self,
        tid: Tid,
        action: &'static str,
        questions: &[Question],
        dispositions: Option<u64>,
    ) -> Result<[Option<u64>; ANSWERS], CollectError> {
        const MAX_ERRNO: u64 = -4095i64 as u64;
        let together = self.session.answers(tid, questions, dispositions.map(|offset| self.scratch(offset)));
        if let Some(answers) = together.map_err(|source| CollectError::Remote { tid, action, source })? {
            return Ok(answers.map(|answer| Some(answer).filter(|answer| *answer < MAX_ERRNO)));
        }
        let mut answers = [None; ANSWERS];
        let mut kept = answers.iter_mut();
        for Question { number, args: [first, second, third], returns } in questions {
            let answer = self.optional(tid, action, *number, [*first, *second, *third, 0, 0, 0])?;
            if *returns && let Some(kept) = kept.next() {
                *kept = answer;
            }
        }
        for signal in 1..=dispositions.map_or(0, |_| SIGNALS as u64) {
            let out = self.scratch(dispositions.unwrap_or(0) + (signal - 1) * ACTION_SIZE as u64);
            self.expect(tid, "rt_sigaction", libc::SYS_rt_sigaction, [signal, 0, out.0, 8, 0, 0])?;
        }
        Ok(answers)
    }

    /// Fills part of the scratch mapping, to see later which answers were given.
    ///
    /// # Errors
    /// When the target's memory cannot be written.
    pub fn fill(&mut self, offset: u64, bytes: &[u8]) -> Result<(), CollectError> {
        let tid = self.session.host();
        let mapped = self.session.map();
        mapped.map_err(|source| CollectError::Remote { tid, action: "mapping memory in the target", source })?;
        let (at, action) = (self.scratch(offset), "writing the scratch mapping");
        self.session.memory().write(at, bytes).map_err(|source| CollectError::Remote { tid, action, source })
    }

    /// A call that must succeed.
    ///
    /// # Errors
    /// When it was not made, or failed.
    pub fn expect(&mut self, tid: Tid, action: &'static str, number: i64, args: [u64; 6]) -> Result<u64, CollectError> {
        self.call(tid, action, number, args)?.map_err(CollectError::at(tid, action))
    }

    /// A call whose failure means that the kernel or the CPU does not have the thing asked for.
    ///
    /// # Errors
    /// When it was not made.
    pub fn optional(
        &mut self,
        tid: Tid,
        action: &'static str,
        number: i64,
        args: [u64; 6],
    ) -> Result<Option<u64>, CollectError> {
        Ok(self.call(tid, action, number, args)?.ok())
    }

    /// prctl(2) with one argument, whose result is the answer.
    ///
    /// # Errors
    /// When it was not made.
    pub fn prctl(&mut self, tid: Tid, action: &'static str, option: i32) -> Result<Option<u64>, CollectError> {
        self.optional(tid, action, libc::SYS_prctl, [option as u64, 0, 0, 0, 0, 0])
    }

    /// prctl(2) that writes its answer as a 32-bit number.
    ///
    /// # Errors
    /// When it was not made.
    pub fn prctl_out(&mut self, tid: Tid, action: &'static str, option: i32) -> Result<Option<u32>, CollectError> {
        let out = self.scratch(0);
        let answered = self.optional(tid, action, libc::SYS_prctl, [option as u64, out.0, 0, 0, 0, 0])?;
        Ok(match answered {
            Some(_) => Some(self.words::<1>(0)?[0] as u32),
            None => None,
        })
    }

    /// What a call has written: 64-bit words from `offset` into the scratch mapping.
    ///
    /// # Errors
    /// When the target's memory cannot be read.
    pub fn words<const N: usize>(&mut self, offset: u64) -> Result<[u64; N], CollectError> {
        let mut bytes = [[0u8; 8]; N];
        self.read(offset, bytes.as_flattened_mut())?;
        Ok(bytes.map(u64::from_le_bytes))
    }

    /// Memory of the target: `false` when it cannot be read. Pages that are shared with a copy stay so.
    pub fn peek(&self, at: Addr, into: &mut [u8]) -> bool {
        self.session.memory().read(at, into).is_ok()
    }

    /// What calls have written, as bytes.
    ///
    /// # Errors
    /// When the target's memory cannot be read.
    pub fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), CollectError> {
        let at = self.scratch(offset);
        let tid = self.session.host();
        let action = "reading the scratch mapping";
        self.session.memory().read(at, into).map_err(|source| CollectError::Remote { tid, action, source })
    }
}
