//! What waits in the UNIX sockets of a tree, and the open files that are on their way through them (SCM_RIGHTS), which need be in no table.

use super::identity::Found;
use super::{Descriptors, Holder, OpenFd, Seen, Tables, locks};
use crate::image::model::id::{DescriptionId, Fd, Tid};
use crate::image::model::socket::unix::Message;
use crate::proc::TaskDir;
use crate::resources::CollectError;
use crate::resources::socket::Queue;
use crate::resources::socket::unix::queue;
use crate::sys::task;
use crate::sys::undo::Undo;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;

impl Descriptors {
    /// Looks at what waits in each socket, also of those that are found only so. Options of sockets are changed meanwhile; `changed` is told.
    ///
    /// # Errors
    /// A kernel interface that failed.
    pub fn look_into_sockets(
        &mut self,
        tables: &mut Tables<'_>,
        changed: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<(), CollectError> {
        let undo = Undo::default();
        let mut at = 0;
        while let Some(socket) = self.sockets.get(at) {
            if let Some(Queue { kind, file, holder }) = socket {
                let error = |action| CollectError::at(holder.0, action);
                let found = queue::look(file.as_fd(), kind, &undo, changed).map_err(error("looking into a socket"))?;
                let waiting = match found {
                    Ok(waiting) => waiting,
                    Err(reason) => {
                        let (tid, fd) = holder;
                        let remedy = "let the program read it before the dump";
                        tables.findings.block(format!("pid {tid}"), format!("fd {fd}: socket"), reason, remedy);
                        Vec::new()
                    }
                };
                let mut queue = Vec::with_capacity(waiting.len());
                for queue::Waiting { bytes, sender, files, credentials, urgent } in waiting {
                    let mut carried = Vec::with_capacity(files.len());
                    for file in files {
                        carried.extend(self.carried(holder, file, tables)?);
                    }
                    queue.push(Message { bytes, sender, files: carried, credentials, urgent });
                }
                self.sockets.set_queue(at, queue);
            }
            at += 1;
        }
        self.sockets.read_options(tables.findings)?;
        self.sockets.look_around().map_err(CollectError::at(task::own_tid(), "asking for all UNIX sockets"))
    }

    /// The description behind a descriptor that is on its way to a socket, or `None` for one that is refused.
    fn carried(
        &mut self,
        holder: (Tid, Fd),
        file: File,
        tables: &mut Tables<'_>,
    ) -> Result<Option<DescriptionId>, CollectError> {
        let (own, dir, number) = (task::own_tid(), TaskDir::current()?, Fd(file.as_raw_fd()));
        let mut seen = Seen::at(&dir, number, &mut Vec::new())?;
        let found = self.identities.find(seen.likeness(), own, number);
        let place = match found.map_err(CollectError::at(own, "kcmp KCMP_FILE"))? {
            Found::Known(known) => return Ok(known),
            Found::New(place) => place,
        };
        let (tid, fd) = holder;
        seen.on_its_way_to = Some(fd);
        let copy = file.try_clone().map_err(CollectError::at(own, "dup"))?;
        let description = self.describe(&dir, tid, &OpenFd { seen: &seen, file: copy }, tables)?;
        let held = description.and_then(|id| self.descriptions.get_mut(id.0 as usize));
        locks::of_description(tid, &seen, held, tables.findings);
        self.holders.push(Holder { tid: own, fd: number, ino: seen.meta.ino(), description });
        self.identities.note(place, description);
        // Its number stands for the description as long as others are compared with it.
        self.on_their_way.push(file);
        Ok(description)
    }
}
