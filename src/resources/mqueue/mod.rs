//! POSIX message queues. A message can only be taken out, never looked at: so all are taken out and put back, in one go, by a process that has the queue. A queue with
//! a name outlives the tree, messages and all, and a restore opens the same one again if nobody has used it since.

pub mod exchange;
pub mod plan;

use super::Findings;
use super::border::{Outsider, Tie};
use crate::image::model::id::{QueueId, Tid};
use crate::image::model::ipc::PosixQueue;
use crate::sys::mqueue;
use nix::sys::statfs::fstatfs;
use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

/// The queues of a dump, each once.
#[derive(Debug, Default)]
pub struct Queues {
    queues: Vec<PosixQueue>,
    found: Vec<Found>,
}

/// A queue as it was found, before anybody has looked into it.
#[derive(Clone, Debug)]
pub struct Found {
    queue: QueueId,
    tid: Tid,
    object: String,
    messages: u64,
    shown: Shown,
}

impl Found {
    /// Whether there is something in it that only it can tell.
    fn is_in_use(&self) -> bool {
        self.messages > 0 || self.shown.pid != 0
    }
}

/// What can be read of a queue (ipc/mqueue.c, `mqueue_read_file`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shown {
    /// Bytes of all messages.
    bytes: u64,
    /// Kind of sigevent(3type).
    notify: i32,
    signal: i32,
    /// Who is to be told of a message, 0 for nobody.
    pid: i32,
}

/// Whether a file is a queue: it has the name of a file (MQUEUE_MAGIC of ipc/mqueue.c).
#[must_use]
pub fn is_queue(file: &File, meta: &Metadata) -> bool {
    const MQUEUE_MAGIC: i64 = 0x1980_0202;
    meta.is_file() && fstatfs(file).is_ok_and(|fs| fs.filesystem_type().0 == MQUEUE_MAGIC)
}

/// When something was last sent or received, or another thing done to it, in nanoseconds since the epoch.
#[must_use]
pub fn changed(meta: &Metadata) -> i64 {
    meta.ctime().saturating_mul(1_000_000_000).saturating_add(meta.ctime_nsec())
}

/// Bytes of all messages.
///
/// # Errors
/// As open(2), read(2).
pub fn bytes(queue: &File) -> io::Result<u64> {
    shown(queue).map(|shown| shown.bytes)
}

fn shown(queue: &File) -> io::Result<Shown> {
    // Another description: this one may be for sending alone, and its offset is the target's.
    let text = std::fs::read_to_string(format!("/proc/self/fd/{}", queue.as_raw_fd()))?;
    parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, text))
}

fn parse(text: &str) -> Option<Shown> {
    let value = |key: &str| text.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix(':'));
    Some(Shown {
        bytes: value("QSIZE")?.parse().ok()?,
        notify: value("NOTIFY")?.parse().ok()?,
        signal: value("SIGNO")?.parse().ok()?,
        pid: value("NOTIFY_PID")?.parse().ok()?,
    })
}

impl Queues {
    /// The queue behind a descriptor. `link` is what the link of /proc says.
    ///
    /// # Errors
    /// Why it cannot be saved.
    pub fn intern(
        &mut self,
        (tid, object): (Tid, &str),
        (file, meta, link): (&File, &Metadata, &[u8]),
    ) -> Result<QueueId, String> {
        if let Some(known) = self.queues.iter().find(|queue| (queue.dev, queue.ino) == (meta.dev(), meta.ino())) {
            return Ok(known.id);
        }
        let attributes = mqueue::attributes(file).map_err(|errno| format!("its attributes cannot be read: {errno}"))?;
        let shown = shown(file).map_err(|error| format!("what is in it cannot be read: {error}"))?;
        let path = link.strip_suffix(super::file::DELETED).filter(|_| meta.nlink() == 0).unwrap_or(link);
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
        let id = QueueId(self.queues.len() as u32);
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        self.queues.push(PosixQueue {
            id,
            named: is_named(&name, meta),
            name,
            dev: meta.dev(),
            ino: meta.ino(),
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            max_messages: count(attributes.max_messages),
            message_size: count(attributes.message_size),
            messages: Vec::new(),
            notification: None,
            changed: changed(meta),
        });
        let (object, messages) = (object.to_owned(), count(attributes.messages));
        self.found.push(Found { queue: id, tid, object, messages, shown });
        Ok(id)
    }

    /// Those that no process outside may have.
    fn exclusive(&self) -> impl Iterator<Item = (&PosixQueue, &Found)> {
        self.queues.iter().zip(&self.found).filter(|(queue, found)| !queue.named || found.is_in_use())
    }

    /// Their ties to other processes.
    pub fn ties(&self) -> impl Iterator<Item = Tie> {
        self.exclusive().map(|(queue, _)| Tie::Queue(queue.dev, queue.ino))
    }

    /// Refuses those that a process outside has too, and that are made again or must be looked into.
    pub fn refuse_outside(&self, outsiders: &HashMap<Tie, Outsider>, inside: &HashSet<Tid>, findings: &mut Findings) {
        for (queue, Found { tid, object, shown, .. }) in self.exclusive() {
            let task = format!("pid {tid}");
            if let Some(outsider) = outsiders.get(&Tie::Queue(queue.dev, queue.ino)) {
                let reason = match queue.named {
                    false => format!("{outsider}, which is outside, has this message queue too, whose name is gone"),
                    true => format!(
                        "{outsider}, which is outside, has this message queue too, and could use it while its messages are looked at"
                    ),
                };
                findings.block(task, object, reason, "end that process");
            } else if shown.pid != 0 && !inside.contains(&Tid(shown.pid)) {
                let reason = format!("pid {}, which is outside, is to be told of a message (mq_notify)", shown.pid);
                findings.block(task, object, reason, "end that process");
            }
        }
    }

    /// All of them, and how they were found.
    #[must_use]
    pub fn finish(self) -> (Vec<PosixQueue>, Vec<Found>) {
        (self.queues, self.found)
    }
}

/// Whether the name leads to this queue.
fn is_named(name: &[u8], meta: &Metadata) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    let found = [libc::O_RDONLY, libc::O_WRONLY].iter().find_map(|flags| mqueue::open(&name, *flags as u32).ok());
    let found = found.and_then(|queue| queue.metadata().ok());
    found.map_or(meta.nlink() > 0, |found| (found.dev(), found.ino()) == (meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_shows_is_read() {
        let text = "QSIZE:10         NOTIFY:0     SIGNO:10    NOTIFY_PID:31100 \n";
        assert_eq!(parse(text), Some(Shown { bytes: 10, notify: 0, signal: 10, pid: 31100 }));
        assert_eq!(parse("QSIZE:x NOTIFY:0 SIGNO:0 NOTIFY_PID:0"), None);
    }
}
