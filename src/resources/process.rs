//! Thread groups: what all threads of a process share, and what the kernel keeps of its address space.

use super::CollectError;
use super::ask::Asker;
use super::keyring::Keyrings;
use super::signal::{ACTION_SIZE, SIGNALS, decode_action};
use crate::image::model::address::{Addr, PAGE_SIZE};
use crate::image::model::id::Tid;
use crate::image::model::memory::MmLayout;
use crate::image::model::signal::SignalAction;
use crate::image::model::timer::{IntervalTimers, TimerValue};
use crate::proc::stat::Layout;
use crate::proc::{TaskDir, limits};
use crate::sys::membarrier;
use crate::tracer::Question;

const PR_GET_MDWE: i32 = 66;
const PR_GET_MEMORY_MERGE: i32 = 68;
const ARCH_GET_XCOMP_PERM: u64 = 0x1022;
const MEMBARRIER_CMD_GET_REGISTRATIONS: u64 = 1 << 9;

/// What a process says first.
#[derive(Clone, Copy, Debug)]
pub struct Greeting {
    /// Its keyrings.
    pub keyrings: Keyrings,
    /// PR_GET_THP_DISABLE.
    pub thp_disable: u32,
    /// Whether mlockall(MCL_FUTURE) holds: a mapping made just now is locked.
    pub locks_new_mappings: bool,
}

/// What only the process can say of itself and of its address space.
#[derive(Debug)]
pub struct Answers {
    /// brk(2).
    pub brk: Addr,
    /// PR_GET_DUMPABLE.
    pub dumpable: u8,
    /// PR_GET_MDWE.
    pub mdwe: u32,
    /// PR_GET_MEMORY_MERGE.
    pub ksm_merge_any: bool,
    /// PR_GET_CHILD_SUBREAPER.
    pub child_subreaper: bool,
    /// membarrier(2).
    pub membarrier: u32,
    /// ARCH_GET_XCOMP_PERM.
    pub xcomp_permitted: u64,
    /// Whether modify_ldt(2) has made segments.
    pub has_ldt: bool,
    /// getitimer(2).
    pub itimers: IntervalTimers,
    /// Dispositions of signals 1 to 64.
    pub actions: Vec<SignalAction>,
}

/// Where in the scratch mapping the calls write their answers, in bytes.
mod out {
    pub const XCOMP_PERMITTED: u64 = 0;
    pub const SUBREAPER: u64 = 8;
    pub const LDT: u64 = 16;
    pub const TIMERS: u64 = 64;
    /// Behind what everything else takes.
    pub const ACTIONS: u64 = 1024;
}

/// What no call writes.
const UNANSWERED: u64 = 0x5a5a_5a5a_5a5a_5a5a;

/// Words that a `struct itimerval` takes.
const TIMER_WORDS: usize = 4;

/// Asks a process, by its main thread, before anything else is asked of it.
///
/// # Errors
/// When a question cannot be asked.
pub fn greet(asker: &mut Asker<'_, '_>, tid: Tid) -> Result<Greeting, CollectError> {
    let returned = |number, args| Question { number, args, returns: true };
    let [thread, process, session] = Keyrings::QUESTIONS;
    let questions = [
        thread,
        process,
        session,
        returned(libc::SYS_prctl, [libc::PR_GET_THP_DISABLE as u64, 0, 0]),
        // Nothing is in this page yet. Pages that are locked cannot be given up (madvise(2)).
        returned(libc::SYS_madvise, [asker.scratch(0).0, PAGE_SIZE, libc::MADV_DONTNEED as u64]),
    ];
    let [thread, process, session, thp_disable, given_up, _] =
        asker.answers(tid, "asking for its manner", &questions)?;
    Ok(Greeting {
        keyrings: Keyrings::of([thread, process, session]),
        thp_disable: thp_disable.unwrap_or(0) as u32,
        locks_new_mappings: given_up.is_none(),
    })
}

/// Asks a process through one of its threads.
///
/// # Errors
/// The question that could not be asked.
pub fn ask(asker: &mut Asker<'_, '_>, tid: Tid) -> Result<Answers, CollectError> {
    asker.fill(0, &UNANSWERED.to_le_bytes().repeat((out::ACTIONS as usize + SIGNALS * ACTION_SIZE) / 8))?;
    let questions = questions(asker.scratch(0));
    let [brk, dumpable, mdwe, merge, registered, ldt] =
        asker.answers_and_dispositions(tid, "asking for what its threads share", &questions, Some(out::ACTIONS))?;
    let [xcomp_permitted, child_subreaper] = asker.words::<2>(out::XCOMP_PERMITTED)?;
    let brk = brk.ok_or_else(|| CollectError::at(tid, "brk")(nix::errno::Errno::ENOSYS))?;
    Ok(Answers {
        brk: Addr(brk),
        dumpable: dumpable.unwrap_or(1) as u8,
        mdwe: mdwe.unwrap_or(0) as u32,
        ksm_merge_any: merge.unwrap_or(0) != 0,
        // An int, so that the upper half stays as it was.
        child_subreaper: ![0, UNANSWERED as u32].contains(&(child_subreaper as u32)),
        membarrier: registered.map_or_else(registrations, |registered| registered as u32),
        xcomp_permitted: if xcomp_permitted == UNANSWERED { 0 } else { xcomp_permitted },
        has_ldt: ldt.unwrap_or(0) > 0,
        itimers: interval_timers(asker, tid)?,
        actions: actions(asker, tid)?,
    })
}

