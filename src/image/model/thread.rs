//! Threads: registers and everything that the kernel keeps in a `task_struct`.

use super::address::Addr;
use super::credentials::Credentials;
use super::id::{FdTableId, FsId, IoContextId, SeccompId, Tid, UndoListId};
use super::ipc::Undo;
use super::memory::MemoryPolicy;
use super::signal::QueuedSignal;
use serde::{Deserialize, Serialize};

/// One thread of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// Thread id.
    pub tid: Tid,
    /// `/proc/PID/task/TID/comm`, at most 15 bytes.
    pub comm: Vec<u8>,
    /// Registers.
    pub cpu: Cpu,
    /// What it was doing in the kernel.
    pub blocked: Option<BlockedSyscall>,
    /// Its table of descriptors.
    pub fd_table: FdTableId,
    /// Its working directory, root and umask.
    pub fs: FsId,
    /// Its list of System V semaphores to undo, where another task of the image has the same.
    pub undo_list: Option<UndoListId>,
    /// What is in it, by set and number; of tasks that share one, only the first has it.
    pub undo: Vec<Undo>,
    /// Its I/O context, where another task of the image has the same.
    pub io_context: Option<IoContextId>,
    /// Signal mask, bit N-1 for signal N.
    pub signal_mask: u64,
    /// Signals pending for this thread alone, in order.
    pub pending: Vec<QueuedSignal>,
    /// sigaltstack(2).
    pub alt_stack: AltStack,
    /// set_tid_address(2).
    pub clear_child_tid: Addr,
    /// set_robust_list(2).
    pub robust_list: RobustList,
    /// rseq(2), if registered.
    pub rseq: Option<Rseq>,
    /// Who it is and what it may do.
    pub credentials: Credentials,
    /// Seccomp, no_new_privs.
    pub seccomp: Seccomp,
    /// How it is scheduled.
    pub scheduling: Scheduling,
    /// The settings that prctl(2) and arch_prctl(2) keep for each thread.
    pub settings: ThreadSettings,
}

/// Registers of one thread as user space would see them, were it not in a system call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// General registers, flags, segments and bases.
    pub regs: Registers,
    /// XSAVE area in standard format, in the layout of [`super::inventory::Host::xsave`].
    #[serde(with = "super::bytes")]
    pub xsave: Vec<u8>,
    /// Debug registers 0 to 3, 6 and 7; `None` when none is set.
    pub debug: Option<[u64; 6]>,
}

/// `struct user_regs_struct` of x86-64, in its order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the hardware's own names")]
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub eflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}

/// A system call that the freeze interrupted and that goes on after the restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedSyscall {
    /// Its number.
    pub number: u64,
    /// Its six arguments.
    pub args: [u64; 6],
    /// How it goes on in the restored thread.
    pub resume: Resume,
}

/// How an interrupted system call goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resume {
    /// It is made again with the same arguments.
    Again,
    /// It is made again with this much of its relative timeout left.
    Remaining {
        /// Nanoseconds.
        nanos: u64,
        /// False when the remainder could not be known and the full time is used.
        exact: bool,
    },
    /// It is made again with this much of its relative timeout, in a register that the program does not look at afterwards.
    Shortened {
        /// Nanoseconds.
        nanos: u64,
    },
    /// It is made again with all of a relative timeout: how much was left could not be known, or not be given.
    Anew,
}

/// sigaltstack(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AltStack {
    /// `ss_sp`.
    pub base: Addr,
    /// `ss_size` in bytes.
    pub size: u64,
    /// `ss_flags`, SS_ONSTACK left out.
    pub flags: u32,
}

/// set_robust_list(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RobustList {
    /// Head, null if none.
    pub head: Addr,
    /// Length that was registered with it.
    pub len: u64,
}

/// rseq(2), as PTRACE_GET_RSEQ_CONFIGURATION reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rseq {
    /// `struct rseq` in the target.
    pub address: Addr,
    /// Its length.
    pub size: u32,
    /// The signature before every abort handler.
    pub signature: u32,
    /// Registration flags.
    pub flags: u32,
}

/// seccomp(2) and no_new_privs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seccomp {
    /// 0 off, 1 strict, 2 filter.
    pub mode: u8,
    /// Installed filters, oldest first.
    pub filters: Vec<SeccompId>,
    /// prctl PR_GET_NO_NEW_PRIVS.
    pub no_new_privs: bool,
}

/// A classic BPF program of seccomp(2), shared by every task that holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompFilter {
    /// Its place in [`super::Snapshot::seccomp_filters`].
    pub id: SeccompId,
    /// SECCOMP_FILTER_FLAG_LOG and the like.
    pub flags: u32,
    /// `struct sock_filter` packed as `code | jt << 16 | jf << 24 | k << 32`.
    pub program: Vec<u64>,
}

/// sched_getattr(2), affinity, I/O priority, timer slack and core scheduling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduling {
    /// SCHED_*.
    pub policy: u32,
    /// SCHED_FLAG_* of `struct sched_attr`.
    pub flags: u64,
    /// Nice value, -20 to 19.
    pub nice: i32,
    /// Priority of SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// Runtime, deadline and period of SCHED_DEADLINE in nanoseconds; the slice for others.
    pub deadline: [u64; 3],
    /// Utilisation clamps: minimum and maximum, 0 to 1024.
    pub uclamp: [u32; 2],
    /// CPUs allowed, bit N of word N/64.
    pub affinity: Vec<u64>,
    /// ioprio_get(2).
    pub io_priority: u32,
    /// Timer slack in nanoseconds.
    pub timer_slack: u64,
    /// Core scheduling: which threads have one cookie, numbered from 1 in the order of the first of each; 0 without a cookie.
    pub core_group: u32,
}

/// What prctl(2), arch_prctl(2) and set_mempolicy(2) keep for each thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadSettings {
    /// PR_GET_PDEATHSIG.
    pub parent_death_signal: u32,
    /// PR_GET_TSC: 1 enabled, 2 SIGSEGV.
    pub tsc: u32,
    /// ARCH_GET_CPUID: false when CPUID faults.
    pub cpuid: bool,
    /// PR_GET_IO_FLUSHER.
    pub io_flusher: bool,
    /// PR_MCE_KILL_GET.
    pub mce_kill: u32,
    /// PR_GET_SPECULATION_CTRL for store bypass, indirect branch and L1D flush.
    pub speculation: [u32; 3],
    /// Syscall user dispatch, if on.
    pub syscall_dispatch: Option<SyscallDispatch>,
    /// get_mempolicy(2), `None` for the default.
    pub memory_policy: Option<MemoryPolicy>,
    /// personality(2).
    pub personality: u32,
    /// CPU time used before the dump, in nanoseconds.
    pub cpu_time: u64,
}

/// PR_SET_SYSCALL_USER_DISPATCH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyscallDispatch {
    /// PR_SYS_DISPATCH_ON.
    pub mode: u64,
    /// The selector byte.
    pub selector: Addr,
    /// First address from which calls are always allowed.
    pub offset: Addr,
    /// Bytes of that range.
    pub len: u64,
}
