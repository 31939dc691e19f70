//! Every reason not to dump a tree of processes that can be seen without touching it.
//!
//! The collectors of a dump look at the living processes, so that both give the same reasons in the same words. None is
//! stopped or runs any of our code; duplicates of their descriptors exist for a moment in our table.

mod nature;
mod tree;

pub(super) use nature::{by_nature, tracers};

use super::Error;
use crate::blocker::Blocker;
use crate::image::model::id::{Fd, Pid, Tid};
use crate::proc::{self, TaskDir, status};
use crate::resources::namespace::Namespaces;
use crate::resources::{CollectError, Findings, thread};
use crate::sys::pidfd;
use crate::tracer;
use nature::{has_ended, refuse_32_bit, refuse_by_nature, refuse_tracer, refuse_unlinked_directories};
use nix::errno::Errno;
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use tree::{thread_of, whole_tree};

/// What can be said of a process that nobody has stopped.
#[derive(Debug)]
pub struct Preflight {
    /// Every reason not to dump it that shows; none is no promise.
    pub blockers: Vec<Blocker>,
    /// What a dump may refuse all the same, by name: nothing where there is no process that could be frozen.
    pub seen_only_when_frozen: &'static [&'static str],
}

const SEEN_ONLY_WHEN_FROZEN: &[&str] = &[
    "segments of modify_ldt(2), and permissions of ioperm(2)",
    "code that switches to 32-bit mode by itself",
    "seccomp filters that forbid the system calls which a dump makes in its place, and filters that cannot be read back",
    "descriptors of threads that do not share those of their process (unshare(2))",
    "a vfork parent, or a task in uninterruptible sleep, that does not stop in time",
    "options of sockets, what waits in them, and descriptors that are on their way through them",
    "AIO contexts with requests in flight, and rings of contexts of another process",
    "a program without room for the stub behind its code",
    "descriptors, mappings and processes that appear until then",
];

/// Looks at the tree of `pid` without touching it.
///
/// # Errors
/// [`Error::Vanished`]; [`Error::Permission`] where nothing can be said because the kernel does not let us look.
pub fn preflight(pid: Pid) -> Result<Preflight, Error> {
    let gone = |error: proc::Error| explain(pid, error.into());
    let dir = TaskDir::process(pid).map_err(gone)?;
    let mut findings = Findings::default();
    let status = status::read(&dir, &mut Vec::new()).map_err(gone)?;
    if refuse_by_nature(pid, &status, &mut findings) {
        return Ok(Preflight { blockers: findings.blockers, seen_only_when_frozen: &[] });
    }
    let mut sleepers = Vec::new();
    let members = tracer::descendants(pid);
    let inside = members.iter().copied().collect();
    for &member in &members {
        match process(member, &inside, &mut findings, &mut sleepers) {
            Err(Error::Vanished(gone)) if gone != pid => {}
            other => other?,
        }
    }
    findings.blockers.extend(whole_tree(pid)?);
    refuse_sleepers(&sleepers, &mut findings);
    Ok(Preflight { blockers: findings.blockers, seen_only_when_frozen: SEEN_ONLY_WHEN_FROZEN })
}

