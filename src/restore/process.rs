//! The operations for what the threads of a process share: session, limits, handlers, timers, descriptors. Pure.

use super::script::{Label, List, Script};
use crate::image::model::Snapshot;
use crate::image::model::address::Addr;
use crate::image::model::file::{AsyncOwner, FdTable, OwnerTarget};
use crate::image::model::id::{DescriptionId, FdTableId, FileId, TerminalId};
use crate::image::model::ipc::{Notification, NotificationEvent};
use crate::image::model::process::{FsContext, Process};
use crate::image::model::signal::SignalHandlers;
use crate::image::model::timer::{PosixTimer, TimerNotify, TimerValue};
use std::collections::{BTreeMap, HashMap};

const PR_SET_DUMPABLE: u64 = 4;
const PR_SET_CHILD_SUBREAPER: u64 = 36;
const PR_TIMER_CREATE_RESTORE_IDS: u64 = 77;
const F_SETOWN_EX: u64 = 15;
const F_SETSIG: u64 = 10;
const CLOSE_RANGE: i64 = 436;

/// Which of the descriptors that every skeleton inherits hold what.
#[derive(Clone, Debug, Default)]
pub struct Descriptors {
    /// For each description of the image, the number under which the skeleton has it, if it is inherited.
    pub descriptions: Vec<Option<i32>>,
    /// Working directories, and root directories that are not that of `snap`.
    pub directories: HashMap<FileId, i32>,
    /// Slaves of terminals that sessions have.
    pub terminals: HashMap<TerminalId, i32>,
    /// The writing end of the report pipe.
    pub report: i32,
    /// `/proc`, where a description or a working directory is a file there of a task of the image: such a file can be opened only once the task exists.
    pub proc: Option<i32>,
    /// The root directory of `snap`, where a description is `/dev/tty`, wherever a process has its own.
    pub root: Option<i32>,
    /// For each description that can be had only once the tasks exist, the tables that have it, the first of which opens it.
    pub late: BTreeMap<DescriptionId, Vec<FdTableId>>,
    /// For each of them that several tables have, the two ends of the pair of sockets by which it is handed on.
    pub handovers: BTreeMap<DescriptionId, [i32; 2]>,
}

/// Working directory, root and umask.
pub fn enter_directories(list: &mut List, script: &mut Script, context: &FsContext, descriptors: &Descriptors) {
    if let Some(root) = descriptors.directories.get(&context.root) {
        let dot = script.place_string(b".");
        list.call("entering the root directory", libc::SYS_fchdir, &[*root as u64]);
        list.call("chroot", libc::SYS_chroot, &[dot.0]);
    }
    // One of a task of the image comes later.
    if let Some(cwd) = descriptors.directories.get(&context.cwd) {
        list.call("entering the working directory", libc::SYS_fchdir, &[*cwd as u64]);
    }
    list.call("umask", libc::SYS_umask, &[u64::from(context.umask)]);
}

/// Puts every description under its numbers and closes what else `snap` had open, but for what late descriptions need and the report pipe.
pub fn place_descriptors(list: &mut List, table: &FdTable, descriptors: &Descriptors) {
    let mut keep: Vec<i32> = vec![descriptors.report];
    keep.extend(descriptors.proc);
    keep.extend(descriptors.root);
    keep.extend(descriptors.handovers.values().flatten());
    for entry in &table.entries {
        let Some(held) = descriptors.descriptions[entry.description.0 as usize] else { continue };
        keep.push(entry.fd.0);
        if held == entry.fd.0 {
            let args = [held as u64, libc::F_SETFD as u64, u64::from(entry.close_on_exec)];
            list.call(Label::Number("flags of descriptor", i64::from(held)), libc::SYS_fcntl, &args);
        } else {
            let flags = if entry.close_on_exec { libc::O_CLOEXEC } else { 0 };
            let args = [held as u64, entry.fd.0 as u64, flags as u64];
            list.call(Label::Number("placing descriptor", i64::from(entry.fd.0)), libc::SYS_dup3, &args);
        }
    }
    keep.sort_unstable();
    let mut from = 0;
    for fd in keep {
        if fd > from {
            let args = [from as u64, fd as u64 - 1, 0];
            list.call(Label::Number("closing descriptors from", i64::from(from)), CLOSE_RANGE, &args);
        }
        from = from.max(fd + 1);
    }
    let args = [from as u64, u64::from(u32::MAX), 0];
    list.call(Label::Number("closing descriptors from", i64::from(from)), CLOSE_RANGE, &args);
}

