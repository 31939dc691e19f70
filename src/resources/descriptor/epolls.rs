//! What epoll instances watch: the file behind each item, searched among all descriptors of the tree, and what is on its way through its sockets.
//!
//! An item is known by the number of the descriptor with which it was added. When that is closed or reused, the item lives on as long as
//! the file does.

use super::{Descriptors, Findings, Holder, OpenFd};
use crate::image::model::event::EpollItem;
use crate::image::model::file::OpenObject;
use crate::image::model::id::{DescriptionId, Fd, Tid};
use crate::proc::fdinfo::EpollTarget;
use crate::sys::{kcmp, task};
use nix::errno::Errno;
use std::collections::HashMap;

/// An epoll instance, by a descriptor of it.
#[derive(Debug)]
pub(super) struct Instance {
    id: DescriptionId,
    /// Through which it is looked at: a descriptor of the target, or of ours for one that is on its way through a socket.
    tid: Tid,
    fd: Fd,
    /// Whose it is, and what it is called there.
    named: (Tid, String),
    targets: Vec<EpollTarget>,
}

impl Instance {
    /// One that will have this id.
    pub fn of(id: DescriptionId, tid: Tid, fd: &OpenFd<'_>) -> Result<Self, String> {
        let targets = fd.info.epoll_targets().ok_or("what it watches cannot be read")?;
        let through = if fd.on_its_way_to.is_some() { task::own_tid() } else { tid };
        Ok(Self { id, tid: through, fd: fd.fd, named: (tid, fd.shown()), targets })
    }

    /// Whether the descriptor of this holder is open on what an item watches, the `nth` of those with its number.
    fn is(&self, target: &EpollTarget, nth: u32, holder: &Holder) -> Result<bool, Errno> {
        let item = (target.fd.0 as u32, nth);
        match kcmp::watches(self.tid, self.fd.0 as u32, item, holder.tid, holder.fd.0 as u32) {
            Err(Errno::EBADF) => Ok(false),
            result => result,
        }
    }
}

impl Descriptors {
    /// Finds what every epoll instance watches, once all descriptors of the tree are known.
    pub fn find_watched(&mut self, findings: &mut Findings) {
        let instances = std::mem::take(&mut self.epolls);
        if instances.is_empty() {
            return;
        }
        let mut by_ino: HashMap<u64, Vec<Holder>> = HashMap::new();
        let mut by_number: HashMap<(Tid, Fd), Holder> = HashMap::new();
        for holder in &self.holders {
            by_ino.entry(holder.ino).or_default().push(*holder);
            by_number.insert((holder.tid, holder.fd), *holder);
        }
        for instance in instances {
            let mut nth: HashMap<Fd, u32> = HashMap::new();
            let mut items = Vec::with_capacity(instance.targets.len());
            for target in &instance.targets {
                let count = nth.entry(target.fd).or_default();
                let first = by_number.get(&(instance.tid, target.fd));
                let others = match target.ino {
                    Some(ino) => by_ino.get(&ino).map_or(&[][..], Vec::as_slice),
                    None => &self.holders,
                };
                let found = find(&instance, target, *count, first.into_iter().chain(others));
                *count += 1;
                let description = match found {
                    Ok(Some(holder)) => holder.description,
                    Ok(None) => {
                        refuse(&instance, target, "whose file nobody in the tree has open", findings);
                        continue;
                    }
                    Err(error) => {
                        refuse(&instance, target, &format!("which cannot be compared: {error}"), findings);
                        continue;
                    }
                };
                // One that is refused itself has been named.
                let Some(description) = description else { continue };
                items.push(EpollItem { fd: target.fd, description, events: target.events, data: target.data });
            }
            if let OpenObject::Epoll(epoll) = &mut self.descriptions[instance.id.0 as usize].object {
                epoll.items = items;
            }
        }
    }
}

fn find<'a>(
    instance: &Instance,
    target: &EpollTarget,
    nth: u32,
    holders: impl Iterator<Item = &'a Holder>,
) -> Result<Option<Holder>, Errno> {
    for holder in holders {
        if instance.is(target, nth, holder)? {
            return Ok(Some(*holder));
        }
    }
    Ok(None)
}

fn refuse(instance: &Instance, target: &EpollTarget, what: &str, findings: &mut Findings) {
    findings.block(
        format!("pid {}", instance.named.0),
        instance.named.1.clone(),
        format!("it watches descriptor {}, {what}", target.fd),
        "have it watch no file that it has closed, or close it before the dump",
    );
}
