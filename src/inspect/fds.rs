//! `snap inspect FILE fds`: descriptors, and the open file descriptions that they share.

use super::json::Raw;
use super::names::{bpf, event, files, signals};
use super::sockets;
use super::table::{lines, table};
use super::text::{self, bytes, count};
use super::{Report, place};
use crate::image::model::Snapshot;
use crate::image::model::file::{
    AsyncOwner, Description, DescriptionLockKind, FdTable, LockRange, OpenObject, OwnerTarget,
};
use crate::image::model::id::{FdTableId, FileId, PipeId};
use serde::Serialize;
use std::fmt::Write;

/// The report: one entry for each table of descriptors.
#[derive(Debug, Serialize)]
pub struct Fds {
    schema: &'static str,
    tables: Vec<Table>,
}

#[derive(Debug, Serialize)]
struct Table {
    id: u32,
    tids: Vec<i32>,
    descriptors: Vec<Descriptor>,
    posix_locks: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Descriptor {
    fd: i32,
    close_on_exec: bool,
    description: u32,
    /// How many descriptors of the image share the description.
    shared_by: u64,
    kind: &'static str,
    object: Raw,
    access: &'static str,
    flags: Vec<String>,
    position: u64,
    owner: Option<Owner>,
    locks: Vec<String>,
    unread_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Owner {
    kind: &'static str,
    id: i32,
    signal: String,
}

/// Makes it.
#[must_use]
pub fn report(snapshot: &Snapshot) -> Fds {
    let mut sharers = vec![0u64; snapshot.descriptions.len()];
    for entry in snapshot.fd_tables.iter().flat_map(|table| &table.entries) {
        if let Some(count) = sharers.get_mut(entry.description.0 as usize) {
            *count += 1;
        }
    }
    let mut tids = vec![Vec::new(); snapshot.fd_tables.len()];
    for thread in snapshot.processes.iter().flat_map(|process| &process.threads) {
        if let Some(users) = tids.get_mut(thread.fd_table.0 as usize) {
            users.push(thread.tid.0);
        }
    }
    let tables = snapshot.fd_tables.iter().zip(tids).map(|(table, tids)| one(snapshot, table, tids, &sharers));
    Fds { schema: "snap.inspect.fds/1", tables: tables.collect() }
}

fn one(snapshot: &Snapshot, table: &FdTable, tids: Vec<i32>, sharers: &[u64]) -> Table {
    let FdTable { id: FdTableId(id), entries, locks } = table;
    let descriptors = entries.iter().filter_map(|entry| {
        let index = entry.description.0 as usize;
        let description = snapshot.descriptions.get(index)?;
        let shared_by = sharers.get(index).copied().unwrap_or_default();
        Some(Descriptor {
            fd: entry.fd.0,
            close_on_exec: entry.close_on_exec,
            shared_by,
            ..describe(snapshot, description)
        })
    });
    Table {
        id: *id,
        tids,
        descriptors: descriptors.collect(),
        posix_locks: locks
            .iter()
            .map(|lock| format!("fd {}: {} {}", lock.fd, exclusive(lock.exclusive), range(lock.range)))
            .collect(),
    }
}

fn describe(snapshot: &Snapshot, description: &Description) -> Descriptor {
    Descriptor {
        fd: 0,
        close_on_exec: false,
        description: description.id.0,
        shared_by: 0,
        kind: kind(snapshot, &description.object),
        object: name(snapshot, &description.object),
        access: files::access(description.flags),
        flags: files::open_flags(description.flags),
        position: description.position,
        owner: description.owner.as_ref().map(owner),
        locks: description
            .locks
            .iter()
            .map(|lock| {
                let kind = match lock.kind {
                    DescriptionLockKind::Flock => "flock",
                    DescriptionLockKind::OpenDescription => "open description lock",
                    DescriptionLockKind::Lease => "lease",
                };
                format!("{kind} {} {}", exclusive(lock.exclusive), range(lock.range))
            })
            .collect(),
        unread_bytes: unread(snapshot, &description.object),
    }
}

/// What kind it is.
fn kind(snapshot: &Snapshot, object: &OpenObject) -> &'static str {
    match object {
        OpenObject::Regular(_) => "file",
        OpenObject::Directory(_) => "directory",
        OpenObject::PathOnly(_) => "path",
        OpenObject::MemoryDevice(_) => "device",
        OpenObject::Pseudo(_) => "pseudo",
        OpenObject::Pipe { pipe, write, quiet: _ } => match (fifo(snapshot, *pipe), write) {
            (None, false) => "pipe-read",
            (None, true) => "pipe-write",
            (Some(_), false) => "fifo-read",
            (Some(_), true) => "fifo-write",
        },
        OpenObject::OutsideTerminal(_) => "terminal",
        OpenObject::HungUpTerminal(_) => "hung-up-terminal",
        OpenObject::ControllingTerminal(_) => "controlling-terminal",
        OpenObject::Memfd(_) => "memfd",
        OpenObject::Eventfd { counter: _, semaphore: _ } => "eventfd",
        OpenObject::Epoll(_) => "epoll",
        OpenObject::Timerfd(_) => "timerfd",
        OpenObject::Pidfd(_) => "pidfd",
        OpenObject::Inotify(_) => "inotify",
        OpenObject::Fanotify(_) => "fanotify",
        OpenObject::Tun(_) => "tun",
        OpenObject::External(_) => "external",
        OpenObject::Signalfd(_) => "signalfd",
        OpenObject::Namespace(_) => "namespace",
        OpenObject::TerminalMaster(_) => "terminal-master",
        OpenObject::TerminalSlave(_) => "terminal-slave",
        OpenObject::OwnTerminal(_) => "controlling-terminal",
        OpenObject::Socket(_) => "socket",
        OpenObject::Queue(_) => "message-queue",
        OpenObject::BpfMap(_) => "bpf-map",
        OpenObject::BpfTypes(_) => "btf",
    }
}

/// What it is called, or what it says in place of a name.
fn name(snapshot: &Snapshot, object: &OpenObject) -> Raw {
    match object {
        OpenObject::Pipe { pipe, write: _, quiet: _ } => match fifo(snapshot, *pipe) {
            Some(file) => Raw(place::file(snapshot, file).map_or_else(Vec::new, |file| file.path.clone())),
            None => {
                let ino = snapshot.pipes.get(pipe.0 as usize).map_or(0, |pipe| pipe.ino);
                Raw(format!("pipe:[{ino}]").into_bytes())
            }
        },
        OpenObject::Eventfd { counter, semaphore } => {
            Raw(format!("counter {counter}{}", if *semaphore { ", semaphore" } else { "" }).into_bytes())
        }
        OpenObject::Epoll(epoll) => Raw(event::epoll(epoll).into_bytes()),
        OpenObject::Timerfd(timer) => Raw(event::timerfd(timer).into_bytes()),
        OpenObject::Pidfd(pidfd) => Raw(event::pidfd(pidfd).into_bytes()),
        OpenObject::Inotify(watches) => watched(snapshot, watches.iter().map(|watch| watch.file)),
        OpenObject::Fanotify(group) => watched(snapshot, group.marks.iter().map(|mark| mark.file)),
        OpenObject::Tun(tun) => {
            let name = tun.interface.as_ref().map_or("no interface", |interface| &interface.name);
            Raw(name.as_bytes().to_vec())
        }
        OpenObject::External(id) => Raw(id.clone().into_bytes()),
        OpenObject::Signalfd(mask) => Raw(format!("signals {mask:#x}").into_bytes()),
        OpenObject::Namespace(kind) => Raw(kind.clone().into_bytes()),
        OpenObject::OwnTerminal(_) => Raw(b"/dev/tty".to_vec()),
        OpenObject::TerminalMaster(id) | OpenObject::TerminalSlave(id) => {
            let index = snapshot.terminals.get(id.0 as usize).map_or(0, |terminal| terminal.index);
            Raw(format!("/dev/pts/{index}").into_bytes())
        }
        OpenObject::Socket(id) => {
            Raw(snapshot.sockets.get(id.0 as usize).map_or_else(String::new, sockets::describe).into_bytes())
        }
        OpenObject::Queue(id) => {
            let name = snapshot.ipc.posix_queues.get(id.0 as usize).map_or(&[][..], |queue| &queue.name);
            Raw([b"/", name].concat())
        }
        OpenObject::BpfMap(map) => {
            let map = snapshot.bpf_maps.get(map.0 as usize);
            Raw(map.map_or_else(String::new, |map| bpf::map(snapshot, map)).into_bytes())
        }
        OpenObject::BpfTypes(types) => {
            Raw(snapshot.bpf_types.get(types.0 as usize).map_or_else(String::new, bpf::types).into_bytes())
        }
        OpenObject::Memfd(shm) => Raw(place::shared(snapshot, *shm).into_bytes()),
        OpenObject::Regular(file)
        | OpenObject::Directory(file)
        | OpenObject::PathOnly(file)
        | OpenObject::MemoryDevice(file)
        | OpenObject::Pseudo(file)
        | OpenObject::OutsideTerminal(file)
        | OpenObject::HungUpTerminal(file)
        | OpenObject::ControllingTerminal(file) => {
            Raw(place::file(snapshot, *file).map_or_else(Vec::new, |file| file.path.clone()))
        }
    }
}

/// The file of a pipe that has one.
fn fifo(snapshot: &Snapshot, pipe: PipeId) -> Option<FileId> {
    snapshot.pipes.get(pipe.0 as usize)?.fifo
}

/// The paths of files that are watched.
fn watched(snapshot: &Snapshot, files: impl Iterator<Item = FileId>) -> Raw {
    let paths: Vec<&[u8]> = files.filter_map(|id| place::file(snapshot, id)).map(|file| file.path.as_slice()).collect();
    Raw(if paths.is_empty() { b"watches nothing".to_vec() } else { [b"watches ", &*paths.join(&b", "[..])].concat() })
}

/// Bytes that wait in a pipe, told of its reading end.
fn unread(snapshot: &Snapshot, object: &OpenObject) -> Option<u64> {
    let OpenObject::Pipe { pipe, write: false, quiet: _ } = object else { return None };
    let pipe = snapshot.pipes.get(pipe.0 as usize)?;
    Some(pipe.unread.iter().map(|part| part.bytes.len() as u64).sum())
}

fn owner(owner: &AsyncOwner) -> Owner {
    let (kind, id) = match owner.target {
        OwnerTarget::None => ("none", 0),
        OwnerTarget::Thread(tid) => ("thread", tid.0),
        OwnerTarget::Process(pid) => ("process", pid.0),
        OwnerTarget::Group(pid) => ("group", pid.0),
    };
    let signal = if owner.signal == 0 { 29 } else { owner.signal };
    Owner { kind, id, signal: signals::name(signal) }
}

const fn exclusive(exclusive: bool) -> &'static str {
    if exclusive { "write" } else { "read" }
}

