//! The pipes and FIFOs of a tree: which ends it holds, and what is in them. One with an end outside is refused.

use super::{Findings, OpenFd};
use crate::image::model::file::{Description, OpenObject};
use crate::image::model::id::{Fd, FileId, Pid, PipeId, Tid};
use crate::image::model::pipe::Pipe;
use crate::proc::{TaskDir, stat};
use crate::resources::border::{self, Outsider, Tie};
use crate::resources::{CollectError, pipe};
use crate::sys::descriptor::unread;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

/// The pipes of a tree while they are collected.
#[derive(Debug, Default)]
pub struct Pipes {
    ends: HashMap<Tie, Ends>,
}

/// What is known of a pipe, to find out whether somebody outside holds an end of it.
#[derive(Debug)]
struct Ends {
    id: PipeId,
    fifo: Option<FileId>,
    read: Option<File>,
    write: Option<File>,
    /// Who was first seen to hold it, and what /proc says of that descriptor.
    holder: (Tid, Fd, String),
}

impl Pipes {
    /// One end of a pipe, or of the FIFO that is this file.
    ///
    /// # Errors
    /// As poll(2).
    pub(super) fn end(&mut self, tid: Tid, fd: &OpenFd<'_>, fifo: Option<FileId>) -> io::Result<OpenObject> {
        let id = PipeId(self.ends.len() as u32);
        let holder = || (tid, fd.fd, String::from_utf8_lossy(&fd.text).into_owned());
        let new = || Ends { id, fifo, read: None, write: None, holder: holder() };
        let tie = match fifo {
            Some(_) => Tie::Fifo(fd.meta.dev(), fd.meta.ino()),
            None => Tie::Pipe(fd.meta.ino()),
        };
        let ends = self.ends.entry(tie).or_insert_with(new);
        let mode = (fd.info.flags & libc::O_ACCMODE as u32).cast_signed();
        // One that is open for both has both its ends in one description.
        if mode != libc::O_WRONLY {
            ends.read = fd.file.try_clone().ok();
        }
        if mode != libc::O_RDONLY {
            ends.write = fd.file.try_clone().ok();
        }
        // Whether nobody writes is known once every table is.
        let quiet = fifo.is_some() && mode == libc::O_RDONLY && !says(&fd.file, PollFlags::POLLHUP)?;
        Ok(OpenObject::Pipe { pipe: ends.id, write: mode == libc::O_WRONLY, quiet })
    }

    /// Their ties to other processes.
    pub fn ties(&self) -> impl Iterator<Item = Tie> {
        self.ends.keys().copied()
    }

    /// Whether the tree reads from this pipe.
    #[must_use]
    pub fn is_read(&self, tie: Tie) -> bool {
        self.ends.get(&tie).is_some_and(|ends| ends.read.is_some())
    }

    /// Reads the pipes once every table is known, and refuses those with an end outside. `left_out` are those of which `snap`, which
    /// is itself in the tree, has an end. With `leaks` none is refused: a restore closes the far ends. `frozen` is the tree if it stands still.
    ///
    /// # Errors
    /// A kernel interface that failed.
    pub fn finish(
        self,
        descriptions: &mut [Description],
        outsiders: &HashMap<Tie, Outsider>,
        left_out: &HashSet<Tie>,
        leaks: bool,
        frozen: Option<&[Pid]>,
        findings: &mut Findings,
    ) -> Result<Vec<Pipe>, CollectError> {
        let noticed = noticed(descriptions);
        let mut ends: Vec<_> = self.ends.into_iter().collect();
        ends.sort_by_key(|(_, end)| end.id);
        let mut pipes = Vec::with_capacity(ends.len());
        let mut written = HashSet::new();
        for (tie, end) in ends {
            let (tid, fd, ref name) = end.holder;
            let outsider = outsiders.get(&tie);
            if end.write.is_some() || outsider.is_some() {
                written.insert(end.id);
            }
            let mut refuse = |reason| {
                let remedy = remedy(fd, name, Pid(tid.0), outsider);
                findings.block(format!("pid {tid}"), format!("fd {fd}: {name}"), reason, remedy);
            };
            let what = if end.fifo.is_some() { "it" } else { "its other end" };
            if leaks {
                // As if whoever is there had closed it.
            } else if let Some(holder) = outsider {
                refuse(format!("{what} is held by {holder}, which is outside"));
            } else if !left_out.contains(&tie)
                && let Some(which) = unseen_end(&end).map_err(CollectError::at(tid, "poll of a pipe"))?
            {
                refuse(format!("its {which} end is held by a process outside that cannot be seen"));
            }
            let look = frozen.map(|inside| (inside, noticed.contains(&end.id)));
            pipes.extend(end.collect(look, findings).map_err(CollectError::at(tid, "reading a pipe"))?);
        }
        for description in descriptions {
            if let OpenObject::Pipe { pipe, write: _, quiet } = &mut description.object {
                *quiet &= !written.contains(pipe);
            }
        }
        Ok(pipes)
    }
}

