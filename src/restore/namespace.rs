//! `--new-pid-namespace`: a pid namespace (and, without privilege, a user namespace) in which every pid is free.
//!
//! ```text
//! snap (outside) ---- init (pid 1 of the namespace): reaps; restores and stays as the parent in the foreground
//!                       `-- worker (--detach, --stopped): restores, tells, and ends; what it restored becomes init's
//! ```
//!
//! Outside, `snap` forwards signals to init and ends as it does, or, detached, as the worker does. When it is killed, the
//! kernel ends init and with it the whole namespace; a detached program is past that once it runs.

use super::foreground::{Foreground, tell_end};
use super::{Error, Outcome};
use crate::image::model::Snapshot;
use crate::image::model::id::Pid;
use crate::sys::interrupt::die_by;
use crate::sys::{namespace, open, pidfd, task};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// What is held open from within.
#[derive(Debug)]
pub struct Outside {
    /// The /proc of the namespace outside.
    proc: File,
    /// The `snap` outside, if it stands in for the program.
    above: Option<File>,
}

impl Outside {
    /// The pid that a process of this namespace has outside; the inner one where that cannot be seen.
    fn pid_of(&self, inner: Pid) -> Pid {
        let proc = format!("/proc/self/fd/{}", self.proc.as_raw_fd());
        let namespace = |name: &str| std::fs::read_link(format!("{proc}/{name}/ns/pid")).ok();
        let ours = namespace("self");
        let is_it = |outer: &i32| {
            let status = std::fs::read_to_string(format!("{proc}/{outer}/status")).unwrap_or_default();
            let last =
                status.lines().find_map(|line| line.strip_prefix("NSpid:")?.split_ascii_whitespace().next_back());
            last == Some(inner.to_string().as_str()) && namespace(&outer.to_string()) == ours
        };
        let entries = std::fs::read_dir(&proc).into_iter().flatten().flatten();
        let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.find(is_it).map_or(inner, Pid)
    }

    /// A descriptor of our own for telling the `snap` outside.
    ///
    /// # Errors
    /// As dup(2).
    pub fn above(&self) -> io::Result<Option<File>> {
        self.above.as_ref().map(File::try_clone).transpose()
    }

    /// The outcome as it is seen outside.
    #[must_use]
    pub fn translate(&self, outcome: Outcome) -> Outcome {
        match (outcome, &self.above) {
            (Outcome::Left(pid), _) => Outcome::Left(self.pid_of(pid)),
            (Outcome::Signaled(signal), Some(above)) => {
                tell_end(above, signal);
                outcome
            }
            (Outcome::Signaled(_) | Outcome::Exited(_), _) => outcome,
        }
    }
}

/// Pids below the limit that our own helpers may use.
const OWN_PIDS: i32 = 300;

/// Enters the namespace. Comes back only in the process that is to restore, which is a worker if `detached`.
///
/// # Errors
/// When the kernel gives no namespace.
pub fn enter(detached: bool) -> Result<Outside, Error> {
    let step = |step: &'static str| move |source| Error::Step { step: step.to_owned(), source };
    let proc = File::open("/proc").map_err(step("opening /proc"))?;
    let (uid, gid) = (unistd::geteuid(), unistd::getegid());
    let kinds = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
    match namespace::unshare(kinds) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            namespace::unshare(kinds | libc::CLONE_NEWUSER).map_err(|_| Error::Permission {
                action: "making a user and pid namespace".into(),
                hint: "this kernel or its settings (user.max_user_namespaces) forbid it".into(),
            })?;
            map_ids(uid.as_raw(), gid.as_raw()).map_err(step("mapping ids into the user namespace"))?;
        }
        result => result.map_err(step("making a pid namespace"))?,
    }
    let (reader, writer) =
        unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(io::Error::from).map_err(step("pipe"))?;
    let foreground = if detached { None } else { Some(Foreground::prepare(None).map_err(step("signalfd"))?) };
    let snap = pidfd::open(task::own_pid()).map_err(io::Error::from).map_err(step("pidfd_open"))?;
    match namespace::fork().map_err(step("fork"))? {
        Some(init) => {
            drop(writer);
            match foreground {
                Some(foreground) => mirror_init(init, &foreground, Some(reader.into())),
                None => mirror_worker(reader.into()),
            }
        }
        None => {
            drop(reader);
            die_with(snap).map_err(step("prctl"))?;
            // What is forwarded before the program runs waits for it: init would never see it again.
            if let Some(foreground) = foreground {
                foreground.hold();
            }
            namespace::mount_proc().map_err(step("mounting /proc of the namespace"))?;
            leave_low_pids_free().map_err(step("writing /proc/sys/kernel/ns_last_pid"))?;
            if detached {
                leave_init(writer.into()).map_err(step("fork"))?;
                return Ok(Outside { proc, above: None });
            }
            Ok(Outside { proc, above: Some(writer.into()) })
        }
    }
}

