//! Every reason not to dump a tree of processes that can be seen without touching it.
//!
//! The collectors of a dump look at the living processes, so that both give the same reasons in the same words. None is
//! stopped or runs any of our code; duplicates of their descriptors exist for a moment in our table.

use super::Error;
use super::own::Own;
use super::process::is_lost;
use crate::blocker::Blocker;
use crate::image::model::id::{Fd, Pid, Tid};
use crate::proc::status::{self, Status};
use crate::proc::{self, TaskDir, many, smaps};
use crate::resources::descriptor::{Descriptors, Pipes, Tables};
use crate::resources::file::{FileTable, ORPHAN};
use crate::resources::mapped_only::MappedOnly;
use crate::resources::memory::Mappings;
use crate::resources::namespace::Namespaces;
use crate::resources::shared_memory::SharedMemoryTable;
use crate::resources::sharing::Sharing;
use crate::resources::socket::tcp::tree::{Manner, Policy};
use crate::resources::sysv::{self, Uses};
use crate::resources::{CollectError, Findings, border, thread};
use crate::sys::{pidfd, task};
use crate::tracer;
use nix::errno::Errno;
use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

/// What a dump may refuse although [`preflight`] found nothing, by name.
pub const SEEN_ONLY_WHEN_FROZEN: &[&str] = &[
    "segments of modify_ldt(2), and permissions of ioperm(2)",
    "code that switches to 32-bit mode by itself",
    "seccomp filters that forbid the system calls which a dump makes in its place, and filters that cannot be read back",
    "descriptors of threads that do not share those of their process (unshare(2))",
    "a vfork parent, or a task in uninterruptible sleep, that does not stop in time",
    "a program without room for the stub behind its code",
    "descriptors, mappings and processes that appear until then",
];

/// How often descriptors and mappings are looked at again when they change meanwhile.
const TRIES: usize = 5;

