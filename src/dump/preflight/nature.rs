//! What can never be dumped, whatever else it holds.

use super::super::Error;
use super::super::shared::is_lost;
use super::explain;
use crate::image::model::id::Pid;
use crate::proc::status::{self, Status};
use crate::proc::{self, TaskDir, many};
use crate::resources::Findings;
use crate::resources::file::ORPHAN;
use crate::sys::task;
use std::collections::HashSet;
use std::io::Read;

/// Refuses what can never be dumped, whatever else it holds.
///
/// # Errors
/// [`Error::Blocked`], [`Error::Vanished`].
pub fn by_nature(pid: Pid) -> Result<(), Error> {
    let gone = |error: proc::Error| explain(pid, error.into());
    let status = status::read(&TaskDir::process(pid).map_err(gone)?, &mut Vec::new()).map_err(gone)?;
    let mut findings = Findings::default();
    if refuse_by_nature(pid, &status, &mut findings) { Err(Error::Blocked(findings.blockers)) } else { Ok(()) }
}

/// Refuses a tree whose own processes trace one another: by their main threads, before anything is touched.
///
/// # Errors
/// [`Error::Blocked`].
pub fn tracers(members: &[Pid]) -> Result<(), Error> {
    let tracers = many::map(members, |&pid, buffer| {
        TaskDir::process(pid).and_then(|dir| status::read(&dir, buffer)).map_or(Pid(0), |status| Pid(status.tracer.0))
    });
    let inside: HashSet<Pid> = members.iter().copied().collect();
    let mut findings = Findings::default();
    for (&pid, tracer) in members.iter().zip(tracers).filter(|(_, tracer)| inside.contains(tracer)) {
        refuse_tracer(pid, tracer, true, &mut findings);
    }
    if findings.blockers.is_empty() { Ok(()) } else { Err(Error::Blocked(findings.blockers)) }
}

pub(super) fn refuse_tracer(pid: Pid, tracer: Pid, is_inside: bool, findings: &mut Findings) {
    let name = std::fs::read_to_string(format!("/proc/{tracer}/comm")).unwrap_or_default();
    let (reason, remedy) = match is_inside {
        true => (
            "a process has one tracer at most, and its tracer is itself in the tree",
            "end the tracer, or have it detach",
        ),
        false => ("a process has one tracer at most", "detach the debugger or tracer"),
    };
    findings.block(format!("pid {pid}"), format!("traced by pid {tracer} ({})", name.trim_end()), reason, remedy);
}

/// Notes what can never be dumped; whether it is that.
pub(super) fn refuse_by_nature(pid: Pid, status: &Status, findings: &mut Findings) -> bool {
    let task = format!("pid {pid} ({})", String::from_utf8_lossy(&status.name));
    let mut refuse = |object: &str, reason: String, remedy: String| findings.block(&task, object, reason, remedy);
    let has_ended = matches!(status.state, b'Z' | b'X');
    if status.kernel_thread == Some(true) || status.memory.is_none() && !has_ended {
        let remedy = "name a process that runs a program (ps shows those of the kernel in brackets)";
        refuse("kernel thread", "it is a part of the kernel".into(), remedy.into());
    } else if is_over(status) {
        let parent = status.ppid;
        refuse(
            "zombie",
            "it has ended; nothing is left of it but its exit status".into(),
            format!("pid {parent} has to reap it"),
        );
    } else if status.tgid != pid {
        let group = status.tgid;
        refuse(
            "thread",
            format!("it is one thread of process {group}"),
            format!("dump the process: snap dump {group}"),
        );
    } else if pid == task::own_pid() {
        refuse("snap", "it is this very process".into(), "name another process".into());
    } else {
        return false;
    }
    true
}

/// EI_CLASS of the program's ELF header (elf(5)); a 32-bit program has no 64-bit code to begin with.
pub(super) fn refuse_32_bit(pid: Pid, dir: &TaskDir, findings: &mut Findings) {
    const ELFCLASS32: u8 = 1;
    let mut ident = [0; 5];
    let read = dir.open("exe").map(|mut exe| exe.read_exact(&mut ident));
    if matches!(read, Ok(Ok(()))) && ident.starts_with(b"\x7fELF") && ident[4] == ELFCLASS32 {
        let reason = "tasks that run 32-bit code are not supported";
        findings.block(format!("pid {pid}"), "32-bit program", reason, "run its 64-bit build");
    }
}

pub(super) fn refuse_unlinked_directories(pid: Pid, dir: &TaskDir, findings: &mut Findings) {
    for name in ["cwd", "root"] {
        let meta = std::fs::metadata(format!("{}/{name}", dir.path()));
        let link = dir.read_link(name).unwrap_or_default();
        if meta.is_ok_and(|meta| is_lost(dir, name, &meta, &link)) {
            findings.block(format!("pid {pid}"), name, ORPHAN, "change to another directory");
        }
    }
}

pub(super) fn has_ended(dir: &TaskDir) -> Result<bool, proc::Error> {
    status::read(dir, &mut Vec::new()).map(|status| is_over(&status))
}

/// A process whose main thread alone has ended lives on in the others.
fn is_over(status: &Status) -> bool {
    matches!(status.state, b'Z' | b'X') && status.threads <= 1
}
