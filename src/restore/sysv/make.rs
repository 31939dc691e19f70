//! Makes the System V objects of an image, and its shared memory and POSIX message queues whose names are gone, and removes them again when the restore fails, however it does.

use super::{objects, read_only, segments};
use crate::image::model::Snapshot;
use crate::image::model::address::PageRange;
use crate::image::model::id::{Pid, ShmId};
use crate::image::model::ipc::{IpcOwner, MessageQueue, Segment, SemaphoreSet};
use crate::restore::descriptors::{OpenError, failed};
use crate::restore::guard::Guard;
use crate::restore::named_memory::{Name, NamedMemory};
use crate::restore::plan::RestorePlan;
use crate::restore::queues::Queues;
use crate::sys::elsewhere::{self, Elsewhere, Failure};
use crate::sys::sysv::{self, Attachment, Kind, Owner};
use crate::sys::{mqueue, pidfd};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::{BTreeSet, HashMap};
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;

/// The objects of an image.
#[derive(Debug, Default)]
pub struct Objects {
    /// Segments, attached for filling.
    pub segments: HashMap<ShmId, Attachment>,
    /// Shared memory with a name, for filling.
    pub files: NamedMemory,
    /// POSIX message queues.
    pub queues: Queues,
    /// Attached for the skeletons, for reading alone.
    read_only: Vec<Attachment>,
    /// Whoever removes the objects when we die.
    guard: Option<Guard>,
    made: Vec<(Kind, i32)>,
}

impl Objects {
    /// Makes all of them. They belong to `snap`, readable and writable, until [`Objects::settle`].
    ///
    /// # Errors
    /// The first that could not be made; all are gone again.
    pub fn make(snapshot: &Snapshot, plan: &RestorePlan) -> Result<Self, OpenError> {
        let mut made = Self::default();
        let wanted = objects(snapshot);
        if wanted.is_empty() && plan.made.is_empty() && plan.queues.is_empty() {
            return Ok(made);
        }
        for &(kind, id) in &plan.replaced {
            let removed = sysv::remove(kind, id).map_err(io::Error::from);
            removed.map_err(failed(format!("removing {} {id}", kind.name())))?;
        }
        let ids: Vec<(Kind, i32)> = wanted.iter().map(|(kind, id, _)| (*kind, *id)).collect();
        let memory = NamedMemory::make(snapshot, plan)?;
        let queues = Queues::names(snapshot, plan)?;
        let guard = guard(snapshot, ids, memory.names(), queues.iter().map(|(_, name)| name.clone()).collect());
        made.guard = Some(guard.map_err(failed("watching over what outlives processes"))?);
        made.files = memory;
        made.files.link()?;
        made.queues.make(snapshot, plan, queues)?;
        for (shm, segment) in segments(snapshot) {
            made.segment(plan, shm, segment)?;
        }
        for set in &snapshot.ipc.semaphores {
            made.create(Kind::Semaphores, set.id, &set.owner, Pid(0), &|| {
                sysv::make_semaphores(set.owner.key, set.semaphores.len())
            })?;
            set_values(set).map_err(failed(format!("{} {}", Kind::Semaphores.name(), set.id)))?;
        }
        for queue in &snapshot.ipc.queues {
            made.create(Kind::Queue, queue.id, &queue.owner, Pid(0), &|| sysv::make_queue(queue.owner.key))?;
            send_messages(queue).map_err(failed(format!("{} {}", Kind::Queue.name(), queue.id)))?;
        }
        let read_only = read_only(snapshot);
        for &(shm, range, _) in
            plan.attachments.iter().filter(|(shm, _, may_write)| !may_write && read_only.contains(shm))
        {
            let id = segments(snapshot).into_iter().find(|(id, _)| *id == shm).map_or(-1, |(_, segment)| segment.id);
            made.read_only.push(attach(id, range, true)?);
        }
        Ok(made)
    }