/// F_SETOWN and F_SETSIG, once the ids exist. What is `done` is shared with a process before it.
pub fn own_descriptors(list: &mut List, script: &mut Script, snapshot: &Snapshot, table: &FdTable, done: &mut [bool]) {
    for entry in &table.entries {
        let index = entry.description.0 as usize;
        let Some(AsyncOwner { target, signal }) = snapshot.descriptions[index].owner else { continue };
        if std::mem::replace(&mut done[index], true) {
            continue;
        }
        let (kind, id) = match target {
            OwnerTarget::None => (1, 0),
            OwnerTarget::Thread(tid) => (0, tid.0),
            OwnerTarget::Process(pid) => (1, pid.0),
            OwnerTarget::Group(pid) => (2, pid.0),
        };
        let owner = script.place(&[i32::to_le_bytes(kind), id.to_le_bytes()].concat());
        let label = |text| Label::Number(text, i64::from(entry.fd.0));
        list.call(label("owner of descriptor"), libc::SYS_fcntl, &[entry.fd.0 as u64, F_SETOWN_EX, owner.0]);
        list.call(label("signal of descriptor"), libc::SYS_fcntl, &[entry.fd.0 as u64, F_SETSIG, signal as u64]);
        let flags = u64::from(snapshot.descriptions[index].flags);
        if flags & libc::O_ASYNC as u64 != 0 {
            let args = [entry.fd.0 as u64, libc::F_SETFL as u64, flags];
            list.call(label("asynchronous input and output of descriptor"), libc::SYS_fcntl, &args);
        }
    }
}

/// Registers for messages of POSIX message queues (mq_notify(3)). The closing of any descriptor of such a queue would end that.
pub fn register(list: &mut List, script: &mut Script, snapshot: &Snapshot, process: &Process) {
    let notifications = snapshot.ipc.posix_queues.iter().filter_map(|queue| queue.notification);
    for Notification { pid: _, fd, event } in notifications.filter(|notification| notification.pid == process.pid) {
        let (value, signal, notify) = match event {
            NotificationEvent::Nothing => (0, 0, libc::SIGEV_NONE),
            NotificationEvent::Signal { signal, value } => (value, signal, libc::SIGEV_SIGNAL),
            NotificationEvent::Thread { socket, cookie } => (script.place(&cookie).0, socket.0, libc::SIGEV_THREAD),
        };
        // `struct sigevent`, of 64 bytes: the value, the signal, the kind.
        let event = [value, (notify as u64) << 32 | u64::from(signal.cast_unsigned()), 0, 0, 0, 0, 0, 0];
        let event = script.place_words(&event);
        let label = Label::Number("registering for messages of descriptor", i64::from(fd.0));
        list.call(label, libc::SYS_mq_notify, &[fd.0 as u64, event.0]);
    }
}

/// Dispositions of all signals but SIGKILL and SIGSTOP.
pub fn handle_signals(list: &mut List, script: &mut Script, handlers: &SignalHandlers) {
    for (index, action) in handlers.actions.iter().enumerate() {
        let signal = index as i32 + 1;
        if matches!(signal, libc::SIGKILL | libc::SIGSTOP) {
            continue;
        }
        let action = script.place_words(&[action.handler.0, action.flags, action.restorer.0, action.mask]);
        let label = Label::Number("handler of signal", i64::from(signal));
        list.call(label, libc::SYS_rt_sigaction, &[signal as u64, action.0, 0, 8]);
    }
}

/// Limits that differ from those inherited.
pub fn limit(list: &mut List, script: &mut Script, process: &Process, inherited: &[[u64; 2]]) {
    for (resource, limit) in process.rlimits.iter().enumerate() {
        if inherited.get(resource) != Some(limit) {
            let value = script.place_words(limit);
            let label = Label::Number("resource limit", resource as i64);
            list.call(label, libc::SYS_prlimit64, &[0, resource as u64, value.0, 0]);
        }
    }
}

/// What a change of credentials undoes or forbids.
pub fn attributes(list: &mut List, process: &Process, dumpable: u8) {
    if process.child_subreaper {
        list.call("becoming a child subreaper", libc::SYS_prctl, &[PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0]);
    }
    // 2 can only come from a change of credentials, which happened just now.
    if dumpable < 2 {
        list.call("setting dumpable", libc::SYS_prctl, &[PR_SET_DUMPABLE, u64::from(dumpable), 0, 0, 0]);
    }
}

