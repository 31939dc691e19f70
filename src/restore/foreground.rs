//! Stands in as the parent of a restored program: forwards signals and ends as it ends.

use super::Outcome;
use crate::image::model::id::Pid;
use crate::image::model::terminal::TerminalModes;
use crate::sys::{interrupt, pidfd, terminal};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill, killpg, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{getpgid, getpgrp, tcgetpgrp, tcsetpgrp};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

/// Signals that go on to the program.
const FORWARDED: [Signal; 7] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGWINCH,
];

/// What the stand-in inside a pid namespace writes to the one outside when the program has stopped: the first process of a
/// namespace cannot stop itself (pid_namespaces(7)). Any other byte is the signal that has ended the program.
const STOPPED: u8 = 0;

/// Tells the stand-in outside by which signal the program was ended: the first process of a namespace cannot end so itself.
pub fn tell_end(mut above: &File, signal: i32) {
    // Whoever waits outside may be gone.
    let _ = above.write_all(&[signal as u8]);
}

/// Signals held back since before the program was born, so that none is lost.
#[derive(Debug)]
pub struct Foreground {
    signals: SignalFd,
    before: SigSet,
    terminal: Option<File>,
    /// What its modes were before the program had it, and what the program has set.
    modes: Cell<Option<[TerminalModes; 2]>>,
    /// The stand-in outside of this pid namespace, if there is one.
    above: Option<File>,
}

