//! `--new-pids`: an image under other ids. Whatever in it names a task, group or session of the tree names it by the new id then; what
//! the program itself remembers does not. Pure, but for the search of free ids.

use super::readdress::Consequences;
use crate::blocker::Blocker;
use crate::image::model::Snapshot;
use crate::image::model::event::Pidfd;
use crate::image::model::file::{AsyncOwner, OpenObject, OwnerTarget};
use crate::image::model::id::{Pid, Tid};
use crate::image::model::memory::SharedMemoryKind;
use crate::image::model::process::Process;
use crate::image::model::signal::QueuedSignal;
use crate::image::model::socket::{Socket, State};
use crate::image::model::thread::Thread;
use crate::image::model::timer::TimerNotify;
use std::collections::{BTreeMap, BTreeSet};

/// What the user is to know.
const WARNING: &str = "ids are new: what the program itself remembers of the old ones (owners of robust and \
priority-inheriting futexes, pid files, ids in messages) is as it was";

/// New ids by the old ones.
pub type Ids = BTreeMap<i32, i32>;

/// Every id that a restore has to make: of tasks, of children that were not reaped, and of sessions and groups whose leaders are gone.
#[must_use]
pub fn wanted(snapshot: &Snapshot) -> BTreeSet<i32> {
    let mut ids = BTreeSet::new();
    for process in &snapshot.processes {
        ids.insert(process.pid.0);
        ids.extend(process.threads.iter().map(|thread| thread.tid.0));
    }
    ids.extend(snapshot.zombies.iter().map(|zombie| zombie.pid.0));
    let root = &snapshot.processes[0];
    let outer = (root.sid != root.pid).then_some((root.sid, root.pgid));
    let living = snapshot.processes.iter().map(|process| (process.sid, process.pgid));
    for (session, group) in living.chain(snapshot.zombies.iter().map(|zombie| (zombie.sid, zombie.pgid))) {
        let is_outside = outer.is_some_and(|(outer, _)| outer == session);
        if !is_outside {
            ids.insert(session.0);
        }
        // The group in which `snap dump` found the root is that of `snap restore`.
        if !is_outside || outer.is_none_or(|(_, outer)| outer != group) {
            ids.insert(group.0);
        }
    }
    ids
}

/// Puts the new ids everywhere.
pub fn renumber(snapshot: &mut Snapshot, ids: &Ids) {
    let root = &mut snapshot.inventory.root;
    *root = pid(*root, ids);
    snapshot.processes.iter_mut().for_each(|one| process(one, ids));
    for zombie in &mut snapshot.zombies {
        for id in [&mut zombie.pid, &mut zombie.ppid, &mut zombie.pgid, &mut zombie.sid] {
            *id = pid(*id, ids);
        }
    }
    for file in &mut snapshot.files {
        if let Some(path) = path(&file.path, ids) {
            file.path = path;
        }
    }
    snapshot.sockets.iter_mut().for_each(|one| socket(one, ids));
    for object in &mut snapshot.shared_memory {
        if let SharedMemoryKind::SystemV(segment) = &mut object.kind {
            segment.creator = pid(segment.creator, ids);
        }
    }
    for semaphore in snapshot.ipc.semaphores.iter_mut().flat_map(|set| &mut set.semaphores) {
        semaphore.last = pid(semaphore.last, ids);
    }
    for queue in &mut snapshot.ipc.queues {
        for id in [&mut queue.sender, &mut queue.receiver] {
            *id = pid(*id, ids);
        }
    }
    for notification in snapshot.ipc.posix_queues.iter_mut().filter_map(|queue| queue.notification.as_mut()) {
        notification.pid = pid(notification.pid, ids);
    }
    for description in &mut snapshot.descriptions {
        if let Some(AsyncOwner { target, signal: _ }) = &mut description.owner {
            match target {
                OwnerTarget::None => {}
                OwnerTarget::Thread(owner) => *owner = tid(*owner, ids),
                OwnerTarget::Process(owner) | OwnerTarget::Group(owner) => *owner = pid(*owner, ids),
            }
        }
        for holder in description.locks.iter_mut().filter_map(|lock| lock.holder.as_mut()) {
            *holder = pid(*holder, ids);
        }
        if let OpenObject::Pidfd(Pidfd::Task(task)) = &mut description.object {
            *task = tid(*task, ids);
        }
    }
}

/// SO_PEERCRED, and SCM_CREDENTIALS on their way (unix(7)).
fn socket(socket: &mut Socket, ids: &Ids) {
    let State::Unix(unix) = &mut socket.state else { return };
    if let Some(peer) = &mut unix.credentials {
        peer.pid = number(peer.pid, ids);
    }
    for message in &mut unix.queue {
        if let Some([sender, _, _]) = &mut message.credentials {
            *sender = number(sender.cast_signed(), ids).cast_unsigned();
        }
    }
}

fn number(old: i32, ids: &Ids) -> i32 {
    ids.get(&old).copied().unwrap_or(old)
}

