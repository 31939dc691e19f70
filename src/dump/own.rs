//! `snap` itself among the processes that it dumps, as in `snap dump $$`. It cannot be frozen and is left out.
//!
//! In the image stands what its parent is to see of it after a restore: a child that has ended, by a status of its own, and that is still
//! to be reaped, with the signal that tells of it. In the run that was dumped the parent sees `snap` end by itself. So a script
//! knows on which side it is.

use crate::image::model::id::Pid;
use crate::image::model::process::{Process, Zombie};
use crate::image::model::signal::{QueuedSignal, SignalAction, SignalHandlers};
use crate::proc::{TaskDir, stat};
use crate::resources::border::{self, Tie};
use crate::resources::descriptor::Pipes;
use crate::resources::{CollectError, Findings};
use crate::sys::task;
use std::collections::HashSet;

/// What a restored parent sees `snap` end with; [`crate::cli::exit_code::Code::Restored`] says so to the user.
pub const RESTORED: u8 = 10;

/// What is known of ourselves before anything is frozen.
#[derive(Debug)]
pub struct Own {
    parent: Pid,
    /// Pipes of which we have an end.
    pipes: HashSet<Tie>,
    /// The pipe to which the image goes, if it does.
    output: Option<Tie>,
}

impl Own {
    /// Looks at our parent and at our descriptors.
    #[must_use]
    pub fn look(image_to_stdout: bool) -> Self {
        let dir = TaskDir::process(task::own_pid());
        let pipe = |fd| dir.as_ref().ok().and_then(|dir| border::channel(dir, fd));
        let fds = dir.as_ref().ok().and_then(|dir| dir.fds().ok()).unwrap_or_default();
        Self {
            parent: Pid(nix::unistd::getppid().as_raw()),
            pipes: fds.into_iter().filter_map(pipe).collect(),
            output: Some(crate::image::model::id::Fd(1)).filter(|_| image_to_stdout).and_then(pipe),
        }
    }

    /// Whether we are in this tree.
    #[must_use]
    pub fn is_in(&self, living: &[Pid]) -> bool {
        living.contains(&self.parent)
    }

    /// Our pipes, whose other ends are not outside when we are in the tree.
    #[must_use]
    pub fn pipes(&self) -> HashSet<Tie> {
        self.pipes.clone()
    }

    /// Refuses to write to somebody who stands still.
    pub fn refuse_deadlock(&self, pipes: &Pipes, findings: &mut Findings) {
        if self.output.is_some_and(|tie| pipes.is_read(tie)) {
            let reason = "the image goes to a process of the tree, which stands still while it is written";
            findings.block(
                format!("pid {} (snap)", task::own_pid()),
                "standard output",
                reason,
                "write it to a file: -o FILE",
            );
        }
    }

    /// Puts into the image what our parent is to see of us.
    ///
    /// # Errors
    /// /proc of our own.
    pub fn leave_out(
        &self,
        processes: &mut [Process],
        handlers: &[SignalHandlers],
        zombies: &mut Vec<Zombie>,
        findings: &mut Findings,
    ) -> Result<(), CollectError> {
        let Some(parent) = processes.iter_mut().find(|process| process.pid == self.parent) else { return Ok(()) };
        let pid = task::own_pid();
        let stat = stat::read(&TaskDir::process(pid)?, &mut Vec::new())?;
        let uid = nix::unistd::getuid().as_raw();
        let name = parent.threads.first().map(|main| String::from_utf8_lossy(&main.comm).into_owned());
        findings.warnings.push(format!(
            "pid {pid} is snap itself, a child of pid {} ({}): it is left out; after a restore that one sees it end with status {RESTORED}",
            parent.pid,
            name.unwrap_or_default(),
        ));
        let actions = handlers.get(parent.handlers.0 as usize).map_or(&[][..], |handlers| &handlers.actions);
        let Some(action) = actions.get(libc::SIGCHLD as usize - 1) else { return Ok(()) };
        if !reaps(action) {
            return Ok(());
        }
        if stat.exit_signal == libc::SIGCHLD && hears(parent, action, libc::SIGCHLD) {
            parent.pending.push(end_of(pid, uid));
        }
        let at = zombies.partition_point(|zombie| zombie.pid < pid);
        zombies.insert(
            at,
            Zombie {
                pid,
                ppid: parent.pid,
                pgid: stat.pgrp,
                sid: stat.session,
                comm: stat.comm,
                exit_signal: stat.exit_signal,
                status: i32::from(RESTORED) << 8,
                uid,
                cpu_time: [0; 2],
            },
        );
        Ok(())
    }
}

const IGNORED: u64 = 1;

/// Whether children of a process with this disposition of SIGCHLD wait to be reaped (kernel/signal.c, `do_notify_parent`).
fn reaps(action: &SignalAction) -> bool {
    action.handler.0 != IGNORED && action.flags & libc::SA_NOCLDWAIT as u64 == 0
}

/// Whether a signal would be queued: it is handled or blocked, and does not wait already.
fn hears(process: &Process, action: &SignalAction, signal: i32) -> bool {
    let is_handled = action.handler.0 > IGNORED;
    let is_blocked = process.threads.first().is_some_and(|main| main.signal_mask & 1 << (signal - 1) != 0);
    let waits = process.pending.iter().any(|queued| queued.info.starts_with(&signal.to_le_bytes()));
    (is_handled || is_blocked) && !waits
}

/// The `siginfo_t` of SIGCHLD.
fn end_of(pid: Pid, uid: u32) -> QueuedSignal {
    let mut info = vec![0; size_of::<libc::siginfo_t>()];
    let mut put = |at: usize, word: u32| info[at..at + 4].copy_from_slice(&word.to_le_bytes());
    put(0, libc::SIGCHLD.cast_unsigned());
    put(8, libc::CLD_EXITED.cast_unsigned());
    put(16, pid.0.cast_unsigned());
    put(20, uid);
    put(24, u32::from(RESTORED));
    QueuedSignal { info }
}