/// Makes the POSIX timers under their ids, disarmed: by asking for an id, or, where the kernel takes no wishes, by counting up to it.
pub fn make_timers(list: &mut List, script: &mut Script, timers: &[PosixTimer], by_id: bool) {
    if timers.is_empty() {
        return;
    }
    let id = script.place(&[0; 4]);
    if by_id {
        list.call("asking for timer ids", libc::SYS_prctl, &[PR_TIMER_CREATE_RESTORE_IDS, 1, 0, 0, 0]);
        for timer in timers {
            let id = script.place(&timer.id.to_le_bytes());
            make_timer(list, script, timer, id);
        }
        list.call("giving up timer ids", libc::SYS_prctl, &[PR_TIMER_CREATE_RESTORE_IDS, 0, 0, 0, 0]);
        return;
    }
    let mut ascending: Vec<&PosixTimer> = timers.iter().collect();
    ascending.sort_unstable_by_key(|timer| timer.id);
    let mut next = 0;
    for timer in ascending {
        // A process begins to count at 0 and never gives an id a second time before it has given all (kernel/time/posix-timers.c).
        for skipped in next..timer.id {
            let silent = place_sigevent(script, 0, SIGEV_NONE, &[0; 2]);
            list.call("counting timer ids", libc::SYS_timer_create, &[libc::CLOCK_MONOTONIC as u64, silent.0, id.0]);
            list.call("counting timer ids", libc::SYS_timer_delete, &[skipped as u64]);
        }
        make_timer(list, script, timer, id);
        // Of another id than expected there is no timer.
        list.call(
            Label::Number("looking for timer", i64::from(timer.id)),
            libc::SYS_timer_getoverrun,
            &[timer.id as u64],
        );
        next = timer.id + 1;
    }
}

/// SIGEV_NONE.
const SIGEV_NONE: i32 = 1;

fn make_timer(list: &mut List, script: &mut Script, timer: &PosixTimer, id: Addr) {
    let (signal, notify, tid) = match timer.notify {
        TimerNotify::None => (0, SIGEV_NONE, 0),
        TimerNotify::Signal(signal) => (signal, 0, 0),
        TimerNotify::Thread(signal, tid) => (signal, 4, tid.0),
    };
    let event = place_sigevent(script, timer.value, notify, &[signal, tid]);
    let args = [i64::from(timer.clock) as u64, event.0, id.0];
    list.call(Label::Number("making timer", i64::from(timer.id)), libc::SYS_timer_create, &args);
}

/// `struct sigevent`: value, signal, how to notify, thread.
fn place_sigevent(script: &mut Script, value: u64, notify: i32, [signal, tid]: &[i32; 2]) -> Addr {
    let mut event = value.to_le_bytes().to_vec();
    for word in [*signal, notify, *tid] {
        event.extend_from_slice(&word.to_le_bytes());
    }
    event.resize(64, 0);
    script.place(&event)
}

/// Arms all timers: the last thing before the process runs.
pub fn arm_timers(list: &mut List, script: &mut Script, process: &Process) {
    for timer in process.timers.iter().filter(|timer| timer.time.remaining != 0) {
        let value = place_time(script, timer.time, 1_000_000_000, 1);
        let args = [timer.id as u64, 0, value, 0];
        list.call(Label::Number("arming timer", i64::from(timer.id)), libc::SYS_timer_settime, &args);
    }
    for (which, time) in process.itimers.iter().enumerate() {
        // A periodic timer whose signal is pending stands still until the signal is taken (kernel/signal.c, `dequeue_signal`).
        let remaining = if time.remaining == 0 { time.interval } else { time.remaining };
        if remaining == 0 {
            continue;
        }
        let time = &TimerValue { remaining, ..*time };
        // Microseconds; a remainder below one must not disarm the timer.
        let value = place_time(script, *time, 1_000_000_000, 1000);
        list.call(Label::Number("arming itimer", which as i64), libc::SYS_setitimer, &[which as u64, value, 0]);
    }
}

/// `struct itimerspec` or `struct itimerval`: interval, then value.
fn place_time(script: &mut Script, time: TimerValue, second: u64, unit: u64) -> u64 {
    let split = |nanos: u64| [nanos / second, (nanos % second).div_ceil(unit).min(second / unit - 1)];
    script.place_words(&[split(time.interval), split(time.remaining)].concat()).0
}