fn pid(old: Pid, ids: &Ids) -> Pid {
    Pid(number(old.0, ids))
}

fn tid(old: Tid, ids: &Ids) -> Tid {
    Tid(number(old.0, ids))
}

fn process(process: &mut Process, ids: &Ids) {
    for id in [&mut process.pid, &mut process.ppid, &mut process.pgid, &mut process.sid] {
        *id = pid(*id, ids);
    }
    if let Some(foreground) = process.controlling.as_mut().and_then(|terminal| terminal.foreground.as_mut()) {
        *foreground = pid(*foreground, ids);
    }
    for timer in &mut process.timers {
        timer.clock = clock(timer.clock, ids);
        match &mut timer.notify {
            TimerNotify::None | TimerNotify::Signal(_) => {}
            TimerNotify::Thread(_, thread) => *thread = tid(*thread, ids),
        }
    }
    process.pending.iter_mut().for_each(|queued| sender(queued, ids));
    process.threads.iter_mut().for_each(|one| thread(one, ids));
}

fn thread(thread: &mut Thread, ids: &Ids) {
    thread.tid = tid(thread.tid, ids);
    thread.pending.iter_mut().for_each(|queued| sender(queued, ids));
    let Some(blocked) = &mut thread.blocked else { return };
    let [first, second, ..] = &mut blocked.args;
    let regs = &mut thread.cpu.regs;
    match blocked.number as i64 {
        libc::SYS_wait4 => {
            *first = waited_for(*first, ids);
            regs.rdi = waited_for(regs.rdi, ids);
        }
        // P_PID and P_PGID of idtype_t.
        libc::SYS_waitid if matches!(*first, 1 | 2) => {
            *second = waited_for(*second, ids);
            regs.rsi = waited_for(regs.rsi, ids);
        }
        libc::SYS_clock_nanosleep => {
            *first = clock(*first as i32, ids) as u64;
            regs.rdi = clock(regs.rdi as i32, ids) as u64;
        }
        _ => {}
    }
}

/// Whom wait4(2) waits for: a process, or a group by its negative id.
fn waited_for(argument: u64, ids: &Ids) -> u64 {
    match argument as i32 {
        group @ ..-1 => i64::from(-number(-group, ids)) as u64,
        -1 | 0 => argument,
        process => number(process, ids) as u64,
    }
}

/// Clocks of the CPU time of others name them (linux/posix-timers.h, CPUCLOCK_PID); those of devices (the low bits are 3) name descriptors.
fn clock(clock: i32, ids: &Ids) -> i32 {
    if clock >= 0 || clock & 7 == 3 {
        return clock;
    }
    !number(!(clock >> 3), ids) << 3 | clock & 7
}

/// Who sent a signal, in the `siginfo_t` of those that tasks send and of SIGCHLD (sigaction(2)).
fn sender(queued: &mut QueuedSignal, ids: &Ids) {
    const SI_CODE: usize = 8;
    const SI_PID: usize = 16;
    let word = |info: &[u8], at: usize| {
        info.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_le_bytes)
    };
    let (signal, code) = (word(&queued.info, 0), word(&queued.info, SI_CODE));
    // SI_USER, SI_QUEUE, SI_MESGQ, SI_TKILL.
    let is_sent = matches!(code, 0 | -1 | -3 | -6) || signal == libc::SIGCHLD && code > 0;
    if let Some(place) = queued.info.get_mut(SI_PID..SI_PID + 4).filter(|_| is_sent) {
        let old = place.try_into().map_or(0, i32::from_le_bytes);
        place.copy_from_slice(&number(old, ids).to_le_bytes());
    }
}

/// A path in the directory of a task in /proc.
fn path(path: &[u8], ids: &Ids) -> Option<Vec<u8>> {
    let rest = path.strip_prefix(b"/proc/")?;
    let new = |part: &[u8]| -> Option<Vec<u8>> {
        let old: i32 = std::str::from_utf8(part).ok()?.parse().ok()?;
        ids.get(&old).map(|new| new.to_string().into_bytes())
    };
    let mut parts: Vec<Vec<u8>> = rest.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
    parts[0] = new(&parts[0])?;
    if parts.len() > 2
        && parts[1] == b"task"
        && let Some(thread) = new(&parts[2])
    {
        parts[2] = thread;
    }
    Some([&b"/proc/"[..], &parts.join(&b'/')].concat())
}

/// What follows for the user, with the new ids, beside what does anyway.
#[must_use]
pub fn consequences(ids: &Ids, others: &Consequences) -> Consequences {
    let mut all = others.clone();
    all.notices.insert(0, format!("{WARNING}: {}", describe(ids)));
    all
}

