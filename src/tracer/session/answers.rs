//! Several questions to a thread at once, without a stop in between.

use super::{RemoteSession, write_verified};
use crate::image::model::address::Addr;
use crate::image::model::id::Tid;
use crate::tracer::batch::{self, ANSWERS, Batch, Part, Question};
use crate::tracer::error::Error;
use crate::tracer::seccomp::Policy;
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
        if !self.is_plain(tid)? || !self.place.has_batch {
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
        self.welcome(tid)?.answer(batch).map(|regs| Some(batch::answers(&regs)))
    }

    /// Whether a thread may make any call, and was stopped by us alone.
    pub(super) fn is_plain(&mut self, tid: Tid) -> Result<bool, Error> {
        let (thread, policy) = self.policy(tid)?;
        Ok(*policy == Policy::Free && thread.stop == Stop::Interrupted)
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
        let made =
            self.signal()?.and_then(|signal| Batch::new(guest.batch(), guest, questions, Part::Questions, signal));
        let Some((batch, bytes)) = made else { return Ok(None) };
        write_verified(self.place.guest.batch(), &bytes, &self.memory)?;
        self.batch = Some((batch, questions.to_vec()));
        Ok(Some(batch))
    }

    /// The signal that ends batches, if there is one.
    pub(super) fn signal(&mut self) -> Result<Option<i32>, Error> {
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