    fn segment(&mut self, plan: &RestorePlan, shm: ShmId, segment: &Segment) -> Result<(), OpenError> {
        let Segment { id, owner, size, destroyed, locked: _, huge_page, creator } = segment;
        self.create(Kind::Segment, *id, owner, *creator, &|| sysv::make_segment(owner.key, *size, *huge_page))?;
        let place = plan.attachments.iter().find(|(of, _, may_write)| *of == shm && *may_write);
        if let Some((_, range, _)) = place {
            self.segments.insert(shm, attach(*id, *range, false)?);
        }
        if *destroyed {
            // It lives as long as it is attached.
            let removed = sysv::remove(Kind::Segment, *id).map_err(io::Error::from);
            removed.map_err(failed(format!("marking {} {id} for destruction", Kind::Segment.name())))?;
        }
        Ok(())
    }

    /// Makes one under its identifier, by a stand-in for the process and the user that have made it.
    fn create(
        &mut self,
        kind: Kind,
        id: i32,
        owner: &IpcOwner,
        creator: Pid,
        make: &dyn Fn() -> crate::sys::Result<i32>,
    ) -> Result<(), OpenError> {
        let what = || format!("{} {id}", kind.name());
        std::fs::write(kind.next_id(), id.to_string()).map_err(failed(kind.next_id()))?;
        let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let user = Some((owner.creator_uid, owner.creator_gid)).filter(|user| *user != own);
        self.made.push((kind, id));
        let made = in_place_of(creator, user, || match make()? {
            made if made == id => Ok(()),
            made => {
                let _ = sysv::remove(kind, made);
                // Its identifier is taken.
                Err(Errno::EEXIST)
            }
        });
        made.map_err(|error| {
            self.made.pop();
            failed(what())(error)
        })
    }

    /// Owners, permissions and locks, when nobody needs to write to them any more by other means than the program itself.
    ///
    /// # Errors
    /// As shmctl(2), semctl(2), msgctl(2).
    pub fn settle(&mut self, snapshot: &Snapshot) -> Result<(), OpenError> {
        self.segments.clear();
        self.read_only.clear();
        self.files.settle(snapshot)?;
        self.queues.settle(snapshot)?;
        for (kind, id, owner) in objects(snapshot) {
            let IpcOwner { key: _, uid, gid, creator_uid: _, creator_gid: _, mode } = owner;
            let set = sysv::set_owner(kind, id, Owner { uid, gid, mode }, None).map_err(io::Error::from);
            set.map_err(failed(format!("owner of {} {id}", kind.name())))?;
        }
        for (_, segment) in segments(snapshot).into_iter().filter(|(_, segment)| segment.locked) {
            let locked = sysv::lock(segment.id).map_err(io::Error::from);
            locked.map_err(failed(format!("locking {} {}", Kind::Segment.name(), segment.id)))?;
        }
        Ok(())
    }

    /// The restore has succeeded: they stay.
    ///
    /// # Errors
    /// As write(2): somebody has ended the guard.
    pub fn keep(mut self) -> io::Result<()> {
        self.made.clear();
        self.files.keep();
        self.queues.keep();
        self.guard.take().map_or(Ok(()), Guard::dismiss)
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        for (kind, id) in self.made.drain(..) {
            let _ = sysv::remove(kind, id);
        }
        drop(std::mem::take(&mut self.files));
        drop(std::mem::take(&mut self.queues));
        if let Some(guard) = self.guard.take() {
            let _ = guard.dismiss();
        }
    }
}

fn attach(id: i32, range: PageRange, read_only: bool) -> Result<Attachment, OpenError> {
    let attached = Attachment::at(id, range, read_only).map_err(io::Error::from);
    attached.map_err(failed(format!("attaching {} {id}", Kind::Segment.name())))
}

