//! Where the bytes of an image go: a file that gets its name at the end, or a stream.

use crate::image::error::WriteError;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A file that becomes visible when it is whole. Dropped before it is published, it leaves nothing.
///
/// How the kernel makes such files is not the image's business.
pub trait ImageFile: fmt::Debug + Send + Sync {
    /// Writes all of `bytes` at `offset`; several threads may do so at once.
    ///
    /// # Errors
    /// As pwrite(2).
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts it off behind `length` bytes and makes it durable under its name.
    ///
    /// # Errors
    /// What was tried, and why it failed; no file of it is left then.
    fn publish(self: Box<Self>, length: u64) -> Result<(), (&'static str, io::Error)>;
}

/// A file or a stream, with the name for messages.
pub struct Output {
    name: PathBuf,
    target: Target,
}

enum Target {
    File(Box<dyn ImageFile>),
    Stream(Mutex<Box<dyn Write + Send>>),
}

/// Whether several threads may write at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// At any offset, in any order.
    Random,
    /// One after the other, in the order of the offsets.
    Ordered,
}

impl Output {
    /// A file.
    pub fn file(name: &Path, file: Box<dyn ImageFile>) -> Self {
        Self { name: name.to_owned(), target: Target::File(file) }
    }

    /// A stream of which nothing is known.
    pub fn stream(name: &Path, stream: Box<dyn Write + Send>) -> Self {
        Self { name: name.to_owned(), target: Target::Stream(Mutex::new(stream)) }
    }

    /// How it may be written.
    pub const fn access(&self) -> Access {
        match self.target {
            Target::File(_) => Access::Random,
            Target::Stream(_) => Access::Ordered,
        }
    }

    /// Writes all of `bytes`, in a file at `offset`; a stream is there already.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), WriteError> {
        let result = match &self.target {
            Target::File(file) => file.write_at(bytes, offset),
            Target::Stream(stream) => stream.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes),
        };
        result.map_err(|e| error(&self.name, "writing", e, offset))
    }

    /// See [`super::Complete::publish`].
    pub fn publish(self, length: u64) -> Result<(), WriteError> {
        let Self { name, target } = self;
        let result = match target {
            Target::File(file) => file.publish(length),
            Target::Stream(stream) => {
                let mut stream = stream.into_inner().unwrap_or_else(PoisonError::into_inner);
                stream.flush().map_err(|e| ("flushing", e))
            }
        };
        result.map_err(|(action, source)| error(&name, action, source, length))
    }
}

fn error(name: &Path, action: &'static str, source: io::Error, written: u64) -> WriteError {
    let path = name.to_owned();
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            WriteError::NoSpace { path, written, source }
        }
        _ => WriteError::Output { path, action, source },
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("name", &self.name).field("access", &self.access()).finish()
    }
}
