//! All or nothing: until the last process of a tree has been let go of, the death of `snap` must still end all of them, and take away what it has made.
//!
//! PTRACE_O_EXITKILL is taken from one thread after the other, and System V objects outlive everybody. Somebody else watches meanwhile, and does what is to
//! be done when `snap` is gone without a word.

use crate::image::model::id::Pid;
use crate::sys::{namespace, pidfd};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

/// Whoever watches.
#[derive(Debug)]
pub struct Guard {
    pid: Pid,
    word: File,
}

impl Guard {
    /// Watches over these processes.
    ///
    /// # Errors
    /// As pidfd_open(2), pipe(2), fork(2).
    pub fn over(processes: impl Iterator<Item = Pid>) -> io::Result<Self> {
        let processes = processes.map(pidfd::open).collect::<Result<Vec<OwnedFd>, _>>()?;
        Self::with(&|| {
            for process in &processes {
                let _ = pidfd::send_signal(process.as_fd(), libc::SIGKILL);
            }
        })
    }

    /// Does this, which makes nothing but system calls, when `snap` dies.
    ///
    /// # Errors
    /// As pipe(2), fork(2).
    pub fn with(when_dead: &dyn Fn()) -> io::Result<Self> {
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        match namespace::fork()? {
            Some(pid) => Ok(Self { pid, word: writer.into() }),
            None => {
                drop(writer);
                watch(reader.into(), when_dead)
            }
        }
    }

    /// Its process id.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Nothing can fail any more: the processes are on their own.
    ///
    /// # Errors
    /// As write(2): somebody has ended the guard.
    pub fn dismiss(mut self) -> io::Result<()> {
        self.word.write_all(&[1])
    }
}

impl Drop for Guard {
    /// Without the word it does what it is to do.
    fn drop(&mut self) {
        // The end of the pipe is what it waits for, after the word as before.
        if let Ok(null) = File::open("/dev/null") {
            self.word = null;
        }
        let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(self.pid.0), None);
    }
}

/// Makes nothing but system calls: other threads of `snap` may have held locks.
fn watch(mut reader: File, when_dead: &dyn Fn()) -> ! {
    let mut word = [0];
    while matches!(reader.read(&mut word), Err(error) if error.kind() == io::ErrorKind::Interrupted) {}
    if word == [0] {
        when_dead();
    }
    namespace::exit_now(0)
}