fn range(range: LockRange) -> String {
    range.end.map_or_else(|| format!("from byte {} on", range.start), |end| format!("bytes {} to {end}", range.start))
}

impl Report for Fds {
    fn text(&self, width: Option<u16>) -> String {
        let mut out = String::new();
        for one in &self.tables {
            let _ = writeln!(out, "{} of {}", count(one.descriptors.len() as u64, "descriptor"), users(&one.tids));
            out.push_str(&rows(one, width));
            for lock in &one.posix_locks {
                let _ = writeln!(out, "POSIX lock, {lock}");
            }
            out.push('\n');
        }
        out
    }
}

fn users(tids: &[i32]) -> String {
    match tids {
        [] => "no thread".to_owned(),
        [one] => format!("thread {one}"),
        [first, ..] => format!("{} from {first} on", count(tids.len() as u64, "thread")),
    }
}

fn rows(one: &Table, width: Option<u16>) -> String {
    let mut table = table(&[">FD", "KIND", "ACCESS", ">POSITION", ">SHARED", "WHAT"], width);
    for fd in &one.descriptors {
        table.add_row([
            fd.fd.to_string(),
            fd.kind.to_owned(),
            fd.access.to_owned(),
            fd.position.to_string(),
            if fd.shared_by > 1 { format!("#{} x{}", fd.description, fd.shared_by) } else { String::new() },
            what(fd),
        ]);
    }
    lines(&mut table)
}

