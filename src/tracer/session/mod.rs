//! System calls in the name of any thread of a frozen process.
//!
//! One thread, the host, stands in its stub for as long as the session lasts, holding the scratch mapping: should we die, it
//! unmaps it. Any other thread is a guest for a while: it is put back, whole and verified, before the next one is called upon. Every
//! pointer that a call writes through must point into the scratch mapping, and every call must be harmless to be made again or not at all.

mod answers;
mod calls;
mod foothold;
mod host;

use calls::{host_calls, leaving_calls, permit};
use foothold::free_place;
pub use foothold::let_out;
pub(super) use foothold::{erase, erase_after, prepare_registers, read_maps, run_out, write_code, write_verified};

use crate::fault;
use crate::image::model::address::{Addr, PageRange};
use crate::image::model::id::{Pid, Tid};
use crate::tracer::batch::{Batch, Question};
use crate::tracer::deputy::Fate;
use crate::tracer::error::Error;
use crate::tracer::gathering::Bystanders;
use crate::tracer::inject::Visit;
use crate::tracer::memory::Memory;
use crate::tracer::padding::{self, Place};
use crate::tracer::remainder::{self, Remainder};
use crate::tracer::seccomp::{Call, Policy};
use crate::tracer::stub::Stub;
use crate::tracer::thread::StoppedThread;
use crate::tracer::tree::FrozenTree;
use crate::tracer::twin::{self, Child, Twin};
use nix::errno::Errno;
use std::collections::HashMap;

/// Bytes of the scratch mapping that [`RemoteSession::open`] makes.
pub const SCRATCH: u64 = 64 << 10;

/// What to undo for a thread that holds nothing.
pub(super) const NOTHING: (Addr, u64) = (Addr::NULL, 0);

/// The right to make system calls in the name of the threads of one frozen process. Closed or dropped, it leaves them as they were.
#[derive(Debug)]
pub struct RemoteSession<'a> {
    tree: &'a mut FrozenTree,
    pid: Pid,
    memory: Memory,
    place: Place,
    host: Visit,
    guest: Option<Visit>,
    batch: Option<(Batch, Vec<Question>)>,
    /// What [`Self::unnoticed_signal`] found.
    signal: Option<Option<i32>>,
    scratch: PageRange,
    mapped: bool,
    /// Whether children do not get the scratch mapping: another thread, let go by our death, could make one before the host has unmapped it.
    kept_from_children: bool,
    open: bool,
    policies: HashMap<Tid, Policy>,
    has_remainders: bool,
}

impl<'a> RemoteSession<'a> {
    /// Writes the stubs into unused padding, makes the leader (or, when that has ended, another thread) their host, and has it map
    /// [`SCRATCH`] bytes of memory.
    ///
    /// # Errors
    /// [`Error::Refused`] when a thread must not make calls for us, [`Error::NoRoom`]; the target is as it was before.
    pub fn open(tree: &'a mut FrozenTree, pid: Pid) -> Result<Self, Error> {
        Self::open_with(tree, pid, SCRATCH)
    }

