//! What a process shares with others by the flags of clone(2), and who can therefore make it.

use crate::image::model::id::{FdTableId, FsId, HandlersId, IoContextId, MmId, UndoListId};
use crate::image::model::process::Process;
use crate::image::model::thread::Thread;
use std::collections::HashSet;

/// What a task shares with its maker, by the flags of clone(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// CLONE_VM.
    pub memory: bool,
    /// CLONE_SIGHAND.
    pub handlers: bool,
    /// CLONE_FILES.
    pub files: bool,
    /// CLONE_FS.
    pub directories: bool,
    /// CLONE_SYSVSEM.
    pub undo_list: bool,
    /// CLONE_IO.
    pub io_context: bool,
}

impl Shares {
    /// The flags.
    #[must_use]
    pub fn flags(&self) -> u64 {
        [
            (self.memory, libc::CLONE_VM),
            (self.handlers, libc::CLONE_SIGHAND),
            (self.files, libc::CLONE_FILES),
            (self.directories, libc::CLONE_FS),
            (self.undo_list, libc::CLONE_SYSVSEM),
            (self.io_context, libc::CLONE_IO),
        ]
        .into_iter()
        .filter(|(is_shared, _)| *is_shared)
        .fold(0, |flags, (_, flag)| flags | u64::from(flag.cast_unsigned()))
    }
}

/// An object that tasks can share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Object {
    Memory(MmId),
    Handlers(HandlersId),
    Files(FdTableId),
    Directories(FsId),
    UndoList(UndoListId),
    IoContext(IoContextId),
}

impl Object {
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory(_) => "address space",
            Self::Handlers(_) => "signal handlers",
            Self::Files(_) => "table of descriptors",
            Self::Directories(_) => "working directory",
            Self::UndoList(_) => "undo list of System V semaphores",
            Self::IoContext(_) => "I/O context",
        }
    }
}

/// What each thread has of its own, in the order of [`Shares`].
pub(super) fn of_thread(thread: &Thread) -> [Option<Object>; 4] {
    [
        Some(Object::Files(thread.fd_table)),
        Some(Object::Directories(thread.fs)),
        thread.undo_list.map(Object::UndoList),
        thread.io_context.map(Object::IoContext),
    ]
}

fn of_process(process: &Process) -> [Option<Object>; 6] {
    let [files, directories, undo_list, io_context] = of_thread(&process.threads[0]);
    let (memory, handlers) = (Some(Object::Memory(process.mm)), Some(Object::Handlers(process.handlers)));
    [memory, handlers, files, directories, undo_list, io_context]
}

/// What its other threads have and its first has not.
fn of_other_threads(process: &Process) -> impl Iterator<Item = Object> {
    let first = of_thread(&process.threads[0]);
    let others = process.threads[1..].iter().flat_map(of_thread).flatten();
    others.filter(move |object| !first.contains(&Some(*object)))
}

/// Objects that somebody has already.
#[derive(Default)]
pub(super) struct Held(HashSet<Object>);

impl Held {
    /// Notes what a process has.
    pub fn note(&mut self, process: &Process) {
        self.0.extend(of_process(process).into_iter().flatten().chain(of_other_threads(process)));
    }

    /// What a process shares with its maker if `maker`, or somebody who is nobody of the image, makes it.
    ///
    /// # Errors
    /// What it shares with somebody else, so that this one cannot make it.
    pub fn shares(&self, process: &Process, maker: Option<&Process>) -> Result<Shares, Object> {
        let (own, makers) = (of_process(process), maker.map(of_process));
        let mut is_shared = [false; 6];
        for (at, object) in own.into_iter().enumerate() {
            let Some(object) = object else { continue };
            is_shared[at] = makers.is_some_and(|makers| makers[at] == Some(object));
            if !is_shared[at] && self.0.contains(&object) {
                return Err(object);
            }
        }
        if let Some(strange) = of_other_threads(process).find(|object| self.0.contains(object)) {
            return Err(strange);
        }
        let [memory, handlers, files, directories, undo_list, io_context] = is_shared;
        if handlers && !memory {
            // clone(2) wants CLONE_VM with CLONE_SIGHAND.
            return Err(Object::Handlers(process.handlers));
        }
        Ok(Shares { memory, handlers, files, directories, undo_list, io_context })
    }
}
