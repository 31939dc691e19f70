//! Brings a plan to life: opens, clones, fills, and follows the skeleton to its barrier.

use super::assemble::MAKING;
use super::contents::Contents;
use super::descriptors::Carriers;
use super::finish::Tracees;
use super::genealogy::{Being, Birth};
use super::plan::{BORN, MAPPED, RestorePlan};
use super::script::Label;
use super::sockets::{Names, Reviving};
use super::sysv::Objects;
use super::watches::Watchers;
use super::{Error, Pages, step};
use crate::fault::{self, Point};
use crate::image::model::address::{Addr, PageRange};
use crate::image::model::id::{Pid, ShmId};
use crate::image::model::inventory::XsaveLayout;
use crate::sys::arena::Arena;
use crate::sys::blob::INTERPRETER;
use crate::sys::skeleton::{Start, clone_with_pid};
use crate::sys::{open, own, ptrace, ptrace_info};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

/// Milliseconds that the report pipe may be silent before somebody looks whether a skeleton has died.
const SILENCE: u8 = 100;

/// What stands before it is let go.
pub struct Built {
    /// The processes.
    pub tracees: Tracees,
    /// Names of their sockets, which are still to be put where they belong.
    pub names: Names,
    /// What is to be watched at the end.
    pub watchers: Watchers,
    /// TCP connections that do not live yet.
    pub connections: Reviving,
}

/// Builds the processes of a plan and stops before they are let go.
///
/// # Errors
/// See [`Error`]; nothing is left.
pub fn build(
    plan: &RestorePlan,
    pages: &dyn Pages,
    objects: &mut Objects,
    own_layout: &XsaveLayout,
    stay_stopped: bool,
) -> Result<Built, Error> {
    let snapshot = pages.snapshot();
    own::raise_open_files().map_err(step("raising the limit of open files"))?;
    let mut carriers = Carriers::open(snapshot, &plan.openings, &objects.queues, plan.top)
        .map_err(|e| Error::Step { step: e.what, source: e.source })?;
    objects.queues.hide(snapshot).map_err(|e| Error::Step { step: e.what, source: e.source })?;
    let arenas = map_arenas(plan)?;
    let script = map_script(plan)?;
    let (report, writer) = report_pipe(plan)?;
    let child = Child(clone(plan)?);
    drop(writer);
    let connections = carriers.take_connections();
    carriers.release();
    let filled = Contents::new(snapshot, pages, &carriers, &arenas, objects);
    let mut building = Building { plan, script, report, tracees: Tracees::default() };
    let built = building.follow(child, filled);
    built.map_err(|error| building.own_failure().unwrap_or(error))?;
    fault::pass(Point::Barrier).map_err(step("restore"))?;
    objects.settle(snapshot).map_err(|e| Error::Step { step: e.what, source: e.source })?;
    plan.cookies.give().map_err(step("giving core scheduling cookies"))?;
    let finished = building.tracees.finish(plan, snapshot, own_layout, stay_stopped);
    finished
        .map_err(|error| Error::Step { step: format!("tid {}: {}", error.tid, error.action), source: error.source })?;
    let names = carriers.settle(snapshot).map_err(|e| Error::Step { step: e.what, source: e.source })?;
    let Building { plan: _, script: _, report: _, tracees } = building;
    Ok(Built { tracees, names, watchers: std::mem::take(&mut carriers.watchers), connections })
}

/// Processes under construction, seen from outside.
struct Building<'a> {
    plan: &'a RestorePlan,
    script: Arena,
    report: File,
    tracees: Tracees,
}

