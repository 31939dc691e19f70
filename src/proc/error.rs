//! What can go wrong while /proc is read: the task is gone, the kernel says no, or the text is not what was expected.

use std::fmt;
use std::io;

/// Text that is not what the kernel writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: line {line}: expected {expected}, found `{found}`")]
pub struct ParseError {
    /// Kind of file, such as `smaps`.
    pub kind: &'static str,
    /// Line number, counted from 1.
    pub line: usize,
    /// What should stand there.
    pub expected: &'static str,
    /// The beginning of what stands there.
    pub found: String,
}

/// Longest part of a bad line that an error repeats.
const SHOWN: usize = 96;

impl ParseError {
    pub(super) fn new(kind: &'static str, line: usize, expected: &'static str, found: &[u8]) -> Self {
        let shown = &found[..found.len().min(SHOWN)];
        Self { kind, line, expected, found: shown.escape_ascii().to_string() }
    }
}

/// Why a file of /proc could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The task ended (ESRCH, or ENOENT of its directory).
    #[error("{path}: the task is gone")]
    Vanished {
        /// The file.
        path: String,
    },
    /// The task is there, but this kernel was built without this file, or the object that it names is not there.
    #[error("{path}: no such file")]
    Absent {
        /// The file.
        path: String,
    },
    /// EACCES or EPERM.
    #[error("{path}: permission denied")]
    Permission {
        /// The file.
        path: String,
    },
    /// Any other failure of a system call.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The text could not be understood.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: String,
        /// Where and why.
        source: ParseError,
    },
}

impl Error {
    /// Whether the task ended while it was looked at.
    #[must_use]
    pub const fn is_vanished(&self) -> bool {
        matches!(self, Self::Vanished { .. })
    }

    /// The descriptor or mapping that is not there any more, by its path.
    #[must_use]
    pub fn object_gone(&self) -> Option<&str> {
        let is_object = |path: &str| ["/fd/", "/fdinfo/", "/map_files/"].iter().any(|part| path.contains(part));
        match self {
            Self::Absent { path } if is_object(path) => Some(path),
            _ => None,
        }
    }

    /// Whether this kernel lacks the file.
    #[must_use]
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent { .. })
    }

    /// Whether rights are missing.
    #[must_use]
    pub const fn is_permission(&self) -> bool {
        matches!(self, Self::Permission { .. })
    }

    /// Sorts an errno into its case; ENOENT is `Absent`, which the caller turns into `Vanished` where the task is gone.
    pub(super) fn from_io(path: impl fmt::Display, source: io::Error) -> Self {
        let path = path.to_string();
        match source.raw_os_error() {
            Some(libc::ESRCH) => Self::Vanished { path },
            Some(libc::ENOENT) => Self::Absent { path },
            Some(libc::EACCES | libc::EPERM) => Self::Permission { path },
            Some(_) | None => Self::Io { path, source },
        }
    }
}

/// The value, or `None` where this kernel was built without the file.
///
/// # Errors
/// Every other error.
pub fn if_present<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Absent { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}