    /// As [`Self::open`], with so many bytes of memory.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(tree: &'a mut FrozenTree, pid: Pid, scratch: u64) -> Result<Self, Error> {
        let mut session = Self::begin(tree, pid, scratch)?;
        session.map()?;
        Ok(session)
    }

    /// As [`Self::open`], but the memory is there from the first call on that somebody makes: with questions to the host, it takes no stop of its own.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_unmapped(tree: &'a mut FrozenTree, pid: Pid) -> Result<Self, Error> {
        Self::begin(tree, pid, SCRATCH)
    }

    fn begin(tree: &'a mut FrozenTree, pid: Pid, scratch: u64) -> Result<Self, Error> {
        let shown_as = tree.threads_of(pid).first().map(|thread| Pid(thread.tid.0)).ok_or(Error::Vanished(pid))?;
        let memory = Memory::open(shown_as)?;
        let maps = read_maps(shown_as)?;
        let has_remainders = remainder::are_there(&maps, &memory)?;
        let place = free_place(tree, pid, &maps, &memory)?;
        let scratch = padding::hole(&maps, scratch).ok_or(Error::NoRoom { pid, what: "hole for a mapping of ours" })?;
        let thread = tree.threads_of_mut(pid).first_mut().ok_or(Error::Vanished(pid))?;
        prepare_registers(thread, &memory)?;
        let thread = &*thread;
        let policy = Policy::of(thread)?;
        for call in host_calls(scratch, place.host) {
            permit(thread, &policy, &call)?;
        }
        write_code(place, &memory)?;
        let undo = (Addr::NULL, scratch.len());
        let host = match Visit::prepare(thread, place.host, undo, &memory) {
            Ok(host) => host,
            Err(error) => {
                erase(place, &memory)?;
                return Err(error);
            }
        };
        let policies = HashMap::from([(thread.tid, policy)]);
        let (guest, batch, signal) = (None, None, None);
        let session = Self {
            tree,
            pid,
            memory,
            place,
            host,
            guest,
            batch,
            signal,
            scratch,
            mapped: false,
            kept_from_children: false,
            open: true,
            policies,
            has_remainders,
        };
        fault::pass(fault::Point::StubWritten)?;
        Ok(session)
    }

    /// The mapping that calls may use; what it holds is kept from call to call.
    #[must_use]
    pub fn scratch(&self) -> PageRange {
        self.scratch
    }

    /// The tree that this session works on.
    #[must_use]
    pub fn tree(&self) -> &FrozenTree {
        self.tree
    }

    /// The target's memory.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The thread that holds the scratch mapping: the leader, unless that has ended.
    #[must_use]
    pub fn host(&self) -> Tid {
        self.host.tid()
    }

    /// Why this call must not be made in the name of that thread, if so.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Vanished`], [`Error::Kernel`].
    pub fn permits(&mut self, tid: Tid, number: i64, args: [u64; 6]) -> Result<(), Error> {
        let stub = if tid == self.host.tid() { self.place.host } else { self.place.guest };
        let (thread, policy) = self.policy(tid)?;
        permit(thread, policy, &Call { number: number as u64, args, ip: Stub::after(stub.call_entry()) })
    }

    /// A thread and what it may call. A guest is known to be able to leave.
    fn policy(&mut self, tid: Tid) -> Result<(&StoppedThread, &Policy), Error> {
        let thread = self.tree.thread(tid).ok_or(Error::Vanished(self.pid))?;
        let policy = match self.policies.entry(tid) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(unknown) => {
                let policy = Policy::of(thread)?;
                for call in leaving_calls(NOTHING, self.place.guest) {
                    permit(thread, &policy, &call)?;
                }
                unknown.insert(policy)
            }
        };
        Ok((thread, policy))
    }

    /// Makes a system call in the name of a thread and returns what the kernel returned.
    ///
    /// Only calls that change nothing, or that change only what another call puts back, may be made: should we die, nobody does. A call
    /// that blocks is ended by nobody.
    ///
    /// # Errors
    /// The outer error is ours; after it the session can only be closed. [`Error::Refused`] comes before anything was changed.
    pub fn syscall(&mut self, tid: Tid, number: i64, args: [u64; 6]) -> Result<Result<u64, Errno>, Error> {
        self.permits(tid, number, args)?;
        self.keep_from_children()?;
        let visit = if tid == self.host.tid() { &mut self.host } else { self.welcome(tid)? };
        let entry = visit.stub().call_entry();
        visit.call(entry, number as u64, args).map(|outcome| outcome.result)
    }

    /// Takes away remainders of transfers to which nobody can come back, and gives those that are left in the vdso, which no image holds.
    /// `alternate` says where each thread has its alternate signal stack.
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::Proc`].
    pub fn remainders(&self, alternate: &HashMap<Tid, PageRange>) -> Result<Vec<Remainder>, Error> {
        if !self.has_remainders {
            return Ok(Vec::new());
        }
        let threads = self.tree.threads_of(self.pid);
        let nowhere = PageRange::new(0, 0);
        let threads = threads.iter().map(|thread| (thread, alternate.get(&thread.tid).copied().unwrap_or(nowhere)));
        remainder::sweep(self.pid, &read_maps(self.memory.pid())?, &self.memory, &threads.collect::<Vec<_>>())
    }

    /// Makes a copy of the address space that stands still when the target goes on. No thread may be a userfaultfd(2) monitor of its
    /// own forks: nobody would answer.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when the stubs do not stand in the vdso, the one page that no image holds; [`Error::Refused`];
    /// [`Error::Kernel`] when there is no memory or no pid for it. The session goes on in any case.
    pub fn fork_twin(&mut self) -> Result<Twin, Error> {
        if !self.place.in_vdso {
            return Err(Error::NoRoom { pid: self.pid, what: "stubs in the vdso, as a copy of the memory needs them" });
        }
        self.keep_from_children()?;
        let tid = self.host.tid();
        let thread = self.tree.thread(tid).ok_or(Error::Vanished(self.pid))?;
        for call in twin::calls(self.place.host) {
            permit(thread, &self.policies[&tid], &call)?;
        }
        twin::make(&mut self.host, self.policies[&tid] == Policy::Free)
    }

    /// Makes a child that shares the target's memory, for work that takes many calls. If it is to run on when we die, all other threads wait for its end then, also
    /// those of the other processes that have the memory, and it may not use the last [`WORDS`](crate::tracer::WORDS) bytes of the scratch mapping.
    ///
    /// # Errors
    /// [`Error::Refused`] when a seccomp filter would watch it; [`Error::NoRoom`] for a thread that would have to wait; [`Error::Kernel`] when there is no
    /// memory or no pid for it.
    pub fn child(&mut self, fate: Fate, others: &[Pid]) -> Result<Child<'_>, Error> {
        let tid = self.host.tid();
        if self.policies[&tid] != Policy::Free {
            let reason = "a seccomp filter watches what it calls".to_owned();
            return Err(Error::Refused { tid, reason, remedy: "" });
        }
        self.keep_from_children()?;
        self.dismiss()?;
        // Where it stands others may come to stand.
        self.batch = None;
        let others = match fate {
            Fate::DiesWithUs => Bystanders::none(&self.memory),
            Fate::RunsOn => Bystanders::prepare(self.tree, self.pid, others, self.place, &self.memory)?,
        };
        Child::make(&mut self.host, self.scratch, fate, others)
    }

    /// Makes a thread the guest.
    fn welcome(&mut self, tid: Tid) -> Result<&mut Visit, Error> {
        if self.guest.as_ref().is_none_or(|guest| guest.tid() != tid) {
            self.dismiss()?;
            let at = *self.tree.index.get(&tid).ok_or(Error::Vanished(self.pid))?;
            let thread = &mut self.tree.threads[at];
            prepare_registers(thread, &self.memory)?;
            self.guest = Some(match self.batch {
                Some(_) => Visit::prepare_for_batch(thread, self.place.guest, &self.memory)?,
                None => Visit::prepare(thread, self.place.guest, NOTHING, &self.memory)?,
            });
        }
        self.guest.as_mut().ok_or(Error::Vanished(self.pid))
    }

    /// Puts the guest back.
    fn dismiss(&mut self) -> Result<(), Error> {
        match self.guest.take() {
            Some(guest) => guest.leave(),
            None => Ok(()),
        }
    }

    /// Puts everything back: registers, masks, mapping, padding.
    ///
    /// # Errors
    /// The first failure; what can be undone is undone nevertheless.
    pub fn close(mut self) -> Result<(), Error> {
        self.undo()?;
        fault::pass(fault::Point::Cured)?;
        Ok(())
    }

    fn undo(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.open) {
            return Ok(());
        }
        let guest = self.dismiss();
        let unmapped = if self.mapped { self.unmap() } else { Ok(()) };
        let passed = fault::pass(fault::Point::Leaving);
        let host = self.host.leave();
        let left = [unmapped, host].into_iter().fold(guest, Error::first);
        erase_after(left, [self.place], &self.memory)?;
        Ok(passed?)
    }
}

impl Drop for RemoteSession<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            error.log("putting threads back");
        }
    }
}
