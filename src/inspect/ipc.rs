//! `snap inspect FILE ipc`: System V shared memory, semaphores and message queues, POSIX message queues, and maps of bpf(2).

use super::Report;
use super::bpf::{self, OneBtf, OneMap};
use super::json::{Hex, Raw};
use super::table::{lines, table};
use super::text::{bytes, count};
use crate::image::model::Snapshot;
use crate::image::model::id::ShmId;
use crate::image::model::ipc::{self, IpcOwner, MessageQueue, NotificationEvent, PosixQueue, Segment, SemaphoreSet};
use crate::image::model::memory::{Backing, SharedMemoryKind};
use serde::Serialize;

/// The report.
#[derive(Debug, Serialize)]
pub struct Ipc {
    schema: &'static str,
    segments: Vec<OneSegment>,
    semaphores: Vec<OneSet>,
    queues: Vec<OneQueue>,
    posix_queues: Vec<OnePosixQueue>,
    bpf_maps: Vec<OneMap>,
    bpf_types: Vec<OneBtf>,
}

#[derive(Debug, Serialize)]
struct Owner {
    key: Hex,
    mode: String,
    uid: u32,
    gid: u32,
    creator_uid: u32,
    creator_gid: u32,
}

#[derive(Debug, Serialize)]
struct OneSegment {
    id: i32,
    #[serde(flatten)]
    owner: Owner,
    bytes: u64,
    attachments: usize,
    creator: i32,
    destroyed: bool,
    locked: bool,
    huge_page: Option<u64>,
}

#[derive(Debug, Serialize)]
struct OneSet {
    id: i32,
    #[serde(flatten)]
    owner: Owner,
    values: Vec<u16>,
    /// Who has operated on each last.
    last: Vec<i32>,
    undo: Vec<Undo>,
}

#[derive(Debug, Serialize)]
struct Undo {
    pid: i32,
    /// The thread that has it, or the first of those that have it in common.
    tid: i32,
    semaphore: u16,
    adjustment: i16,
}

#[derive(Debug, Serialize)]
struct OneQueue {
    id: i32,
    #[serde(flatten)]
    owner: Owner,
    capacity: u64,
    messages: Vec<Message>,
    sender: i32,
    receiver: i32,
}

#[derive(Debug, Serialize)]
struct Message {
    kind: i64,
    bytes: usize,
}

#[derive(Debug, Serialize)]
struct OnePosixQueue {
    name: Raw,
    /// Whether the name leads to it.
    named: bool,
    mode: String,
    uid: u32,
    gid: u32,
    max_messages: u64,
    message_size: u64,
    /// What was in it, in the order in which it is received.
    messages: Vec<OnePosixMessage>,
    notification: Option<Notification>,
}

#[derive(Debug, Serialize)]
struct OnePosixMessage {
    priority: u32,
    bytes: usize,
}

/// Who is to be told of a message.
#[derive(Debug, Serialize)]
struct Notification {
    pid: i32,
    /// `none`, `signal` or `thread`.
    event: &'static str,
    signal: Option<i32>,
    value: Option<Hex>,
}

/// Makes it.
#[must_use]
pub fn report(snapshot: &Snapshot) -> Ipc {
    let segments = snapshot.shared_memory.iter().filter_map(|shm| match &shm.kind {
        SharedMemoryKind::SystemV(found) => Some(segment(snapshot, shm.id, found)),
        SharedMemoryKind::Anonymous | SharedMemoryKind::AnonymousHuge { .. } | SharedMemoryKind::Memfd { .. } => None,
    });
    Ipc {
        schema: "snap.inspect.ipc/1",
        segments: segments.collect(),
        semaphores: snapshot
            .ipc
            .semaphores
            .iter()
            .enumerate()
            .map(|(index, found)| set(snapshot, index, found))
            .collect(),
        queues: snapshot.ipc.queues.iter().map(queue).collect(),
        posix_queues: snapshot.ipc.posix_queues.iter().map(posix_queue).collect(),
        bpf_maps: snapshot.bpf_maps.iter().map(|map| bpf::map(snapshot, map)).collect(),
        bpf_types: snapshot.bpf_types.iter().map(|types| bpf::types(snapshot, types)).collect(),
    }
}