impl Building<'_> {
    /// Sees every skeleton through its stages, until all are at the barrier.
    fn follow(&mut self, child: Child, mut contents: Contents<'_>) -> Result<(), Error> {
        let mut child = Some(child);
        let mut missing = vec![0_usize; self.plan.genealogy.waves()];
        let has_memory = |birth: &&Birth| matches!(birth.being, Being::Process(_)) && !birth.shares.memory;
        for birth in self.plan.genealogy.births.iter().filter(has_memory) {
            missing[birth.wave] += 1;
        }
        while let Some((what, at)) = self.next_message()? {
            let birth = self.plan.genealogy.births.get(at).copied();
            match (what, birth.map(|birth| (birth.being, birth.wave))) {
                (BORN, Some((Being::Process(0), _))) => {
                    let root = child.take().ok_or_else(|| self.failure())?;
                    self.start_root(root)?;
                    fault::pass(Point::SkeletonBorn).map_err(step("restore"))?;
                }
                (BORN, Some((Being::Process(index), _))) => {
                    if self.plan.processes[index].shares_memory {
                        contents.set_from_outside(index)?;
                    }
                    self.start(index)?;
                }
                (MAPPED, Some((Being::Process(_), wave))) => {
                    missing[wave] -= 1;
                    if missing[wave] == 0 {
                        fault::pass(Point::Unmapped).map_err(step("restore"))?;
                        contents.fill(self.plan, wave)?;
                        self.release(self.plan.places.filled[wave], 1)?;
                    }
                }
                _ => return Err(self.failure()),
            }
        }
        self.expect_barrier()
    }

    /// Traces a skeleton.
    fn seize(&mut self, pid: Pid) -> Result<(), Error> {
        let error =
            |error: super::finish::FinishError| Error::Step { step: error.action.to_owned(), source: error.source };
        self.tracees.seize(pid).map_err(error)
    }

    fn start(&mut self, index: usize) -> Result<(), Error> {
        let planned = &self.plan.processes[index];
        self.seize(planned.pid)?;
        ptrace::cont(planned.pid.leader(), 0).map_err(step("PTRACE_CONT"))?;
        self.release(planned.go, 1)
    }

    /// Traces the root's skeleton, sees its parent off, tells it where its inherited rseq is, and lets it start.
    fn start_root(&mut self, child: Child) -> Result<(), Error> {
        self.seize(self.plan.pid)?;
        let tid = self.plan.pid.leader();
        let rseq = ptrace_info::rseq(tid).map_err(step("PTRACE_GET_RSEQ_CONFIGURATION"))?.unwrap_or_default();
        let words = [rseq.pointer, u64::from(rseq.size), u64::from(rseq.signature)];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.script.write(self.plan.places.rseq, &bytes).map_err(step("writing the script"))?;
        ptrace::cont(tid, 0).map_err(step("PTRACE_CONT"))?;
        let go = self.plan.processes[0].go;
        self.release(go, 1)?;
        if self.plan.places.parent.is_some() {
            // Its pid must be free again before threads are made.
            child.see_off();
        } else {
            // It is the skeleton, which the tracees own now.
            std::mem::forget(child);
        }
        self.release(go, 2)
    }

    fn release(&self, word: Addr, value: u32) -> Result<(), Error> {
        self.script.release(word, value).map_err(step("letting a skeleton go on"))
    }

    /// The next message; none once every skeleton is through, or dead.
    fn next_message(&mut self) -> Result<Option<(u8, usize)>, Error> {
        let error = || step("reading the report pipe");
        loop {
            let mut fds = [PollFd::new(self.report.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(SILENCE)) {
                Ok(0) if self.own_failure().is_some() || self.tracees.has_dead() => return Err(self.failure()),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => break,
                Err(errno) => return Err(error()(errno.into())),
            }
        }
        let mut message = [0; 8];
        match self.report.read(&mut message).map_err(error())? {
            0 => Ok(None),
            8 => {
                let [what, _, _, _, index @ ..] = message;
                Ok(Some((what, u32::from_le_bytes(index) as usize)))
            }
            _ => Err(self.failure()),
        }
    }

    /// The pipe ends when every main thread is through, or when the processes are dead.
    fn expect_barrier(&self) -> Result<(), Error> {
        for process in &self.plan.processes {
            let (task, list) = (self.plan.places.tasks[process.first_task], &self.plan.lists[process.first_task]);
            // The close that ends the pipe may not be counted yet; after it there is only the wait.
            if self.word(task, 16) + 2 < list.len() as u64 || self.word(task, 24) != 0 {
                return Err(self.failure());
            }
        }
        Ok(())
    }

    /// Which operation of which task failed, and how.
    fn failure(&self) -> Error {
        self.own_failure().unwrap_or_else(|| {
            let pid = self.plan.pid;
            let index = self.word(self.plan.places.tasks[0], 16) as usize;
            let label = self.plan.lists[0].label(index).map_or_else(String::new, ToString::to_string);
            let source = io::Error::other("a half-built process was killed");
            Error::Step { step: format!("pid {pid}: at or after `{label}`"), source }
        })
    }

    /// The failure that a being itself has reported. It explains every other that we meet.
    fn own_failure(&self) -> Option<Error> {
        let parent = self.plan.places.parent.iter().map(|(task, _)| task);
        let tasks = self.plan.places.tasks.iter().chain(parent).zip(&self.plan.lists);
        let (at, (task, list)) = tasks.enumerate().find(|(_, (task, _))| self.word(**task, 24) != 0)?;
        let index = self.word(*task, 16) as usize;
        let failure = self.word(*task, 24) as i64;
        let source = io::Error::from_raw_os_error(i32::try_from(-failure).unwrap_or(libc::EFAULT));
        let label = list.label(index).map_or_else(|| format!("operation {index}"), ToString::to_string);
        Some(match list.label(index) {
            Some(Label::Number(MAKING, pid)) => refused(Pid(*pid as i32), source),
            _ => Error::Step { step: format!("pid {}: {label}", self.owner(at)), source },
        })
    }

    /// The process that a task belongs to.
    fn owner(&self, task: usize) -> Pid {
        let births = &self.plan.genealogy.births;
        let mut after = 0;
        for birth in births {
            after += match birth.being {
                Being::Process(index) => self.plan.processes[index].tasks,
                Being::Zombie(_) | Being::StandIn | Being::Midwife => 1,
            };
            if task < after {
                return birth.pid;
            }
        }
        self.plan.pid
    }

    fn word(&self, task: Addr, offset: u64) -> u64 {
        self.script.read(task.add(offset)).unwrap_or(0)
    }
}

