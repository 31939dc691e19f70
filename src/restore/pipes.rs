//! Makes the pipes of an image, and opens its FIFOs, with what nobody has read.

use super::descriptors::{OpenError, failed, make_unlinked, reopen};
use super::lookup;
use crate::image::model::Snapshot;
use crate::image::model::file::OpenObject;
use crate::image::model::id::{FileId, PipeId};
use crate::image::model::pipe::{Pipe, Unread};
use crate::sys::descriptor::unread;
use crate::sys::open;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The pipes, until their descriptions are open.
#[derive(Debug, Default)]
pub struct Pipes {
    made: HashMap<PipeId, Made>,
    /// Numbers from here on are free for our own use.
    top: i32,
}

#[derive(Debug)]
struct Made {
    reader: File,
    /// Of a FIFO, none once those are opened that are to see nobody write.
    writer: Option<File>,
    is_fifo: bool,
    /// Whether a description of the image is the one of pipe2(2): that of the reading and of the writing end.
    given: [bool; 2],
}

impl Pipes {
    /// None yet; numbers from `top` on are free for our own use.
    #[must_use]
    pub fn new(top: i32) -> Self {
        Self { made: HashMap::new(), top }
    }

    /// A description of an end; the first of each is the one that pipe2(2) made.
    ///
    /// # Errors
    /// What could not be made or opened.
    pub fn end(&mut self, snapshot: &Snapshot, id: PipeId, write: bool, flags: u32) -> Result<File, OpenError> {
        if !self.made.contains_key(&id) {
            let pipe = &snapshot.pipes[id.0 as usize];
            let made = match pipe.fifo {
                None => make(pipe, self.top),
                Some(fifo) => open_fifo(snapshot, pipe, fifo, self.top),
            }?;
            self.made.insert(id, made);
        }
        let error = || failed(format!("pipe {id}"));
        let missing = || error()(io::ErrorKind::NotFound.into());
        let made = self.made.get_mut(&id).ok_or_else(missing)?;
        let end = if write { made.writer.as_ref().ok_or_else(missing)? } else { &made.reader };
        let both_ways = flags & libc::O_ACCMODE as u32 == libc::O_RDWR as u32;
        let given = made.is_fifo || both_ways || std::mem::replace(&mut made.given[usize::from(write)], true);
        // Nobody is waited for: of a FIFO the other end is open too, or O_NONBLOCK is set until the description has its own flags.
        let waits = if made.writer.is_none() { libc::O_NONBLOCK as u32 } else { 0 };
        // O_DIRECT means something else to open(2), and is set later.
        if given { reopen(end, flags & !(libc::O_DIRECT as u32) | waits) } else { end.try_clone().map_err(error()) }
    }

    /// From now on nobody writes to a FIFO but those who have it open already.
    pub fn stop_writing(&mut self) {
        self.made.values_mut().filter(|made| made.is_fifo).for_each(|made| made.writer = None);
    }
}

/// A pipe with its capacity and what nobody has read.
fn make(pipe: &Pipe, top: i32) -> Result<Made, OpenError> {
    let error = || failed(format!("pipe:[{}]", pipe.ino));
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(io::Error::from).map_err(error())?;
    let reader = open::lift(reader.into(), top).map_err(error())?;
    let writer = open::lift(writer.into(), top).map_err(error())?;
    open::own(&writer, pipe.uid, pipe.gid, 0o600).map_err(error())?;
    fill(&writer, pipe).map_err(error())?;
    Ok(Made { reader, writer: Some(writer), is_fifo: false, given: [false; 2] })
}

/// A FIFO, opened for both so that neither end waits for the other; made anew where it has no name.
fn open_fifo(snapshot: &Snapshot, pipe: &Pipe, fifo: FileId, top: i32) -> Result<Made, OpenError> {
    let file = &snapshot.files[fifo.0 as usize];
    let path = Path::new(OsStr::from_bytes(lookup::name(file).unwrap_or(&file.path)));
    let error = || failed(format!("FIFO {}", path.display()));
    // Who has it open for reading in vain is to see no writer come and go, and may not be allowed to be one.
    let is_written = !pipe.unread.is_empty()
        || snapshot.descriptions.iter().any(|description| {
            matches!(description.object, OpenObject::Pipe { pipe: id, write: _, quiet: false } if id == pipe.id)
        });
    let access = if is_written { libc::O_RDWR } else { libc::O_RDONLY };
    let both = match lookup::name(file) {
        Some(path) => open::path(Path::new(OsStr::from_bytes(path)), (access | libc::O_NONBLOCK) as u32)
            .and_then(|opened| open::lift(opened, top))
            .map_err(error())?,
        None => make_unlinked(snapshot, fifo, top)?,
    };
    let waiting = unread(both.as_fd()).map_err(error())?;
    if waiting > 0 {
        let reason =
            format!("somebody else has written {waiting} bytes to it, which would come before those of the image");
        return Err(error()(io::Error::other(reason)));
    }
    let reader = reopen(&both, (libc::O_RDONLY | libc::O_NONBLOCK) as u32)?;
    let reader = open::lift(reader, top).map_err(error())?;
    fill(&both, pipe).map_err(error())?;
    Ok(Made { reader, writer: is_written.then_some(both), is_fifo: true, given: [false; 2] })
}

/// Gives it its capacity and what nobody has read.
fn fill(mut writer: &File, pipe: &Pipe) -> io::Result<()> {
    open::set_pipe_size(writer, pipe.capacity)?;
    for Unread { packet, bytes } in &pipe.unread {
        open::set_flags(writer, libc::O_NONBLOCK | if *packet { libc::O_DIRECT } else { 0 })?;
        writer.write_all(bytes)?;
    }
    open::set_flags(writer, 0)
}
