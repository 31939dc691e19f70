//! Who looks into a POSIX message queue, by which descriptors, and why nobody can.

use super::exchange::{Exchange, MORE};
use super::{Found, Shown};
use crate::image::model::Snapshot;
use crate::image::model::file::OpenObject;
use crate::image::model::id::{Fd, QueueId, SocketId, Tid};
use crate::image::model::process::{Process, ProcessState};
use crate::resources::Findings;
use crate::resources::socket::netlink::UNREAD;
use crate::resources::together::{self, Holders, Opened};
use crate::tracer::FrozenTree;
use std::collections::{HashMap, HashSet};

/// Signals that nobody can take, or that do more than wait.
const UNTAKEN: [i32; 6] = [libc::SIGKILL, libc::SIGSTOP, libc::SIGCONT, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// The reason of a refusal, and what would lift it.
type Why = (String, &'static str);

/// A netlink socket, and a descriptor of it.
pub type Charged = (SocketId, Tid, Fd);

/// How to look into all queues with something in them. `charged` are netlink sockets for which the kernel keeps what it is to tell their process. Why that cannot be
/// done is noted.
pub fn plan(
    (snapshot, tree): (&Snapshot, &FrozenTree),
    queues: &[Found],
    charged: &[Charged],
    findings: &mut Findings,
) -> Vec<Exchange> {
    let mut exchanges = Vec::new();
    let in_use: HashSet<QueueId> = queues.iter().filter(|found| found.is_in_use()).map(|found| found.queue).collect();
    let holders = Holders::new(snapshot, |object| {
        let OpenObject::Queue(queue) = object else { return None };
        in_use.get(queue).copied()
    });
    for found in queues.iter().filter(|found| found.is_in_use()) {
        match one((snapshot, tree), &holders, (found, charged), findings) {
            Ok(exchange) => exchanges.push(exchange),
            Err((reason, remedy)) => findings.block(format!("pid {}", found.tid), &found.object, reason, remedy),
        }
    }
    let told = |id| exchanges.iter().any(|exchange| exchange.socket.is_some_and(|(socket, _)| socket == id));
    for (_, tid, fd) in charged.iter().filter(|(id, ..)| !told(*id)) {
        findings.pass(format!("pid {tid}"), format!("fd {fd}"), UNREAD, "try again when it has been read or sent");
    }
    exchanges
}

fn one(
    (snapshot, tree): (&Snapshot, &FrozenTree),
    all: &Holders<'_, QueueId>,
    (found, charged): (&Found, &[Charged]),
    findings: &mut Findings,
) -> Result<Exchange, Why> {
    let holders = all.of(found.queue);
    if together::share_memory(&holders) {
        let reason = "two processes that share memory have it, which is not supported yet";
        return Err((reason.into(), "close it in one of them"));
    }
    let told = found.shown.pid;
    let opened = |process: &Process| all.main_descriptors(process, found.queue);
    let worker = if told != 0 {
        let registered = holders.iter().find(|process| process.pid.0 == told);
        let registered = registered.filter(|process| !opened(process).is_empty());
        registered
            .ok_or((format!("pid {told} is to be told of a message (mq_notify) and has no descriptor of it"), ""))?
    } else {
        let rank = |process: &&&Process| {
            let modes = opened(process);
            let complete = pick(modes, libc::O_RDONLY).is_some() && pick(modes, libc::O_WRONLY).is_some();
            let runs = process.state == ProcessState::Running;
            (!modes.is_empty()).then_some(2 * u8::from(runs) + u8::from(complete))
        };
        let best = holders.iter().filter(|process| rank(process).is_some()).max_by_key(rank);
        let nobody = "nobody has it but a socket through which it is on its way, which is not supported yet";
        if holders.is_empty() {
            return Err((nobody.into(), "try again when it has been received"));
        }
        best.ok_or((
            String::from("only threads with a table of descriptors of their own have it, which is not supported yet"),
            "",
        ))?
    };
    let socket = if told == 0 { None } else { check_notification((snapshot, tree), worker, found, charged, findings)? };
    let modes = opened(worker);
    let any = modes.first().map_or(Fd(-1), |(fd, _)| *fd);
    let others = holders.iter().map(|process| process.pid).filter(|pid| *pid != worker.pid);
    Ok(Exchange {
        found: found.clone(),
        pids: [worker.pid].into_iter().chain(others).collect(),
        receive: pick(modes, libc::O_RDONLY),
        send: pick(modes, libc::O_WRONLY),
        any,
        socket,
    })
}

/// One that can be used in this mode.
fn pick(opened: &[Opened], mode: i32) -> Option<Fd> {
    let fits = |(_, has): &&Opened| *has == mode as u32 || *has == libc::O_RDWR as u32;
    opened.iter().find(fits).map(|(fd, _)| *fd)
}

/// Whether the process can be told of a message of ours without anybody seeing it.
fn check_notification(
    (snapshot, tree): (&Snapshot, &FrozenTree),
    process: &Process,
    found: &Found,
    charged: &[Charged],
    findings: &mut Findings,
) -> Result<Option<(SocketId, Fd)>, Why> {
    let Shown { bytes: _, notify, signal, pid } = found.shown;
    const CANCEL: &str = "cancel it (mq_notify with no event) before the dump";
    let table = process.threads.first().map(|main| main.fd_table);
    let sharing = snapshot.processes.iter().filter(|other| other.threads.iter().any(|t| Some(t.fd_table) == table));
    if sharing.count() > 1 {
        let reason = format!(
            "pid {pid} is to be told of a message (mq_notify) and shares its descriptors with another process, which is not supported yet"
        );
        return Err((reason, CANCEL));
    }
    match notify {
        libc::SIGEV_NONE => return Ok(None),
        libc::SIGEV_SIGNAL => {}
        _ => return listener(snapshot, process, charged).map(Some),
    }
    if UNTAKEN.contains(&signal) {
        let reason = format!(
            "pid {pid} is to be sent signal {signal} when a message comes (mq_notify): nobody can see what it would carry"
        );
        return Err((reason, CANCEL));
    }
    if process.ended_leader.is_some() {
        let reason = format!(
            "pid {pid}, whose main thread has ended, is to be sent signal {signal} when a message comes (mq_notify), which is not supported yet"
        );
        return Err((reason, CANCEL));
    }
    let main = &process.threads[0];
    let same = |info: &Vec<u8>| info.first_chunk() == Some(&signal.to_ne_bytes());
    let mut pending = process.pending.iter().chain(&main.pending);
    let queued = tree.threads_of(process.pid).first().and_then(|thread| thread.status().ok());
    let is_full = queued.is_some_and(|status| status.queued_signals[0] + MORE >= status.queued_signals[1]);
    let reason = if pending.any(|queued| same(&queued.info)) {
        format!(
            "pid {pid} is to be sent signal {signal} when a message comes (mq_notify), and one of that number is pending, behind which another could not be seen"
        )
    } else if is_full {
        format!(
            "pid {pid} is to be sent signal {signal} when a message comes (mq_notify), and its user has almost as many signals pending as may be (RLIMIT_SIGPENDING)"
        )
    } else {
        return Ok(None);
    };
    findings.pass(format!("pid {}", found.tid), &found.object, reason, "try again when they were taken");
    Ok(None)
}

/// The netlink socket through which a process is told of messages. The queue does not tell which it is, but the kernel has put what it is to send in its account.
fn listener(snapshot: &Snapshot, process: &Process, charged: &[Charged]) -> Result<(SocketId, Fd), Why> {
    let table = process.threads.first().and_then(|main| snapshot.fd_tables.get(main.fd_table.0 as usize));
    let sockets = table.into_iter().flat_map(|table| &table.entries).filter_map(|entry| {
        match snapshot.descriptions[entry.description.0 as usize].object {
            OpenObject::Socket(id) if charged.iter().any(|(charged, ..)| *charged == id) => Some((id, entry.fd)),
            _ => None,
        }
    });
    let sockets: HashMap<SocketId, Fd> = sockets.collect();
    match sockets.into_iter().collect::<Vec<_>>()[..] {
        [one] => Ok(one),
        ref several => {
            let reason = format!(
                "pid {} has a thread started when a message comes (mq_notify), and which of its netlink sockets is told cannot be seen: {} could be",
                process.pid,
                several.len()
            );
            Err((reason, "cancel it (mq_notify with no event) before the dump"))
        }
    }
}
