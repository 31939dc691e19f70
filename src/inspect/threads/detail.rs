//! What the kernel keeps for a thread besides its registers.

use crate::image::model::credentials;
use crate::image::model::memory::MemoryPolicy;
use crate::image::model::thread::{self, Thread};
use crate::inspect::json::{Hex, Raw};
use crate::inspect::names::{self, tasks};
use serde::Serialize;

/// Addresses that the kernel knows, and per-thread settings.
#[derive(Debug, Serialize)]
pub struct Kernel {
    pub alternate_stack: Option<AlternateStack>,
    pub clear_child_tid: Hex,
    pub robust_list: Hex,
    pub rseq: Option<Rseq>,
    pub parent_death_signal: u32,
    pub tsc_enabled: bool,
    pub cpuid_enabled: bool,
    pub io_flusher: bool,
    pub mce_kill: u32,
    pub speculation: [u32; 3],
    pub syscall_dispatch: Option<SyscallDispatch>,
    pub personality: Hex,
    pub cpu_time_ns: u64,
}

#[derive(Debug, Serialize)]
pub struct AlternateStack {
    pub base: Hex,
    pub bytes: u64,
    pub flags: u32,
}

#[derive(Debug, Serialize)]
pub struct Rseq {
    pub address: Hex,
    pub bytes: u32,
    pub signature: Hex,
    pub flags: u32,
}

#[derive(Debug, Serialize)]
pub struct SyscallDispatch {
    pub mode: u64,
    pub selector: Hex,
    pub offset: Hex,
    pub len: u64,
}

/// Who it is and what it may do.
#[derive(Debug, Serialize)]
pub struct Credentials {
    pub uid: [u32; 4],
    pub gid: [u32; 4],
    pub groups: Vec<u32>,
    pub effective: Vec<String>,
    pub permitted: Vec<String>,
    pub inheritable: Vec<String>,
    pub bounding: Vec<String>,
    pub ambient: Vec<String>,
    pub securebits: Vec<String>,
    pub lsm_label: Raw,
    pub session_keyring: String,
    #[serde(skip)]
    pub effective_set: u64,
}

#[derive(Debug, Serialize)]
pub struct Seccomp {
    pub mode: &'static str,
    pub filters: Vec<u32>,
    pub no_new_privs: bool,
}

#[derive(Debug, Serialize)]
pub struct Scheduling {
    pub policy: String,
    pub flags: Hex,
    pub nice: i32,
    pub priority: u32,
    pub runtime_ns: u64,
    pub deadline_ns: u64,
    pub period_ns: u64,
    pub uclamp: [u32; 2],
    pub cpus: String,
    pub io_priority: String,
    pub timer_slack_ns: u64,
    pub core_group: Option<u32>,
    pub memory_policy: Option<String>,
}

pub fn kernel(thread: &Thread) -> Kernel {
    let settings = &thread.settings;
    let stack = thread.alt_stack;
    Kernel {
        alternate_stack: (stack.size > 0).then(|| AlternateStack {
            base: stack.base.into(),
            bytes: stack.size,
            flags: stack.flags,
        }),
        clear_child_tid: thread.clear_child_tid.into(),
        robust_list: thread.robust_list.head.into(),
        rseq: thread.rseq.map(|rseq| Rseq {
            address: rseq.address.into(),
            bytes: rseq.size,
            signature: Hex(u64::from(rseq.signature)),
            flags: rseq.flags,
        }),
        parent_death_signal: settings.parent_death_signal,
        tsc_enabled: settings.tsc != 2,
        cpuid_enabled: settings.cpuid,
        io_flusher: settings.io_flusher,
        mce_kill: settings.mce_kill,
        speculation: settings.speculation,
        syscall_dispatch: settings.syscall_dispatch.map(|dispatch| SyscallDispatch {
            mode: dispatch.mode,
            selector: dispatch.selector.into(),
            offset: dispatch.offset.into(),
            len: dispatch.len,
        }),
        personality: Hex(u64::from(settings.personality)),
        cpu_time_ns: settings.cpu_time,
    }
}

pub fn credentials(from: &credentials::Credentials) -> Credentials {
    let capabilities = names::credentials::capabilities;
    Credentials {
        uid: from.uid,
        gid: from.gid,
        groups: from.groups.clone(),
        effective: capabilities(from.cap_effective),
        permitted: capabilities(from.cap_permitted),
        inheritable: capabilities(from.cap_inheritable),
        bounding: capabilities(from.cap_bounding),
        ambient: capabilities(from.cap_ambient),
        securebits: names::credentials::securebits(from.securebits),
        lsm_label: Raw(from.lsm_label.clone()),
        session_keyring: from.session_keyring.clone(),
        effective_set: from.cap_effective,
    }
}

pub fn seccomp(from: &thread::Seccomp) -> Seccomp {
    Seccomp {
        mode: match from.mode {
            0 => "off",
            1 => "strict",
            2 => "filter",
            3.. => "unknown",
        },
        filters: from.filters.iter().map(|filter| filter.0).collect(),
        no_new_privs: from.no_new_privs,
    }
}

pub fn scheduling(from: &thread::Scheduling, memory: Option<&MemoryPolicy>) -> Scheduling {
    let [runtime_ns, deadline_ns, period_ns] = from.deadline;
    Scheduling {
        policy: tasks::policy(from.policy),
        flags: Hex(from.flags),
        nice: from.nice,
        priority: from.priority,
        runtime_ns,
        deadline_ns,
        period_ns,
        uclamp: from.uclamp,
        cpus: tasks::cpus(&from.affinity),
        io_priority: tasks::io_priority(from.io_priority),
        timer_slack_ns: from.timer_slack,
        core_group: (from.core_group != 0).then_some(from.core_group),
        memory_policy: memory.map(names::memory::policy),
    }
}
