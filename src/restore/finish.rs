//! The last act: stops every thread at the barrier, removes what is ours, gives registers, and lets go.
//!
//! Until [`Tracees::commit`] the death of `snap` kills the whole tree (PTRACE_O_EXITKILL).

use super::check;
use super::guard::Guard;
use super::plan::{ProcessPlan, RestorePlan};
use super::resume::{self, TimedCall};
use super::xstate;
use crate::image::model::Snapshot;
use crate::image::model::address::PageRange;
use crate::image::model::id::{Pid, Tid};
use crate::image::model::inventory::XsaveLayout;
use crate::image::model::process::{Process, ProcessState};
use crate::image::model::thread::Thread;
use crate::sys::blob::INTERPRETER;
use crate::sys::pidfd;
use crate::sys::ptrace::{self, Options, event};
use crate::sys::ptrace_info::{self, SyscallUserDispatch};
use crate::sys::regset::{self, UserRegs};
use crate::sys::task;
use crate::sys::wait::{self, Flags, Status};
use nix::errno::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;

/// Of a process that is half built.
const OPTIONS: Options = Options::SYSGOOD.union(Options::EXITKILL);

/// What could not be done to which thread.
#[derive(Debug, thiserror::Error)]
#[error("tid {tid}: {action}: {source}")]
pub struct FinishError {
    /// The thread.
    pub tid: Tid,
    /// What was tried.
    pub action: &'static str,
    /// Why it failed.
    pub source: io::Error,
}

fn failed(tid: Tid, action: &'static str) -> impl FnOnce(Errno) -> FinishError {
    move |source| FinishError { tid, action, source: source.into() }
}

/// The threads of processes that are being built; all are killed and reaped when this is dropped before the commit.
#[derive(Debug, Default)]
pub struct Tracees {
    members: Vec<Member>,
    committed: bool,
}

/// One process.
#[derive(Debug)]
struct Member {
    pid: Pid,
    tids: Vec<Tid>,
}

impl Tracees {
    /// Traces a skeleton's main thread, which must just have been born, and stops it.
    ///
    /// # Errors
    /// As ptrace(2).
    pub fn seize(&mut self, pid: Pid) -> Result<(), FinishError> {
        ptrace::seize(pid.leader(), OPTIONS).map_err(failed(pid.leader(), "PTRACE_SEIZE"))?;
        self.members.push(Member { pid, tids: vec![pid.leader()] });
        stop(pid.leader())
    }

    /// Whether one of them has died.
    #[must_use]
    pub fn has_dead(&self) -> bool {
        let looked = |member: &Member| wait::wait(member.pid.leader(), Flags::NOHANG | Flags::NOWAIT);
        self.members.iter().any(|member| matches!(looked(member), Ok(Some(Status::Exited(_) | Status::Killed(_)))))
    }

    /// Stops all threads, which wait at the barrier, and makes them what they were.
    ///
    /// # Errors
    /// The first thing that failed.
    pub fn finish(
        &mut self,
        plan: &RestorePlan,
        snapshot: &Snapshot,
        own: &XsaveLayout,
        stay: bool,
    ) -> Result<(), FinishError> {
        // The members stand in the order of their births.
        let places: HashMap<Pid, usize> =
            self.members.iter().enumerate().map(|(at, member)| (member.pid, at)).collect();
        for process in &snapshot.processes {
            let Some(&at) = places.get(&process.pid) else { continue };
            let others = process.threads[1..].iter().map(|thread| thread.tid);
            for tid in others {
                ptrace::seize(tid, OPTIONS).map_err(failed(tid, "PTRACE_SEIZE"))?;
                self.members[at].tids.push(tid);
            }
        }
        self.stop_all()?;
        let mut results = Vec::with_capacity(snapshot.processes.len());
        for (process, planned) in snapshot.processes.iter().zip(&plan.processes) {
            results.push(prepare(plan, planned, process)?);
        }
        // Children before their parents: a child that is stopped tells its parent, which has known it long since.
        for (process, planned) in snapshot.processes.iter().zip(&plan.processes).rev() {
            let leader = process.pid.leader();
            if let Some(args) = planned.forget.filter(|_| stay || planned.has_stopped_child) {
                remote_call(plan, leader, libc::SYS_rt_sigtimedwait, args, false)?;
            }
            // Those who share memory come before the one that has made it.
            if !planned.shares_memory {
                unmap(plan, leader)?;
            }
            if stay || matches!(process.state, ProcessState::Stopped(_)) {
                stop_group(process.pid)?;
            }
        }
        let image = &snapshot.inventory.host.xsave;
        for (process, results) in snapshot.processes.iter().zip(results) {
            let leader = process.pid.leader();
            let size = regset::xstate(leader).map_err(failed(leader, "PTRACE_GETREGSET"))?.len();
            for (thread, result) in process.threads.iter().zip(results) {
                let area = xstate::convert(&thread.cpu.xsave, image, own, size);
                give(thread, &area, result)?;
            }
        }
        snapshot.processes.iter().try_for_each(|process| seek_task_files(snapshot, process))
    }