/// Removes the objects if we die: all of these identifiers and names are free now. Its process id is none that the image needs.
fn guard(snapshot: &Snapshot, ids: Vec<(Kind, i32)>, names: Vec<Name>, queues: Vec<CString>) -> io::Result<Guard> {
    /// A process that lives on for so long has been let go of: the restore has succeeded.
    const LIVES: u16 = 10_000;
    /// A stand-in of ours may live a moment longer than we do.
    const MOMENT: u16 = 50;
    let threads = snapshot.processes.iter().flat_map(|process| &process.threads).map(|thread| thread.tid.0);
    let root = snapshot.inventory.root;
    let taken: BTreeSet<i32> = threads.chain(snapshot.zombies.iter().map(|zombie| zombie.pid.0)).collect();
    let remove = || {
        let _ = poll(&mut [], PollTimeout::from(MOMENT));
        if let Ok(root) = pidfd::open(root) {
            let mut ended = [PollFd::new(root.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ended, PollTimeout::from(LIVES)) == Ok(0) {
                return;
            }
        }
        for &(kind, id) in &ids {
            let _ = sysv::remove(kind, id);
        }
        names.iter().for_each(Name::remove);
        for name in &queues {
            let _ = mqueue::unlink(name);
        }
    };
    // Each has another id than the one before it, which lives until then.
    let mut tried = Vec::new();
    loop {
        let guard = Guard::with(&remove)?;
        if !taken.contains(&guard.pid().0) {
            tried.into_iter().try_for_each(Guard::dismiss)?;
            return Ok(guard);
        }
        tried.push(guard);
    }
}

/// SETVAL by stand-ins for the processes that have operated on them last.
fn set_values(set: &SemaphoreSet) -> io::Result<()> {
    let mut last: Vec<Pid> = set.semaphores.iter().map(|one| one.last).collect();
    last.sort();
    last.dedup();
    for pid in last {
        let of_pid = || (0_u16..).zip(&set.semaphores).filter(|(_, one)| one.last == pid);
        // What nobody has operated on is 0.
        if pid.0 == 0 && of_pid().all(|(_, one)| one.value == 0) {
            continue;
        }
        in_place_of(pid, None, || of_pid().try_for_each(|(number, one)| sysv::set_value(set.id, number, one.value)))?;
    }
    Ok(())
}

/// Messages by a stand-in for who has sent last, after one for who has received last has received something.
fn send_messages(queue: &MessageQueue) -> io::Result<()> {
    let MessageQueue { id, owner, capacity, messages, sender, receiver } = queue;
    if sysv::capacity(*id)? != *capacity {
        let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let owner = Owner { uid: own.0, gid: own.1, mode: owner.mode | 0o600 };
        sysv::set_owner(Kind::Queue, *id, owner, Some(*capacity))?;
    }
    let send_all = |encoded: Vec<Vec<u8>>| {
        let send = || encoded.iter().try_for_each(|message| sysv::send(*id, message));
        if encoded.is_empty() { Ok(()) } else { in_place_of(*sender, None, send) }
    };
    if receiver.0 > 0 {
        send_all(vec![encode(1, &[])])?;
        in_place_of(*receiver, None, || sysv::receive(*id))?;
    }
    send_all(messages.iter().map(|message| encode(message.kind, &message.text)).collect())
}

/// `struct msgbuf`: the type, then the bytes.
fn encode(kind: i64, text: &[u8]) -> Vec<u8> {
    [&kind.to_ne_bytes()[..], text].concat()
}

/// Has a child make calls whose process the kernel remembers: one with this pid, if there is one and it is free, and of this user.
fn in_place_of(pid: Pid, user: Option<(u32, u32)>, calls: impl Fn() -> crate::sys::Result<()>) -> io::Result<()> {
    let mut place =
        Elsewhere { pid: (pid.0 > 0).then_some(pid.0), user, keeps_capabilities: true, ..Elsewhere::default() };
    let mut made = elsewhere::call(&place, 0, |_| calls());
    if matches!(made, Err(Failure::Birth(_))) && place.pid.take().is_some() {
        // Taken, beyond the limit, or not ours to choose.
        made = elsewhere::call(&place, 0, |_| calls());
    }
    Ok(made.map(drop)?)
}
