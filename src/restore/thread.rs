//! The operations by which a thread gives itself what only it can: names, queues, scheduling, credentials. Pure.

use super::credentials;
use super::script::{Label, List, Script};
use super::xstate;
use crate::image::model::credentials::Credentials;
use crate::image::model::id::Pid;
use crate::image::model::inventory::XTILE_DATA;
use crate::image::model::process::EndedLeader;
use crate::image::model::signal::QueuedSignal;
use crate::image::model::thread::{AltStack, Scheduling, Thread, ThreadSettings};

const PR_SET_PDEATHSIG: u64 = 1;
const PR_SET_NAME: u64 = 15;
const PR_SET_TSC: u64 = 26;
const PR_SET_TIMERSLACK: u64 = 29;
const PR_MCE_KILL: u64 = 33;
const PR_SET_NO_NEW_PRIVS: u64 = 38;
const PR_SET_SPECULATION_CTRL: u64 = 53;
const PR_SET_IO_FLUSHER: u64 = 57;
const ARCH_SET_CPUID: u64 = 0x1012;
const IOPRIO_WHO_PROCESS: u64 = 1;
/// PR_SPEC_PRCTL: the thread may change it.
const SPEC_PRCTL: u32 = 1;
const SS_DISABLE: u64 = 2;
/// SCHED_FLAG_UTIL_CLAMP_MIN and MAX.
const UTIL_CLAMP: u64 = 0x60;

/// What a thread starts from: it inherits these from `snap`.
#[derive(Clone, Debug)]
pub struct Inherited<'a> {
    /// Credentials.
    pub credentials: &'a Credentials,
    /// Whether supplementary groups cannot be set, and stay.
    pub groups_stay: bool,
    /// prctl and arch_prctl settings.
    pub speculation: [u32; 3],
}

/// Everything of a main thread that is to end.
pub fn give_ended(list: &mut List, script: &mut Script, leader: &EndedLeader, inherited: &Inherited<'_>) {
    let name = script.place_string(&leader.comm);
    list.call("setting the name", libc::SYS_prctl, &[PR_SET_NAME, name.0]);
    credentials::change(list, script, inherited.credentials, &leader.credentials, inherited.groups_stay);
}

/// Everything of one thread but its registers, mask and seccomp filters; with a parent that does not last, without what that one's end would do.
pub fn give(
    list: &mut List,
    script: &mut Script,
    thread: &Thread,
    inherited: &Inherited<'_>,
    has_lasting_parent: bool,
) {
    let name = script.place_string(&thread.comm);
    list.call("setting the name", libc::SYS_prctl, &[PR_SET_NAME, name.0]);
    list.call("set_tid_address", libc::SYS_set_tid_address, &[thread.clear_child_tid.0]);
    if thread.robust_list.len != 0 {
        let args = [thread.robust_list.head.0, thread.robust_list.len];
        list.call("set_robust_list", libc::SYS_set_robust_list, &args);
    }
    if let Some(rseq) = &thread.rseq {
        let args = [rseq.address.0, u64::from(rseq.size), u64::from(rseq.flags), u64::from(rseq.signature)];
        list.call("registering rseq", libc::SYS_rseq, &args);
    }
    alternate_stack(list, script, &thread.alt_stack);
    // PTRACE_SETREGSET puts no tiles into a thread that has never used any (`validate_user_xstate_header` in arch/x86/kernel/fpu/xstate.c).
    if xstate::in_use(&thread.cpu.xsave).is_some_and(|used| used & XTILE_DATA != 0) {
        list.use_tile("using a tile");
    }
    schedule(list, script, &thread.scheduling);
    settings(list, script, &thread.settings, inherited.speculation);
    let groups_stay = inherited.groups_stay;
    credentials::change(list, script, inherited.credentials, &thread.credentials, groups_stay);
    if thread.seccomp.no_new_privs {
        list.call("setting NO_NEW_PRIVS", libc::SYS_prctl, &[PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0]);
    }
    // A change of credentials clears it.
    let signal = if has_lasting_parent { u64::from(thread.settings.parent_death_signal) } else { 0 };
    list.call("setting the parent-death signal", libc::SYS_prctl, &[PR_SET_PDEATHSIG, signal]);
}

/// Queues a thread's own pending signals; only the thread itself may send what the kernel or a timer sent.
pub fn queue_private(list: &mut List, script: &mut Script, pid: Pid, thread: &Thread) {
    for queued in &thread.pending {
        let (signal, info) = place(script, queued);
        let args = [pid.0 as u64, thread.tid.0 as u64, signal, info];
        list.call(Label::Number("queueing signal", signal as i64), libc::SYS_rt_tgsigqueueinfo, &args);
    }
}

/// Queues the signals pending for the whole process, from its main thread.
pub fn queue_shared(list: &mut List, script: &mut Script, pid: Pid, pending: &[QueuedSignal]) {
    for queued in pending {
        let (signal, info) = place(script, queued);
        let args = [pid.0 as u64, signal, info];
        list.call(Label::Number("queueing signal", signal as i64), libc::SYS_rt_sigqueueinfo, &args);
    }
}

