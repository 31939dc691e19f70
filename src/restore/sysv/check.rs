//! What stands in the way of making the System V objects of an image again. Pure.
//!
//! What a dump with `--kill` has left behind, or an earlier restore of the image, is replaced: an object of the same identifier, key, owner, size and maker that nobody has
//! attached and of whose users none lives. Everything else that has an identifier or a key of the image is a collision.

use super::facts::{Present, slot};
use super::{objects, segments};
use crate::blocker::Blocker;
use crate::image::model::Snapshot;
use crate::image::model::id::Pid;
use crate::image::model::ipc::IpcOwner;
use crate::restore::Choices;
use crate::restore::host::HostFacts;
use crate::sys::sysv::Kind;

const REMEDY: &str = "use --new-ipc-namespace";

/// What is planned for the System V objects.
#[derive(Clone, Debug, Default)]
pub struct Planned {
    /// Left-overs that are removed first.
    pub replaced: Vec<(Kind, i32)>,
    /// What the user should know.
    pub notices: Vec<String>,
    /// What stands in the way.
    pub blockers: Vec<Blocker>,
}

/// Looks at every object.
#[must_use]
pub fn check(snapshot: &Snapshot, facts: &HostFacts, choices: &Choices<'_>) -> Planned {
    let mut checker = Checker { snapshot, facts, choices, planned: Planned::default() };
    for (kind, id, owner) in objects(snapshot) {
        checker.privilege(kind, id, owner);
        if !choices.new_ipc_namespace {
            checker.collisions(kind, id, owner);
        }
    }
    checker.queue_limits();
    checker.planned
}

struct Checker<'a> {
    snapshot: &'a Snapshot,
    facts: &'a HostFacts,
    choices: &'a Choices<'a>,
    planned: Planned,
}

impl Checker<'_> {
    fn block(&mut self, object: String, reason: impl Into<String>, remedy: impl Into<String>) {
        self.planned.blockers.push(Blocker::new("the tree", object, reason, remedy));
    }

    fn privilege(&mut self, kind: Kind, id: i32, owner: IpcOwner) {
        const CAP_SYS_ADMIN: u32 = 21;
        let own = &self.facts.credentials;
        let is_admin = own.cap_effective >> CAP_SYS_ADMIN & 1 == 1 && !self.facts.setgroups_denied;
        let ids = [owner.uid, owner.creator_uid];
        if !is_admin && ids.iter().any(|uid| *uid != own.uid[1]) {
            let reason = format!("it belongs to users {} and {}", ids[0], ids[1]);
            self.block(name(kind, id), reason, "run snap restore as root");
        }
        if self.facts.system_v.unchosen.contains(&kind) && !self.choices.new_ipc_namespace {
            let reason = format!("its identifier cannot be chosen: {} may not be written", kind.next_id());
            self.block(name(kind, id), reason, REMEDY);
        }
    }

    fn collisions(&mut self, kind: Kind, id: i32, owner: IpcOwner) {
        let facts = self.facts;
        for present in facts.system_v.present.iter().filter(|present| present.kind == kind) {
            let found = format!("{} {} (key {:#x})", kind.name(), present.entry.id, present.entry.key);
            let remover = format!("remove it ({} {}), or {REMEDY}", kind.remover(), present.entry.id);
            if slot(present.entry.id) == slot(id) {
                match self.in_use(present, id, owner) {
                    None => {
                        self.planned.replaced.push((kind, id));
                        self.planned
                            .notices
                            .push(format!("{found}, which nobody uses, is replaced by that of the image"));
                    }
                    Some(reason) => self.block(name(kind, id), format!("{found} is in its place: {reason}"), remover),
                }
            } else if present.entry.key == owner.key && owner.key != 0 && !self.is_destroyed(kind, id) {
                self.block(name(kind, id), format!("its key is that of {found}"), remover);
            }
        }
    }

    /// Why an object is not what the image has left behind, or not free to be replaced.
    fn in_use(&self, present: &Present, id: i32, owner: IpcOwner) -> Option<String> {
        let entry = &present.entry;
        let (theirs, ours) = ((entry.id, entry.key, entry.uid, entry.cuid, entry.perms & 0o777), owner);
        let key = if self.is_destroyed(present.kind, id) { 0 } else { ours.key };
        let same = theirs == (id, key, ours.uid, ours.creator_uid, ours.mode);
        let of_segment = |segment: &crate::image::model::ipc::Segment| (segment.size, segment.creator);
        let wanted = match present.kind {
            Kind::Segment => segments(self.snapshot).iter().find(|(_, s)| s.id == id).map(|(_, s)| of_segment(s)),
            Kind::Semaphores => {
                let set = self.snapshot.ipc.semaphores.iter().find(|set| set.id == id);
                set.map(|set| (set.semaphores.len() as u64, Pid(0)))
            }
            Kind::Queue => Some((0, Pid(0))),
        };
        if !same || wanted != Some((present.size, present.creator)) {
            return Some("it is another".into());
        }
        if self.choices.new_pid_namespace {
            return Some("who uses it cannot be seen from a pid namespace of its own".into());
        }
        if present.attached > 0 {
            return Some(format!("it is attached {} times", present.attached));
        }
        present.user.as_ref().map(|(pid, name)| format!("pid {pid} ({name}) has used it"))
    }

    fn is_destroyed(&self, kind: Kind, id: i32) -> bool {
        kind == Kind::Segment
            && segments(self.snapshot).iter().any(|(_, segment)| segment.id == id && segment.destroyed)
    }

    fn queue_limits(&mut self) {
        const CAP_SYS_RESOURCE: u32 = 24;
        let limit = self.facts.system_v.queue_limit;
        let may_raise =
            self.facts.credentials.cap_effective >> CAP_SYS_RESOURCE & 1 == 1 && !self.facts.setgroups_denied;
        for queue in self.snapshot.ipc.queues.iter().filter(|queue| queue.capacity > limit && !may_raise) {
            let reason = format!("it takes {} bytes, and kernel.msgmnb is {limit}", queue.capacity);
            let remedy = format!("run snap with CAP_SYS_RESOURCE, or set kernel.msgmnb={}", queue.capacity);
            self.block(name(Kind::Queue, queue.id), reason, remedy);
        }
    }
}

fn name(kind: Kind, id: i32) -> String {
    format!("{} {id}", kind.name())
}
