//! System V IPC: which objects belong to a tree, and what is in them.
//!
//! An object belongs to nobody: whoever knows its key or identifier may use it. It is taken for the tree's if a task of the tree has it
//! attached, has made it or was the last to use it (as far as the kernel remembers who), waits in a call for it, or has operations on it
//! to undo. Others of the same users that nobody alive is known to use are named in a warning, if they have been made or used since the tree's first process was born: whoever
//! has touched one before cannot have been of the tree.

pub mod undo;

pub use crate::sys::sysv::Kind;

use super::{CollectError, Findings};
use crate::image::model::id::{Pid, Tid};
use crate::image::model::ipc::{Ipc, IpcOwner, Message, MessageQueue, Semaphore, SemaphoreSet, Undo};
use crate::image::model::process::Process;
use crate::proc::syscall::Activity;
use crate::proc::sysvipc::{self, Entry};
use crate::proc::{TaskDir, stat};
use crate::sys::sysv;
use nix::errno::Errno;
use std::collections::{HashMap, HashSet};
use undo::Adjustment;

/// Permission bits.
const PERMISSIONS: u32 = 0o777;

/// What the tree is known to do with System V objects.
#[derive(Debug, Default)]
pub struct Uses {
    /// Its tasks: living ones, and children that were not reaped.
    pub inside: HashSet<Pid>,
    /// Sets of semaphores and queues in which its threads wait.
    pub waits: HashSet<(Kind, i32)>,
    /// What its tasks have to undo.
    pub undo: HashMap<Tid, Vec<Adjustment>>,
    /// Users of its processes.
    pub users: HashSet<u32>,
    /// Whether others outside may use what the tree uses.
    pub leaks: bool,
}

impl Uses {
    /// What these processes do, `undo` aside.
    #[must_use]
    pub fn of(processes: &[Process]) -> Self {
        let mut uses = Self::default();
        for thread in processes.iter().flat_map(|process| &process.threads) {
            uses.users.insert(thread.credentials.uid[1]);
            if let Some(blocked) = &thread.blocked {
                let waits = waits(blocked.number, blocked.args[0]);
                uses.waits.extend(waits);
            }
        }
        uses
    }

    fn has_undo(&self, set: i32) -> bool {
        self.undo.values().flatten().any(|(id, ..)| *id == set)
    }
}

/// The object in which a call waits.
#[must_use]
pub fn waits(number: u64, first: u64) -> Option<(Kind, i32)> {
    let id = first as u32 as i32;
    match number as i64 {
        libc::SYS_semop | libc::SYS_semtimedop => Some((Kind::Semaphores, id)),
        libc::SYS_msgrcv | libc::SYS_msgsnd => Some((Kind::Queue, id)),
        _ => None,
    }
}

/// The object in which a thread waits.
#[must_use]
pub fn in_call(activity: &Activity) -> Option<(Kind, i32)> {
    match activity {
        Activity::InSyscall { number, args, sp: _, pc: _ } => waits(*number, args[0]),
        Activity::Running | Activity::Blocked { .. } => None,
    }
}

/// Owner and permissions of an object. Its key is another where it has lost its own.
#[must_use]
pub fn owner(entry: &Entry, key: i32) -> IpcOwner {
    let Entry { key: _, id: _, perms, uid, gid, cuid, cgid, time: _ } = *entry;
    IpcOwner { key, uid, gid, creator_uid: cuid, creator_gid: cgid, mode: perms & PERMISSIONS }
}

