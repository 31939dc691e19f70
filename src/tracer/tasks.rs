//! What /proc tells about tasks that are not stopped yet: who belongs to a process, who traces it, why it cannot be had.

use super::error::Error;
use crate::image::model::id::{Pid, Tid};
use crate::proc::ThreadName;
use crate::proc::syscall::{self, Activity};
use crate::sys::task::own_pid;
use nix::errno::Errno;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

/// The threads of a process, zombies included.
///
/// # Errors
/// [`Error::Vanished`], [`Error::Proc`].
pub(super) fn threads(pid: Pid) -> Result<Vec<Tid>, Error> {
    let path = format!("/proc/{pid}/task");
    let failed = |source: io::Error| match source.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => Error::Vanished(pid),
        _ => Error::Proc { path: path.clone(), source },
    };
    let mut tids = Vec::new();
    for entry in fs::read_dir(&path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        tids.extend(name.to_str().and_then(|name| name.parse().ok()).map(Tid));
    }
    Ok(tids)
}

/// The children of one thread; none where the kernel lacks CONFIG_PROC_CHILDREN or the thread is gone.
pub(super) fn children(pid: Pid, tid: Tid) -> Vec<Pid> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).map(Pid).collect()
}

/// Whether the kernel lists the children of a thread (CONFIG_PROC_CHILDREN).
pub(super) fn lists_children() -> bool {
    std::path::Path::new("/proc/thread-self/children").exists()
}

/// Whether this is a thread of that process.
pub(super) fn is_thread_of(pid: Pid, tid: Tid) -> bool {
    std::path::Path::new(&format!("/proc/{pid}/task/{tid}")).exists()
}

/// One line of /proc/TID/status, without its key.
pub(super) fn status_field(tid: Tid, key: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// The letter of a task's state; `None` when it is gone.
pub(super) fn state(tid: Tid) -> Option<char> {
    status_field(tid, "State")?.chars().next()
}

/// Whether a task has ended and only waits to be reaped, or is gone altogether.
pub(super) fn is_dead(tid: Tid) -> bool {
    matches!(state(tid), None | Some('Z' | 'X'))
}

/// The number of the system call in which a thread is blocked; `None` for one that runs.
pub(super) fn call_number(pid: Pid, tid: Tid, buffer: &mut Vec<u8>) -> Option<i64> {
    match syscall::read(&ThreadName::new(pid, tid), buffer).ok()? {
        Activity::InSyscall { number, .. } => Some(number as i64),
        Activity::Running | Activity::Blocked { .. } => None,
    }
}

/// Who traces a task, by the id of the tracing thread.
pub(super) fn tracer(tid: Tid) -> Option<Tid> {
    let tracer = status_field(tid, "TracerPid")?.parse().ok().map(Tid)?;
    (tracer.0 != 0).then_some(tracer)
}

/// Why a living, untraced task could not be seized.
pub(super) fn refused(pid: Pid, tid: Tid, source: Errno) -> Error {
    match (source, tracer(tid)) {
        (Errno::ESRCH, _) => Error::Vanished(pid),
        (Errno::EPERM, Some(tracer)) => {
            let name = fs::read_to_string(format!("/proc/{tracer}/comm")).unwrap_or_default();
            Error::Traced { tid, tracer: Pid(tracer.0), name: name.trim_end().to_owned() }
        }
        (Errno::EPERM | Errno::EACCES, None) => {
            Error::Permission { tid, action: "seizing", hint: permission_hint(pid) }
        }
        _ => Error::Kernel { tid, action: "seizing", source },
    }
}

/// What would make a task traceable that we may not trace.
#[must_use]
pub fn permission_hint(pid: Pid) -> String {
    let user = status_field(pid.leader(), "Uid").and_then(|ids| ids.split_ascii_whitespace().next().map(str::to_owned));
    let own =
        status_field(own_pid().leader(), "Uid").and_then(|ids| ids.split_ascii_whitespace().next().map(str::to_owned));
    let owner = fs::metadata(format!("/proc/{pid}")).map(|meta| meta.uid().to_string()).ok();
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    if status_field(pid.leader(), "Kthread").as_deref() == Some("1") {
        "it is a kernel thread".to_owned()
    } else if user != own {
        format!("it belongs to user {}: run as that user or as root", user.unwrap_or_default())
    } else if user.as_deref() == Some("0") {
        "root may not do that here without CAP_SYS_PTRACE over it: it has rights that snap lacks (is snap in a container?)".to_owned()
    } else if owner != user {
        "the program is not dumpable (set-user-id, or PR_SET_DUMPABLE): run as root".to_owned()
    } else {
        match scope.trim() {
            "1" => "Yama allows only descendants: run as root, or set kernel.yama.ptrace_scope=0".to_owned(),
            "2" => "Yama allows only CAP_SYS_PTRACE: run as root".to_owned(),
            "3" => "Yama forbids ptrace until the next boot (kernel.yama.ptrace_scope=3)".to_owned(),
            _ => "run as root, or give CAP_SYS_PTRACE".to_owned(),
        }
    }
}

/// What a task does that does not stop.
pub(super) fn occupation(tid: Tid) -> String {
    let state = status_field(tid, "State").unwrap_or_else(|| "gone".to_owned());
    let wchan = fs::read_to_string(format!("/proc/{tid}/wchan")).unwrap_or_default();
    let call = fs::read_to_string(format!("/proc/{tid}/syscall")).unwrap_or_default();
    let number = call.split_ascii_whitespace().next().unwrap_or("unknown");
    let place = if wchan.is_empty() || wchan == "0" { "an unknown place".to_owned() } else { wchan };
    let what = match number {
        "58" | "56" | "435" => ", probably a vfork parent that waits for its child".to_owned(),
        _ => String::new(),
    };
    format!("state {state}, at {place}, in system call {number}{what}")
}
