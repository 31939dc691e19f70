//! Files, descriptions, tables of descriptors, pipes.

use super::{ensure, event, file_exists, watch};
use crate::image::error::Error;
use crate::image::model::Snapshot;
use crate::image::model::event::Pidfd;
use crate::image::model::file::{Description, FdTable, File, Link, LockRange, OpenObject};
use crate::image::model::pipe::Pipe;
use crate::image::model::process::FsContext;
use crate::image::validate::process::is_signal;

/// PATH_MAX.
const PATH_MAX: usize = 4096;

/// Most bytes of a build id: that of a SHA-512.
const BUILD_ID_MAX: usize = 64;

pub fn file(file: &File) -> Result<(), Error> {
    let object = || format!("file {}", file.id);
    ensure(is_path(&file.path), object, "has an impossible path")?;
    match &file.link {
        Link::Named | Link::Unlinked => {}
        Link::OtherName(name) => ensure(is_path(name), object, "has an impossible other name")?,
    }
    ensure(i64::try_from(file.size).is_ok(), object, "has an impossible size")?;
    ensure(file.in_memory.is_none() || file.link != Link::Unlinked, object, "cannot be shared memory with a name")?;
    ensure(file.build_id.as_ref().is_none_or(|id| id.len() <= BUILD_ID_MAX), object, "has an impossible build id")
}

fn is_path(path: &[u8]) -> bool {
    !path.is_empty() && path.len() <= PATH_MAX && !path.contains(&0)
}

pub fn description(description: &Description, snapshot: &Snapshot) -> Result<(), Error> {
    let object = || format!("description {}", description.id);
    match description.object {
        OpenObject::Regular(file)
        | OpenObject::Directory(file)
        | OpenObject::PathOnly(file)
        | OpenObject::MemoryDevice(file)
        | OpenObject::Pseudo(file)
        | OpenObject::OutsideTerminal(file)
        | OpenObject::HungUpTerminal(file)
        | OpenObject::ControllingTerminal(file) => file_exists(snapshot, file, object)?,
        OpenObject::Pipe { pipe, write: _, quiet: _ } => {
            ensure((pipe.0 as usize) < snapshot.pipes.len(), object, "refers to a pipe that is not in the image")?;
        }
        OpenObject::Eventfd { counter, semaphore: _ } => {
            ensure(counter < u64::MAX, object, "has an impossible counter")?;
        }
        // See `event::epolls`.
        OpenObject::Epoll(_) => {}
        OpenObject::Timerfd(ref timer) => event::timerfd(timer, object)?,
        OpenObject::Pidfd(Pidfd::Task(tid)) => {
            ensure(event::has_task(snapshot, tid), object, "means no task of the image")?
        }
        OpenObject::Pidfd(Pidfd::Gone(_)) => {}
        OpenObject::Inotify(ref watches) => watch::inotify(watches, snapshot, object)?,
        OpenObject::Fanotify(ref group) => watch::fanotify(group, snapshot, object)?,
        OpenObject::Tun(ref tun) => file_exists(snapshot, tun.file, object)?,
        OpenObject::Signalfd(_) => {}
        OpenObject::External(ref id) => {
            ensure(!id.is_empty() && id.len() <= PATH_MAX, object, "has an impossible name")?;
        }
        OpenObject::Namespace(ref kind) => {
            let plain = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_lowercase());
            ensure(plain, object, "refers to no kind of namespace")?;
        }
        OpenObject::TerminalMaster(terminal)
        | OpenObject::TerminalSlave(terminal)
        | OpenObject::OwnTerminal(terminal) => {
            let exists = (terminal.0 as usize) < snapshot.terminals.len();
            ensure(exists, object, "refers to a terminal that is not in the image")?;
        }
        OpenObject::Socket(socket) => {
            let exists = (socket.0 as usize) < snapshot.sockets.len();
            ensure(exists, object, "refers to a socket that is not in the image")?;
        }
        OpenObject::Queue(queue) => {
            let exists = (queue.0 as usize) < snapshot.ipc.posix_queues.len();
            ensure(exists, object, "refers to a message queue that is not in the image")?;
        }
        OpenObject::BpfTypes(types) => {
            let exists = (types.0 as usize) < snapshot.bpf_types.len();
            ensure(exists, object, "refers to a BTF that is not in the image")?;
        }
        OpenObject::BpfMap(map) => {
            let exists = (map.0 as usize) < snapshot.bpf_maps.len();
            ensure(exists, object, "refers to a BPF map that is not in the image")?;
        }
        OpenObject::Memfd(shm) => {
            let exists = (shm.0 as usize) < snapshot.shared_memory.len();
            ensure(exists, object, "refers to shared memory that is not in the image")?;
        }
    }
    let signal = description.owner.map_or(0, |owner| owner.signal);
    ensure(signal == 0 || is_signal(signal), object, "has an impossible signal for its owner")?;
    ensure(description.locks.iter().all(|lock| lock_is_sane(lock.range)), object, "has an impossible lock")
}

fn lock_is_sane(range: LockRange) -> bool {
    i64::try_from(range.start).is_ok() && range.end.is_none_or(|end| end >= range.start && i64::try_from(end).is_ok())
}

pub fn fd_table(table: &FdTable, snapshot: &Snapshot) -> Result<(), Error> {
    let object = || format!("fd table {}", table.id);
    ensure(table.entries.is_sorted_by(|a, b| a.fd < b.fd), object, "is not sorted, or has a descriptor twice")?;
    for entry in &table.entries {
        let object = || format!("fd table {}: fd {}", table.id, entry.fd);
        let exists = (entry.description.0 as usize) < snapshot.descriptions.len();
        ensure(exists, object, "refers to a description that is not in the image")?;
        ensure(entry.fd.0 >= 0, object, "is negative")?;
    }
    for lock in &table.locks {
        let held = table.entries.binary_search_by_key(&lock.fd, |entry| entry.fd).is_ok();
        ensure(held && lock_is_sane(lock.range), object, "has a lock of a descriptor that it does not have")?;
    }
    Ok(())
}

pub fn fs_context(fs: &FsContext, snapshot: &Snapshot) -> Result<(), Error> {
    let object = || format!("fs context {}", fs.id);
    file_exists(snapshot, fs.cwd, object)?;
    file_exists(snapshot, fs.root, object)?;
    ensure(fs.umask <= 0o777, object, "has an impossible umask")
}

pub fn pipe(pipe: &Pipe, snapshot: &Snapshot) -> Result<(), Error> {
    let object = || format!("pipe {}", pipe.id);
    let sane = pipe.capacity.is_power_of_two() && pipe.capacity >= 4096;
    ensure(sane, object, "has an impossible capacity")?;
    if let Some(fifo) = pipe.fifo {
        file_exists(snapshot, fifo, object)?;
    }
    let unread = pipe.unread.iter().map(|part| part.bytes.len() as u64).sum::<u64>();
    ensure(unread <= u64::from(pipe.capacity), object, "holds more than its capacity")?;
    ensure(pipe.unread.iter().all(|part| !part.bytes.is_empty()), object, "holds an empty packet")
}