/// Looks at what one process has of its own; notes its threads that are in uninterruptible sleep.
fn process(
    pid: Pid,
    inside: &HashSet<Pid>,
    findings: &mut Findings,
    sleepers: &mut Vec<(Pid, Tid)>,
) -> Result<(), Error> {
    let dir = TaskDir::living(pid).map_err(|error| explain(pid, error.into()))?;
    if has_ended(&dir).map_err(|error| explain(pid, error.into()))? {
        return Ok(());
    }
    let asleep = threads(pid, inside, &dir, findings).map_err(|error| explain(pid, error))?;
    sleepers.extend(asleep.into_iter().map(|tid| (pid, tid)));
    match may_look(pid) {
        Ok(()) => {
            look(pid, &dir, findings);
            Ok(())
        }
        Err(error @ Error::Permission { .. }) if findings.blockers.is_empty() => Err(error),
        Err(Error::Permission { pid, action, hint }) => {
            findings.block(format!("pid {pid}"), action, "permission denied; nothing else can be seen", hint);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Looks at each thread; returns those in uninterruptible sleep, which may be over in a moment.
fn threads(pid: Pid, inside: &HashSet<Pid>, dir: &TaskDir, findings: &mut Findings) -> Result<Vec<Tid>, CollectError> {
    let mut buffer = Vec::new();
    let mut sleepers = Vec::new();
    let mut tracers = Vec::new();
    for tid in dir.threads()? {
        let status = match dir.task(tid).and_then(|dir| status::read(&dir, &mut buffer)) {
            Ok(status) => status,
            Err(error) if error.is_vanished() => continue,
            Err(error) => return Err(error.into()),
        };
        if status.state == b'D' {
            sleepers.push(tid);
        }
        if status.tracer.0 != 0 && !tracers.contains(&status.tracer) {
            tracers.push(status.tracer);
        }
        thread::check_status(tid, &status, findings);
    }
    for tracer in tracers {
        refuse_tracer(pid, Pid(tracer.0), inside.contains(&Pid(tracer.0)), findings);
    }
    Ok(sleepers)
}

/// Those that still sleep after everything else was looked at.
fn refuse_sleepers(sleepers: &[(Pid, Tid)], findings: &mut Findings) {
    let mut buffer = Vec::new();
    for &(pid, tid) in sleepers {
        let Ok(task) = TaskDir::thread(pid, tid) else { continue };
        if !status::read(&task, &mut buffer).is_ok_and(|status| status.state == b'D') {
            continue;
        }
        let place = proc::values::wchan(&task, &mut buffer).unwrap_or_default();
        findings.block(
            format!("tid {tid}"),
            format!("uninterruptible sleep in {}", String::from_utf8_lossy(&place)),
            "it does not stop until the kernel has what it waits for",
            "wait until its disk or network file system answers, or its vfork child ends",
        );
    }
}

/// A descriptor of a process through which its descriptors can be had.
fn pidfd_of(pid: Pid) -> Result<OwnedFd, Errno> {
    match proc::living(pid) {
        Ok(thread) if thread != pid => pidfd::open_thread(thread.leader()),
        Ok(_) | Err(_) => pidfd::open(pid),
    }
}

/// Asks for a descriptor of the target: the kernel checks the right to trace it (PTRACE_MODE_ATTACH) first.
fn may_look(pid: Pid) -> Result<(), Error> {
    let pidfd = pidfd_of(pid).map_err(|errno| kernel(pid, "pidfd_open", errno.into()))?;
    match pidfd::get_fd(pidfd.as_fd(), Fd(0)) {
        Ok(_) | Err(Errno::EBADF) => Ok(()),
        Err(Errno::EPERM | Errno::EACCES) => {
            Err(Error::Permission { pid, action: "tracing it", hint: tracer::permission_hint(pid) })
        }
        Err(errno) => Err(kernel(pid, "pidfd_getfd", errno.into())),
    }
}

/// Everything that the collectors of a dump can say of one living process.
fn look(pid: Pid, dir: &TaskDir, findings: &mut Findings) {
    Namespaces::own().check(Pid(thread_of(pid).0), &Namespaces::of(dir), findings);
    refuse_32_bit(pid, dir, findings);
    refuse_unlinked_directories(pid, dir, findings);
}

fn explain(pid: Pid, error: CollectError) -> Error {
    match error {
        CollectError::Proc(error) if error.is_vanished() => Error::Vanished(pid),
        CollectError::Proc(error) if error.is_permission() => {
            Error::Permission { pid, action: "looking at it", hint: tracer::permission_hint(pid) }
        }
        CollectError::Proc(error) => kernel(pid, "reading /proc", io::Error::other(error)),
        CollectError::Kernel { tid, action, source } => kernel(Pid(tid.0), action, source),
        CollectError::Remote { tid, action, source } => kernel(Pid(tid.0), action, io::Error::other(source)),
    }
}

fn kernel(pid: Pid, action: &str, source: io::Error) -> Error {
    if source.raw_os_error() == Some(libc::ESRCH) {
        return Error::Vanished(pid);
    }
    Error::Kernel { pid, action: action.to_owned(), source }
}

#[cfg(test)]
mod tests;
