//! What tasks share: descriptors, directories, signal handlers, lists of operations to undo, I/O contexts, each collected once.

use super::ahead::Link;
use super::collect::Builder;
use super::process::Subject;
use crate::image::model::id::{FdTableId, FileId, FsId, HandlersId, IoContextId, MmId, Pid, Tid, UndoListId};
use crate::image::model::process::FsContext;
use crate::image::model::signal::{SignalAction, SignalHandlers};
use crate::proc::TaskDir;
use crate::resources::CollectError;
use crate::resources::descriptor::{Look, Tables};
use crate::resources::file::{ORPHAN, has_parent};
use crate::resources::thread::Shared;
use crate::sys::pidfd;
use crate::tracer::FrozenTree;
use nix::errno::Errno;
use std::collections::HashMap;
use std::fs::Metadata;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

/// Shared objects that were collected.
#[derive(Default)]
pub(super) struct Known {
    pub fd_tables: HashMap<usize, FdTableId>,
    pub fs_contexts: HashMap<usize, FsId>,
    pub handlers: HashMap<usize, HandlersId>,
    pub undo_lists: HashMap<usize, UndoListId>,
    pub io_contexts: HashMap<usize, IoContextId>,
    pub mms: HashMap<usize, MmId>,
}

impl Builder {
    /// What each thread has in common with others, collected once.
    pub(super) fn shared(
        &mut self,
        tree: &FrozenTree,
        subject: Subject<'_>,
        tids: &[Tid],
        mut looks: Option<Vec<Look>>,
    ) -> Result<Vec<Shared>, CollectError> {
        let sharing = &subject.view.sharing;
        let mut found = Vec::with_capacity(tids.len());
        let mut known = HashMap::new();
        for &tid in tids {
            let task = sharing.task(subject.at, tid);
            if let Some(&shared) = known.get(&task) {
                found.push(shared);
                continue;
            }
            let shared = Shared {
                fd_table: self.fd_table(tree, subject, task, tid, &mut looks)?,
                fs: self.fs_of(tree, subject, task, tid)?,
                undo_list: sharing.undo_list(task).map(|first| {
                    let next = UndoListId(self.known.undo_lists.len() as u32);
                    *self.known.undo_lists.entry(first).or_insert(next)
                }),
                io_context: sharing.io_context(task).map(|first| {
                    let next = IoContextId(self.known.io_contexts.len() as u32);
                    *self.known.io_contexts.entry(first).or_insert(next)
                }),
            };
            known.insert(task, shared);
            found.push(shared);
        }
        Ok(found)
    }

    pub(super) fn handlers(&mut self, first: usize, actions: Vec<SignalAction>) -> HandlersId {
        let next = HandlersId(self.signal_handlers.len() as u32);
        let id = *self.known.handlers.entry(first).or_insert(next);
        if id == next {
            self.signal_handlers.push(SignalHandlers { id, actions });
        }
        id
    }

    fn fd_table(
        &mut self,
        tree: &FrozenTree,
        subject: Subject<'_>,
        task: usize,
        tid: Tid,
        looks: &mut Option<Vec<Look>>,
    ) -> Result<FdTableId, CollectError> {
        let first = subject.view.sharing.files(task);
        if let Some(&known) = self.known.fd_tables.get(&first) {
            return Ok(known);
        }
        let tables = &mut Tables {
            files: &mut self.files,
            shared: &mut self.shared,
            pipes: &mut self.pipes,
            findings: &mut self.findings,
        };
        let id = if tid == subject.pid.leader() {
            let pidfd = tree.processes()[subject.at].pidfd();
            let looks = looks.take().map_or_else(|| Look::at_all(subject.dir), Ok)?;
            self.descriptors.collect(subject.dir, tid, pidfd, looks, tables)?
        } else {
            match pidfd::open_thread(tid) {
                Ok(pidfd) => {
                    let dir = TaskDir::process(Pid(tid.0))?;
                    self.descriptors.collect(&dir, tid, pidfd.as_fd(), Look::at_all(&dir)?, tables)?
                }
                Err(Errno::EINVAL) => {
                    let reason = "it is not that of the main thread, and this kernel has no pidfds of other threads";
                    let remedy = "use Linux 6.9 or later";
                    self.findings.block(format!("tid {tid}"), "table of descriptors", reason, remedy);
                    FdTableId(0)
                }
                Err(error) => return Err(CollectError::at(tid, "pidfd_open")(error)),
            }
        };
        self.known.fd_tables.insert(first, id);
        Ok(id)
    }

    fn fs_of(&mut self, tree: &FrozenTree, subject: Subject<'_>, task: usize, tid: Tid) -> Result<FsId, CollectError> {
        let first = subject.view.sharing.fs(task);
        if let Some(&known) = self.known.fs_contexts.get(&first) {
            return Ok(known);
        }
        let status =
            tree.thread(tid).ok_or(Errno::ESRCH).map_err(CollectError::at(tid, "finding the thread"))?.status();
        let failed = |source| CollectError::Remote { tid, action: "reading its status", source };
        let umask = status.map_err(failed)?.umask.unwrap_or(0o022);
        let id = if tid == subject.shown_as.leader() {
            self.fs_context(subject.pid, subject.dir, (&subject.facts.cwd, &subject.facts.root), umask)?
        } else {
            let dir = TaskDir::process(Pid(tid.0))?;
            let link = |name| Link::look(&dir, subject.pid, name);
            self.fs_context(subject.pid, &dir, (&link("cwd")?, &link("root")?), umask)?
        };
        self.known.fs_contexts.insert(first, id);
        Ok(id)
    }

    fn fs_context(
        &mut self,
        pid: Pid,
        dir: &TaskDir,
        (cwd, root): (&Link, &Link),
        umask: u32,
    ) -> Result<FsId, CollectError> {
        let id = FsId(self.fs_contexts.len() as u32);
        let cwd = self.linked_file(pid, dir, "cwd", cwd)?;
        let root = self.linked_file(pid, dir, "root", root)?;
        if let (Some(cwd), Some(root)) = (cwd, root) {
            self.fs_contexts.push(FsContext { id, cwd, root, umask });
        }
        Ok(id)
    }

    /// The file behind a link of /proc/PID such as `cwd`, or `None` with a blocker noted.
    pub(super) fn linked_file(
        &mut self,
        pid: Pid,
        dir: &TaskDir,
        name: &'static str,
        Link { text, meta }: &Link,
    ) -> Result<Option<FileId>, CollectError> {
        match self.files.intern(meta, text, &format!("pid {pid}")) {
            Ok(id) if meta.is_dir() && is_lost(dir, name, meta, text) => {
                self.findings.block(format!("pid {pid}"), name, ORPHAN, "change to another directory");
                Ok(Some(id))
            }
            Ok(id) => {
                if meta.is_file() && self.files.wants_content(id) {
                    self.files.set_content(id, dir.open(name)?);
                }
                Ok(Some(id))
            }
            Err(blocker) => {
                self.findings.blockers.push(blocker);
                Ok(None)
            }
        }
    }
}

/// Whether a directory behind a link of /proc/PID can be had neither by a name nor by making it again.
pub(super) fn is_lost(dir: &TaskDir, name: &str, meta: &Metadata, link: &[u8]) -> bool {
    let through = format!("{}/{name}", dir.path());
    meta.nlink() == 0 && (name == "root" || !has_parent(through.as_ref(), link))
}