    /// Lets every thread go. From here on the processes are on their own.
    ///
    /// # Errors
    /// As ptrace(2); the processes are killed.
    pub fn commit(mut self) -> Result<(), FinishError> {
        let tids = || self.members.iter().flat_map(|member| &member.tids);
        // The threads of one process die together.
        let guard = match self.members.as_slice() {
            [] | [_] => None,
            [root, ..] => {
                let failed = |source| FinishError { tid: root.pid.leader(), action: "watching over the tree", source };
                Some(Guard::over(self.members.iter().map(|member| member.pid)).map_err(failed)?)
            }
        };
        for tid in tids() {
            ptrace::set_options(*tid, Options::SYSGOOD).map_err(failed(*tid, "PTRACE_SETOPTIONS"))?;
        }
        if let (Some(guard), Some(root)) = (guard, self.members.first()) {
            let failed = |source| FinishError { tid: root.pid.leader(), action: "letting the tree go", source };
            guard.dismiss().map_err(failed)?;
        }
        for tid in tids() {
            ptrace::detach(*tid, 0).map_err(failed(*tid, "PTRACE_DETACH"))?;
        }
        self.committed = true;
        Ok(())
    }

    /// INTERRUPT all, wait for each: never interleaved.
    fn stop_all(&self) -> Result<(), FinishError> {
        let tids = || self.members.iter().flat_map(|member| &member.tids);
        for tid in tids() {
            ptrace::interrupt(*tid).map_err(failed(*tid, "PTRACE_INTERRUPT"))?;
        }
        tids().try_for_each(|tid| wait_stop(*tid))
    }
}

/// Restart blocks and seccomp filters, for which the interpreter must still be there. Gives the results of the calls for the former.
fn prepare(plan: &RestorePlan, planned: &ProcessPlan, process: &Process) -> Result<Vec<Option<i64>>, FinishError> {
    let mut results = Vec::with_capacity(process.threads.len());
    for (thread, timed) in process.threads.iter().zip(&planned.timed) {
        results.push(timed.map(|call| begin_to_wait(plan, thread.tid, call)).transpose()?);
    }
    for (thread, filters) in process.threads.iter().zip(&planned.filters) {
        install(plan, thread.tid, filters)?;
    }
    Ok(results)
}

/// Group stop, while every signal but SIGSTOP is blocked. The other threads join it when they are let go.
fn stop_group(pid: Pid) -> Result<(), FinishError> {
    let leader = pid.leader();
    task::send_signal(pid, leader, libc::SIGSTOP).map_err(failed(leader, "tgkill"))?;
    ptrace::cont(leader, 0).map_err(failed(leader, "PTRACE_CONT"))?;
    loop {
        let signal = match next_stop(leader)? {
            Stop::Event(libc::SIGSTOP) => return Ok(()),
            Stop::Signal(signal) => signal,
            Stop::Event(_) | Stop::Syscall | Stop::Other => 0,
        };
        ptrace::cont(leader, signal).map_err(failed(leader, "PTRACE_CONT"))?;
    }
}

impl Drop for Tracees {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        for member in &self.members {
            let pid = nix::unistd::Pid::from_raw(member.pid.0);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        for member in self.members.iter().rev() {
            // A dead thread stays a zombie until its tracer has seen it; the main thread is the last.
            for tid in member.tids.iter().rev() {
                while matches!(look(*tid), Ok(Status::Stopped { .. })) {}
            }
        }
    }
}

