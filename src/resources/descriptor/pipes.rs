//! The pipes of a tree: which ends it holds, and what is in them. One with an end outside is refused.

use super::{Findings, OpenFd};
use crate::image::model::file::OpenObject;
use crate::image::model::id::{Fd, Pid, PipeId, Tid};
use crate::image::model::pipe::Pipe;
use crate::proc::{TaskDir, stat};
use crate::resources::border::{Outsider, Tie};
use crate::resources::{CollectError, pipe};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// The pipes of a tree while they are collected.
#[derive(Debug, Default)]
pub struct Pipes {
    /// By inode.
    ends: HashMap<u64, Ends>,
}

/// What is known of a pipe, to find out whether somebody outside holds an end of it.
#[derive(Debug)]
struct Ends {
    id: PipeId,
    read: Option<File>,
    write: Option<File>,
    packets: bool,
    /// Who was first seen to hold it.
    holder: (Tid, Fd),
}

impl Pipes {
    /// One end, by a descriptor of it.
    pub(super) fn end(&mut self, tid: Tid, ino: u64, fd: &OpenFd<'_>) -> OpenObject {
        let id = PipeId(self.ends.len() as u32);
        let holder = (tid, fd.fd);
        let new = || Ends { id, read: None, write: None, packets: false, holder };
        let ends = self.ends.entry(ino).or_insert_with(new);
        let mode = (fd.info.flags & libc::O_ACCMODE as u32).cast_signed();
        // A pipe opened for both through /proc/PID/fd has both its ends in one description.
        if mode != libc::O_WRONLY {
            ends.read = fd.file.try_clone().ok();
        }
        if mode != libc::O_RDONLY {
            ends.write = fd.file.try_clone().ok();
        }
        ends.packets |= fd.info.flags & libc::O_DIRECT as u32 != 0;
        OpenObject::Pipe { pipe: ends.id, write: mode == libc::O_WRONLY }
    }

    /// Their ties to other processes.
    pub fn ties(&self) -> impl Iterator<Item = Tie> {
        self.ends.keys().map(|ino| Tie::Pipe(*ino))
    }

    /// Whether the tree reads from this pipe.
    #[must_use]
    pub fn is_read(&self, ino: u64) -> bool {
        self.ends.get(&ino).is_some_and(|ends| ends.read.is_some())
    }

    /// Reads the pipes once every table is known, and refuses those with an end outside. `left_out` are those of which `snap`, which
    /// is itself in the tree, has an end. With `leaks` none is refused: a restore closes the far ends.
    ///
    /// # Errors
    /// A kernel interface that failed.
    pub fn finish(
        self,
        outsiders: &HashMap<Tie, Outsider>,
        left_out: &HashSet<u64>,
        leaks: bool,
        findings: &mut Findings,
    ) -> Result<Vec<Pipe>, CollectError> {
        let mut ends: Vec<_> = self.ends.into_iter().collect();
        ends.sort_by_key(|(_, end)| end.id);
        let mut pipes = Vec::with_capacity(ends.len());
        for (ino, end) in ends {
            let (tid, fd) = end.holder;
            let outsider = outsiders.get(&Tie::Pipe(ino));
            let mut refuse = |reason| {
                let remedy = remedy(fd, ino, Pid(tid.0), outsider);
                findings.block(format!("pid {tid}"), format!("fd {fd}: pipe:[{ino}]"), reason, remedy);
            };
            if leaks {
                // As if whoever is there had closed it.
            } else if let Some(holder) = outsider {
                refuse(format!("its other end is held by {holder}, which is outside"));
            } else if !left_out.contains(&ino)
                && let Some(which) = unseen_end(&end).map_err(CollectError::at(tid, "poll of a pipe"))?
            {
                refuse(format!("its {which} end is held by a process outside that cannot be seen"));
            }
            let pipe = match (&end.read, &end.write) {
                (Some(read), _) => pipe::collect(end.id, read.as_fd(), end.packets),
                (None, Some(write)) => pipe::collect_unreadable(end.id, write.as_fd()),
                (None, None) => continue,
            };
            pipes.push(pipe.map_err(CollectError::at(tid, "reading a pipe"))?);
        }
        Ok(pipes)
    }
}

/// What to do about it: most often it is a standard stream, and the other end belongs to the same pipeline.
fn remedy(fd: Fd, ino: u64, inside: Pid, outsider: Option<&Outsider>) -> String {
    let instead = format!(
        "give it another in its place at the restore (dump --external 'pipe:[{ino}]', restore --inherit '{fd}:pipe:[{ino}]'), or \
         dump it with that end closed (--allow-leak)"
    );
    let (stream, redirection) = match fd.0 {
        0 => ("input", "< FILE"),
        1 => ("output", "> FILE"),
        2 => ("error", "2> FILE"),
        _ => return format!("dump the process that made both (snap dump PID of their common parent), or {instead}"),
    };
    let parent =
        |pid: Pid| TaskDir::process(pid).and_then(|dir| stat::read(&dir, &mut Vec::new())).ok().map(|stat| stat.ppid);
    let common = outsider.and_then(|outsider| Some(parent(outsider.pid)?).filter(|ppid| Some(*ppid) == parent(inside)));
    match common.filter(|ppid| ppid.0 > 1) {
        Some(shell) => format!(
            "both are parts of one pipeline: dump all of it by the process that started it (snap dump {shell}), or start the \
             program with its standard {stream} in a file ({redirection}), or {instead}"
        ),
        None => format!("start the program with its standard {stream} in a file ({redirection}), or {instead}"),
    }
}

/// The end of a pipe that exists although nobody inside holds it: `read` or `write`.
///
/// poll(2) says POLLHUP at the read end when there is no writer, POLLERR at the write end when there is no reader.
fn unseen_end(ends: &Ends) -> io::Result<Option<&'static str>> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let (own, alone, other) = match (&ends.read, &ends.write) {
        (Some(read), None) => (read, PollFlags::POLLHUP, "write"),
        (None, Some(write)) => (write, PollFlags::POLLERR, "read"),
        _ => return Ok(None),
    };
    let mut fds = [PollFd::new(own.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO)?;
    let events = fds[0].revents().unwrap_or(PollFlags::empty());
    Ok((!events.contains(alone)).then_some(other))
}
