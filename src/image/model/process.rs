//! Processes: thread groups and what their threads share.

use super::credentials::Credentials;
use super::id::{FileId, FsId, HandlersId, MmId, Pid};
use super::signal::QueuedSignal;
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
    /// Threads, the main thread first unless that has ended.
    pub threads: Vec<Thread>,
    /// What is left of a main thread that has ended while others run.
    pub ended_leader: Option<EndedLeader>,
    /// Dispositions of signals.
    pub handlers: HandlersId,
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

impl Process {
    /// The threads that its main thread makes.
    #[must_use]
    pub fn others(&self) -> &[Thread] {
        if self.ended_leader.is_some() { &self.threads } else { &self.threads[1..] }
    }

    /// How many tasks make it at a restore: its threads, and a main thread that ends before they run.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.threads.len() + usize::from(self.ended_leader.is_some())
    }
}

/// A main thread that has called exit(2), or pthread_exit(3), while others run. Its id is that of the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedLeader {
    /// `/proc/PID/comm`.
    pub comm: Vec<u8>,
    /// The code of exit(2), shifted left by 8: what some kernels tell the parent when the others end one by one.
    pub status: i32,
    /// Who it was, which decides who may send a signal to the process.
    pub credentials: Credentials,
}

/// Whether the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessState {
    /// Runnable or blocked.
    Running,
    /// The same, after a group stop: its parent can still wait for its having been continued (WCONTINUED).
    Continued,
    /// In group stop.
    Stopped {
        /// By which signal.
        signal: i32,
        /// Whether its parent has waited for that (WUNTRACED) and cannot once more.
        waited: bool,
    },
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