fn map_arenas(plan: &RestorePlan) -> Result<HashMap<ShmId, Arena>, Error> {
    let map = |(id, range): &(ShmId, PageRange)| Ok((*id, Arena::map(*range, false)?));
    plan.arenas.iter().map(map).collect::<io::Result<_>>().map_err(step("mapping shared memory"))
}

fn map_script(plan: &RestorePlan) -> Result<Arena, Error> {
    let image = &plan.script;
    let fill = |arena: Arena| {
        arena.write(image.range.start, INTERPRETER)?;
        arena.write(image.data_start, &image.data)?;
        Ok(arena)
    };
    Arena::map(image.range, true).and_then(fill).map_err(step("mapping the interpreter"))
}

fn report_pipe(plan: &RestorePlan) -> Result<(File, OwnedFd), Error> {
    let make = || -> io::Result<_> {
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        // Above every number that the plan uses, so that nothing is in its way.
        let reader = open::lift(reader.into(), plan.top)?;
        let writer = open::place(writer.into(), plan.places.report)?;
        Ok((reader, writer.into()))
    };
    make().map_err(step("making the report pipe"))
}

/// Makes the skeleton, or the parent that makes it.
fn clone(plan: &RestorePlan) -> Result<Pid, Error> {
    let code = plan.places.code;
    if let Some((task, (stack, stack_size))) = plan.places.parent {
        let start = Start { code, task, stack, stack_size };
        return clone_with_pid(None, 0, start).map_err(step("making a parent"));
    }
    let (stack, stack_size) = plan.places.stack;
    let start = Start { code, task: plan.places.tasks[0], stack, stack_size };
    clone_with_pid(Some(plan.pid), 0, start).map_err(|source| refused(plan.pid, source))
}

fn refused(pid: Pid, source: io::Error) -> Error {
    let action = format!("making a process with pid {pid}");
    match source.raw_os_error() {
        Some(libc::EPERM) => Error::Permission {
            action,
            hint: "it takes CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN; use --new-pid-namespace without".into(),
        },
        _ => Error::Step { step: action, source },
    }
}

/// A child of ours that is ended and reaped when dropped; if it is the parent of an orphan, the orphan dies with it.
struct Child(Pid);

impl Child {
    /// Waits until it has ended by itself.
    fn see_off(self) {
        self.reap();
        std::mem::forget(self);
    }

    fn reap(&self) {
        let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(self.0.0), None);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0.0), nix::sys::signal::Signal::SIGKILL);
        self.reap();
    }
}
