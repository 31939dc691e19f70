//! Processes: thread groups and what their threads share.

use super::id::{FileId, FsId, MmId, Pid};
use super::signal::{QueuedSignal, SignalAction};
use super::terminal::ControllingTerminal;
use super::thread::Thread;
use super::timer::{IntervalTimers, PosixTimer};
use serde::{Deserialize, Serialize};

/// One thread group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Thread group id.
    pub pid: Pid,
    /// Parent at the dump; outside the tree for the root.
    pub ppid: Pid,
    /// Process group.
    pub pgid: Pid,
    /// Session.
    pub sid: Pid,
    /// Signal that its parent gets when it ends, 0 for none (clone(2)).
    pub exit_signal: i32,
    /// The terminal of its session, if it has one.
    pub controlling: Option<ControllingTerminal>,
    /// Running or stopped.
    pub state: ProcessState,
    /// Its address space.
    pub mm: MmId,
    /// Threads, the main thread first.
    pub threads: Vec<Thread>,
    /// Dispositions of signals 1 to 64.
    pub actions: Vec<SignalAction>,
    /// Signals pending for the whole process, in order.
    pub pending: Vec<QueuedSignal>,
    /// setitimer(2).
    pub itimers: IntervalTimers,
    /// timer_create(2).
    pub timers: Vec<PosixTimer>,
    /// Soft and hard limits, indexed by RLIMIT_*.
    pub rlimits: Vec<[u64; 2]>,
    /// `/proc/PID/oom_score_adj`.
    pub oom_score_adj: i32,
    /// PR_GET_CHILD_SUBREAPER.
    pub child_subreaper: bool,
    /// The program at the dump, for reports.
    pub argv: Vec<Vec<u8>>,
    /// Lines of `/proc/PID/cgroup`.
    pub cgroups: Vec<String>,
    /// `/proc/PID/loginuid`, recorded.
    pub loginuid: u32,
    /// `/proc/PID/autogroup` nice value, if the kernel has it.
    pub autogroup_nice: Option<i32>,
}

/// Whether the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessState {
    /// Runnable or blocked.
    Running,
    /// In group stop by this signal.
    Stopped(i32),
}

/// A process that has ended and that its parent has not reaped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zombie {
    /// Its id.
    pub pid: Pid,
    /// Who has to reap it; inside the tree.
    pub ppid: Pid,
    /// Process group.
    pub pgid: Pid,
    /// Session.
    pub sid: Pid,
    /// `/proc/PID/comm`.
    pub comm: Vec<u8>,
    /// Signal that its parent got, 0 for none (clone(2)).
    pub exit_signal: i32,
    /// What wait(2) stores.
    pub status: i32,
    /// Real user id, which `siginfo_t` of waitid(2) tells.
    pub uid: u32,
    /// CPU time in user mode and in the kernel, its reaped children's included, in nanoseconds.
    pub cpu_time: [u64; 2],
}

/// CLONE_FS: working directory, root and umask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsContext {
    /// Its place in [`super::Snapshot::fs_contexts`].
    pub id: FsId,
    /// Working directory.
    pub cwd: FileId,
    /// Root directory.
    pub root: FileId,
    /// umask(2).
    pub umask: u32,
}
