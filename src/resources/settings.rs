//! What prctl(2), arch_prctl(2) and the like keep for each thread and tell to itself alone.

use super::CollectError;
use super::ask::Asker;
use crate::image::model::address::Addr;
use crate::image::model::id::Tid;
use crate::image::model::memory::MemoryPolicy;
use crate::image::model::thread::{AltStack, SyscallDispatch, ThreadSettings};
use crate::proc::status::Status;
use crate::tracer::Question;

const PR_GET_IO_FLUSHER: i32 = 58;
const ARCH_GET_CPUID: u64 = 0x1011;
const SS_ONSTACK: u32 = 1;
/// What changes nothing.
const PERSONALITY_ASK: u64 = 0xffff_ffff;

/// PR_SPEC_* of prctl(2).
const PR_SPEC_CONTROLS: [u64; 3] = [0, 1, 2];
const PR_SPEC_PRCTL: u32 = 1;
const PR_SPEC_ENABLE: u32 = 2;
const PR_SPEC_DISABLE: u32 = 4;
const PR_SPEC_FORCE_DISABLE: u32 = 8;

/// Most nodes for which a policy is asked.
const NODES: u64 = 1024;

/// What only the thread itself can say.
#[derive(Debug)]
pub struct Answers {
    /// sigaltstack(2).
    pub alt_stack: AltStack,
    /// PR_GET_TID_ADDRESS.
    pub clear_child_tid: Addr,
    /// PR_GET_SECUREBITS.
    pub securebits: u32,
    /// PR_GET_PDEATHSIG.
    pub parent_death_signal: u32,
    /// PR_GET_TIMERSLACK in nanoseconds.
    pub timer_slack: u64,
    /// PR_GET_TSC.
    pub tsc: u32,
    /// ARCH_GET_CPUID.
    pub cpuid: bool,
    /// personality(2).
    pub personality: u32,
    /// CLOCK_THREAD_CPUTIME_ID in nanoseconds.
    pub cpu_time: u64,
    /// PR_GET_IO_FLUSHER.
    pub io_flusher: bool,
    /// PR_MCE_KILL_GET.
    pub mce_kill: u32,
    /// PR_GET_SPECULATION_CTRL.
    pub speculation: [u32; 3],
    /// get_mempolicy(2).
    pub memory_policy: Option<MemoryPolicy>,
}

/// What is known without asking the thread: each question that need not be put shortens the pause.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Its `status`.
    pub status: &'a Status,
    /// What PR_GET_SPECULATION_CTRL tells snap itself.
    pub own_speculation: [u32; 3],
}

/// Where in the scratch mapping the calls write their answers: offsets in bytes, 64-bit words apart.
mod out {
    pub const ALT_STACK: u64 = 0;
    pub const TID_ADDRESS: u64 = 24;
    pub const PARENT_DEATH_SIGNAL: u64 = 32;
    pub const TSC: u64 = 40;
    pub const CPU_TIME: u64 = 48;
    pub const POLICY: u64 = 64;
    pub const NODES: u64 = 72;
    /// Words before the nodes.
    pub const WORDS: usize = 9;
}

/// What no call writes.
const UNANSWERED: u64 = 0x5a5a_5a5a_5a5a_5a5a;

/// Asks a thread.
///
/// # Errors
/// The question that could not be asked.
pub fn ask(asker: &mut Asker<'_, '_>, tid: Tid, known: &Known<'_>) -> Result<Answers, CollectError> {
    asker.fill(0, [UNANSWERED.to_le_bytes(); out::WORDS].as_flattened())?;
    let questions = questions(asker.scratch(0));
    let [securebits, cpuid, mce_kill, timer_slack, io_flusher, personality] =
        asker.answers(tid, "asking for its settings", &questions)?;
    let [alt_base, alt_flags, alt_size, tid_address, death_signal, tsc, seconds, nanos, policy] =
        asker.words::<{ out::WORDS }>(0)?;
    for (word, action) in [
        (alt_size, "sigaltstack"),
        (tid_address, "PR_GET_TID_ADDRESS (CONFIG_CHECKPOINT_RESTORE)"),
        (nanos, "clock_gettime"),
    ] {
        if word == UNANSWERED {
            return Err(CollectError::at(tid, action)(nix::errno::Errno::EINVAL));
        }
    }
    Ok(Answers {
        alt_stack: AltStack { base: Addr(alt_base), size: alt_size, flags: alt_flags as u32 & !SS_ONSTACK },
        clear_child_tid: Addr(tid_address),
        securebits: securebits.unwrap_or(0) as u32,
        parent_death_signal: number(death_signal).unwrap_or(0),
        timer_slack: timer_slack.unwrap_or(0),
        tsc: number(tsc).unwrap_or(libc::PR_TSC_ENABLE as u32),
        cpuid: cpuid.is_none_or(|enabled| enabled != 0),
        personality: personality.unwrap_or(0) as u32,
        cpu_time: seconds * 1_000_000_000 + nanos,
        // EPERM for a thread that could not have set it.
        io_flusher: io_flusher.unwrap_or(0) != 0,
        mce_kill: mce_kill.unwrap_or(0) as u32,
        speculation: speculation(asker, tid, known)?,
        memory_policy: match number(policy) {
            None | Some(0) => None,
            Some(mode) => Some(MemoryPolicy { mode, nodes: nodes(asker)? }),
        },
    })
}