/// Before Linux 6.3 nobody can see what a process has registered for with membarrier(2). To be registered costs next to nothing; to lack it makes calls
/// fail: it gets every registration that there is.
fn registrations() -> u32 {
    const REGISTER: i32 = libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED
        | libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED
        | libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE
        | libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ;
    membarrier::commands() & REGISTER as u32
}

/// What is answered by what is returned comes last, in the order in which [`ask`] takes it.
fn questions(scratch: Addr) -> [Question; 11] {
    let at = |offset| scratch.add(offset).0;
    let written = |number, args| Question { number, args, returns: false };
    let returned = |number, args| Question { number, args, returns: true };
    let prctl = |option: i32| returned(libc::SYS_prctl, [option as u64, 0, 0]);
    let timer = |which: u64| written(libc::SYS_getitimer, [which, at(out::TIMERS + which * 8 * TIMER_WORDS as u64), 0]);
    [
        written(libc::SYS_arch_prctl, [ARCH_GET_XCOMP_PERM, at(out::XCOMP_PERMITTED), 0]),
        written(libc::SYS_prctl, [libc::PR_GET_CHILD_SUBREAPER as u64, at(out::SUBREAPER), 0]),
        timer(0),
        timer(1),
        timer(2),
        returned(libc::SYS_brk, [0; 3]),
        prctl(libc::PR_GET_DUMPABLE),
        prctl(PR_GET_MDWE),
        prctl(PR_GET_MEMORY_MERGE),
        returned(libc::SYS_membarrier, [MEMBARRIER_CMD_GET_REGISTRATIONS, 0, 0]),
        returned(libc::SYS_modify_ldt, [0, at(out::LDT), 16]),
    ]
}

/// What getitimer(2) has written for each of the three.
fn interval_timers(asker: &mut Asker<'_, '_>, tid: Tid) -> Result<IntervalTimers, CollectError> {
    let words = asker.words::<{ 3 * TIMER_WORDS }>(out::TIMERS)?;
    if words.contains(&UNANSWERED) {
        return Err(CollectError::at(tid, "getitimer")(nix::errno::Errno::EINVAL));
    }
    let nanos = |seconds: u64, micros: u64| seconds * 1_000_000_000 + micros * 1000;
    let mut timers = IntervalTimers::default();
    for (timer, [interval_s, interval_us, value_s, value_us]) in timers.iter_mut().zip(words.as_chunks().0) {
        *timer = TimerValue { remaining: nanos(*value_s, *value_us), interval: nanos(*interval_s, *interval_us) };
    }
    Ok(timers)
}

/// What rt_sigaction(2) has written for every signal.
fn actions(asker: &mut Asker<'_, '_>, tid: Tid) -> Result<Vec<SignalAction>, CollectError> {
    let mut answers = [[0; ACTION_SIZE]; SIGNALS];
    asker.read(out::ACTIONS, answers.as_flattened_mut())?;
    let actions: Vec<SignalAction> = answers.iter().map(decode_action).collect();
    if actions.iter().any(|action| action.flags == UNANSWERED) {
        return Err(CollectError::at(tid, "rt_sigaction")(nix::errno::Errno::EINVAL));
    }
    Ok(actions)
}

/// The bounds that the kernel keeps of the program's parts.
#[must_use]
pub fn layout(stat: &Layout, brk: Addr) -> MmLayout {
    MmLayout {
        start_code: stat.start_code,
        end_code: stat.end_code,
        start_data: stat.start_data,
        end_data: stat.end_data,
        start_brk: stat.start_brk,
        brk,
        start_stack: stat.start_stack,
        arg_start: stat.arg_start,
        arg_end: stat.arg_end,
        env_start: stat.env_start,
        env_end: stat.env_end,
    }
}

/// Soft and hard limits, indexed by RLIMIT_*.
///
/// # Errors
/// As reading `/proc/PID/limits`, which asks for less than prlimit(2) does: that wants equal user ids or CAP_SYS_RESOURCE.
pub fn limits(task: &TaskDir) -> Result<Vec<[u64; 2]>, CollectError> {
    Ok(limits::read(task, &mut Vec::new())?.to_vec())
}