/// Reasons that name tasks of the tree by the ids that these had, which are those that the user knows: nobody has got a new one.
#[must_use]
pub fn by_old_ids(blockers: Vec<Blocker>, ids: &Ids) -> Vec<Blocker> {
    let old: BTreeMap<String, String> = ids.iter().map(|(old, new)| (new.to_string(), old.to_string())).collect();
    let renamed = |text: &str| {
        let words: Vec<&str> = text.split(' ').collect();
        let is_id = |at: usize| at > 0 && matches!(words[at - 1], "pid" | "tid");
        let word = |(at, word): (usize, &&str)| match old.get(*word).filter(|_| is_id(at)) {
            Some(old) => old.clone(),
            None => (*word).to_owned(),
        };
        words.iter().enumerate().map(word).collect::<Vec<_>>().join(" ")
    };
    let by_old = |blocker: Blocker| Blocker {
        task: renamed(&blocker.task),
        object: renamed(&blocker.object),
        reason: blocker.reason,
        remedy: blocker.remedy,
    };
    blockers.into_iter().map(by_old).collect()
}

/// The new ids as a line for people.
fn describe(ids: &Ids) -> String {
    const NAMED: usize = 20;
    let named: Vec<String> = ids.iter().take(NAMED).map(|(old, new)| format!("{old} is {new} now")).collect();
    let others =
        if ids.len() > NAMED { format!(", and {} more (see --json)", ids.len() - NAMED) } else { String::new() };
    named.join(", ") + &others
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::model::thread::{BlockedSyscall, Resume};
    use crate::image::tests::sample;

    /// Adds 1000 to each.
    fn shifted(snapshot: &Snapshot) -> Ids {
        wanted(snapshot).into_iter().map(|id| (id, id + 1000)).collect()
    }

    #[test]
    fn reasons_name_tasks_by_the_ids_that_they_had() {
        let ids = Ids::from([(100, 1100), (101, 1101)]);
        let blocker = |task: &str, object: &str| Blocker::new(task, object, "taken by pid 1101", "end pid 1101");
        let found = by_old_ids(vec![blocker("pid 1100", "tid 1101"), blocker("pid 7", "id 1100: 1101")], &ids);
        assert_eq!(found, [blocker("pid 100", "tid 101"), blocker("pid 7", "id 1100: 1101")]);
    }

    #[test]
    fn everything_that_names_a_task_names_it_by_the_new_id() {
        let mut snapshot = sample::snapshot();
        snapshot.processes[0].pending[0].info[16] = 100;
        snapshot.files[1].path = b"/proc/100/task/101/maps".to_vec();
        let call = |number: i64, args: [u64; 6]| BlockedSyscall { number: number as u64, args, resume: Resume::Again };
        snapshot.processes[0].threads[0].blocked = Some(call(libc::SYS_wait4, [-100i64 as u64, 0, 0, 0, 0, 0]));
        snapshot.processes[0].threads[1].blocked = Some(call(libc::SYS_waitid, [1, 102, 0, 0, 0, 0]));
        let ids = shifted(&snapshot);
        assert_eq!(ids.keys().copied().collect::<Vec<_>>(), [100, 101, 102], "session 1 lies outside");
        renumber(&mut snapshot, &ids);
        let process = &snapshot.processes[0];
        assert_eq!((process.pid, process.pgid, process.sid), (Pid(1100), Pid(1100), Pid(1)));
        assert_eq!(snapshot.inventory.root, Pid(1100));
        assert_eq!(process.threads[1].tid, Tid(1101));
        assert_eq!(process.timers[0].notify, TimerNotify::Thread(34, Tid(1101)));
        assert_eq!(process.pending[0].info[16..20], 1100i32.to_le_bytes());
        assert_eq!(process.threads[0].blocked.as_ref().unwrap().args[0] as i64, -1100);
        assert_eq!(process.threads[1].blocked.as_ref().unwrap().args[1], 1102);
        assert_eq!((snapshot.zombies[0].pid, snapshot.zombies[0].ppid), (Pid(1102), Pid(1100)));
        assert_eq!(snapshot.files[1].path, b"/proc/1100/task/1101/maps");
        let ipc = &snapshot.ipc;
        let last = ipc.semaphores[0].semaphores[0].last;
        assert_eq!((ipc.queues[0].sender, ipc.queues[0].receiver, last), (Pid(1100), Pid(0), Pid(1100)));
    }

    #[test]
    fn the_inverse_brings_the_old_ids_back() {
        let before = sample::snapshot();
        let ids = shifted(&before);
        let mut snapshot = before.clone();
        renumber(&mut snapshot, &ids);
        let inverse: Ids = ids.iter().map(|(old, new)| (*new, *old)).collect();
        renumber(&mut snapshot, &inverse);
        assert_eq!(snapshot, before);
    }

    #[test]
    fn clocks_of_others_are_theirs() {
        let ids = Ids::from([(100, 1100)]);
        let of = |pid: i32| !pid << 3 | 2;
        assert_eq!(clock(of(100), &ids), of(1100));
        assert_eq!(clock(of(0), &ids), of(0));
        assert_eq!(clock(1, &ids), 1);
    }
}
