//! Descriptors as /proc shows them, without a duplicate of them.

use super::CollectError;
use super::identity::Likeness;
use crate::image::model::id::Fd;
use crate::proc::fd_link::{self, FdLink};
use crate::proc::fdinfo::{self, FdInfo};
use crate::proc::{TaskDir, many};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// What was seen of a descriptor.
#[derive(Debug)]
pub enum Look {
    /// All that there is to be seen.
    Seen(Box<Seen>),
    /// One on a directory of a process that has ended, of which nothing but its link is left.
    Lost {
        /// The descriptor.
        fd: Fd,
        /// The text of its link.
        text: Vec<u8>,
    },
}

impl Look {
    /// Looks at all descriptors of a task, of many on every CPU.
    ///
    /// # Errors
    /// A file of /proc that cannot be read.
    pub fn at_all(task: &TaskDir) -> Result<Vec<Self>, CollectError> {
        many::map(&task.fds()?, |fd, buffer| Self::at(task, *fd, buffer)).into_iter().collect()
    }

    fn at(task: &TaskDir, fd: Fd, buffer: &mut Vec<u8>) -> Result<Self, CollectError> {
        match Seen::at(task, fd, buffer) {
            // Not even fstat(2) works on the list of descriptors of a process that has ended (fs/proc/fd.c, `proc_fd_getattr`).
            Err(CollectError::Proc(error)) if error.is_absent() => {
                let Ok(text) = task.read_link(&format!("fd/{fd}")) else { return Err(error.into()) };
                Ok(Self::Lost { fd, text })
            }
            seen => seen.map(|seen| Self::Seen(Box::new(seen))),
        }
    }
}

/// One descriptor of the target, as /proc shows it.
#[derive(Debug)]
pub struct Seen {
    pub(super) fd: Fd,
    pub(super) meta: Metadata,
    pub(super) link: FdLink,
    pub(super) text: Vec<u8>,
    pub(super) info: FdInfo,
    /// For one that is on its way through a socket, and that we have as `fd`: which descriptor will receive it.
    pub(super) on_its_way_to: Option<Fd>,
}

impl Seen {
    pub(super) fn at(task: &TaskDir, fd: Fd, buffer: &mut Vec<u8>) -> Result<Self, CollectError> {
        let text = task.read_link(&format!("fd/{fd}"))?;
        let meta = task.metadata(&format!("fd/{fd}"))?;
        let info = fdinfo::read(task, fd, buffer)?;
        Ok(Self { fd, meta, link: fd_link::parse(&text), text, info, on_its_way_to: None })
    }

    /// What descriptors that share a description have in common.
    pub(super) fn likeness(&self) -> Likeness {
        let anonymous = match &self.link {
            FdLink::AnonInode(kind) => {
                let number = self.info.value("eventfd-id").or_else(|| self.info.value("map_id"));
                [kind.as_slice(), number.unwrap_or_default()].concat()
            }
            FdLink::Path(_)
            | FdLink::Pipe(_)
            | FdLink::Socket(_)
            | FdLink::Memfd(_)
            | FdLink::Inode { .. }
            | FdLink::Other(_) => Vec::new(),
        };
        Likeness {
            dev: self.meta.dev(),
            ino: self.meta.ino(),
            pos: self.info.pos,
            flags: self.info.flags & !(libc::O_CLOEXEC as u32),
            anonymous,
        }
    }

    /// What it is called when it is refused.
    pub(super) fn shown(&self) -> String {
        let text = String::from_utf8_lossy(&self.text);
        match self.on_its_way_to {
            None => format!("fd {}: {text}", self.fd),
            Some(fd) => format!("on its way to fd {fd}: {text}"),
        }
    }
}
