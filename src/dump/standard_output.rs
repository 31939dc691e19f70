//! Standard output as the place of an image: a reader that does not read must not keep a dump from being interrupted or timing out.

use super::interrupt;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Instant;

/// How long one wait for the reader lasts before somebody looks whether the dump is to end.
const LOOK_MS: u16 = 50;

/// A pipe on standard output, through a description of our own: O_NONBLOCK on the inherited one would be seen by others who hold it.
pub struct Patient {
    pipe: File,
    deadline: Option<Instant>,
}

/// A stream for the image.
pub fn open(deadline: Option<Instant>) -> Box<dyn Write + Send> {
    // Sockets cannot be opened anew, and files need not be.
    let own = File::options().write(true).custom_flags(libc::O_NONBLOCK).open("/proc/self/fd/1");
    match own {
        Ok(pipe) if is_pipe(&pipe) => Box::new(Patient { pipe, deadline }),
        Ok(_) | Err(_) => Box::new(io::stdout()),
    }
}

fn is_pipe(file: &File) -> bool {
    use std::os::unix::fs::FileTypeExt;
    file.metadata().is_ok_and(|meta| meta.file_type().is_fifo())
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            if interrupt::requested() || self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
                // Not `Interrupted`, which callers take for an invitation to try again.
                return Err(io::ErrorKind::TimedOut.into());
            }
            match self.pipe.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut wanted = [PollFd::new(self.pipe.as_fd(), PollFlags::POLLOUT)];
                    // EINTR: the loop looks at the reason.
                    let _ = poll(&mut wanted, PollTimeout::from(LOOK_MS));
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