/// The number stands first in `siginfo_t`.
fn place(script: &mut Script, queued: &QueuedSignal) -> (u64, u64) {
    let number = queued.info.first_chunk().map_or(0, |bytes| i32::from_le_bytes(*bytes));
    (number as u64, script.place(&queued.info).0)
}

fn alternate_stack(list: &mut List, script: &mut Script, stack: &AltStack) {
    let flags = if stack.size == 0 { SS_DISABLE } else { u64::from(stack.flags) };
    let stack = script.place_words(&[stack.base.0, flags, stack.size]);
    list.call("sigaltstack", libc::SYS_sigaltstack, &[stack.0, 0]);
}

fn schedule(list: &mut List, script: &mut Script, wanted: &Scheduling) {
    if !wanted.affinity.is_empty() {
        let mask = script.place_words(&wanted.affinity);
        let args = [0, wanted.affinity.len() as u64 * 8, mask.0];
        list.call("setting the affinity", libc::SYS_sched_setaffinity, &args);
    }
    // Other policies keep the nice value that the thread has (kernel/sched/syscalls.c, `__setscheduler_params`).
    if ![libc::SCHED_OTHER as u32, libc::SCHED_BATCH as u32].contains(&wanted.policy) {
        let args = [libc::PRIO_PROCESS as u64, 0, i64::from(wanted.nice) as u64];
        list.call("setting the nice value", libc::SYS_setpriority, &args);
    }
    let attributes = script.place(&attributes(wanted));
    list.call("setting the scheduling policy", libc::SYS_sched_setattr, &[0, attributes.0, 0]);
    let args = [IOPRIO_WHO_PROCESS, 0, u64::from(wanted.io_priority)];
    list.call("setting the I/O priority", libc::SYS_ioprio_set, &args);
    if wanted.timer_slack != 0 {
        list.call("setting the timer slack", libc::SYS_prctl, &[PR_SET_TIMERSLACK, wanted.timer_slack]);
    }
}

/// `struct sched_attr` of linux/sched/types.h.
fn attributes(scheduling: &Scheduling) -> Vec<u8> {
    let [low, high] = scheduling.uclamp;
    let clamped = scheduling.flags & UTIL_CLAMP != 0;
    let size: u32 = if clamped { 56 } else { 48 };
    let mut bytes = Vec::with_capacity(56);
    bytes.extend_from_slice(&size.to_le_bytes());
    bytes.extend_from_slice(&scheduling.policy.to_le_bytes());
    bytes.extend_from_slice(&scheduling.flags.to_le_bytes());
    bytes.extend_from_slice(&scheduling.nice.to_le_bytes());
    bytes.extend_from_slice(&scheduling.priority.to_le_bytes());
    for nanos in scheduling.deadline {
        bytes.extend_from_slice(&nanos.to_le_bytes());
    }
    if clamped {
        bytes.extend_from_slice(&low.to_le_bytes());
        bytes.extend_from_slice(&high.to_le_bytes());
    }
    bytes
}

fn settings(list: &mut List, script: &mut Script, settings: &ThreadSettings, speculation: [u32; 3]) {
    for (kind, (wanted, now)) in settings.speculation.iter().zip(speculation).enumerate() {
        if *wanted != now && wanted & SPEC_PRCTL != 0 {
            let args = [PR_SET_SPECULATION_CTRL, kind as u64, u64::from(wanted & !SPEC_PRCTL), 0, 0];
            list.call(Label::Number("setting speculation control", kind as i64), libc::SYS_prctl, &args);
        }
    }
    if settings.io_flusher {
        list.call("setting IO_FLUSHER", libc::SYS_prctl, &[PR_SET_IO_FLUSHER, 1, 0, 0, 0]);
    }
    // 2 is the default of the machine: PR_MCE_KILL_DEFAULT.
    if settings.mce_kill != 2 {
        let args = [PR_MCE_KILL, 1, u64::from(settings.mce_kill), 0, 0];
        list.call("setting the machine check policy", libc::SYS_prctl, &args);
    }
    if let Some(policy) = &settings.memory_policy {
        let nodes = script.place_words(&policy.nodes);
        let args = [u64::from(policy.mode), nodes.0, policy.nodes.len() as u64 * 64 + 1];
        list.call("setting the memory policy", libc::SYS_set_mempolicy, &args);
    }
    if settings.tsc == 2 {
        list.call("setting the TSC to fault", libc::SYS_prctl, &[PR_SET_TSC, 2]);
    }
    if !settings.cpuid {
        list.call("setting CPUID to fault", libc::SYS_arch_prctl, &[ARCH_SET_CPUID, 0]);
    }
    list.call("setting the personality", libc::SYS_personality, &[u64::from(settings.personality)]);
}