/// Every reason not to dump `pid` that can be seen without touching it; none is no promise.
///
/// # Errors
/// [`Error::Vanished`]; [`Error::Permission`] where nothing can be said because the kernel does not let us look.
pub fn preflight(pid: Pid) -> Result<Vec<Blocker>, Error> {
    let gone = |error: proc::Error| explain(pid, error.into());
    let dir = TaskDir::process(pid).map_err(gone)?;
    let mut findings = Findings::default();
    let status = status::read(&dir, &mut Vec::new()).map_err(gone)?;
    if refuse_by_nature(pid, &status, &mut findings) {
        return Ok(findings.blockers);
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
    Ok(findings.blockers)
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

fn has_ended(dir: &TaskDir) -> Result<bool, proc::Error> {
    status::read(dir, &mut Vec::new()).map(|status| is_over(&status))
}

/// A process whose main thread alone has ended lives on in the others.
fn is_over(status: &Status) -> bool {
    matches!(status.state, b'Z' | b'X') && status.threads <= 1
}

/// Refuses what can never be dumped, whatever else it holds.
///
/// # Errors
/// [`Error::Blocked`], [`Error::Vanished`].
pub(super) fn by_nature(pid: Pid) -> Result<(), Error> {
    let gone = |error: proc::Error| explain(pid, error.into());
    let status = status::read(&TaskDir::process(pid).map_err(gone)?, &mut Vec::new()).map_err(gone)?;
    let mut findings = Findings::default();
    if refuse_by_nature(pid, &status, &mut findings) { Err(Error::Blocked(findings.blockers)) } else { Ok(()) }
}

/// Refuses a tree whose own processes trace one another: by their main threads, before anything is touched.
///
/// # Errors
/// [`Error::Blocked`].
pub(super) fn tracers(members: &[Pid]) -> Result<(), Error> {
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

fn refuse_tracer(pid: Pid, tracer: Pid, is_inside: bool, findings: &mut Findings) {
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
fn refuse_by_nature(pid: Pid, status: &Status, findings: &mut Findings) -> bool {
    let task = format!("pid {pid} ({})", String::from_utf8_lossy(&status.name));
    let mut refuse = |object: &str, reason: String, remedy: String| findings.block(&task, object, reason, remedy);
    let has_ended = matches!(status.state, b'Z' | b'X');
    if status.kernel_thread == Some(true) || status.memory.is_none() && !has_ended {
        refuse("kernel thread", "it is a part of the kernel".into(), String::new());
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
    Namespaces::own().check(Pid(thread_of(pid).0), findings);
    refuse_32_bit(pid, dir, findings);
    refuse_unlinked_directories(pid, dir, findings);
}

/// What can be said of all of them together: what they share, and their descriptors.
fn whole_tree(root: Pid) -> Result<Vec<Blocker>, Error> {
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

/// A thread that stands for its process.
fn thread_of(pid: Pid) -> Tid {
    proc::living(pid).unwrap_or(pid).leader()
}

fn is_gone(dir: &TaskDir) -> bool {
    !matches!(has_ended(dir), Ok(false))
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
    let ties = pipes.ties().chain(shared.ties()).chain(descriptors.terminals.ties());
    let outsiders = border::outsiders(inside, &ties.chain(descriptors.sockets.ties()).collect());
    mapped.refuse(&shared, &files, findings);
    shared.refuse_outside(&outsiders, findings);
    descriptors.terminals.refuse_outside(&outsiders, findings);
    let manner = Manner { policy: Policy::Keep, ends: false, frozen: false };
    descriptors.sockets.connections(&outsiders, manner, findings)?;
    pipes.finish(&mut descriptors.descriptions, &outsiders, &left_out, false, findings).map(drop)
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
        descriptors.collect(dir, thread_of(*pid), pidfd.as_fd(), tables)?;
    }
    Ok(())
}

fn mappings(pid: Pid, dir: &TaskDir, objects: &mut Objects, findings: &mut Findings) -> Result<(), CollectError> {
    let vmas = smaps::read(dir, &mut Vec::new())?;
    let Objects { descriptors: _, pipes: _, files, shared, mapped } = objects;
    let mut collector = Mappings { pid, task: dir, files, shared, mapped, findings, found: &[], seen: HashMap::new() };
    collector.collect(&vmas, &HashMap::new())?;
    Ok(())
}

/// EI_CLASS of the program's ELF header (elf(5)); a 32-bit program has no 64-bit code to begin with.
fn refuse_32_bit(pid: Pid, dir: &TaskDir, findings: &mut Findings) {
    const ELFCLASS32: u8 = 1;
    let mut ident = [0; 5];
    let read = dir.open("exe").map(|mut exe| exe.read_exact(&mut ident));
    if matches!(read, Ok(Ok(()))) && ident.starts_with(b"\x7fELF") && ident[4] == ELFCLASS32 {
        let reason = "tasks that run 32-bit code are not supported";
        findings.block(format!("pid {pid}"), "32-bit program", reason, "run its 64-bit build");
    }
}

fn refuse_unlinked_directories(pid: Pid, dir: &TaskDir, findings: &mut Findings) {
    for name in ["cwd", "root"] {
        let meta = std::fs::metadata(format!("{}/{name}", dir.path()));
        let link = dir.read_link(name).unwrap_or_default();
        if meta.is_ok_and(|meta| is_lost(dir, name, &meta, &link)) {
            findings.block(format!("pid {pid}"), name, ORPHAN, "change to another directory");
        }
    }
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
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// A process that is killed and reaped in `Drop`.
    struct Running(Child);

    impl Running {
        /// sleep(1) without any descriptor that the test has inherited.
        fn sleep(output: Stdio) -> Self {
            const CLOSE: &str =
                "for fd in /proc/$$/fd/*; do n=${fd##*/}; ((n > 2)) && eval \"exec $n>&-\"; done; exec sleep 1000";
            let mut command = Command::new("bash");
            command.arg("-c").arg(CLOSE).stdin(Stdio::null()).stdout(output).stderr(Stdio::null());
            let running = Self(command.spawn().expect("a child"));
            let comm = || std::fs::read_to_string(format!("/proc/{}/comm", running.pid()));
            while comm().is_ok_and(|comm| comm != "sleep\n") {
                std::thread::yield_now();
            }
            running
        }

        fn pid(&self) -> Pid {
            Pid(self.0.id() as i32)
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_plain_program_has_no_blocker() {
        let sleep = Running::sleep(Stdio::null());
        assert_eq!(preflight(sleep.pid()).expect("it can be looked at"), []);
    }

    #[test]
    fn a_pipe_with_an_outside_end_is_named() {
        let sleep = Running::sleep(Stdio::piped());
        let blockers = preflight(sleep.pid()).expect("it can be looked at");
        assert_eq!(blockers.len(), 1, "{blockers:?}");
        assert!(blockers[0].object.starts_with("fd 1: pipe:["), "{blockers:?}");
    }

    #[test]
    fn a_kernel_thread_is_one() {
        // Pid 2 is kthreadd, but for pid namespaces that do not have it.
        if std::fs::read_to_string("/proc/2/comm").is_ok_and(|comm| comm == "kthreadd\n") {
            let blockers = preflight(Pid(2)).expect("a blocker");
            assert_eq!(blockers[0].object, "kernel thread");
        }
    }

    #[test]
    fn a_zombie_is_one() {
        let mut child = Command::new("true").stdin(Stdio::null()).spawn().expect("a child");
        let pid = Pid(child.id() as i32);
        let id = nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(pid.0));
        let flags = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
        nix::sys::wait::waitid(id, flags).expect("its end");
        let blockers = preflight(pid).expect("a blocker");
        assert_eq!(blockers[0].object, "zombie");
        child.wait().expect("its status");
        assert!(matches!(preflight(pid), Err(Error::Vanished(gone)) if gone == pid));
    }

    #[test]
    fn this_process_is_refused() {
        assert_eq!(preflight(task::own_pid()).expect("a blocker")[0].object, "snap");
    }
}
