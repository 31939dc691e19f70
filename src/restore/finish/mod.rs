//! The last act: stops every thread at the barrier, removes what is ours, gives registers, and lets go.
//!
//! Until [`Tracees::commit`] the death of `snap` kills the whole tree (PTRACE_O_EXITKILL).

mod stops;
mod timeouts;

use super::guard::Guard;
use super::lookup;
use super::plan::{ProcessPlan, RestorePlan};
use super::resume::{self, TimedCall};
use super::xstate;
use crate::image::model::Snapshot;
use crate::image::model::address::PageRange;
use crate::image::model::id::{Pid, Tid};
use crate::image::model::inventory::XsaveLayout;
use crate::image::model::process::{Process, ProcessState};
use crate::image::model::thread::Thread;
use crate::sys::pidfd;
use crate::sys::ptrace::{self, Options};
use crate::sys::ptrace_info::{self, SyscallUserDispatch};
use crate::sys::regset;
use crate::sys::wait::{self, Flags, Status};
use nix::errno::Errno;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use stops::{continue_group, end_leader, look, remote_call, stop, stop_group, wait_stop};
use timeouts::Timeouts;

const PR_SET_PDEATHSIG: u64 = 1;

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
            for tid in process.others().iter().map(|thread| thread.tid) {
                ptrace::seize(tid, OPTIONS).map_err(failed(tid, "PTRACE_SEIZE"))?;
                self.members[at].tids.push(tid);
            }
        }
        self.stop_all()?;
        self.end_leaders(plan, snapshot)?;
        let mut results = Vec::with_capacity(snapshot.processes.len());
        for (process, planned) in snapshot.processes.iter().zip(&plan.processes) {
            results.push(prepare(plan, planned, process)?);
        }
        // Children before their parents: a child that is stopped tells its parent, which has known it long since.
        for (process, planned) in snapshot.processes.iter().zip(&plan.processes).rev() {
            let first = process.threads[0].tid;
            if let Some(args) = planned.forget.filter(|_| stay || planned.has_stopped_child) {
                remote_call(plan, first, libc::SYS_rt_sigtimedwait, args, false)?;
            }
            for (args, _) in planned.stops_of_children.iter().filter(|(_, is_known)| stay || *is_known) {
                remote_call(plan, first, libc::SYS_waitid, *args, false)?;
            }
            let is_stopped = stay || matches!(process.state, ProcessState::Stopped { .. });
            if process.state == ProcessState::Continued && !is_stopped {
                continue_group(plan, planned, process)?;
            }
            // Those who share memory come before the one that has made it.
            if !planned.shares_memory {
                unmap(plan, first)?;
            }
            if is_stopped {
                stop_group(process)?;
            }
        }
        let image = &snapshot.inventory.host.xsave;
        let mut taken = HashSet::new();
        for (process, results) in snapshot.processes.iter().zip(results) {
            let leader = process.threads[0].tid;
            let timeouts = timeouts::shortened(process, &mut taken)?;
            let size = regset::xstate(leader).map_err(failed(leader, "PTRACE_GETREGSET"))?.len();
            for (thread, result) in process.threads.iter().zip(results) {
                let area = xstate::convert(&thread.cpu.xsave, image, own, size);
                give(thread, &timeouts, &area, result)?;
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

    /// Main threads that had ended end again, once all others are there; then children get the signals of the death of their parents.
    fn end_leaders(&mut self, plan: &RestorePlan, snapshot: &Snapshot) -> Result<(), FinishError> {
        let ended = |process: &&Process| process.ended_leader.is_some();
        for process in snapshot.processes.iter().filter(ended) {
            let Some(leader) = &process.ended_leader else { continue };
            if let Some(member) = self.members.iter_mut().find(|member| member.pid == process.pid) {
                member.tids.retain(|tid| *tid != process.pid.leader());
            }
            end_leader(plan, process.pid, leader.status)?;
            for child in snapshot.processes.iter().filter(|child| child.ppid == process.pid) {
                for thread in &child.threads {
                    let args = [PR_SET_PDEATHSIG, u64::from(thread.settings.parent_death_signal), 0, 0, 0, 0];
                    remote_call(plan, thread.tid, libc::SYS_prctl, args, false)?;
                }
            }
        }
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

/// Makes a timed call with a stop already due, so that it leaves a restart block behind; gives its result.
fn begin_to_wait(plan: &RestorePlan, tid: Tid, call: TimedCall) -> Result<i64, FinishError> {
    remote_call(plan, tid, call.number as i64, call.args, true)
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
    let mut tables = HashSet::new();
    for thread in process.threads.iter().filter(|thread| tables.insert(thread.fd_table)) {
        let table = &snapshot.fd_tables[thread.fd_table.0 as usize];
        let positions = table.entries.iter().filter_map(|entry| {
            let description = &snapshot.descriptions[entry.description.0 as usize];
            let seeks = description.position != 0 && lookup::task_file(snapshot, &description.object).is_some();
            seeks.then_some((entry.fd, description.position))
        });
        let tid = thread.tid;
        let open = || if tid == process.pid.leader() { pidfd::open(process.pid) } else { pidfd::open_thread(tid) };
        let mut pidfd = None;
        for (fd, position) in positions {
            let pidfd = match &pidfd {
                Some(pidfd) => pidfd,
                None => pidfd.insert(open().map_err(failed(tid, "pidfd_open"))?),
            };
            let file = pidfd::get_fd(pidfd.as_fd(), fd).map_err(failed(tid, "pidfd_getfd"))?;
            let sought = File::from(file).seek(SeekFrom::Start(position));
            sought.map_err(|source| FinishError { tid, action: "lseek of a file of /proc", source })?;
        }
    }
    Ok(())
}

fn unmap_args(range: PageRange) -> [u64; 6] {
    [range.start.0, range.len(), 0, 0, 0, 0]
}

/// Registers, vector state, debug registers, system call dispatch and the signal mask of a stopped thread.
fn give(thread: &Thread, timeouts: &Timeouts, area: &[u8], result: Option<i64>) -> Result<(), FinishError> {
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
    let mut registers = (&registers).into();
    if let Some((argument, value)) = timeouts.get(&tid) {
        registers = argument.with(&registers, *value);
    }
    regset::set_all(tid, &registers).map_err(failed(tid, "setting registers"))?;
    ptrace_info::set_signal_mask(tid, thread.signal_mask).map_err(failed(tid, "setting the signal mask"))
}