impl Foreground {
    /// Begins to hold signals back.
    ///
    /// # Errors
    /// As signalfd(2), sigaction(2).
    pub fn prepare(above: Option<File>) -> io::Result<Self> {
        // Ignored, as execve(2) hands it on from a parent, it would let the kernel reap the program in our place (wait(2)).
        interrupt::reset(Signal::SIGCHLD)?;
        let mut wanted = SigSet::from_iter(FORWARDED);
        wanted.add(Signal::SIGCHLD);
        let before = SigSet::thread_get_mask()?;
        wanted.thread_block()?;
        // A background group that takes the terminal back would be stopped.
        SigSet::from(Signal::SIGTTOU).thread_block()?;
        let signals = SignalFd::with_flags(&wanted, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let terminal = File::options().read(true).write(true).open("/dev/tty").ok();
        let ours = terminal.filter(|terminal| tcgetpgrp(terminal) == Ok(getpgrp()));
        Ok(Self { signals, before, terminal: ours, modes: Cell::new(None), above })
    }

    /// Signals stay held back, for the next one of this process.
    pub fn hold(mut self) {
        self.terminal = None;
        // Both are valid sets.
        self.before = SigSet::thread_get_mask().unwrap_or(self.before);
    }

    /// Makes the group of the program, if it has its own, that of the terminal.
    pub fn give_terminal(&self, pid: Pid) {
        if let Ok(group) = getpgid(Some(nix::unistd::Pid::from_raw(pid.0))) {
            self.give_terminal_to(Pid(group.as_raw()));
        }
    }

    /// Makes a group that of the terminal.
    pub fn give_terminal_to(&self, group: Pid) {
        let group = nix::unistd::Pid::from_raw(group.0);
        if let Some(terminal) = &self.terminal {
            // Fails when it is in another session, which the terminal is not for.
            let _ = tcsetpgrp(terminal, group);
            if let Some([_, wanted]) = self.modes.get() {
                let _ = terminal::set_modes(terminal.as_fd(), &wanted);
            }
        }
    }

    /// Gives the terminal the modes that the program had set for the one that it had before: an editor needs it raw. They are taken back with
    /// the terminal.
    pub fn set_modes(&self, wanted: TerminalModes) {
        let before = self.terminal.as_ref().and_then(|terminal| terminal::modes(terminal.as_fd()).ok());
        self.modes.set(before.map(|before| [before, wanted]));
    }

    /// Lets the program in the foreground draw itself anew, in a terminal that knows nothing of it.
    pub fn redraw(&self) {
        if let Some(group) = self.terminal.as_ref().and_then(|terminal| tcgetpgrp(terminal).ok())
            && group != getpgrp()
        {
            let _ = killpg(group, Signal::SIGWINCH);
        }
    }

    fn take_terminal(&self) {
        if let Some(terminal) = &self.terminal {
            let _ = tcsetpgrp(terminal, getpgrp());
            if let Some([before, _]) = self.modes.get() {
                if let Ok(now) = terminal::modes(terminal.as_fd()) {
                    self.modes.set(Some([before, now]));
                }
                let _ = terminal::set_modes(terminal.as_fd(), &before);
            }
        }
    }

    /// How the program ended; if it stopped, `snap` stops too, as a shell expects of one job.
    fn ended(&self, child: nix::unistd::Pid) -> io::Result<Option<Outcome>> {
        loop {
            match waitpid(child, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
                Ok(WaitStatus::Exited(_, code)) => return Ok(Some(Outcome::Exited(code))),
                Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Some(Outcome::Signaled(signal as i32))),
                Ok(WaitStatus::Stopped(..)) => match &self.above {
                    Some(above) => (&*above).write_all(&[STOPPED])?,
                    None => {
                        self.take_terminal();
                        raise(Signal::SIGSTOP)?;
                        self.give_terminal(Pid(child.as_raw()));
                        kill(child, Signal::SIGCONT)?;
                    }
                },
                Ok(WaitStatus::StillAlive) => return Ok(None),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The program below has stopped: so do we, until SIGCONT, which then goes on to it as any other signal.
    fn stop(&self) -> io::Result<()> {
        self.take_terminal();
        Ok(raise(Signal::SIGSTOP)?)
    }

    /// Waits for the end of the program, or of the stand-in `below`, which tells what its own end cannot.
    ///
    /// # Errors
    /// When the kernel does not tell of signals or children.
    pub fn attend(&self, pid: Pid, mut below: Option<File>) -> io::Result<Outcome> {
        let child = nix::unistd::Pid::from_raw(pid.0);
        // SIGCHLD may be taken by another thread that does not hold it back; the pidfd tells of the end in any case.
        let pidfd = pidfd::open(pid)?;
        loop {
            let fds = [Some(self.signals.as_fd()), Some(pidfd.as_fd()), below.as_ref().map(AsFd::as_fd)];
            let mut fds: Vec<_> = fds.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let news = fds.get(2).and_then(PollFd::any) == Some(true);
            if let Some(outcome) = self.ended(child)? {
                return Ok(below.and_then(end_told).map_or(outcome, Outcome::Signaled));
            }
            match below.as_mut().filter(|_| news).map(tidings).transpose()? {
                Some(Tidings::Stopped) => self.stop()?,
                // Its own end follows.
                Some(Tidings::Ended(signal)) => return self.attend(pid, None).map(|_| Outcome::Signaled(signal)),
                Some(Tidings::None) => below = None,
                None => {}
            }
            let Some(info) = self.signals.read_signal()? else { continue };
            let Ok(signal) = Signal::try_from(info.ssi_signo as i32) else { continue };
            // The terminal's own signals reach the program too where it is in our group.
            let from_terminal = info.ssi_code > 0 && getpgid(Some(child)) == Ok(getpgrp());
            if signal == Signal::SIGCONT && self.above.is_some() {
                self.give_terminal(pid);
            }
            if signal != Signal::SIGCHLD && !from_terminal {
                match kill(child, signal) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

/// What a stand-in below has told.
enum Tidings {
    Stopped,
    Ended(i32),
    /// It is gone.
    None,
}

/// What one that is gone has told at last.
fn end_told(mut below: File) -> Option<i32> {
    loop {
        match tidings(&mut below) {
            Ok(Tidings::Stopped) => {}
            Ok(Tidings::Ended(signal)) => return Some(signal),
            Ok(Tidings::None) | Err(_) => return None,
        }
    }
}

fn tidings(below: &mut File) -> io::Result<Tidings> {
    let mut byte = [0];
    Ok(match below.read(&mut byte)? {
        0 => Tidings::None,
        _ if byte == [STOPPED] => Tidings::Stopped,
        _ => Tidings::Ended(i32::from(byte[0])),
    })
}

impl Drop for Foreground {
    fn drop(&mut self) {
        self.take_terminal();
        // The set was valid when it was given.
        let _ = self.before.thread_set_mask();
    }
}
