//! What tasks share by clone(2): inside of the tree each such object is collected once; what a task outside shares is refused, since no
//! freeze stops that task and a restore would part the two.

use super::{CollectError, Findings};
use crate::image::model::id::{Pid, Tid};
use crate::proc::{TaskDir, many, processes};
use crate::sys::kcmp::{self, Object};
use crate::sys::plain_task::PlainTask;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

/// Objects of one kind, found by ordered search.
#[derive(Debug)]
struct Classes {
    /// For each task the place of the first one that has the same object.
    first: Vec<usize>,
    /// The place of the first task of each object, in the kernel's order of the objects, of those that were compared.
    sorted: Vec<usize>,
}

/// Which tasks of a tree share what.
#[derive(Debug)]
pub struct Sharing {
    /// A thread of each process that stands for all that have the same, then those that have something else.
    tasks: Vec<Tid>,
    /// The places of the latter.
    strays: HashMap<Tid, usize>,
    memory: Classes,
    handlers: Classes,
    files: Classes,
    fs: Classes,
    undo_lists: Optional,
    io_contexts: Optional,
    /// Whether it was asked who has no undo list and no I/O context: of a task that is alone in the tree it is not.
    knows_absence: bool,
}

/// Objects that a task may be without, which kcmp(2) takes for one that all these tasks share.
#[derive(Debug)]
struct Optional {
    classes: Classes,
    /// The place of the first task that has none.
    absent: Option<usize>,
    /// How many threads have the object of the task at each place, if that is the first of them.
    holders: Vec<usize>,
}

/// What a thread may have apart from the others of its process: by `unshare(2)`, or by having been made so.
const OF_THREADS: [Object; 4] = [Object::Files, Object::Fs, Object::SysvSem, Object::Io];

impl Sharing {
    /// Compares the threads of these processes, of which each has at least one.
    ///
    /// # Errors
    /// As kcmp(2) and fork(2).
    pub fn among(processes: &[Vec<Tid>]) -> Result<Self, CollectError> {
        let firsts: Vec<Tid> = processes.iter().map(|threads| threads[0]).collect();
        let mut tasks = firsts.clone();
        let mut weights: Vec<usize> = processes.iter().map(Vec::len).collect();
        let places = processes.iter().enumerate();
        let others: Vec<(usize, Tid)> =
            places.flat_map(|(at, threads)| threads[1..].iter().map(move |tid| (at, *tid))).collect();
        let alike = many::map(&others, |(at, tid), _| is_like(*tid, processes[*at][0]));
        for ((at, tid), alike) in others.into_iter().zip(alike) {
            if !alike? {
                tasks.push(tid);
                weights.push(1);
                weights[at] -= 1;
            }
        }
        let strays = tasks.iter().enumerate().skip(firsts.len()).map(|(at, tid)| (*tid, at)).collect();
        let alone = processes.iter().map(Vec::len).sum::<usize>() < 2;
        let none = if alone { None } else { Some(plain_task(tasks[0])?) };
        let none = none.as_ref().map(PlainTask::tid);
        // CLONE_SIGHAND takes CLONE_VM, and execve(2) gives new handlers with the new memory.
        let processes =
            || Classes::of(&firsts, Object::Vm).and_then(|vm| Ok((vm.within(&firsts, Object::Sighand)?, vm)));
        let threads =
            || Classes::of(&tasks, Object::Files).and_then(|files| Ok((files, Classes::of(&tasks, Object::Fs)?)));
        let (processes, threads) = many::both(tasks.len(), processes, threads);
        let ((handlers, memory), (files, fs)) = (processes?, threads?);
        Ok(Self {
            memory,
            handlers,
            files,
            fs,
            undo_lists: Optional::of(&tasks, &weights, Object::SysvSem, none)?,
            io_contexts: Optional::of(&tasks, &weights, Object::Io, none)?,
            knows_absence: none.is_some(),
            tasks,
            strays,
        })
    }

    /// The first process, by its place, with the address space of this one.
    #[must_use]
    pub fn memory(&self, at: usize) -> usize {
        self.memory.first[at]
    }

