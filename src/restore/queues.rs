//! POSIX message queues: the one that the dumped program has left behind is opened again if it holds what it held, any other is made again with its messages.

use super::Choices;
use super::descriptors::{OpenError, failed};
use super::host::HostFacts;
use super::plan::RestorePlan;
use crate::blocker::Blocker;
use crate::image::model::Snapshot;
use crate::image::model::id::QueueId;
use crate::image::model::ipc::PosixQueue;
use crate::resources::mqueue as queue;
use crate::sys::{mqueue, open};
use nix::errno::Errno;
use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

/// What has the name of a queue of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Present {
    /// Nothing.
    Absent,
    /// The queue of the dump, as it is now.
    Same(Now),
    /// Another one, or what cannot be looked at.
    Other,
}

/// What is in the queue of the dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    messages: u64,
    bytes: u64,
    /// When it was last used, in nanoseconds since the epoch.
    changed: i64,
}

/// Looks for those of the image.
#[must_use]
pub fn probe(snapshot: &Snapshot) -> Vec<Present> {
    snapshot.ipc.posix_queues.iter().map(|queue| find(queue).unwrap_or(Present::Other)).collect()
}

fn find(model: &PosixQueue) -> io::Result<Present> {
    let name = name(model)?;
    let opened = mqueue::open(&name, libc::O_RDONLY as u32).or_else(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => mqueue::open(&name, libc::O_WRONLY as u32),
        _ => Err(error),
    });
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Present::Absent),
        opened => opened?,
    };
    let (meta, attributes) = (file.metadata()?, mqueue::attributes(&file)?);
    if (meta.dev(), meta.ino()) != (model.dev, model.ino) {
        return Ok(Present::Other);
    }
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    Ok(Present::Same(Now {
        messages: count(attributes.messages),
        bytes: queue::bytes(&file)?,
        changed: queue::changed(&meta),
    }))
}

fn name(model: &PosixQueue) -> io::Result<CString> {
    CString::new(model.name.as_slice()).map_err(io::Error::from)
}

/// Those that are made, or what stands in the way. Pure.
pub fn check(snapshot: &Snapshot, facts: &HostFacts, choices: &Choices<'_>) -> (Vec<QueueId>, Vec<Blocker>) {
    let (mut made, mut blockers) = (Vec::new(), Vec::new());
    let own = &facts.credentials;
    for (queue, present) in snapshot.ipc.posix_queues.iter().zip(&facts.queues) {
        let object = format!("message queue /{}", String::from_utf8_lossy(&queue.name));
        let mut block = |reason: String, remedy: String| {
            blockers.push(Blocker { task: "the tree".into(), object: object.clone(), reason, remedy });
        };
        let remover = format!("remove it (mq_unlink, rm /dev/mqueue/{})", String::from_utf8_lossy(&queue.name));
        let waited = queue.messages.len() as u64;
        let held = format!("{} bytes in {waited} messages", queue.bytes());
        let present = if choices.new_ipc_namespace { &Present::Absent } else { present };
        match present {
            Present::Same(now) if queue.named => {
                let same = (now.messages, now.bytes) == (waited, queue.bytes());
                if !same || waited > 0 && now.changed != queue.changed {
                    let reason = format!("somebody has used it since the dump, when it held {held}");
                    block(reason, format!("{remover}, or use --new-ipc-namespace"));
                }
                continue;
            }
            Present::Other if queue.named => {
                block("another one has its name".into(), format!("{remover}, or use --new-ipc-namespace"));
                continue;
            }
            Present::Absent | Present::Same(_) | Present::Other => {}
        }
        const CAP_CHOWN: u32 = 0;
        let is_ours = queue.uid == own.uid[3] && (queue.gid == own.gid[3] || own.groups.contains(&queue.gid));
        if !is_ours && own.cap_effective >> CAP_CHOWN & 1 == 0 {
            let reason = format!("it belonged to uid {} and gid {}", queue.uid, queue.gid);
            block(reason, "run snap restore as that user, or with CAP_CHOWN".into());
        }
        made.push(queue.id);
    }
    (made, blockers)
}

/// Those that were made, removed again unless they are kept.
#[derive(Debug, Default)]
pub struct Queues {
    /// Each with the name that it has for now.
    made: HashMap<QueueId, (CString, File)>,
}