fn owner(owner: &IpcOwner) -> Owner {
    let IpcOwner { key, uid, gid, creator_uid, creator_gid, mode } = *owner;
    Owner { key: Hex(key.cast_unsigned().into()), mode: octal(mode), uid, gid, creator_uid, creator_gid }
}

fn octal(mode: u32) -> String {
    format!("{mode:04o}")
}

fn segment(snapshot: &Snapshot, id: ShmId, segment: &Segment) -> OneSegment {
    let vmas = snapshot.mms.iter().flat_map(|mm| &mm.vmas);
    let is_of = |backing: &Backing| matches!(backing, Backing::Shared { shm, .. } if *shm == id);
    let Segment { id, owner: of, size, destroyed, locked, huge_page, creator } = segment;
    OneSegment {
        id: *id,
        owner: owner(of),
        bytes: *size,
        attachments: vmas.filter(|vma| is_of(&vma.backing)).count(),
        creator: creator.0,
        destroyed: *destroyed,
        locked: *locked,
        huge_page: *huge_page,
    }
}

fn set(snapshot: &Snapshot, index: usize, set: &SemaphoreSet) -> OneSet {
    let SemaphoreSet { id, owner: of, semaphores } = set;
    let threads = snapshot.processes.iter().flat_map(|process| {
        let pid = process.pid.0;
        process.threads.iter().map(move |thread| (pid, thread))
    });
    let undo = threads.flat_map(|(pid, thread)| {
        let own = thread.undo.iter().filter(|undo| undo.set as usize == index);
        own.map(move |undo| Undo { pid, tid: thread.tid.0, semaphore: undo.semaphore, adjustment: undo.adjustment })
    });
    OneSet {
        id: *id,
        owner: owner(of),
        values: semaphores.iter().map(|one| one.value).collect(),
        last: semaphores.iter().map(|one| one.last.0).collect(),
        undo: undo.collect(),
    }
}

fn queue(queue: &MessageQueue) -> OneQueue {
    let MessageQueue { id, owner: of, capacity, messages, sender, receiver } = queue;
    OneQueue {
        id: *id,
        owner: owner(of),
        capacity: *capacity,
        messages: messages.iter().map(|message| Message { kind: message.kind, bytes: message.text.len() }).collect(),
        sender: sender.0,
        receiver: receiver.0,
    }
}

fn posix_queue(queue: &PosixQueue) -> OnePosixQueue {
    OnePosixQueue {
        name: Raw([b"/", queue.name.as_slice()].concat()),
        named: queue.named,
        mode: octal(queue.mode),
        uid: queue.uid,
        gid: queue.gid,
        max_messages: queue.max_messages,
        message_size: queue.message_size,
        messages: queue
            .messages
            .iter()
            .map(|message| OnePosixMessage { priority: message.priority, bytes: message.text.len() })
            .collect(),
        notification: queue.notification.as_ref().map(notification),
    }
}

fn notification(notification: &ipc::Notification) -> Notification {
    let (event, signal, value) = match notification.event {
        NotificationEvent::Nothing => ("none", None, None),
        NotificationEvent::Signal { signal, value } => ("signal", Some(signal), Some(Hex(value))),
        NotificationEvent::Thread { socket: _, cookie: _ } => ("thread", None, None),
    };
    Notification { pid: notification.pid.0, event, signal, value }
}

