//! How a frozen tree ends: it goes on, stays stopped, or is killed.
//!
//! PTRACE_DETACH of a task whose process is in group stop puts it back into that stop (kernel/ptrace.c, `__ptrace_unlink`), and
//! makes the kernel restart the call that the stop interrupted.

use super::error::Error;
use super::patience::Patience;
use super::reaping;
use super::tasks;
use super::thread::Stop;
use super::tree::{FrozenTree, Process};
use crate::image::model::id::{Pid, Tid};
use crate::sys::pidfd;
use crate::sys::ptrace::{self, event};
use crate::sys::wait::{self, Flags, Status};
use nix::errno::Errno;
use std::collections::HashSet;
use std::time::Duration;

/// How long the memory of a killed process may take to be given back.
const DEATH: Duration = Duration::from_secs(60);
/// How long a group stop may take to begin.
const GROUP_STOP: Duration = Duration::from_secs(2);

impl FrozenTree {
    /// Lets everything go on as it was; what was in group stop stays there.
    ///
    /// # Errors
    /// [`Error::Kernel`] for the first thread that could not be let go and is not dead; the others are free.
    pub fn thaw(mut self) -> Result<(), Error> {
        self.release()
    }

    /// Leaves every process in group stop by SIGSTOP, as if somebody had sent that signal. No thread runs an instruction before.
    ///
    /// # Errors
    /// [`Error::Kernel`] or [`Error::Unstoppable`] for the first process that could not be stopped and is not dead; the others are.
    pub fn leave_stopped(mut self) -> Result<(), Error> {
        self.shorten_calls();
        let mut let_go = HashSet::new();
        let mut stopped = Ok(());
        for process in &self.processes {
            let Some(first) = self.threads_of(process.pid).first() else { continue };
            let is_stopped = self.threads_of(process.pid).iter().any(|thread| matches!(thread.stop, Stop::Group(_)));
            if !is_stopped {
                let_go.insert(first.tid);
                stopped = stopped.and(stop(process, first.tid));
            }
        }
        self.threads.retain(|thread| !let_go.contains(&thread.tid));
        stopped.and(self.release())
    }

    /// Kills every process and waits until all are dead. Returns those whose pid stays taken, because their parent has not reaped them.
    ///
    /// # Errors
    /// [`Error::Kernel`] when a process cannot be killed, [`Error::Unstoppable`] when it does not die.
    pub fn kill(mut self, sent: impl FnOnce()) -> Result<Vec<Pid>, Error> {
        for process in &self.processes {
            match pidfd::send_signal(process.pidfd(), libc::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(source) => {
                    return Err(Error::Kernel { tid: process.pid().leader(), action: "sending SIGKILL", source });
                }
            }
        }
        sent();
        // A leader is reported dead only when its last thread is reaped, and reaping it is what tells its parent.
        let (leaders, others): (Vec<_>, Vec<_>) =
            self.threads.drain(..).map(|thread| (thread.pid, thread.tid)).partition(|(pid, tid)| pid.leader() == *tid);
        for (_, tid) in others.into_iter().chain(leaders) {
            reap(tid)?;
        }
        for process in self.processes.iter().filter(|process| process.dead_leader()) {
            reap(process.pid().leader())?;
        }
        Ok(reaping::unreaped(self.processes.iter().chain(&self.zombies)))
    }

    /// Lets go of everything; the first failure is told at the end.
    fn release(&mut self) -> Result<(), Error> {
        self.shorten_calls();
        let mut first = Ok(());
        for thread in self.threads.drain(..) {
            let let_go = match ptrace::detach(thread.tid, 0) {
                Ok(()) | Err(Errno::ESRCH) => Ok(()),
                Err(source) => Err(Error::Kernel { tid: thread.tid, action: "detaching", source }),
            };
            first = first.and(let_go);
        }
        for (_, tid) in std::mem::take(&mut self.running) {
            release_running(tid);
        }
        first
    }
}

/// Lets one thread of a process go, which takes the SIGSTOP on its way back and puts all others under group stop. Who is dead needs no stop.
fn stop(process: &Process, first: Tid) -> Result<(), Error> {
    let alive = |done: Result<(), Errno>, action| match done {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(source) => Err(Error::Kernel { tid: first, action, source }),
    };
    if !alive(pidfd::send_signal(process.pidfd(), libc::SIGSTOP), "sending SIGSTOP")?
        || !alive(ptrace::detach(first, 0), "detaching")?
    {
        return Ok(());
    }
    let mut patience = Patience::new(GROUP_STOP);
    while !matches!(tasks::state(first), None | Some('T' | 'Z' | 'X')) {
        if !patience.wait() {
            let reason = tasks::occupation(first);
            return Err(Error::Unstoppable { tid: first, bound: GROUP_STOP, reason });
        }
    }
    Ok(())
}

impl Drop for FrozenTree {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            error.log("thawing");
        }
    }
}

/// Lets go of a thread that was seized and has not settled. Only a stopped one can be detached; one that cannot be stopped goes free
/// when the tracing thread ends.
fn release_running(tid: Tid) {
    let _ = ptrace::interrupt(tid);
    let mut patience = Patience::new(Duration::from_millis(20));
    loop {
        match wait::wait(tid, Flags::NOHANG | Flags::NOWAIT) {
            Ok(Some(Status::Stopped { signal, event })) => {
                let delivery = event == 0 && signal & 0x80 == 0;
                let newborn = matches!(event, event::FORK | event::VFORK | event::CLONE);
                if newborn && let Ok(child) = ptrace::event_message(tid) {
                    release_running(Tid(child as i32));
                }
                let _ = ptrace::detach(tid, if delivery { signal } else { 0 });
                return;
            }
            Ok(Some(Status::Exited(_) | Status::Killed(_))) => {
                let _ = wait::wait(tid, Flags::NOHANG);
                return;
            }
            Ok(None) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
        if !patience.wait() {
            return;
        }
    }
}

/// Waits for the end of a killed task.
fn reap(tid: Tid) -> Result<(), Error> {
    let mut patience = Patience::new(DEATH);
    loop {
        match wait::wait(tid, Flags::NOHANG) {
            Ok(Some(Status::Exited(_) | Status::Killed(_))) | Err(Errno::ECHILD) => return Ok(()),
            Ok(Some(Status::Stopped { .. }) | None) | Err(Errno::EINTR) => {}
            Err(source) => return Err(Error::Kernel { tid, action: "waiting for its end", source }),
        }
        if !patience.wait() {
            return Err(Error::Unstoppable { tid, bound: DEATH, reason: tasks::occupation(tid) });
        }
    }
}