/// Interrupts one thread and waits until it stands.
fn stop(tid: Tid) -> Result<(), FinishError> {
    ptrace::interrupt(tid).map_err(failed(tid, "PTRACE_INTERRUPT"))?;
    wait_stop(tid)
}

/// Waits until it stands in a PTRACE_EVENT_STOP.
fn wait_stop(tid: Tid) -> Result<(), FinishError> {
    loop {
        let signal = match next_stop(tid)? {
            Stop::Event(_) => return Ok(()),
            Stop::Signal(signal) => signal,
            Stop::Syscall | Stop::Other => 0,
        };
        ptrace::cont(tid, signal).map_err(failed(tid, "PTRACE_CONT"))?;
    }
}

/// Waits until it stands at the entry to or exit from a system call. Its signals are all blocked.
fn wait_syscall(tid: Tid) -> Result<(), FinishError> {
    while !matches!(next_stop(tid)?, Stop::Syscall) {
        ptrace::syscall(tid, 0).map_err(failed(tid, "PTRACE_SYSCALL"))?;
    }
    Ok(())
}

/// Why a tracee stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// PTRACE_EVENT_STOP: with SIGTRAP after PTRACE_INTERRUPT, in group stop with the stop signal.
    Event(i32),
    /// At the entry to or exit from a system call (PTRACE_O_TRACESYSGOOD).
    Syscall,
    /// It is about to be given this signal.
    Signal(i32),
    /// Another PTRACE_EVENT_*.
    Other,
}

fn next_stop(tid: Tid) -> Result<Stop, FinishError> {
    match look(tid).map_err(failed(tid, "waitid"))? {
        Status::Stopped { signal, event: event::STOP } => Ok(Stop::Event(signal)),
        Status::Stopped { signal, event: 0 } if signal == libc::SIGTRAP | 0x80 => Ok(Stop::Syscall),
        Status::Stopped { signal, event: 0 } => Ok(Stop::Signal(signal)),
        Status::Stopped { signal: _, event: _ } => Ok(Stop::Other),
        end @ (Status::Exited(_) | Status::Killed(_)) => {
            let source = io::Error::other(format!("it died: {end:?}"));
            Err(FinishError { tid, action: "waiting for its stop", source })
        }
    }
}

