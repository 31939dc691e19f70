//! What a descriptor is open on.

use super::{Descriptors, OpenFd, Tables, is_path_only, is_proc, locks, refused};
use crate::image::model::file::OpenObject;
use crate::image::model::id::{Pid, Tid};
use crate::proc::TaskDir;
use crate::proc::fd_link::FdLink;
use crate::resources::mqueue::is_queue;
use crate::resources::namespace::Namespaces;
use crate::resources::socket::Refusal;
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
        let task = format!("pid {tid}");
        let object = fd.shown();
        let refuse = |findings: &mut Findings, reason: String| {
            findings.block(task.clone(), object.clone(), reason, "close it before the dump");
            Ok(None)
        };
        let refuse_as = |findings: &mut Findings, refused::Refusal { reason, remedy }| {
            findings.block(task.clone(), object.clone(), reason, remedy);
            Ok(None)
        };
        if let Some(external) = std::str::from_utf8(&fd.text).ok().and_then(|text| self.externals.get(text)) {
            return Ok(Some(OpenObject::External(external.clone())));
        }
        if let Some(reason) = locks::refusal(fd) {
            return refuse(tables.findings, reason);
        }
        match &fd.link {
            FdLink::Pipe(_) => {
                tables.pipes.end(tid, fd, None).map(Some).map_err(CollectError::at(tid, "poll of a pipe"))
            }
            FdLink::Memfd(_) if !is_path_only(fd) => {
                let holder = (Pid(tid.0), object.as_str());
                match tables.shared.intern_memfd(holder, &fd.file, &fd.meta, &fd.text) {
                    Ok(shm) => Ok(Some(OpenObject::Memfd(shm))),
                    Err(reason) => refuse(tables.findings, reason),
                }
            }
            FdLink::Path(path) if path.is_unreachable() => {
                refuse(tables.findings, "its path cannot be reached from the root of snap".into())
            }
            FdLink::Path(_)
                if is_proc(&fd.file)
                    && let Some(file) = tables.files.intern_of_dead(&fd.meta, &fd.text) =>
            {
                match fd.info.pos {
                    _ if is_path_only(fd) => Ok(Some(OpenObject::PathOnly(file))),
                    0 => Ok(Some(OpenObject::Pseudo(file))),
                    // The rest of what the kernel has then written may be in a buffer of its own (fs/seq_file.c).
                    _ => refuse(tables.findings, "a part of it was read, and its process is gone".into()),
                }
            }
            FdLink::Path(_) if !is_path_only(fd) && is_queue(&fd.file, &fd.meta) => {
                match self.queues.intern((tid, &object), (&fd.file, &fd.meta, fd.text.as_slice())) {
                    Ok(id) => Ok(Some(OpenObject::Queue(id))),
                    Err(reason) => refuse(tables.findings, reason),
                }
            }
            FdLink::Path(_) => match self.mounts.metadata(task_dir, fd) {
                Some(meta) => self.on_file(task_dir, tid, fd, &meta, tables),
                None => refuse_as(tables.findings, refused::detached(fd)),
            },
            FdLink::Memfd(_) => self.on_file(task_dir, tid, fd, &fd.meta, tables),
            FdLink::Socket(ino) => {
                let collected = self.sockets.collect(*ino, &fd.file, (tid, fd.on_its_way_to.unwrap_or(fd.fd)));
                match collected.map_err(CollectError::at(tid, "getsockopt"))? {
                    Ok(object) => Ok(Some(object)),
                    Err(Refusal::Never(reason)) => refuse(tables.findings, reason),
                    Err(Refusal::Passing(reason)) => {
                        tables.findings.pass(task, object, reason, "try again when it has been read or sent");
                        Ok(None)
                    }
                }
            }
            FdLink::AnonInode(kind) => match self.anonymous(tid, fd, kind, tables.findings) {
                Ok(object) => Ok(Some(object)),
                Err(refusal) => refuse_as(tables.findings, refusal),
            },
            FdLink::Inode { kind, ino: _ } if kind == b"pidfd" => {
                match event::pidfd(&fd.file, &fd.info, &self.inside) {
                    Ok(object) => Ok(Some(object)),
                    Err(reason) => refuse(tables.findings, reason),
                }
            }
            FdLink::Inode { .. } if let Some(kind) = Namespaces::own().kind_of(&fd.text) => {
                Ok(Some(OpenObject::Namespace(kind.to_owned())))
            }
            FdLink::Inode { kind, .. } => {
                refuse(tables.findings, format!("{} descriptors are not supported", String::from_utf8_lossy(kind)))
            }
            FdLink::Other(_) => refuse(tables.findings, "its kind is not known".into()),
        }
    }
}