impl Queues {
    /// Names under which queues are made: their own, or, of those that have lost theirs, one that is free.
    pub fn names(snapshot: &Snapshot, plan: &RestorePlan) -> Result<Vec<(QueueId, CString)>, OpenError> {
        let named = |id: &QueueId| {
            let queue = &snapshot.ipc.posix_queues[id.0 as usize];
            let own = name(queue).map_err(failed("a message queue"))?;
            let is_taken = || !matches!(mqueue::open(&own, 0), Err(error) if error.kind() == io::ErrorKind::NotFound);
            if queue.named || !is_taken() {
                return Ok((*id, own));
            }
            let other = CString::new(format!(".snap-{}-{id}", std::process::id()));
            Ok((*id, other.map_err(io::Error::from).map_err(failed("a message queue"))?))
        };
        plan.queues.iter().map(named).collect()
    }

    /// Makes them.
    ///
    /// # Errors
    /// The first that could not be made.
    pub fn make(
        &mut self,
        snapshot: &Snapshot,
        plan: &RestorePlan,
        names: Vec<(QueueId, CString)>,
    ) -> Result<(), OpenError> {
        for (id, name) in names {
            let queue = &snapshot.ipc.posix_queues[id.0 as usize];
            let made = mqueue::create(&name, queue.max_messages as i64, queue.message_size as i64);
            let error = || failed(format!("making message queue /{}", name.to_string_lossy()));
            let made = made.map_err(error())?;
            let lifted = open::lift(made, plan.top);
            if lifted.is_err() {
                let _ = mqueue::unlink(&name);
            }
            let lifted = lifted.map_err(error())?;
            let (name, made) = &*self.made.entry(id).or_insert((name, lifted));
            for message in &queue.messages {
                let sent = mqueue::send(made, &message.text, message.priority);
                let error = failed(format!("sending to message queue /{}", name.to_string_lossy()));
                sent.map_err(|errno| error(errno.into()))?;
            }
        }
        Ok(())
    }

    /// A description of a queue.
    ///
    /// # Errors
    /// As mq_open(2).
    pub fn open(&self, snapshot: &Snapshot, id: QueueId, flags: u32) -> Result<File, OpenError> {
        let queue = &snapshot.ipc.posix_queues[id.0 as usize];
        let error = || failed(format!("message queue /{}", String::from_utf8_lossy(&queue.name)));
        match self.made.get(&id) {
            Some((name, _)) => mqueue::open(name, flags).map_err(error()),
            None => mqueue::open(&name(queue).map_err(error())?, flags).map_err(error()),
        }
    }

    /// Takes away the names of those that had lost theirs, once they are open.
    ///
    /// # Errors
    /// As mq_unlink(2).
    pub fn hide(&mut self, snapshot: &Snapshot) -> Result<(), OpenError> {
        let nameless: Vec<QueueId> =
            self.made.keys().copied().filter(|id| !snapshot.ipc.posix_queues[id.0 as usize].named).collect();
        for id in nameless {
            if let Some((name, file)) = self.made.get(&id) {
                let queue = &snapshot.ipc.posix_queues[id.0 as usize];
                let error = || failed(format!("message queue /{}", name.to_string_lossy()));
                open::own(file, queue.uid, queue.gid, queue.mode).map_err(error())?;
                mqueue::unlink(name).map_err(|errno: Errno| error()(errno.into()))?;
            }
            self.made.remove(&id);
        }
        Ok(())
    }

    /// Owners and permissions.
    ///
    /// # Errors
    /// As fchown(2), fchmod(2).
    pub fn settle(&self, snapshot: &Snapshot) -> Result<(), OpenError> {
        for (id, (name, file)) in &self.made {
            let queue = &snapshot.ipc.posix_queues[id.0 as usize];
            let error = failed(format!("message queue /{}", name.to_string_lossy()));
            open::own(file, queue.uid, queue.gid, queue.mode).map_err(error)?;
        }
        Ok(())
    }

    /// They stay.
    pub fn keep(&mut self) {
        self.made.clear();
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        for (name, _) in self.made.values() {
            let _ = mqueue::unlink(name);
        }
    }
}