/// Collects the semaphores and message queues of a tree. Nothing in them is changed.
///
/// # Errors
/// /proc that cannot be read. What cannot be saved is in the findings.
pub fn collect(uses: &Uses, findings: &mut Findings) -> Result<Ipc, CollectError> {
    let mut buffer = Vec::new();
    let mut ipc = Ipc::default();
    let mut orphans = Orphans::default();
    for set in sysvipc::semaphores(&mut buffer)? {
        ipc.semaphores.extend(semaphores(&set, uses, findings, &mut orphans));
    }
    for queue in sysvipc::queues(&mut buffer)? {
        ipc.queues.extend(self::queue(&queue, uses, findings, &mut orphans));
    }
    ipc.semaphores.sort_by_key(|set| set.id);
    ipc.queues.sort_by_key(|queue| queue.id);
    for segment in sysvipc::segments(&mut buffer)?.iter().filter(|segment| segment.nattch == 0) {
        if !remembered(uses, &segment.entry, [segment.cpid, segment.lpid]) {
            note_orphan(uses, Kind::Segment, &segment.entry, &[segment.cpid, segment.lpid], &mut orphans);
        }
    }
    if !orphans.names.is_empty() {
        let list = orphans.names.join(", ");
        findings.warnings.push(format!(
            "not in the image, since no process of the tree is known to use them: {list}; if it does, they must be there when it is restored"
        ));
    }
    Ok(ipc)
}

/// What each task has to undo, by the place of the set in the image.
pub fn give_undo(uses: &Uses, ipc: &Ipc, processes: &mut [Process]) {
    for thread in processes.iter_mut().flat_map(|process| &mut process.threads) {
        for &(id, semaphore, adjustment) in uses.undo.get(&thread.tid).into_iter().flatten() {
            if let Ok(set) = ipc.semaphores.binary_search_by_key(&id, |set| set.id) {
                thread.undo.push(Undo { set: set as u32, semaphore, adjustment });
            }
        }
    }
}

/// Whether a task of the tree is one of those that the kernel remembers of an object. A process that was born after the object was last
/// touched only has the number of another, which is gone.
#[must_use]
pub fn remembered(uses: &Uses, entry: &Entry, pids: impl IntoIterator<Item = Pid>) -> bool {
    pids.into_iter().any(|pid| uses.inside.contains(&pid) && was_there(pid, entry.time))
}

/// Whether a process has this number and was born by then, in seconds since the epoch.
fn was_there(pid: Pid, time: i64) -> bool {
    birth(pid).is_some_and(|birth| is_since(birth, time))
}

/// Whether a time of an object is that of a birth or later. Seconds are rounded, and the wall clock may have been adjusted a little.
const fn is_since(birth: i64, time: i64) -> bool {
    birth <= time + 2
}

/// When a process was born, in seconds since the epoch.
fn birth(pid: Pid) -> Option<i64> {
    let stat = TaskDir::process(pid).and_then(|dir| stat::read(&dir, &mut Vec::new())).ok()?;
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    let since_boot = i64::try_from(stat.start_time).unwrap_or(i64::MAX) / ticks.max(1);
    let clock = |id| nix::time::clock_gettime(id).map_or(0, |time| time.tv_sec());
    let booted = clock(nix::time::ClockId::CLOCK_REALTIME) - clock(nix::time::ClockId::CLOCK_BOOTTIME);
    Some(booted + since_boot)
}

/// Objects that could be the tree's, of which nobody alive is known to be a user.
#[derive(Debug, Default)]
struct Orphans {
    names: Vec<String>,
    /// When the first process of the tree was born, once somebody has asked.
    first: Option<Option<i64>>,
}

fn semaphores(
    set: &sysvipc::SemaphoreSet,
    uses: &Uses,
    findings: &mut Findings,
    orphans: &mut Orphans,
) -> Option<SemaphoreSet> {
    let id = set.entry.id;
    let read = || -> Result<Vec<Semaphore>, Errno> {
        let values = sysv::values(id, set.nsems as usize)?;
        let numbered = (0_u16..).zip(values);
        numbered.map(|(number, value)| Ok(Semaphore { value, last: Pid(sysv::last_operator(id, number)?) })).collect()
    };
    let is_used = uses.waits.contains(&(Kind::Semaphores, id)) || uses.has_undo(id);
    let semaphores = match read() {
        Ok(semaphores) => semaphores,
        Err(Errno::EINVAL | Errno::EIDRM) => return None,
        Err(errno) => {
            if is_used {
                refuse(findings, Kind::Semaphores, &set.entry, format!("its values cannot be read: {errno}"));
            }
            return None;
        }
    };
    let mut pids: Vec<Pid> = semaphores.iter().map(|semaphore| semaphore.last).filter(|pid| pid.0 != 0).collect();
    pids.sort();
    pids.dedup();
    if !is_used && !remembered(uses, &set.entry, pids.iter().copied()) {
        note_orphan(uses, Kind::Semaphores, &set.entry, &pids, orphans);
        return None;
    }
    refuse_outside(uses, Kind::Semaphores, &set.entry, &pids, findings);
    Some(SemaphoreSet { id, owner: owner(&set.entry, set.entry.key), semaphores })
}