fn what(fd: &Descriptor) -> String {
    let mut words = vec![fd.object.printable()];
    words.extend(fd.flags.iter().cloned());
    if fd.close_on_exec {
        words.push("close-on-exec".into());
    }
    words.extend(fd.unread_bytes.map(|unread| format!("({} unread)", bytes(unread))));
    words.extend(fd.owner.as_ref().map(|owner| format!("({} to {} {})", owner.signal, owner.kind, owner.id)));
    words.extend(fd.locks.iter().map(|lock| format!("({})", text::escape_controls(lock))));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::model::file::{DescriptionLock, FdEntry};
    use crate::image::model::id::{DescriptionId, Fd, Tid};
    use crate::image::tests::sample::snapshot;

    fn rich() -> Snapshot {
        let mut snapshot = snapshot();
        let file = &mut snapshot.descriptions[0];
        (file.flags, file.position) = (0x8402, 77);
        file.owner = Some(AsyncOwner { target: OwnerTarget::Thread(Tid(101)), signal: 0 });
        file.locks.push(DescriptionLock {
            kind: DescriptionLockKind::Flock,
            exclusive: false,
            range: LockRange { start: 0, end: None },
            holder: None,
        });
        let entry = FdEntry { fd: Fd(9), description: DescriptionId(0), close_on_exec: true };
        snapshot.fd_tables[0].entries.push(entry);
        snapshot
    }

    #[test]
    fn descriptors_say_what_they_are_and_share() {
        insta::assert_snapshot!(report(&rich()).text(None), @r"
        4 descriptors of 2 threads from 100 on
        FD  KIND        ACCESS  POSITION  SHARED  WHAT
         0  file        rw            77   #0 x2  /tmp/gone O_APPEND O_LARGEFILE (SIGIO to thread 101) (flock read from byte 0 on)
         1  pipe-read   r              0          pipe:[9] (5 B unread)
         2  pipe-write  r              0          pipe:[9] close-on-exec
         9  file        rw            77   #0 x2  /tmp/gone O_APPEND O_LARGEFILE close-on-exec (SIGIO to thread 101) (flock read from byte 0 on)
        POSIX lock, fd 0: write from byte 0 on
        ");
    }

    #[test]
    fn json_has_the_same() {
        let json = serde_json::to_value(report(&rich())).expect("JSON");
        let table = &json["tables"][0];
        assert_eq!(table["tids"], serde_json::json!([100, 101]));
        assert_eq!(table["descriptors"][3]["description"], 0);
        assert_eq!(table["descriptors"][0]["flags"], serde_json::json!(["O_APPEND", "O_LARGEFILE"]));
        assert_eq!(table["descriptors"][1]["unread_bytes"], 5);
    }
}
