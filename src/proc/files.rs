//! Files of one task: how they are opened, and how much is to be read of each.

use super::error::{Error, ParseError};
use super::task_dir::read_whole;
use crate::image::model::id::{Pid, Tid};
use std::fs::File;
use std::io::Read;

/// What that room is for the files of [`ONE_RECORD`].
const RECORD_SIZE: usize = 4096;

/// Files of one record each: what is less than the room that a read offers is all of it (fs/seq_file.c, `single_open`; fs/libfs.c,
/// `simple_read_from_buffer`), and nobody need ask for the end.
const ONE_RECORD: [&str; 16] = [
    "autogroup",
    "auxv",
    "cgroup",
    "comm",
    "coredump_filter",
    "limits",
    "loginuid",
    "oom_score_adj",
    "personality",
    "sched",
    "schedstat",
    "stat",
    "status",
    "syscall",
    "timerslack_ns",
    "wchan",
];

/// Where files of one task are read.
pub trait Files {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`Error::Vanished`], [`Error::Absent`], [`Error::Permission`] or [`Error::Io`].
    fn open(&self, name: &str) -> Result<File, Error>;

    /// Where they lie, for messages.
    fn path(&self) -> &str;

    /// An error of a file.
    #[doc(hidden)]
    fn error(&self, name: &str, source: std::io::Error) -> Error;

    /// Reads a whole file into `buffer`, which keeps its room from call to call.
    ///
    /// # Errors
    /// As [`Files::open`].
    fn read_into<'b>(&self, name: &str, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], Error> {
        let file = self.open(name)?;
        let is_one = ONE_RECORD.contains(&name) || name.starts_with("fdinfo/");
        let read = if is_one { read_record(&file, buffer) } else { read_whole(&file, buffer) };
        read.map_err(|source| self.error(name, source))?;
        Ok(buffer)
    }

    /// Reads a file and parses its bytes.
    ///
    /// # Errors
    /// As [`Files::open`]; [`Error::Parse`].
    fn parse<T>(
        &self,
        name: &str,
        buffer: &mut Vec<u8>,
        parse: impl FnOnce(&[u8]) -> Result<T, ParseError>,
    ) -> Result<T, Error> {
        let text = self.read_into(name, buffer)?;
        parse(text).map_err(|source| unreadable(self.path(), name, source))
    }
}

/// `/proc/PID/task/TID`, not held open, for who wants a file or two of it. A later thread of the process that has the same id would answer in its
/// place.
#[derive(Debug)]
pub struct ThreadName {
    path: String,
}

impl ThreadName {
    /// The files of a thread, whether there is such a one or not.
    #[must_use]
    pub fn new(pid: Pid, tid: Tid) -> Self {
        Self { path: format!("/proc/{pid}/task/{tid}") }
    }
}

impl Files for ThreadName {
    fn open(&self, name: &str) -> Result<File, Error> {
        File::open(format!("{}/{name}", self.path)).map_err(|source| self.error(name, source))
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn error(&self, name: &str, source: std::io::Error) -> Error {
        match Error::from_io(format_args!("{}/{name}", self.path), source) {
            Error::Absent { path } if !std::path::Path::new(&self.path).exists() => Error::Vanished { path },
            other => other,
        }
    }
}

/// Reads a file of one record.
fn read_record(mut file: &File, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    buffer.clear();
    buffer.resize(RECORD_SIZE, 0);
    let got = loop {
        match file.read(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            got => break got?,
        }
    };
    buffer.truncate(got);
    if got == RECORD_SIZE {
        file.take(u64::MAX).read_to_end(buffer)?;
    }
    Ok(())
}

/// An error of a parser, with the name of the file.
pub(super) fn unreadable(path: &str, name: &str, source: ParseError) -> Error {
    Error::Parse { path: format!("{path}/{name}"), source }
}

#[cfg(test)]
mod tests {
    use super::super::TaskDir;
    use super::*;

    #[test]
    fn files_of_one_record_are_read_whole() {
        let own = TaskDir::process(Pid(std::process::id().cast_signed())).unwrap();
        let thread = ThreadName::new(Pid(std::process::id().cast_signed()), Tid(nix::unistd::gettid().as_raw()));
        let (mut by_record, mut whole) = (Vec::new(), Vec::new());
        for name in ONE_RECORD {
            let Ok(file) = own.open(name) else { continue };
            read_record(&file, &mut by_record).unwrap();
            read_whole(&own.open(name).unwrap(), &mut whole).unwrap();
            let lines = |text: &[u8]| text.split(|byte| *byte == b'\n').count();
            assert_eq!(lines(&by_record), lines(&whole), "{name}");
        }
        for name in ["status", "syscall", "sched", "stat", "wchan"] {
            assert!(thread.open(name).is_ok(), "{name}");
        }
        let long = tempfile_of(2 * RECORD_SIZE + 1);
        read_record(&long, &mut by_record).unwrap();
        assert_eq!(by_record.len(), 2 * RECORD_SIZE + 1);
    }

    /// A file without a name that holds so many bytes.
    fn tempfile_of(len: usize) -> File {
        use std::io::{Seek, Write};
        let file = nix::sys::memfd::memfd_create("long", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        let mut file = File::from(file);
        file.write_all(&vec![1; len]).unwrap();
        file.rewind().unwrap();
        file
    }
}