    /// The first process with the signal handlers of this one.
    #[must_use]
    pub fn handlers(&self, at: usize) -> usize {
        self.handlers.first[at]
    }

    /// Who stands for a thread of the process at this place.
    #[must_use]
    pub fn task(&self, at: usize, tid: Tid) -> usize {
        self.strays.get(&tid).copied().unwrap_or(at)
    }

    /// The first task with the table of descriptors of this one.
    #[must_use]
    pub fn files(&self, task: usize) -> usize {
        self.files.first[task]
    }

    /// The first task with the working directory, root and umask of this one.
    #[must_use]
    pub fn fs(&self, task: usize) -> usize {
        self.fs.first[task]
    }

    /// The first task with the list of semaphores to undo of this one, if there is another that has it.
    #[must_use]
    pub fn undo_list(&self, task: usize) -> Option<usize> {
        shared(&self.undo_lists, task)
    }

    /// The first task with the I/O context of this one, if there is another that has it.
    #[must_use]
    pub fn io_context(&self, task: usize) -> Option<usize> {
        shared(&self.io_contexts, task)
    }

    /// The first task with the list of semaphores to undo of this one. To have none is taken for one list.
    #[must_use]
    pub fn first_with_undo_list(&self, task: usize) -> usize {
        self.undo_lists.classes.first[task]
    }

    /// Whether a task has a list of semaphores to undo, if that was asked.
    #[must_use]
    pub fn has_undo_list(&self, task: usize) -> Option<bool> {
        self.knows_absence.then(|| self.undo_lists.absent != Some(self.first_with_undo_list(task)))
    }

