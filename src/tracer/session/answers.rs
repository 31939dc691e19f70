//! Several questions to a thread at once, without a stop in between.

use super::calls::host_calls;
use super::{RemoteSession, write_verified};
use crate::image::model::address::Addr;
use crate::image::model::id::Tid;
use crate::tracer::batch::{ANSWERS, Batch, Question};
use crate::tracer::driver;
use crate::tracer::error::Error;
use crate::tracer::seccomp::{Call, Policy};
use crate::tracer::thread::Stop;

impl RemoteSession<'_> {
    /// Puts several questions to a thread without a stop in between; returns what those calls returned that are to be kept, in order.
    /// With an address in `dispositions`, the `struct sigaction` of each signal is written there as well, by the thread that holds the scratch mapping.
    /// `None` when that cannot be done with this thread: then each call has to be made by itself. The same holds for the calls as for
    /// those of [`Self::syscall`].
    ///
    /// # Errors
    /// As [`Self::syscall`].
    pub fn answers(
        &mut self,
        tid: Tid,
        questions: &[Question],
        dispositions: Option<Addr>,
    ) -> Result<Option<[u64; ANSWERS]>, Error> {
        let (thread, policy) = self.policy(tid)?;
        let is_plain = *policy == Policy::Free && thread.stop == Stop::Interrupted;
        if !is_plain || !self.place.has_batch {
            return Ok(None);
        }
        if tid == self.host.tid() {
            return self.host_answers(questions, dispositions);
        }
        if dispositions.is_some() {
            return Ok(None);
        }
        self.keep_from_children()?;
        let Some(batch) = self.batch(questions)? else { return Ok(None) };
        self.welcome(tid)?.answer(batch).map(Some)
    }

    /// As [`Self::answers`], of the host, in the place where guests find theirs.
    fn host_answers(
        &mut self,
        questions: &[Question],
        dispositions: Option<Addr>,
    ) -> Result<Option<[u64; ANSWERS]>, Error> {
        let at = self.place.guest.batch();
        let Some(signal) = self.signal()? else { return Ok(None) };
        let fitting = |questions: &[Question]| Batch::new(at, self.place.host, questions, dispositions, signal);
        let first = if self.kept_from_children { None } else { fitting(&[&[self.advice()], questions].concat()) };
        let advises = first.is_some();
        let Some((batch, bytes)) = first.or_else(|| fitting(questions)) else { return Ok(None) };
        if !advises {
            self.keep_from_children()?;
        }
        self.dismiss()?;
        self.batch = None;
        write_verified(at, &bytes, &self.memory)?;
        self.host.prepare_batch(at, &self.memory)?;
        let answers = self.host.answer(batch);
        if answers.is_err() {
            self.host.halt()?;
        }
        // On its way out it has to unmap the scratch mapping, wherever it was.
        self.host.park()?;
        let mut answers = answers?;
        if advises {
            let [advised, ..] = answers;
            self.has_kept_from_children(driver::returned(advised))?;
            answers.rotate_left(1);
        }
        Ok(Some(answers))
    }

    /// What keeps the scratch mapping from children, as a question.
    fn advice(&self) -> Question {
        let [_, Call { number, args: [start, len, advice, ..], ip: _ }, ..] = host_calls(self.scratch, self.place.host);
        Question { number: number as i64, args: [start, len, advice], returns: true }
    }

    /// The batch of these questions, written where guests find it.
    fn batch(&mut self, questions: &[Question]) -> Result<Option<Batch>, Error> {
        if let Some((batch, known)) = &self.batch
            && known == questions
        {
            return Ok(Some(*batch));
        }
        self.dismiss()?;
        let guest = self.place.guest;
        let made = self.signal()?.and_then(|signal| Batch::new(guest.batch(), guest, questions, None, signal));
        let Some((batch, bytes)) = made else { return Ok(None) };
        write_verified(self.place.guest.batch(), &bytes, &self.memory)?;
        self.batch = Some((batch, questions.to_vec()));
        Ok(Some(batch))
    }

    /// The signal that ends batches, if there is one.
    fn signal(&mut self) -> Result<Option<i32>, Error> {
        if self.signal.is_none() {
            self.signal = Some(self.unnoticed_signal()?);
        }
        Ok(self.signal.flatten())
    }

    /// A signal that the kernel drops when it is sent to any thread of the process: not caught, and blocked by none, so that nobody can wait
    /// for it either.
    fn unnoticed_signal(&self) -> Result<Option<i32>, Error> {
        let host = self.tree.thread(self.host.tid()).ok_or(Error::Vanished(self.pid))?;
        let signals = host.status()?.signals;
        let mut noticed = signals.caught | signals.shared_pending;
        for thread in self.tree.threads_of(self.pid).iter().filter(|thread| thread.tid != self.host.tid()) {
            noticed |= thread.signal_mask()?;
        }
        noticed |= self.host.mask();
        let by_default = [libc::SIGURG, libc::SIGWINCH, libc::SIGCHLD];
        Ok(by_default.into_iter().find(|signal| noticed & 1 << (signal - 1) == 0))
    }
}