/// Enters an IPC namespace of its own, in which every identifier and key is free.
///
/// # Errors
/// When the kernel gives none.
pub fn leave_ipc() -> Result<(), Error> {
    namespace::unshare(libc::CLONE_NEWIPC).map_err(|source| match source.raw_os_error() {
        Some(libc::EPERM) => Error::Permission {
            action: "making an IPC namespace".into(),
            hint: "it takes CAP_SYS_ADMIN; use --new-pid-namespace as well without, for a user namespace around both"
                .into(),
        },
        _ => Error::Step { step: "making an IPC namespace".into(), source },
    })
}

/// In init: whoever kills the process outside ends the whole namespace.
fn die_with(snap: OwnedFd) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let mut ended = [PollFd::new(snap.as_fd(), PollFlags::POLLIN)];
    // Its parent lies outside, so that getppid(2) is 0 whether it lives or not.
    if poll(&mut ended, PollTimeout::ZERO)? != 0 {
        namespace::exit_now(1);
    }
    Ok(())
}

/// When the image needs the very id that this process has, goes on in a child, which has another.
///
/// # Errors
/// As fork(2).
pub fn give_way(snapshot: &Snapshot) -> Result<(), Error> {
    let step = |source| Error::Step { step: "fork".into(), source };
    let wanted = |id: i32| snapshot.processes.iter().flat_map(|p| &p.threads).any(|thread| thread.tid.0 == id);
    if !wanted(unistd::getpid().as_raw()) {
        return Ok(());
    }
    let foreground = Foreground::prepare(None).map_err(step)?;
    match namespace::fork().map_err(step)? {
        Some(child) => mirror_init(child, &foreground, None),
        None => Ok(()),
    }
}

/// Programs of a container have low pids: our own helpers and threads in the namespace take none of them.
fn leave_low_pids_free() -> io::Result<()> {
    let limit = std::fs::read_to_string("/proc/sys/kernel/pid_max")?;
    let limit: i32 = limit.trim().parse().map_err(io::Error::other)?;
    std::fs::write("/proc/sys/kernel/ns_last_pid", (limit - OWN_PIDS).max(1).to_string())
}

/// One's own ids stay what they are; no others exist.
fn map_ids(uid: u32, gid: u32) -> io::Result<()> {
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// Outside, detached: ends as the worker did.
fn mirror_worker(mut worker: File) -> ! {
    let mut code = [1];
    // Without a word from it, init is dead.
    let told = worker.read_exact(&mut code);
    namespace::exit_now(if told.is_ok() { i32::from(code[0]) } else { 1 })
}

/// Outside: ends as init does, or as that tells.
fn mirror_init(init: Pid, foreground: &Foreground, tidings: Option<File>) -> ! {
    match foreground.attend(init, tidings) {
        Ok(Outcome::Signaled(signal)) => {
            die_by(signal);
            namespace::exit_now(128 + signal)
        }
        Ok(Outcome::Exited(code)) => namespace::exit_now(code),
        Ok(Outcome::Left(_)) | Err(_) => namespace::exit_now(1),
    }
}

/// In pid 1: leaves it to reap for as long as anything lives, and goes on in a worker.
fn leave_init(tell: File) -> io::Result<()> {
    let Some(worker) = namespace::fork()? else { return Ok(()) };
    let worker = unistd::Pid::from_raw(worker.0);
    let mut tell = Some(tell);
    let mut last = 0;
    loop {
        let (pid, code) = match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, code),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
            Ok(_) | Err(Errno::EINTR) => continue,
            // Nobody is left.
            Err(_) => namespace::exit_now(last),
        };
        last = code;
        if pid == worker
            && let Some(tell) = tell.take()
        {
            let_go(code, tell);
        }
    }
}

/// In init: the worker has ended. If what it has restored runs, `snap` is not needed any more.
fn let_go(code: i32, mut tell: File) {
    if code == 0 {
        // No signal is always valid.
        let _ = prctl::set_pdeathsig(None);
    }
    // Whoever waits outside may be gone.
    let _ = tell.write_all(&[code as u8]);
    close_streams();
}

/// A daemon holds no terminal and no pipe of whoever started it.
fn close_streams() {
    let Ok(null) = open::path(std::path::Path::new("/dev/null"), libc::O_RDWR as u32) else { return };
    let _ = unistd::dup2_stdin(&null);
    let _ = unistd::dup2_stdout(&null);
    let _ = unistd::dup2_stderr(&null);
    let _ = unistd::setsid();
}