    /// Refuses what processes outside share with the tree; the places of those processes whose memory it is.
    pub fn refuse_outside(&self, inside: &[Pid], findings: &mut Findings) -> HashSet<usize> {
        let inside: HashSet<Pid> = inside.iter().copied().collect();
        let mut exposed = HashSet::new();
        let (undo_lists, io_contexts) = (&self.undo_lists, &self.io_contexts);
        for other in processes().into_iter().filter(|other| !inside.contains(other)) {
            for (object, classes, absent, name) in [
                (Object::Vm, &self.memory, None, "memory"),
                (Object::Files, &self.files, None, "table of descriptors"),
                (Object::Fs, &self.fs, None, "working directory"),
                (Object::SysvSem, &undo_lists.classes, undo_lists.absent, "undo list of System V semaphores"),
                (Object::Io, &io_contexts.classes, io_contexts.absent, "I/O context"),
            ] {
                let can_lack = matches!(object, Object::SysvSem | Object::Io);
                if can_lack && !self.knows_absence {
                    continue;
                }
                // Whom we may not look at shares nothing with our own user unless one of them has changed its ids since.
                let found = classes.find(&self.tasks, other.leader(), object).filter(|at| Some(*at) != absent);
                let Some(at) = found else { continue };
                if object == Object::Vm {
                    exposed.extend((0..classes.first.len()).filter(|task| classes.first[*task] == at));
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

/// The first task with the object of this one, if there is another that has it.
fn shared(objects: &Optional, task: usize) -> Option<usize> {
    let first = objects.classes.first[task];
    let is_shared = objects.absent != Some(first) && objects.holders[first] > 1;
    is_shared.then_some(first)
}

/// Whether a thread has all that another one has.
fn is_like(tid: Tid, first: Tid) -> Result<bool, CollectError> {
    for object in OF_THREADS {
        let order = kcmp::compare(first, tid, object, 0, 0).map_err(CollectError::at(tid, "kcmp"))?;
        if order != Some(Ordering::Equal) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn plain_task(tid: Tid) -> Result<PlainTask, CollectError> {
    PlainTask::start().map_err(CollectError::at(tid, "fork of snap"))
}

impl Optional {
    /// `weights` says how many threads each task stands for.
    fn of(tasks: &[Tid], weights: &[usize], object: Object, none: Option<Tid>) -> Result<Self, CollectError> {
        // Somebody who is alone shares nothing, whether it has one or not.
        let (classes, absent) = match none {
            Some(none) => Classes::but_for(tasks, none, object)?,
            None => (Classes::of(tasks, object)?, None),
        };
        let mut holders = vec![0; tasks.len()];
        for (first, weight) in classes.first.iter().zip(weights) {
            holders[*first] += weight;
        }
        Ok(Self { classes, absent, holders })
    }
}

impl Classes {
    fn of(tasks: &[Tid], object: Object) -> Result<Self, CollectError> {
        Self::among(tasks, (0..tasks.len()).collect(), object)
    }

    /// The same of objects that only those tasks can share that share what these classes tell of.
    fn within(&self, tasks: &[Tid], object: Object) -> Result<Self, CollectError> {
        let mut has_others = vec![false; tasks.len()];
        for (at, first) in self.first.iter().enumerate().filter(|(at, first)| at != *first) {
            (has_others[at], has_others[*first]) = (true, true);
        }
        Self::among(tasks, (0..tasks.len()).filter(|at| has_others[*at]).collect(), object)
    }

    /// The same where most tasks are without, as `none` is; and the place of the first that is.
    fn but_for(tasks: &[Tid], none: Tid, object: Object) -> Result<(Self, Option<usize>), CollectError> {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for (at, tid) in tasks.iter().enumerate() {
            let order = kcmp::compare(*tid, none, object, 0, 0).map_err(CollectError::at(*tid, "kcmp"))?;
            if order == Some(Ordering::Equal) { without.push(at) } else { with.push(at) }
        }
        let mut classes = Self::among(tasks, with, object)?;
        let absent = without.first().copied();
        for at in without {
            classes.first[at] = absent.unwrap_or(at);
        }
        Ok((classes, absent))
    }

    /// Compares the tasks at these places, which ascend.
    ///
    /// Whoever dies meanwhile loses his objects, and with them his place in the order: no sort of the standard library bears that.
    fn among(tasks: &[Tid], places: Vec<usize>, object: Object) -> Result<Self, CollectError> {
        let mut first: Vec<usize> = (0..tasks.len()).collect();
        let mut runs: Vec<Vec<usize>> = places.into_iter().map(|at| vec![at]).collect();
        while runs.len() > 1 {
            let mut merged = Vec::with_capacity(runs.len().div_ceil(2));
            let mut rest = runs.into_iter();
            while let Some(left) = rest.next() {
                merged.push(match rest.next() {
                    Some(right) => merge(tasks, &left, &right, object, &mut first)?,
                    None => left,
                });
            }
            runs = merged;
        }
        for at in 0..tasks.len() {
            first[at] = first[first[at]];
        }
        Ok(Self { first, sorted: runs.pop().unwrap_or_default() })
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
}

/// Both in one order, each object once; who comes second with one is given the `first` one's place. All on the left come before all on the right.
fn merge(
    tasks: &[Tid],
    mut left: &[usize],
    mut right: &[usize],
    object: Object,
    first: &mut [usize],
) -> Result<Vec<usize>, CollectError> {
    let mut merged = Vec::with_capacity(left.len() + right.len());
    while let ([a, after_a @ ..], [b, after_b @ ..]) = (left, right) {
        let order = kcmp::compare(tasks[*a], tasks[*b], object, 0, 0).map_err(CollectError::at(tasks[*a], "kcmp"))?;
        match order {
            Some(Ordering::Equal) => (first[*b], right) = (*a, after_b),
            Some(Ordering::Greater) => {
                merged.push(*b);
                right = after_b;
            }
            Some(Ordering::Less) | None => {
                merged.push(*a);
                left = after_a;
            }
        }
    }
    merged.extend_from_slice(left);
    merged.extend_from_slice(right);
    Ok(merged)
}

fn comm(pid: Pid) -> String {
    let mut buffer = Vec::new();
    let name = TaskDir::process(pid).and_then(|dir| {
        dir.read_into("comm", &mut buffer).map(|name| String::from_utf8_lossy(name.trim_ascii_end()).into_owned())
    });
    name.unwrap_or_default()
}