/// What becomes of a tracee next.
fn look(tid: Tid) -> Result<Status, Errno> {
    loop {
        match wait::wait(tid, Flags::empty()) {
            Ok(Some(status)) => return Ok(status),
            Ok(None) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Makes a timed call with a stop already due, so that it leaves a restart block behind; gives its result.
fn begin_to_wait(plan: &RestorePlan, tid: Tid, call: TimedCall) -> Result<i64, FinishError> {
    remote_call(plan, tid, call.number as i64, call.args, true)
}

/// Makes a system call in a stopped thread by the interpreter's own instruction; leaves it in a PTRACE_EVENT_STOP.
///
/// With `interrupted` the call finds a stop pending and does not wait.
fn remote_call(
    plan: &RestorePlan,
    tid: Tid,
    number: i64,
    args: [u64; 6],
    interrupted: bool,
) -> Result<i64, FinishError> {
    let registers = regset::general(tid).map_err(failed(tid, "reading registers"))?;
    let [rdi, rsi, rdx, r10, r8, r9] = args;
    let rip = plan.places.code.0 + syscall_offset() as u64;
    let call = UserRegs { rax: number as u64, orig_rax: u64::MAX, rip, rdi, rsi, rdx, r10, r8, r9, ..registers };
    regset::set_all(tid, &call).map_err(failed(tid, "setting registers"))?;
    ptrace::syscall(tid, 0).map_err(failed(tid, "PTRACE_SYSCALL"))?;
    wait_syscall(tid)?;
    if interrupted {
        ptrace::interrupt(tid).map_err(failed(tid, "PTRACE_INTERRUPT"))?;
    }
    ptrace::syscall(tid, 0).map_err(failed(tid, "PTRACE_SYSCALL"))?;
    wait_syscall(tid)?;
    let result = regset::general(tid).map_err(failed(tid, "reading registers"))?.rax as i64;
    // Every stop takes back a stop that was due (kernel/signal.c, `ptrace_stop`).
    ptrace::interrupt(tid).map_err(failed(tid, "PTRACE_INTERRUPT"))?;
    ptrace::cont(tid, 0).map_err(failed(tid, "PTRACE_CONT"))?;
    wait_stop(tid)?;
    Ok(result)
}

/// Installs seccomp filters. They are suspended for us where we have CAP_SYS_ADMIN; else they must let munmap(2) pass.
fn install(plan: &RestorePlan, tid: Tid, filters: &[[u64; 6]]) -> Result<(), FinishError> {
    if filters.is_empty() {
        return Ok(());
    }
    match ptrace::set_options(tid, OPTIONS | Options::SUSPEND_SECCOMP) {
        Err(Errno::EPERM) => {}
        result => result.map_err(failed(tid, "PTRACE_O_SUSPEND_SECCOMP"))?,
    }
    for filter in filters {
        let result = remote_call(plan, tid, libc::SYS_seccomp, *filter, false)?;
        if result != 0 {
            let source = io::Error::from_raw_os_error(-result as i32);
            return Err(FinishError { tid, action: "installing a seccomp filter", source });
        }
    }
    Ok(())
}

fn unmap(plan: &RestorePlan, leader: Tid) -> Result<(), FinishError> {
    match remote_call(plan, leader, libc::SYS_munmap, unmap_args(plan.ours), false)? {
        0 => Ok(()),
        error => {
            let source = io::Error::from_raw_os_error(-error as i32);
            Err(FinishError { tid: leader, action: "unmapping the interpreter", source })
        }
    }
}

/// Positions in files of `/proc/PID` of the image's own tasks, once these are what they were: lseek(2) reads up to there and keeps what it has
/// read (fs/seq_file.c), which in `maps` must not be a mapping of ours.
fn seek_task_files(snapshot: &Snapshot, process: &Process) -> Result<(), FinishError> {
    let leader = process.pid.leader();
    let table = &snapshot.fd_tables[process.threads[0].fd_table.0 as usize];
    let positions = table.entries.iter().filter_map(|entry| {
        let description = &snapshot.descriptions[entry.description.0 as usize];
        let seeks = description.position != 0 && check::task_file(snapshot, &description.object).is_some();
        seeks.then_some((entry.fd, description.position))
    });
    let mut pidfd = None;
    for (fd, position) in positions {
        let pidfd = match &pidfd {
            Some(pidfd) => pidfd,
            None => pidfd.insert(pidfd::open(process.pid).map_err(failed(leader, "pidfd_open"))?),
        };
        let file = pidfd::get_fd(pidfd.as_fd(), fd).map_err(failed(leader, "pidfd_getfd"))?;
        let sought = File::from(file).seek(SeekFrom::Start(position));
        sought.map_err(|source| FinishError { tid: leader, action: "lseek of a file of /proc", source })?;
    }
    Ok(())
}

/// Where the interpreter has a `syscall` instruction.
fn syscall_offset() -> usize {
    INTERPRETER.windows(2).position(|bytes| bytes == [0x0f, 0x05]).unwrap_or(0)
}

fn unmap_args(range: PageRange) -> [u64; 6] {
    [range.start.0, range.len(), 0, 0, 0, 0]
}

/// Registers, vector state, debug registers, system call dispatch and the signal mask of a stopped thread.
fn give(thread: &Thread, area: &[u8], result: Option<i64>) -> Result<(), FinishError> {
    let tid = thread.tid;
    regset::set_xstate(tid, area).map_err(failed(tid, "setting vector registers"))?;
    if let Some(debug) = &thread.cpu.debug {
        regset::set_debug(tid, debug).map_err(failed(tid, "setting debug registers"))?;
    }
    if let Some(dispatch) = thread.settings.syscall_dispatch {
        let configuration = SyscallUserDispatch {
            mode: dispatch.mode,
            selector: dispatch.selector.0,
            offset: dispatch.offset.0,
            len: dispatch.len,
        };
        ptrace_info::set_syscall_user_dispatch(tid, &configuration)
            .map_err(failed(tid, "setting syscall user dispatch"))?;
    }
    let registers = resume::registers(&thread.cpu.regs, thread.blocked.as_ref(), result);
    regset::set_all(tid, &(&registers).into()).map_err(failed(tid, "setting registers"))?;
    ptrace_info::set_signal_mask(tid, thread.signal_mask).map_err(failed(tid, "setting the signal mask"))
}
