//! Processes: their order, what their threads share, timers.

use super::{ensure, thread};
use crate::image::error::Error;
use crate::image::model::Snapshot;
use crate::image::model::id::TerminalId;
use crate::image::model::process::{Process, ProcessState, Zombie};
use crate::image::model::signal::{QueuedSignal, SignalHandlers};
use crate::image::model::timer::TimerNotify;
use std::collections::HashSet;

/// Signals that have a disposition.
const SIGNALS: usize = 64;

/// More limits than any kernel has (RLIM_NLIMITS is 16).
const LIMITS_MAX: usize = 64;

/// Bytes of a `siginfo_t`.
const SIGINFO_LEN: usize = 128;

/// One more than the highest pid (PID_MAX_LIMIT).
const PID_LIMIT: i32 = 4 << 20;

pub fn processes(snapshot: &Snapshot) -> Result<(), Error> {
    let Some(root) = snapshot.processes.first() else {
        return Err(Error::Model { object: "the process tree".into(), reason: "is empty".into() });
    };
    ensure(root.pid == snapshot.inventory.root, || "the root".into(), "is not the process that was dumped")?;
    let mut groups = 0;
    let mut tids = HashSet::new();
    let mut pids = HashSet::new();
    for (i, p) in snapshot.processes.iter().enumerate() {
        let object = || format!("process {}", p.pid);
        ensure(i == 0 || pids.contains(&p.ppid), object, "stands before its parent")?;
        pids.insert(p.pid);
        if p.ended_leader.is_some() {
            ensure(tids.insert(p.pid.leader()), object, "is there twice")?;
        }
        for t in &p.threads {
            let object = || format!("process {}: thread {}", p.pid, t.tid);
            ensure((1..PID_LIMIT).contains(&t.tid.0), object, "has an impossible id")?;
            ensure(tids.insert(t.tid), object, "is there twice")?;
            let group = t.scheduling.core_group;
            ensure(group <= groups + 1, object, "has a core scheduling group out of order")?;
            groups = groups.max(group);
            thread::thread(t, snapshot)?;
        }
        process(p, snapshot)?;
    }
    for z in &snapshot.zombies {
        let object = || format!("zombie {}", z.pid);
        ensure((1..PID_LIMIT).contains(&z.pid.0), object, "has an impossible id")?;
        ensure(tids.insert(z.pid.leader()), object, "is there twice")?;
        ensure(pids.contains(&z.ppid), object, "has no parent in the tree")?;
        zombie(z)?;
    }
    Ok(())
}

/// Dispositions of every signal.
pub fn signal_handlers(handlers: &SignalHandlers) -> Result<(), Error> {
    let object = || format!("signal handlers {}", handlers.id);
    ensure(handlers.actions.len() == SIGNALS, object, "are not 64 dispositions")
}

fn zombie(zombie: &Zombie) -> Result<(), Error> {
    let object = || format!("zombie {}", zombie.pid);
    let signal = zombie.exit_signal == 0 || is_signal(zombie.exit_signal);
    ensure(signal, object, "tells its parent by an impossible signal")?;
    // A code, or a signal with or without a core dump: never a stop.
    let ended = zombie.status & 0x7f == 0 && zombie.status & !0xff00 == 0;
    let killed = zombie.status & !0xff == 0 && is_signal(zombie.status & 0x7f);
    ensure(ended || killed, object, "has an impossible status")
}

fn process(process: &Process, snapshot: &Snapshot) -> Result<(), Error> {
    let object = || format!("process {}", process.pid);
    let main = process.threads.first().map(|thread| thread.tid);
    ensure(main.is_some(), object, "has no thread")?;
    let begins_with_it = main == Some(process.pid.leader());
    match &process.ended_leader {
        None => ensure(begins_with_it, object, "does not begin with its main thread")?,
        Some(leader) => {
            let is_a_thread = process.threads.iter().any(|thread| thread.tid == process.pid.leader());
            ensure(!is_a_thread, object, "has a main thread that has ended and runs")?;
            ensure(leader.status & !0xff00 == 0, object, "has a main thread that ended with an impossible status")?;
            ensure(thread::is_name(&leader.comm), object, "had a main thread with an impossible name")?;
            let groups = thread::is_possible(&leader.credentials);
            ensure(groups, object, "had a main thread that was in too many groups")?;
        }
    }
    ensure((process.mm.0 as usize) < snapshot.mms.len(), object, "refers to an mm that is not in the image")?;
    let handlers = (process.handlers.0 as usize) < snapshot.signal_handlers.len();
    ensure(handlers, object, "refers to signal handlers that are not in the image")?;
    ensure(process.rlimits.len() <= LIMITS_MAX, object, "has too many limits")?;
    let signal = process.exit_signal == 0 || is_signal(process.exit_signal);
    ensure(signal, object, "tells its parent by an impossible signal")?;
    let known = |id: TerminalId| (id.0 as usize) < snapshot.terminals.len();
    let terminal = process.controlling.and_then(|controlling| controlling.terminal);
    ensure(terminal.is_none_or(known), object, "has a terminal that is not in the image")?;
    match process.state {
        ProcessState::Running | ProcessState::Continued => {}
        ProcessState::Stopped { signal, waited: _ } => ensure(is_signal(signal), object, "is stopped by no signal")?,
    }
    ensure(process.pending.iter().all(queued_is_sane), object, "has a malformed pending signal")?;
    for thread in &process.threads {
        super::ipc::undo(&thread.undo, &snapshot.ipc, || format!("thread {}", thread.tid))?;
    }
    timers(process)
}

fn timers(process: &Process) -> Result<(), Error> {
    let object = || format!("process {}", process.pid);
    let threads: HashSet<_> = process.threads.iter().map(|thread| thread.tid).collect();
    let mut ids = HashSet::new();
    for timer in &process.timers {
        ensure(timer.id >= 0 && ids.insert(timer.id), object, "has a timer twice, or with an impossible id")?;
        let (signal, thread) = match timer.notify {
            TimerNotify::None => continue,
            TimerNotify::Signal(signal) => (signal, None),
            TimerNotify::Thread(signal, thread) => (signal, Some(thread)),
        };
        ensure(is_signal(signal), object, "has a timer with an impossible signal")?;
        let exists = thread.is_none_or(|tid| threads.contains(&tid));
        ensure(exists, object, "has a timer that tells a thread of another process")?;
    }
    Ok(())
}

/// Whether a number is that of a signal.
pub fn is_signal(number: i32) -> bool {
    (1..=SIGNALS as i32).contains(&number)
}

/// Whether this is a whole `siginfo_t` of a real signal.
pub fn queued_is_sane(signal: &QueuedSignal) -> bool {
    signal.info.len() == SIGINFO_LEN
        && signal.info.first_chunk().is_some_and(|bytes| is_signal(i32::from_le_bytes(*bytes)))
}