/// The same for every thread of a process. What is answered by what is returned comes last, in the order in which [`ask`] takes it.
fn questions(scratch: Addr) -> [Question; 12] {
    let at = |offset| scratch.add(offset).0;
    let written = |number, args| Question { number, args, returns: false };
    let prctl = |option: i32, into| written(libc::SYS_prctl, [option as u64, into, 0]);
    let returned = |number, first| Question { number, args: [first, 0, 0], returns: true };
    [
        written(libc::SYS_sigaltstack, [0, at(out::ALT_STACK), 0]),
        prctl(libc::PR_GET_TID_ADDRESS, at(out::TID_ADDRESS)),
        prctl(libc::PR_GET_PDEATHSIG, at(out::PARENT_DEATH_SIGNAL)),
        prctl(libc::PR_GET_TSC, at(out::TSC)),
        written(libc::SYS_clock_gettime, [libc::CLOCK_THREAD_CPUTIME_ID as u64, at(out::CPU_TIME), 0]),
        // Without flags: the policy of the thread.
        written(libc::SYS_get_mempolicy, [at(out::POLICY), at(out::NODES), NODES + 1]),
        returned(libc::SYS_prctl, libc::PR_GET_SECUREBITS as u64),
        returned(libc::SYS_arch_prctl, ARCH_GET_CPUID),
        returned(libc::SYS_prctl, libc::PR_MCE_KILL_GET as u64),
        returned(libc::SYS_prctl, libc::PR_GET_TIMERSLACK as u64),
        returned(libc::SYS_prctl, PR_GET_IO_FLUSHER as u64),
        returned(libc::SYS_personality, PERSONALITY_ASK),
    ]
}

/// A 32-bit answer; `None` when the call has failed, which is because the kernel or the CPU does not have the thing.
fn number(word: u64) -> Option<u32> {
    (word as u32 != UNANSWERED as u32).then_some(word as u32)
}

/// Joins the answers with what ptrace and /proc told.
#[must_use]
pub fn join(answers: &Answers, syscall_dispatch: Option<SyscallDispatch>) -> ThreadSettings {
    ThreadSettings {
        parent_death_signal: answers.parent_death_signal,
        tsc: answers.tsc,
        cpuid: answers.cpuid,
        io_flusher: answers.io_flusher,
        mce_kill: answers.mce_kill,
        speculation: answers.speculation,
        syscall_dispatch,
        memory_policy: answers.memory_policy.clone(),
        personality: answers.personality,
        cpu_time: answers.cpu_time,
    }
}

/// Speculation control of the calling thread, 0 for what the CPU or the kernel does not have.
#[must_use]
pub fn own_speculation() -> [u32; 3] {
    PR_SPEC_CONTROLS.map(|control| crate::sys::task::speculation(control).unwrap_or(0))
}

/// `status` names the state of two controls; only what it does not tell apart is asked for.
fn speculation(asker: &mut Asker<'_, '_>, tid: Tid, known: &Known<'_>) -> Result<[u32; 3], CollectError> {
    let status = known.status;
    let named = [
        status.speculation_store_bypass.as_deref().and_then(store_bypass),
        status.speculation_indirect_branch.as_deref().and_then(indirect_branch),
        // The flush of the L1D cache can be switched per thread only where the command line of the kernel has it on.
        Some(known.own_speculation[2]).filter(|own| own & PR_SPEC_PRCTL == 0),
    ];
    let mut answers = [0; 3];
    for ((answer, control), named) in answers.iter_mut().zip(PR_SPEC_CONTROLS).zip(named) {
        let args = [libc::PR_GET_SPECULATION_CTRL as u64, control, 0, 0, 0, 0];
        *answer = match named {
            Some(named) => named,
            None => asker.optional(tid, "PR_GET_SPECULATION_CTRL", libc::SYS_prctl, args)?.unwrap_or(0) as u32,
        };
    }
    Ok(answers)
}

/// fs/proc/array.c, `task_seccomp`; `thread mitigated` may be until execve(2) or for good.
fn store_bypass(text: &str) -> Option<u32> {
    match text {
        "not vulnerable" => Some(0),
        "thread vulnerable" => Some(PR_SPEC_PRCTL | PR_SPEC_ENABLE),
        "thread force mitigated" => Some(PR_SPEC_PRCTL | PR_SPEC_FORCE_DISABLE),
        "globally mitigated" => Some(PR_SPEC_DISABLE),
        "vulnerable" => Some(PR_SPEC_ENABLE),
        _ => None,
    }
}

/// fs/proc/array.c, `task_seccomp`.
fn indirect_branch(text: &str) -> Option<u32> {
    match text {
        "not affected" | "unsupported" => Some(0),
        "conditional enabled" => Some(PR_SPEC_PRCTL | PR_SPEC_ENABLE),
        "conditional disabled" => Some(PR_SPEC_PRCTL | PR_SPEC_DISABLE),
        "conditional force disabled" => Some(PR_SPEC_PRCTL | PR_SPEC_FORCE_DISABLE),
        "always enabled" => Some(PR_SPEC_ENABLE),
        "always disabled" => Some(PR_SPEC_DISABLE),
        _ => None,
    }
}

/// The nodes that get_mempolicy(2) has told, without words of zero at the end.
fn nodes(asker: &mut Asker<'_, '_>) -> Result<Vec<u64>, CollectError> {
    let mut nodes = asker.words::<{ NODES as usize / 64 }>(out::NODES)?.to_vec();
    nodes.truncate(nodes.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1));
    Ok(nodes)
}
