//! Waiting for stops, and helping along what cannot stop yet.

use super::super::call;
use super::super::error::Error;
use super::super::patience::Patience;
use super::super::tasks;
use super::super::thread::{Stop, StoppedThread};
use super::{Freezer, Scope};
use crate::image::model::id::{Pid, Tid};
use crate::proc::many;
use crate::sys::ptrace::{self, event};
use crate::sys::regset;
use crate::sys::wait::{self, Flags, Status};
use nix::errno::Errno;

/// How many of those that have not stopped are looked at closely, before it is seen whether they have meanwhile: thousands may only wait for a CPU.
const LOOK: usize = 64;

impl Freezer<'_> {
    /// Stops first those threads whose call the kernel ends with EINTR when it is woken. Should we die between the wake-up and its
    /// undoing, the thread sees that EINTR: so nobody else is waited for meanwhile.
    pub(super) fn settle_fragile(&mut self) -> Result<(), Error> {
        let running: Vec<(Pid, Tid)> = self.tree.running.drain(..).collect();
        let calls = many::map(&running, |&(pid, tid), buffer| tasks::call_number(pid, tid, buffer));
        let (fragile, others): (Vec<_>, Vec<_>) =
            running.into_iter().zip(calls).partition(|(_, call)| call.is_some_and(call::ends_when_stopped));
        self.tree.running.extend(fragile.into_iter().map(|(thread, _)| thread));
        let settled = self.stop_running();
        self.tree.running.extend(others.into_iter().map(|(thread, _)| thread));
        settled
    }

    /// Asks every running thread to stop, and waits until they have. One that is gone is found by the wait.
    pub(super) fn stop_running(&mut self) -> Result<(), Error> {
        for &(_, tid) in &self.tree.running {
            let _ = ptrace::interrupt(tid);
        }
        let Some(urgency) = self.options.urgency.filter(|_| !self.tree.running.is_empty()) else {
            return self.await_stops();
        };
        // In order to stop they have to run.
        urgency.high();
        let stopped = self.await_stops();
        urgency.real_time();
        stopped
    }

    /// Waits until no seized thread runs. Moves from one to the next that has not stopped yet: all of them must in the end, so that the
    /// order does not matter, but one may have to be helped along before another can stop.
    fn await_stops(&mut self) -> Result<(), Error> {
        let mut patience = Patience::new(self.options.bound);
        let mut idle = 0;
        loop {
            self.release_strays();
            let Some((pid, tid)) = self.tree.running.pop_front() else {
                if self.strays.is_empty() {
                    return Ok(());
                }
                let stray = self.strays[0];
                self.be_patient(&mut patience, stray)?;
                continue;
            };
            if !self.members.get(&pid).is_some_and(|member| member.running.contains(&tid)) {
                continue;
            }
            match self.look_at(pid, tid) {
                Ok(Progress::Settled) => {
                    patience.encouraged();
                    idle = 0;
                }
                Ok(Progress::Helped) => {
                    self.tree.running.push_front((pid, tid));
                    patience.encouraged();
                }
                Ok(Progress::None) => {
                    self.tree.running.push_back((pid, tid));
                    idle += 1;
                    if idle >= self.tree.running.len().min(16) {
                        idle = 0;
                        self.be_patient(&mut patience, tid)?;
                        if patience.looks_around() {
                            let next: Vec<(Pid, Tid)> = self.tree.running.iter().copied().take(LOOK).collect();
                            self.drop_dead_leaders(&next);
                            self.lend_vfork_children(&next);
                        }
                    }
                }
                Err(error) => {
                    self.tree.running.push_front((pid, tid));
                    return Err(error);
                }
            }
        }
    }

    fn be_patient(&self, patience: &mut Patience, tid: Tid) -> Result<(), Error> {
        if (self.options.cancelled)() {
            return Err(Error::Cancelled);
        }
        if patience.wait() {
            return Ok(());
        }
        // A child that was lent runs because its parent waits for it.
        let tid = self.lent.iter().find(|(_, child)| **child == tid).map_or(tid, |(parent, _)| *parent);
        Err(Error::Unstoppable { tid, bound: self.options.bound, reason: tasks::occupation(tid) })
    }

    /// A leader that ends before its other threads is reported by no wait: its death shows in its state alone.
    fn drop_dead_leaders(&mut self, running: &[(Pid, Tid)]) {
        for &(pid, leader) in running.iter().filter(|(pid, tid)| *tid == pid.leader()) {
            if let Some(member) = self.members.get_mut(&pid)
                && tasks::state(leader) == Some('Z')
                && member.running.remove(&leader)
            {
                member.dead.insert(leader);
                member.process.dead_leader = true;
            }
        }
    }

    /// Looks whether a thread has stopped, and moves on one that stopped on its way.
    fn look_at(&mut self, pid: Pid, tid: Tid) -> Result<Progress, Error> {
        let (signal, event) = match wait::wait(tid, Flags::NOHANG | Flags::NOWAIT) {
            Ok(None) | Err(Errno::EINTR) => return Ok(Progress::None),
            Ok(Some(Status::Stopped { signal, event })) => (signal, event),
            Ok(Some(Status::Exited(_) | Status::Killed(_))) => return self.ended(pid, tid),
            Err(Errno::ECHILD) => {
                self.recheck(pid);
                self.drop_thread(pid, tid);
                return Ok(Progress::Settled);
            }
            Err(source) => return Err(Error::Kernel { tid, action: "waiting for it to stop", source }),
        };
        match event {
            event::STOP => {
                self.settle(pid, tid, if signal == libc::SIGTRAP { Stop::Interrupted } else { Stop::Group(signal) })
            }
            event::FORK | event::VFORK | event::CLONE => {
                if let Ok(newborn) = ptrace::event_message(tid) {
                    self.newborn(pid, Tid(newborn as i32))?;
                }
                self.help(tid, 0)
            }
            event::EXEC => {
                self.recheck(pid);
                self.help(tid, 0)
            }
            // A system call's stop carries no signal; any other stop without an event is the delivery of one.
            0 if signal & 0x80 == 0 => self.help(tid, signal),
            _ => self.help(tid, 0),
        }
    }

    /// Lets a thread pass a stop that is not ours. Any stop takes back a pending interrupt, so that it is asked again, before it runs.
    fn help(&mut self, tid: Tid, signal: i32) -> Result<Progress, Error> {
        match ptrace::interrupt(tid).and_then(|()| ptrace::cont(tid, signal)) {
            Ok(()) | Err(Errno::ESRCH) => Ok(Progress::Helped),
            Err(source) => Err(Error::Kernel { tid, action: "continuing it up to its stop", source }),
        }
    }

    fn settle(&mut self, pid: Pid, tid: Tid, stop: Stop) -> Result<Progress, Error> {
        let mut regs = match regset::general(tid) {
            Ok(regs) => regs,
            Err(Errno::ESRCH) => return Ok(Progress::None),
            Err(Errno::EIO) => {
                return Err(Error::Refused { tid, reason: "it runs 32-bit code".to_owned(), remedy: "" });
            }
            Err(source) => return Err(Error::Kernel { tid, action: "reading registers", source }),
        };
        if stop == Stop::Interrupted && self.vdsos.let_out(pid, tid, regs.rip) {
            return Ok(Progress::Helped);
        }
        // What a group stop interrupted before we came is none of our doing and ends as it would have.
        let mut undone = false;
        if stop == Stop::Interrupted
            && let Some(again) = call::undo_interruption(&regs)
            && regset::set_up_to_flags(tid, &again).is_ok()
        {
            (regs, undone) = (again, true);
        }
        if let Some(member) = self.members.get_mut(&pid) {
            member.running.remove(&tid);
            let mut thread = StoppedThread::new(pid, tid, stop, regs);
            thread.undone = undone;
            member.stopped.insert(tid, thread);
        }
        self.take_back(tid);
        self.has_come_back(tid);
        Ok(Progress::Settled)
    }

    /// Takes in what a thread of `maker` has made: traced since its birth, it will come to a stop of its own.
    fn newborn(&mut self, maker: Pid, tid: Tid) -> Result<(), Error> {
        if tasks::is_thread_of(maker, tid) {
            self.watch(maker, tid);
            return Ok(());
        }
        let pid = Pid(tid.0);
        if self.options.scope == Scope::Process {
            self.strays.push(tid);
            return Ok(());
        }
        if !self.members.contains_key(&pid) {
            match self.adopt(pid) {
                Err(Error::Vanished(_)) => return Ok(()),
                other => other?,
            }
        }
        self.watch(pid, tid);
        Ok(())
    }

    /// A thread has ended: as its tracer we have to reap it, which for a leader hands it on to its parent.
    fn ended(&mut self, pid: Pid, tid: Tid) -> Result<Progress, Error> {
        let _ = wait::wait(tid, Flags::NOHANG);
        self.drop_thread(pid, tid);
        if tid != pid.leader() {
            return Ok(Progress::Settled);
        }
        if pid == self.root {
            return Err(Error::Vanished(pid));
        }
        // If it is a child of the tree that nobody has reaped, it is found again as such.
        self.members.remove(&pid);
        Ok(Progress::Settled)
    }

    fn drop_thread(&mut self, pid: Pid, tid: Tid) {
        self.take_back(tid);
        if let Some(member) = self.members.get_mut(&pid) {
            member.running.remove(&tid);
        }
    }

    /// After execve(2) or the like the threads of a process are not what they were: all are looked at again.
    fn recheck(&mut self, pid: Pid) {
        if let Some(member) = self.members.get_mut(&pid) {
            member.dead.clear();
            member.process.dead_leader = false;
            for (tid, _) in member.stopped.drain() {
                member.running.insert(tid);
                self.tree.running.push_back((pid, tid));
            }
        }
    }

    /// Lets go of newborns outside of the scope that have come to their first stop.
    fn release_strays(&mut self) {
        self.strays.retain(|&tid| match wait::wait(tid, Flags::NOHANG | Flags::NOWAIT) {
            Ok(Some(Status::Stopped { signal, event })) => {
                let signal = if event == 0 && signal & 0x80 == 0 { signal } else { 0 };
                ptrace::detach(tid, signal).is_err()
            }
            Ok(Some(Status::Exited(_) | Status::Killed(_))) => wait::wait(tid, Flags::NOHANG).is_err(),
            Ok(None) => true,
            Err(_) => false,
        });
    }
}

/// What a look at a thread brought.
enum Progress {
    /// Nothing yet.
    None,
    /// It was moved on and will stop.
    Helped,
    /// It has stopped, or is gone.
    Settled,
}