impl Report for Ipc {
    fn text(&self, width: Option<u16>) -> String {
        let Self { schema: _, segments, semaphores, queues, posix_queues, bpf_maps, bpf_types } = self;
        let is_empty = segments.is_empty() && semaphores.is_empty() && queues.is_empty();
        if is_empty && posix_queues.is_empty() && bpf_maps.is_empty() && bpf_types.is_empty() {
            return "no System V IPC, no POSIX message queues, no BPF maps\n".to_owned();
        }
        let mut rows = table(&["KIND", ">ID", "KEY", "MODE", ">UID", "WHAT"], width);
        let mut row = |kind: &str, id: String, key: String, mode: &str, uid: u32, what: String| {
            rows.add_row([kind, &id, &key, mode, &uid.to_string(), &what]);
        };
        for OneSegment { id, owner, bytes: size, attachments, destroyed, locked, huge_page, creator } in &self.segments
        {
            let mut what = vec![bytes(*size), count(*attachments as u64, "attachment"), format!("made by {creator}")];
            what.extend(huge_page.map(|page| format!("pages of {}", bytes(page))));
            what.extend(destroyed.then(|| "marked for destruction".to_owned()));
            what.extend(locked.then(|| "locked".to_owned()));
            row("segment", id.to_string(), owner.key.to_string(), &owner.mode, owner.uid, what.join(", "));
        }
        for OneSet { id, owner, values, last: _, undo } in &self.semaphores {
            let values: Vec<String> = values.iter().map(u16::to_string).collect();
            let undo = undo.iter().map(|Undo { pid, tid, semaphore, adjustment }| {
                let who = if tid == pid { format!("pid {pid}") } else { format!("tid {tid}") };
                format!("{who} undoes {adjustment:+} on number {semaphore}")
            });
            let what: Vec<String> = [format!("values {}", values.join(" "))].into_iter().chain(undo).collect();
            row("semaphores", id.to_string(), owner.key.to_string(), &owner.mode, owner.uid, what.join(", "));
        }
        for OneQueue { id, owner, capacity, messages, sender: _, receiver: _ } in &self.queues {
            let total = messages.iter().map(|message| message.bytes as u64).sum();
            let what =
                format!("{} with {} of {}", count(messages.len() as u64, "message"), bytes(total), bytes(*capacity));
            row("queue", id.to_string(), owner.key.to_string(), &owner.mode, owner.uid, what);
        }
        for queue in &self.posix_queues {
            let OnePosixQueue { name, named, mode, uid, gid: _, max_messages, message_size, messages, notification } =
                queue;
            let lost = if *named { "" } else { " (unlinked)" };
            let limits = format!("up to {max_messages} of {}", bytes(*message_size));
            let held = messages.iter().map(|message| message.bytes as u64).sum();
            let waiting = format!("{} with {}", count(messages.len() as u64, "message"), bytes(held));
            let told = notification.as_ref().map(|Notification { pid, event, signal, value: _ }| match signal {
                Some(signal) => format!(", pid {pid} is told by signal {signal}"),
                None => format!(", pid {pid} is told ({event})"),
            });
            let what = format!("{}{lost}: {waiting}, {limits}{}", name.printable(), told.unwrap_or_default());
            row("posix queue", "-".into(), "-".into(), mode, *uid, what);
        }
        let queued = lines(&mut rows);
        let mut out = if is_empty && posix_queues.is_empty() { String::new() } else { queued };
        out.extend(bpf_maps.iter().map(ToString::to_string));
        out.extend(bpf_types.iter().map(ToString::to_string));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::sample::snapshot;

    #[test]
    fn every_kind_says_what_is_in_it() {
        let report = report(&snapshot());
        let text = report.text(None);
        assert!(text.contains("pid 100 undoes -3 on number 1"), "{text}");
        assert!(text.contains("1 message with 5 B of 16.0 KiB"), "{text}");
        let queue = "/jobs: 2 messages with 11 B, up to 10 of 8.0 KiB, pid 100 is told by signal 10";
        assert!(text.contains(queue), "{text}");
        assert!(text.lines().any(|line| line.starts_with("segment")), "{text}");
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["queues"][0]["messages"][0]["kind"], 5);
        assert_eq!(json["queues"][0]["key"], "0xfffffff8");
        assert_eq!(json["posix_queues"][0]["name"], "/jobs");
        let array = "percpu_array [71] counters, 4 B to 4 B, 2 of 2000 elements are not zero, frozen, 0 descriptors";
        assert!(text.contains(array), "{text}");
        let types = "hash [70] counters, 4 B to 4 B, 2 of 2000 entries, types 1 and 1 of BTF [90], 0 descriptors";
        assert!(text.contains(types), "{text}");
        assert!(text.contains("BPF types: BTF [90], 45 B, 1 map, 0 descriptors"), "{text}");
        assert_eq!((&json["bpf_maps"][0]["types"]["btf"], &json["bpf_types"][0]["id"]), (&90.into(), &90.into()));
        assert!(text.contains("devmap [74] counters, 4 B to 4 B, pinned as /sys/fs/bpf/devices"), "{text}");
        assert_eq!(
            (&json["bpf_maps"][3]["flags"][0], &json["bpf_maps"][4]["pinned"]),
            (&"MMAPABLE".into(), &"/sys/fs/bpf/devices".into())
        );
        assert_eq!(json["posix_queues"][0]["messages"][0]["priority"], 7);
        assert_eq!(json["posix_queues"][0]["notification"]["value"], "0x2a");
    }
}
