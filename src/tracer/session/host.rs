//! The host of a session and its scratch mapping: made with the first questions, taken away with the last call, each without a stop of its own where
//! that can be done.

use super::calls::host_calls;
use super::{RemoteSession, write_verified};
use crate::fault;
use crate::image::model::address::{Addr, PageRange};
use crate::sys::regset::UserRegs;
use crate::tracer::batch::{self, ANSWERS, Batch, Part, Question};
use crate::tracer::driver;
use crate::tracer::error::Error;
use crate::tracer::memory::RemotePtr;
use crate::tracer::seccomp::Call;
use nix::errno::Errno;

impl RemoteSession<'_> {
    /// Makes the scratch mapping, unless it is there. From here on the host's stub unmaps it.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    pub fn map(&mut self) -> Result<(), Error> {
        if self.mapped {
            return Ok(());
        }
        let [map, ..] = host_calls(self.scratch, self.place.host);
        let got = self.host.call(self.place.host.map_entry(), map.number, map.args)?;
        self.has_mapped(got.result)?;
        Ok(fault::pass(fault::Point::Mapped)?)
    }

    fn has_mapped(&mut self, answer: Result<u64, Errno>) -> Result<(), Error> {
        let tid = self.host.tid();
        let at = answer.map_err(|source| Error::Kernel { tid, action: "mapping memory in the target", source })?;
        self.mapped = true;
        // A kernel before 4.17 takes the address for a hint.
        self.scratch = PageRange::new(at, at + self.scratch.len());
        self.memory.put(RemotePtr::new(self.place.host.mapping()), at)
    }

    /// Keeps the scratch mapping from children, unless that was done together with the first questions.
    pub(super) fn keep_from_children(&mut self) -> Result<(), Error> {
        self.map()?;
        if self.kept_from_children {
            return Ok(());
        }
        let [_, advise, ..] = host_calls(self.scratch, self.place.host);
        let advised = self.host.call(self.place.host.call_entry(), advise.number, advise.args)?;
        self.has_kept_from_children(advised.result)
    }

    fn has_kept_from_children(&mut self, advised: Result<u64, Errno>) -> Result<(), Error> {
        let (tid, action) = (self.host.tid(), "keeping memory from children");
        advised.map_err(|source| Error::Kernel { tid, action, source })?;
        self.kept_from_children = true;
        Ok(())
    }

    /// As [`Self::answers`], of the host, in the place where guests find theirs.
    pub(super) fn host_answers(
        &mut self,
        questions: &[Question],
        dispositions: Option<Addr>,
    ) -> Result<Option<[u64; ANSWERS]>, Error> {
        let at = self.place.guest.batch();
        let Some(signal) = self.signal()? else { return Ok(None) };
        let fitting = |questions: &[Question], part| Batch::new(at, self.place.host, questions, part, signal);
        let part = dispositions.map_or(Part::Questions, Part::Dispositions);
        let first = match (self.mapped, dispositions) {
            (true, _) => Some(part),
            (false, None) => Some(Part::Mapping(self.scratch)),
            (false, Some(_)) => None,
        };
        let first = first.filter(|_| !self.kept_from_children);
        let first = first.and_then(|part| fitting(&[&[self.advice()], questions].concat(), part));
        let advises = first.is_some();
        let Some((batch, bytes)) = first.or_else(|| fitting(questions, part)) else { return Ok(None) };
        if !advises {
            self.keep_from_children()?;
        }
        self.dismiss()?;
        self.batch = None;
        write_verified(at, &bytes, &self.memory)?;
        self.host.prepare_batch(at, &self.memory)?;
        let mut answers = batch::answers(&self.run(batch)?);
        if advises {
            let [advised, ..] = answers;
            self.has_kept_from_children(driver::returned(advised))?;
            answers.rotate_left(1);
        }
        Ok(Some(answers))
    }

    /// Has the host answer a batch.
    fn run(&mut self, batch: Batch) -> Result<UserRegs, Error> {
        let answered = self.host.answer(batch);
        if answered.is_err() {
            self.host.halt()?;
        }
        let maps = !self.mapped;
        if maps {
            let regs = match &answered {
                Ok(regs) => *regs,
                Err(_) => self.host.regs()?,
            };
            if let Some(answer) = batch.mapping(&regs) {
                self.has_mapped(driver::returned(answer))?;
            }
        }
        if self.mapped {
            // On its way out it has to unmap the scratch mapping, wherever it was.
            self.host.park()?;
            if maps {
                fault::pass(fault::Point::Mapped)?;
            }
        }
        answered
    }

    /// What keeps the scratch mapping from children, as a question.
    fn advice(&self) -> Question {
        let [_, advice, ..] = host_calls(self.scratch, self.place.host);
        question(advice)
    }

    /// Has the host unmap the scratch mapping, once, whether we live or die meanwhile.
    pub(super) fn unmap(&mut self) -> Result<(), Error> {
        let result = match self.unmap_in_a_batch() {
            Some(answer) => answer,
            None => self.host.through_call(libc::SYS_munmap, self.place.host.after_unmapping())?.map(drop),
        };
        let tid = self.host.tid();
        result.map_err(|source| Error::Kernel { tid, action: "unmapping memory in the target", source })
    }

    /// As [`Self::unmap`], without a stop behind it, where the host has answered batches. `None` leaves it at its way out: to unmap there what is unmapped
    /// does no harm while everybody stands still.
    fn unmap_in_a_batch(&mut self) -> Option<Result<(), Errno>> {
        let (at, signal) = (self.place.guest.batch(), self.signal.flatten()?);
        if !self.place.has_batch || !self.is_plain(self.host.tid()).ok()? {
            return None;
        }
        let [.., unmap, _] = host_calls(self.scratch, self.place.host);
        let (batch, bytes) = Batch::new(at, self.place.host, &[question(unmap)], Part::Unmapping, signal)?;
        write_verified(at, &bytes, &self.memory).ok()?;
        self.host.prepare_batch(at, &self.memory).ok()?;
        match self.host.answer(batch) {
            Ok(regs) => {
                let [answer, ..] = batch::answers(&regs);
                Some(driver::returned(answer).map(drop))
            }
            Err(_) => {
                let _ = self.host.halt().and_then(|()| self.host.park());
                None
            }
        }
    }
}

/// A call of three arguments whose result is wanted.
fn question(Call { number, args: [first, second, third, ..], ip: _ }: Call) -> Question {
    Question { number: number as i64, args: [first, second, third], returns: true }
}