/// The pipes of which somebody in the tree is told what happens at their ends: by a signal, or by an epoll instance.
fn noticed(descriptions: &[Description]) -> HashSet<PipeId> {
    let pipe = |description: &Description| match description.object {
        OpenObject::Pipe { pipe, write: _, quiet: _ } => Some(pipe),
        _ => None,
    };
    let told = descriptions.iter().filter(|description| description.flags & libc::O_ASYNC as u32 != 0);
    let watched = descriptions.iter().flat_map(|description| match &description.object {
        OpenObject::Epoll(epoll) => &epoll.items[..],
        _ => &[],
    });
    let watched = watched.map(|item| &descriptions[item.description.0 as usize]);
    told.chain(watched).filter_map(pipe).collect()
}

impl Ends {
    /// `look` is the tree, if it stands still, and whether somebody in it would notice that this pipe is opened.
    fn collect(&self, look: Option<(&[Pid], bool)>, findings: &mut Findings) -> io::Result<Option<Pipe>> {
        match (&self.read, &self.write, look) {
            (Some(read), _, _) => pipe::collect(self.id, self.fifo, read.as_fd()),
            (None, Some(write), Some((inside, is_noticed))) if unread(write.as_fd())? > 0 => {
                self.collect_abandoned(write, inside, is_noticed, findings)
            }
            (None, Some(write), _) => pipe::collect_unreadable(self.id, self.fifo, write.as_fd()),
            (None, None, _) => return Ok(None),
        }
        .map(Some)
    }

    /// With bytes, and without anybody who has it open for reading: whoever opens a FIFO next would read them, and a pipe can be opened through /proc.
    fn collect_abandoned(
        &self,
        write: &File,
        inside: &[Pid],
        is_noticed: bool,
        findings: &mut Findings,
    ) -> io::Result<Pipe> {
        let waiter = || self.fifo.and_then(|_| border::waits_at_a_fifo(inside));
        let reason = match is_noticed {
            true => Some("a signal or an epoll instance would tell that it is opened to look at them".into()),
            false => waiter().map(|waiter| format!("{waiter}, and would go on when it is opened to look at them")),
        };
        let found = match reason {
            None => pipe::collect_abandoned(self.id, self.fifo, write.as_fd()),
            Some(reason) => Err(io::Error::other(reason)),
        };
        let found = match found {
            Err(error) if matches!(error.kind(), io::ErrorKind::Other | io::ErrorKind::PermissionDenied) => error,
            found => return found,
        };
        if self.fifo.is_some() {
            let (tid, fd, ref name) = self.holder;
            let reason = format!("bytes wait in it that nobody has open for reading: {found}");
            findings.block(format!("pid {tid}"), format!("fd {fd}: {name}"), reason, "have them read");
        }
        pipe::collect_unreadable(self.id, self.fifo, write.as_fd())
    }
}

/// What to do about it: most often it is a standard stream, and the other end belongs to the same pipeline.
fn remedy(fd: Fd, name: &str, inside: Pid, outsider: Option<&Outsider>) -> String {
    let instead = format!(
        "give it another in its place at the restore (dump --external '{name}', restore --inherit '{fd}:{name}'), or \
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
/// poll(2) says POLLHUP at the read end when there is no writer, but for FIFOs that never had one, and POLLERR at the write end when
/// there is no reader.
fn unseen_end(ends: &Ends) -> io::Result<Option<&'static str>> {
    match (&ends.read, &ends.write) {
        (Some(read), None) => {
            let has_writer = !says(read, PollFlags::POLLHUP)?
                && (ends.fifo.is_none() || pipe::has_writer(read.as_fd())? != Some(false));
            Ok(has_writer.then_some("write"))
        }
        (None, Some(write)) => Ok((!says(write, PollFlags::POLLERR)?).then_some("read")),
        (Some(_), Some(_)) | (None, None) => Ok(None),
    }
}

fn says(file: &File, what: PollFlags) -> io::Result<bool> {
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO)?;
    Ok(fds[0].revents().unwrap_or(PollFlags::empty()).contains(what))
}
