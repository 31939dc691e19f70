//! What tasks share by clone(2): inside of the tree each such object is collected once; what a task outside shares is refused, since no
//! freeze stops that task and a restore would part the two.

use super::{CollectError, Findings};
use crate::image::model::id::{Pid, Tid};
use crate::proc::TaskDir;
use crate::sys::kcmp::{self, Object};
use crate::sys::plain_task::PlainTask;
use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::HashSet;

/// Objects of one kind, found by ordered search.
#[derive(Debug)]
struct Classes {
    /// For each task the place of the first one that has the same object.
    first: Vec<usize>,
    /// The place of the first task of each object, in the kernel's order of the objects.
    sorted: Vec<usize>,
}

/// Which processes of a tree share what.
#[derive(Debug)]
pub struct Sharing {
    /// A thread of each process that stands for all of them.
    tasks: Vec<Tid>,
    memory: Classes,
    files: Classes,
    fs: Classes,
}

impl Sharing {
    /// Compares the processes for which these threads stand.
    ///
    /// # Errors
    /// As kcmp(2).
    pub fn among(tasks: Vec<Tid>) -> Result<Self, CollectError> {
        let classes = |object| Classes::of(&tasks, object);
        let (memory, files, fs) = (classes(Object::Vm)?, classes(Object::Files)?, classes(Object::Fs)?);
        Ok(Self { tasks, memory, files, fs })
    }

    /// The first process, by its place, with the address space of this one.
    #[must_use]
    pub fn memory(&self, at: usize) -> usize {
        self.memory.first[at]
    }

    /// The first process with the table of descriptors of this one.
    #[must_use]
    pub fn files(&self, at: usize) -> usize {
        self.files.first[at]
    }

    /// The first process with the working directory, root and umask of this one.
    #[must_use]
    pub fn fs(&self, at: usize) -> usize {
        self.fs.first[at]
    }

    /// Refuses what the model does not say of processes: signal handlers, System V undo lists and I/O contexts in common.
    ///
    /// # Errors
    /// As kcmp(2) and fork(2).
    pub fn refuse_unknown(&self, findings: &mut Findings) -> Result<(), CollectError> {
        if self.memory.are_shared() {
            let handlers = Classes::of(&self.tasks, Object::Sighand)?;
            handlers.refuse(&self.tasks, None, "signal handlers", "CLONE_SIGHAND", findings);
        }
        if self.tasks.len() < 2 {
            return Ok(());
        }
        let none = PlainTask::start().map_err(CollectError::at(self.tasks[0], "fork of snap"))?;
        for (object, name, flag) in [
            (Object::SysvSem, "undo list of System V semaphores", "CLONE_SYSVSEM"),
            (Object::Io, "I/O context", "CLONE_IO"),
        ] {
            Classes::of(&self.tasks, object)?.refuse(&self.tasks, Some((object, none.tid())), name, flag, findings);
        }
        Ok(())
    }

    /// Refuses what processes outside share with the tree; the places of those processes whose memory it is.
    pub fn refuse_outside(&self, inside: &[Pid], findings: &mut Findings) -> HashSet<usize> {
        let inside: HashSet<Pid> = inside.iter().copied().collect();
        let mut exposed = HashSet::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(other) = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(Pid) else { continue };
            if inside.contains(&other) {
                continue;
            }
            for (object, classes, name) in [
                (Object::Vm, &self.memory, "memory"),
                (Object::Files, &self.files, "table of descriptors"),
                (Object::Fs, &self.fs, "working directory"),
            ] {
                // Whom we may not look at shares nothing with our own user unless one of them has changed its ids since.
                let Some(at) = classes.find(&self.tasks, other.leader(), object) else { continue };
                if object == Object::Vm {
                    exposed.extend((0..self.tasks.len()).filter(|task| classes.first[*task] == at));
                }
                findings.block(
                    format!("pid {}", self.tasks[at]),
                    name,
                    format!("pid {other} ({}) shares it and is outside", comm(other)),
                    "end that process before the dump",
                );
            }
        }
        exposed
    }
}

impl Classes {
    fn of(tasks: &[Tid], object: Object) -> Result<Self, CollectError> {
        let failure = Cell::new(None);
        let compare = |a: usize, b: usize| match kcmp::compare(tasks[a], tasks[b], object, 0, 0) {
            Ok(order) => order.unwrap_or_else(|| a.cmp(&b)),
            Err(error) => {
                failure.set(Some((tasks[a], error)));
                a.cmp(&b)
            }
        };
        let mut order: Vec<usize> = (0..tasks.len()).collect();
        order.sort_by(|&a, &b| compare(a, b).then(a.cmp(&b)));
        let mut first: Vec<usize> = (0..tasks.len()).collect();
        let mut sorted: Vec<usize> = Vec::new();
        for at in order {
            match sorted.last() {
                Some(&last) if compare(last, at).is_eq() => first[at] = last,
                _ => sorted.push(at),
            }
        }
        match failure.take() {
            None => Ok(Self { first, sorted }),
            Some((tid, error)) => Err(CollectError::at(tid, "kcmp")(error)),
        }
    }

    fn are_shared(&self) -> bool {
        self.sorted.len() < self.first.len()
    }

    /// The first task with the object that `other` has.
    fn find(&self, tasks: &[Tid], other: Tid, object: Object) -> Option<usize> {
        let mut seen = true;
        let found = self.sorted.binary_search_by(|&at| match kcmp::compare(tasks[at], other, object, 0, 0) {
            Ok(Some(order)) => order,
            Ok(None) | Err(_) => {
                seen = false;
                Ordering::Less
            }
        });
        found.ok().filter(|_| seen).map(|place| self.sorted[place])
    }

    /// Refuses each object that several have, but for the absence of one, which `none` has.
    fn refuse(&self, tasks: &[Tid], none: Option<(Object, Tid)>, name: &str, flag: &str, findings: &mut Findings) {
        if !self.are_shared() {
            return;
        }
        let absent = none.and_then(|(object, none)| self.find(tasks, none, object));
        for (at, &first) in self.first.iter().enumerate().filter(|(at, first)| at != *first && Some(**first) != absent)
        {
            findings.block(
                format!("pid {}", tasks[at]),
                name,
                format!("pid {} shares it ({flag}), which is not supported yet", tasks[first]),
                "",
            );
        }
    }
}

fn comm(pid: Pid) -> String {
    let mut buffer = Vec::new();
    let name = TaskDir::process(pid).and_then(|dir| {
        dir.read_into("comm", &mut buffer).map(|name| String::from_utf8_lossy(name.trim_ascii_end()).into_owned())
    });
    name.unwrap_or_default()
}
