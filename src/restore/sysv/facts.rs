//! What System V objects this host has, as far as the image wants their identifiers or keys.

use super::objects;
use crate::image::model::Snapshot;
use crate::image::model::id::Pid;
use crate::proc::sysvipc::{self, Entry};
use crate::proc::{TaskDir, stat};
use crate::sys::sysv::{self, Kind};
use std::fs::File;
use std::io;

/// System V IPC of this host.
#[derive(Clone, Debug, Default)]
pub struct SystemV {
    /// Objects that are in the way, or may be.
    pub present: Vec<Present>,
    /// Kinds whose identifiers cannot be chosen here.
    pub unchosen: Vec<Kind>,
    /// Most bytes that a message queue may take without CAP_SYS_RESOURCE (`kernel.msgmnb`).
    pub queue_limit: u64,
}

/// An object of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// Its kind.
    pub kind: Kind,
    /// Identifier, key, owner.
    pub entry: Entry,
    /// Bytes of a segment, number of semaphores of a set, 0 for a queue.
    pub size: u64,
    /// Attachments of a segment.
    pub attached: u64,
    /// Who has made a segment.
    pub creator: Pid,
    /// A living process that the kernel remembers to have used it, and its name.
    pub user: Option<(Pid, String)>,
}

impl SystemV {
    /// Looks at those that share an identifier, a place in the kernel's table, or a key with one of the image.
    ///
    /// # Errors
    /// /proc that cannot be read.
    pub fn probe(snapshot: &Snapshot) -> io::Result<Self> {
        probe(snapshot)
    }
}

fn probe(snapshot: &Snapshot) -> io::Result<SystemV> {
    let wanted = objects(snapshot);
    let mut facts = SystemV::default();
    if wanted.is_empty() {
        return Ok(facts);
    }
    for kind in [Kind::Segment, Kind::Semaphores, Kind::Queue] {
        let is_wanted = wanted.iter().any(|(of, ..)| *of == kind);
        if is_wanted && File::options().write(true).open(kind.next_id()).is_err() {
            facts.unchosen.push(kind);
        }
    }
    let in_the_way = |kind: Kind, entry: &Entry| {
        let same = |(of, id, owner): &(Kind, i32, _)| {
            let owner: &crate::image::model::ipc::IpcOwner = owner;
            *of == kind && (slot(*id) == slot(entry.id) || owner.key != 0 && owner.key == entry.key)
        };
        wanted.iter().any(same)
    };
    let buffer = &mut Vec::new();
    let limit = crate::proc::host::sysctl_number("kernel/msgmnb", buffer).unwrap_or(0);
    facts.queue_limit = u64::try_from(limit).unwrap_or(0);
    for segment in sysvipc::segments(buffer).map_err(io::Error::other)? {
        let sysvipc::Segment { entry, size, cpid, lpid, nattch, swap: _ } = segment;
        if in_the_way(Kind::Segment, &entry) {
            let (attached, creator, user) = (nattch, cpid, living(&[cpid, lpid]));
            facts.present.push(Present { kind: Kind::Segment, entry, size, attached, creator, user });
        }
    }
    for sysvipc::SemaphoreSet { entry, nsems } in sysvipc::semaphores(buffer).map_err(io::Error::other)? {
        if in_the_way(Kind::Semaphores, &entry) {
            let last = (0..nsems).filter_map(|number| sysv::last_operator(entry.id, number as u16).ok());
            let user = living(&last.map(Pid).collect::<Vec<_>>());
            let (kind, size) = (Kind::Semaphores, u64::from(nsems));
            facts.present.push(Present { kind, entry, size, attached: 0, creator: Pid(0), user });
        }
    }
    for queue in sysvipc::queues(buffer).map_err(io::Error::other)? {
        let sysvipc::MessageQueue { entry, cbytes: _, qnum: _, lspid, lrpid } = queue;
        if in_the_way(Kind::Queue, &entry) {
            let (kind, user) = (Kind::Queue, living(&[lspid, lrpid]));
            facts.present.push(Present { kind, entry, size: 0, attached: 0, creator: Pid(0), user });
        }
    }
    Ok(facts)
}

/// The place in the kernel's table, which the low bits of an identifier are (IPCMNI_SHIFT of ipc/util.h).
#[must_use]
pub const fn slot(id: i32) -> i32 {
    id & 0x7fff
}

fn living(pids: &[Pid]) -> Option<(Pid, String)> {
    pids.iter().filter(|pid| pid.0 > 0).find_map(|pid| {
        let stat = stat::read(&TaskDir::process(*pid).ok()?, &mut Vec::new()).ok()?;
        let name = String::from_utf8_lossy(&stat.comm).into_owned();
        (!matches!(stat.state, b'Z' | b'X')).then_some((*pid, name))
    })
}
