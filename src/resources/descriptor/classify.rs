//! What a descriptor is open on.

use super::refused::{self, Refusal};
use super::{Descriptors, OpenFd, Tables, is_path_only, is_proc, locks};
use crate::image::model::file::OpenObject;
use crate::image::model::id::{Pid, Tid};
use crate::proc::TaskDir;
use crate::proc::fd_link::FdLink;
use crate::resources::mqueue::is_queue;
use crate::resources::namespace::Namespaces;
use crate::resources::{CollectError, Findings, event};

impl Descriptors {
    /// What the descriptor is open on, or `None` with a blocker noted.
    pub(super) fn classify(
        &mut self,
        task_dir: &TaskDir,
        tid: Tid,
        fd: &OpenFd<'_>,
        tables: &mut Tables<'_>,
    ) -> Result<Option<OpenObject>, CollectError> {
        match self.object(task_dir, tid, fd, tables)? {
            Ok(object) => Ok(Some(object)),
            Err(Refusal { reason, remedy, passes }) => {
                let note = if passes { Findings::pass } else { Findings::block };
                note(tables.findings, format!("pid {tid}"), fd.shown(), reason, remedy);
                Ok(None)
            }
        }
    }

    fn object(
        &mut self,
        task_dir: &TaskDir,
        tid: Tid,
        fd: &OpenFd<'_>,
        tables: &mut Tables<'_>,
    ) -> Result<Result<OpenObject, Refusal>, CollectError> {
        if let Some(external) = std::str::from_utf8(&fd.text).ok().and_then(|text| self.externals.get(text)) {
            return Ok(Ok(OpenObject::External(external.clone())));
        }
        if let Some(reason) = locks::refusal(fd) {
            return Ok(Err(reason.into()));
        }
        Ok(match &fd.link {
            FdLink::Pipe(_) => Ok(tables.pipes.end(tid, fd, None).map_err(CollectError::at(tid, "poll of a pipe"))?),
            FdLink::Memfd(_) if !is_path_only(fd) => {
                let shared = tables.shared.intern_memfd((Pid(tid.0), &fd.shown()), &fd.file, &fd.meta, &fd.text);
                shared.map(OpenObject::Memfd).map_err(Refusal::from)
            }
            FdLink::Path(path) if path.is_unreachable() => {
                Err("its path cannot be reached from the root of snap".into())
            }
            FdLink::Path(_)
                if is_proc(&fd.file)
                    && let Some(file) = tables.files.intern_of_dead(&fd.meta, &fd.text) =>
            {
                match fd.info.pos {
                    _ if is_path_only(fd) => Ok(OpenObject::PathOnly(file)),
                    0 => Ok(OpenObject::Pseudo(file)),
                    // The rest of what the kernel has then written may be in a buffer of its own (fs/seq_file.c).
                    _ => Err("a part of it was read, and its process is gone".into()),
                }
            }
            FdLink::Path(_) if !is_path_only(fd) && is_queue(&fd.file, &fd.meta) => {
                let queue = self.queues.intern((tid, &fd.shown()), (&fd.file, &fd.meta, fd.text.as_slice()));
                queue.map(OpenObject::Queue).map_err(Refusal::from)
            }
            FdLink::Path(_) => match self.mounts.metadata(task_dir, fd) {
                Some(meta) => self.on_file(task_dir, tid, fd, &meta, tables)?,
                None => Err(refused::detached(fd)),
            },
            FdLink::Memfd(_) => self.on_file(task_dir, tid, fd, &fd.meta, tables)?,
            FdLink::Socket(ino) => {
                let collected = self.sockets.collect(*ino, &fd.file, (tid, fd.on_its_way_to.unwrap_or(fd.fd)));
                collected.map_err(CollectError::at(tid, "getsockopt"))?.map_err(Refusal::from)
            }
            FdLink::AnonInode(kind) => self.anonymous(tid, fd, kind, tables.findings),
            FdLink::Inode { kind, ino: _ } if kind == b"pidfd" => {
                event::pidfd(&fd.file, &fd.info, &self.inside).map_err(Refusal::from)
            }
            FdLink::Inode { kind: _, ino: _ } if let Some(kind) = Namespaces::own().kind_of(&fd.text) => {
                Ok(OpenObject::Namespace(kind.to_owned()))
            }
            FdLink::Inode { kind, ino: _ } => {
                Err(format!("{} descriptors are not supported", String::from_utf8_lossy(kind)).into())
            }
            FdLink::Other(_) => Err("its kind is not known".into()),
        })
    }
}