fn queue(
    queue: &sysvipc::MessageQueue,
    uses: &Uses,
    findings: &mut Findings,
    orphans: &mut Orphans,
) -> Option<MessageQueue> {
    let id = queue.entry.id;
    let pids = [queue.lspid, queue.lrpid];
    if !uses.waits.contains(&(Kind::Queue, id)) && !remembered(uses, &queue.entry, pids) {
        note_orphan(uses, Kind::Queue, &queue.entry, &pids, orphans);
        return None;
    }
    refuse_outside(uses, Kind::Queue, &queue.entry, &pids, findings);
    let read = || -> Result<(u64, Vec<Message>), Errno> {
        let mut messages = Vec::new();
        while let Some((kind, text)) = sysv::message(id, messages.len() as i64, queue.cbytes as usize)? {
            messages.push(Message { kind, text });
        }
        Ok((sysv::capacity(id)?, messages))
    };
    match read() {
        Ok((capacity, messages)) => Some(MessageQueue {
            id,
            owner: owner(&queue.entry, queue.entry.key),
            capacity,
            messages,
            sender: queue.lspid,
            receiver: queue.lrpid,
        }),
        Err(Errno::EINVAL | Errno::EIDRM) => None,
        Err(errno) => {
            let reason = format!("its messages cannot be looked at (MSG_COPY): {errno}");
            refuse(findings, Kind::Queue, &queue.entry, reason);
            None
        }
    }
}

fn refuse(findings: &mut Findings, kind: Kind, entry: &Entry, reason: String) {
    findings.block("the tree", object(kind, entry), reason, "run as root, or remove it before the dump");
}

/// Its kind, identifier and key.
#[must_use]
pub fn object(kind: Kind, entry: &Entry) -> String {
    format!("{} {} (key {:#x})", kind.name(), entry.id, entry.key)
}

/// Refuses an object that a living process outside is remembered to use.
fn refuse_outside(uses: &Uses, kind: Kind, entry: &Entry, pids: &[Pid], findings: &mut Findings) {
    let outside = |pid: &&Pid| pid.0 != 0 && !uses.inside.contains(pid) && was_there(**pid, entry.time);
    if let Some(pid) = pids.iter().find(outside).filter(|_| !uses.leaks) {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let reason = format!("pid {pid} ({}), which is outside, has used it too", name.trim_end());
        let remedy = "end that process, dump the one that made both (snap dump PID of their common parent), or part the two (--allow-leak)";
        findings.block("the tree", object(kind, entry), reason, remedy);
    }
}

/// Notes an object that could be the tree's, of which nobody alive is known to be a user.
fn note_orphan(uses: &Uses, kind: Kind, entry: &Entry, pids: &[Pid], orphans: &mut Orphans) {
    let is_ours = uses.users.contains(&entry.uid) || uses.users.contains(&entry.cuid);
    if !is_ours || pids.iter().any(|pid| pid.0 != 0 && was_there(*pid, entry.time)) {
        return;
    }
    let first = *orphans.first.get_or_insert_with(|| uses.inside.iter().filter_map(|pid| birth(*pid)).min());
    if first.is_none_or(|first| is_since(first, entry.time)) {
        orphans.names.push(object(kind, entry));
    }
}
