//! What the processes of a tree have together: descriptors, memory, and what ties them to processes outside.

use super::super::Error;
use super::super::own::Own;
use super::nature::has_ended;
use super::{explain, may_look, pidfd_of};
use crate::blocker::Blocker;
use crate::image::model::id::{Pid, Tid};
use crate::proc::{self, TaskDir, many, smaps};
use crate::resources::descriptor::{Descriptors, Look, Pipes, Tables};
use crate::resources::file::FileTable;
use crate::resources::mapped_only::MappedOnly;
use crate::resources::memory::Mappings;
use crate::resources::shared_memory::SharedMemoryTable;
use crate::resources::sharing::Sharing;
use crate::resources::socket::Leaks;
use crate::resources::socket::tcp::tree::{Manner, Policy};
use crate::resources::sysv::{self, Uses};
use crate::resources::{CollectError, Findings, border};
use crate::tracer;
use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;

/// How often descriptors and mappings are looked at again when they change meanwhile.
const TRIES: usize = 5;

/// What can be said of all of them together: what they share, and their descriptors.
pub(super) fn whole_tree(root: Pid) -> Result<Vec<Blocker>, Error> {
    let mut blockers = sharing(root).map_err(|error| explain(root, error))?;
    let together = settled(|findings| {
        let members = living(root)?;
        let mut objects = Objects::default();
        descriptors(&members, &mut objects, findings)?;
        for (pid, dir) in &members {
            mappings(*pid, dir, &mut objects, findings)?;
        }
        border(root, objects, findings)
    });
    blockers.extend(match together {
        Ok(blockers) => blockers,
        // Never the same for long enough: each by itself.
        Err(_) => one_by_one(root).map_err(|error| explain(root, error))?,
    });
    Ok(blockers)
}

/// What processes share by clone(2). Whoever is outside may change the descriptors all the time, so that this is looked at by itself.
fn sharing(root: Pid) -> Result<Vec<Blocker>, CollectError> {
    let look = |threads: Vec<Tid>, findings: &mut Findings| {
        let threads: Vec<Vec<Tid>> = threads.into_iter().map(|tid| vec![tid]).collect();
        let sharing = Sharing::among(&threads)?;
        sharing.refuse_outside(&tracer::descendants(root), findings);
        Ok(())
    };
    let all = settled(|findings| look(living(root)?.iter().map(|(pid, _)| thread_of(*pid)).collect(), findings));
    match all {
        Ok(blockers) => Ok(blockers),
        Err(_) => settled(|findings| look(vec![thread_of(root)], findings)),
    }
}

/// The descriptors of each process; pipes between them are told apart from those with an end outside all the same.
fn one_by_one(root: Pid) -> Result<Vec<Blocker>, CollectError> {
    let mut objects = Objects::default();
    let mut blockers = Vec::new();
    let members = living(root)?;
    for member in members {
        let member = [member];
        let apart = |findings: &mut Findings| {
            objects.descriptors = Descriptors::default();
            descriptors(&member, &mut objects, findings)?;
            mappings(member[0].0, &member[0].1, &mut objects, findings)
        };
        match settled(apart) {
            Ok(found) => blockers.extend(found),
            Err(_) if member[0].0 != root && is_gone(&member[0].1) => {}
            Err(error) => return Err(error),
        }
    }
    let mut findings = Findings::default();
    border(root, objects, &mut findings)?;
    blockers.extend(findings.blockers);
    Ok(blockers)
}

/// The processes of a tree that have not ended and that we may look at.
fn living(root: Pid) -> Result<Vec<(Pid, TaskDir)>, CollectError> {
    let mut members = Vec::new();
    for pid in tracer::descendants(root) {
        match TaskDir::living(pid) {
            Ok(dir) => {
                if !is_gone(&dir) && may_look(pid).is_ok() {
                    members.push((pid, dir));
                }
            }
            Err(error) if pid != root && error.is_vanished() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(members)
}

/// Looks again when something disappears while it is looked at.
fn settled(mut look: impl FnMut(&mut Findings) -> Result<(), CollectError>) -> Result<Vec<Blocker>, CollectError> {
    let mut last = Ok(Vec::new());
    for _ in 0..TRIES {
        let mut findings = Findings::default();
        match look(&mut findings) {
            Ok(()) => return Ok(findings.blockers),
            Err(error) => last = Err(error),
        }
    }
    last
}

/// What the processes of a tree may have in common.
#[derive(Default)]
struct Objects {
    descriptors: Descriptors,
    pipes: Pipes,
    files: FileTable,
    shared: SharedMemoryTable,
    mapped: MappedOnly,
}

/// What ties the tree to processes outside.
fn border(root: Pid, objects: Objects, findings: &mut Findings) -> Result<(), CollectError> {
    let Objects { mut descriptors, pipes, files, shared, mapped } = objects;
    let inside = tracer::descendants(root);
    let own = Own::look(false);
    let left_out = if own.is_in(&inside) { own.pipes() } else { HashSet::new() };
    let waits = waits(&inside);
    let uses = Uses { inside: inside.iter().copied().collect(), waits, ..Uses::default() };
    let mut shared = shared;
    shared.add_detached(&uses, findings)?;
    sysv::collect(&uses, findings)?;
    descriptors.sockets.look_around().map_err(CollectError::at(root.leader(), "asking for all UNIX sockets"))?;
    let mut maps = std::mem::take(&mut descriptors.bpf_maps);
    maps.add_inner(findings);
    let ties = pipes.ties().chain(shared.ties()).chain(descriptors.terminals.ties()).chain(maps.ties());
    let outsiders = border::outsiders(inside.iter().copied(), &ties.chain(descriptors.sockets.ties()).collect());
    mapped.refuse(&shared, &files, findings);
    shared.refuse_outside(&outsiders, findings);
    descriptors.terminals.refuse_outside(&outsiders, findings);
    maps.finish((&outsiders, &inside), false, findings);
    descriptors.sockets.link(&outsiders, Leaks::RefuseSeen, findings)?;
    let manner = Manner { policy: Policy::Keep, ends: false, frozen: false, passed: |_| Ok(()) };
    descriptors.sockets.connections(&outsiders, manner, findings)?;
    pipes.finish(&mut descriptors.descriptions, &outsiders, &left_out, false, None, findings).map(drop)
}

/// The System V objects in which threads of these processes wait.
fn waits(inside: &[Pid]) -> HashSet<(sysv::Kind, i32)> {
    let waiting = many::map(inside, |&pid, buffer| {
        let Ok(dir) = TaskDir::process(pid) else { return Vec::new() };
        let tids = dir.threads().unwrap_or_default();
        let calls = tids.into_iter().filter_map(|tid| proc::syscall::read(&dir.task(tid).ok()?, buffer).ok());
        calls.filter_map(|call| sysv::in_call(&call)).collect::<Vec<_>>()
    });
    waiting.into_iter().flatten().collect()
}

fn descriptors(members: &[(Pid, TaskDir)], objects: &mut Objects, findings: &mut Findings) -> Result<(), CollectError> {
    let Objects { descriptors, pipes, files, shared, mapped: _ } = objects;
    let tables = &mut Tables { files, shared, pipes, findings };
    for (pid, dir) in members {
        let pidfd = pidfd_of(*pid).map_err(CollectError::at(pid.leader(), "pidfd_open"))?;
        descriptors.collect(dir, thread_of(*pid), pidfd.as_fd(), Look::at_all(dir)?, tables)?;
    }
    Ok(())
}

fn mappings(pid: Pid, dir: &TaskDir, objects: &mut Objects, findings: &mut Findings) -> Result<(), CollectError> {
    let vmas = smaps::read(dir, &mut Vec::new())?;
    let Objects { descriptors: _, pipes: _, files, shared, mapped } = objects;
    let (rings, seen) = (None, HashMap::new());
    let mut collector = Mappings { pid, task: dir, files, shared, mapped, findings, found: &[], rings, seen };
    collector.collect(&vmas, &HashMap::new())?;
    Ok(())
}

/// A thread that stands for its process.
pub(super) fn thread_of(pid: Pid) -> Tid {
    proc::living(pid).unwrap_or(pid).leader()
}

fn is_gone(dir: &TaskDir) -> bool {
    !matches!(has_ended(dir), Ok(false))
}
