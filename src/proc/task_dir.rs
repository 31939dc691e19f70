//! The directory of a task in /proc, held open: what it gives belongs to this task even if its id is used again.

use super::error::{Error, ParseError};
use super::files::{Files, unreadable};
use super::{scan, stat};
use crate::image::model::id::{Fd, Pid, Tid};
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::sys::stat::Mode;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Room that every read offers. Files of lines come a page at a time however much is offered; `cmdline`, `environ`
/// and `pagemap` fill it.
const READ_SIZE: usize = 64 * 1024;

/// `/proc/PID` or `/proc/PID/task/TID`.
#[derive(Debug)]
pub struct TaskDir {
    dir: OwnedFd,
    path: String,
}

impl Files for TaskDir {
    fn open(&self, name: &str) -> Result<File, Error> {
        Self::open(self, name)
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn error(&self, name: &str, source: std::io::Error) -> Error {
        match Error::from_io(format_args!("{}/{name}", self.path), source) {
            // A directory whose task is gone has no entries: ENOENT then says nothing of the file.
            Error::Absent { path } if self.is_gone() => Error::Vanished { path },
            other => other,
        }
    }
}

impl TaskDir {
    /// `/proc/PID`: what belongs to the whole process.
    ///
    /// # Errors
    /// [`Error::Vanished`] if there is no such process.
    pub fn process(pid: Pid) -> Result<Self, Error> {
        Self::at(AT_FDCWD, &format!("/proc/{pid}"), format!("/proc/{pid}"))
    }

    /// What belongs to the whole process, by [`living`].
    ///
    /// # Errors
    /// [`Error::Vanished`] if there is no such process.
    pub fn living(pid: Pid) -> Result<Self, Error> {
        Self::process(living(pid)?)
    }

    /// `/proc/PID/task/TID`: what belongs to one thread.
    ///
    /// # Errors
    /// [`Error::Vanished`] if there is no such thread in that process.
    pub fn thread(pid: Pid, tid: Tid) -> Result<Self, Error> {
        Self::at(AT_FDCWD, &format!("/proc/{pid}/task/{tid}"), format!("/proc/{pid}/task/{tid}"))
    }

    /// The directory of a thread of this process, reached through the open directory.
    ///
    /// # Errors
    /// [`Error::Vanished`] if there is no such thread.
    pub fn task(&self, tid: Tid) -> Result<Self, Error> {
        Self::at(self.dir.as_fd(), &format!("task/{tid}"), format!("{}/task/{tid}", self.path))
    }

    /// The directory of the calling thread.
    ///
    /// # Errors
    /// When /proc is not mounted.
    pub fn current() -> Result<Self, Error> {
        Self::at(AT_FDCWD, "/proc/thread-self", "/proc/thread-self".into())
    }

    fn at(base: BorrowedFd<'_>, name: &str, path: String) -> Result<Self, Error> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        match openat(base, name, flags, Mode::empty()) {
            Ok(dir) => Ok(Self { dir, path }),
            Err(errno) => Err(match Error::from_io(&path, errno.into()) {
                Error::Absent { path } => Error::Vanished { path },
                other => other,
            }),
        }
    }

    /// Where it lies, for messages.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Opens a file below it for reading.
    ///
    /// # Errors
    /// [`Error::Vanished`], [`Error::Absent`], [`Error::Permission`] or [`Error::Io`].
    pub fn open(&self, name: &str) -> Result<File, Error> {
        openat(&self.dir, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .map(File::from)
            .map_err(|errno| self.error(name, errno.into()))
    }

    /// Reads a whole file below it into `buffer`, which keeps its room from call to call.
    ///
    /// # Errors
    /// As [`TaskDir::open`].
    pub fn read_into<'b>(&self, name: &str, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], Error> {
        Files::read_into(self, name, buffer)
    }

    /// Reads a whole file below it whose records are long and dear, each by itself: the kernel fills a page with records, and makes the one
    /// that does not fit again (fs/seq_file.c, `seq_read_iter`), unless no more was asked for than there is.
    ///
    /// # Errors
    /// As [`TaskDir::open`].
    pub(super) fn read_by_record<'b>(
        &self,
        name: &str,
        shortest: usize,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b [u8], Error> {
        let file = self.open(name)?;
        buffer.clear();
        loop {
            let end = buffer.len();
            buffer.resize(end + shortest, 0);
            match (&file).read(&mut buffer[end..]) {
                Ok(0) => {
                    buffer.truncate(end);
                    return Ok(buffer);
                }
                Ok(got) => buffer.truncate(end + got),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => buffer.truncate(end),
                Err(source) => return Err(self.error(name, source)),
            }
        }
    }

    /// An error of a parser, with the name of the file.
    pub(super) fn unreadable(&self, name: &str, source: ParseError) -> Error {
        unreadable(&self.path, name, source)
    }

    /// What a symbolic link below it says, as raw bytes.
    ///
    /// # Errors
    /// As [`TaskDir::open`].
    pub fn read_link(&self, name: &str) -> Result<Vec<u8>, Error> {
        readlinkat(&self.dir, name).map(OsStringExt::into_vec).map_err(|errno| self.error(name, errno.into()))
    }

    /// Attributes of what a link below it leads to.
    ///
    /// # Errors
    /// As [`TaskDir::open`].
    pub fn metadata(&self, name: &str) -> Result<Metadata, Error> {
        let path = format!("/proc/self/fd/{}/{name}", self.dir.as_raw_fd());
        std::fs::metadata(path).map_err(|source| self.error(name, source))
    }

    /// Threads of the process in ascending order.
    ///
    /// # Errors
    /// As [`TaskDir::open`].
    pub fn threads(&self) -> Result<Vec<Tid>, Error> {
        Ok(self.numbers("task")?.into_iter().map(Tid).collect())
    }

    /// Open descriptors in ascending order.
    ///
    /// # Errors
    /// As [`TaskDir::open`].
    pub fn fds(&self) -> Result<Vec<Fd>, Error> {
        Ok(self.numbers("fd")?.into_iter().map(Fd).collect())
    }

    /// Names of the entries of a directory below it, as raw bytes in the order of the kernel.
    ///
    /// # Errors
    /// As [`TaskDir::open`].
    pub fn entries(&self, name: &str) -> Result<Vec<Vec<u8>>, Error> {
        let path = format!("/proc/self/fd/{}/{name}", self.dir.as_raw_fd());
        let fail = |source| self.error(name, source);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(fail)? {
            names.push(entry.map_err(fail)?.file_name().into_vec());
        }
        Ok(names)
    }

    fn numbers(&self, name: &str) -> Result<Vec<i32>, Error> {
        let path = format!("/proc/self/fd/{}/{name}", self.dir.as_raw_fd());
        let fail = |source| self.error(name, source);
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(path).map_err(fail)? {
            numbers.extend(scan::decimal::<i32>(entry.map_err(fail)?.file_name().as_bytes()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn is_gone(&self) -> bool {
        nix::sys::stat::fstatat(&self.dir, "stat", nix::fcntl::AtFlags::empty()).is_err()
    }
}

/// Every process that /proc shows.
#[must_use]
pub fn processes() -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).map(Pid).collect()
}

/// The number under which /proc shows what the threads of a process share: the id of one that lives. `/proc/PID` shows nothing of an address
/// space or of descriptors once the main thread has ended.
///
/// # Errors
/// [`Error::Vanished`] if there is no such process.
pub fn living(pid: Pid) -> Result<Pid, Error> {
    let dir = TaskDir::process(pid)?;
    let mut buffer = Vec::new();
    let has_ended = |stat: &stat::Stat| matches!(stat.state, b'Z' | b'X');
    let main = stat::read(&dir, &mut buffer)?;
    if !has_ended(&main) || main.threads <= 1 {
        return Ok(pid);
    }
    for tid in dir.threads()? {
        let thread = dir.task(tid).and_then(|task| stat::read(&task, &mut buffer));
        if thread.is_ok_and(|stat| !has_ended(&stat)) {
            return Ok(Pid(tid.0));
        }
    }
    Ok(pid)
}

impl AsFd for TaskDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// Reads to the end without the `fstat` and `lseek` that [`File::read_to_end`] makes for its size hint, which is 0 here.
pub(super) fn read_whole(file: &File, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    buffer.clear();
    buffer.reserve(READ_SIZE);
    file.take(u64::MAX).read_to_end(buffer)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_and_descriptors_of_our_own_in_order() {
        let own = TaskDir::process(Pid(std::process::id().cast_signed())).unwrap();
        let threads = own.threads().unwrap();
        assert!(threads.contains(&Tid(nix::unistd::gettid().as_raw())));
        assert!(threads.is_sorted());
        let fds = own.fds().unwrap();
        assert!(fds.contains(&Fd(own.as_fd().as_raw_fd())));
        assert!(fds.is_sorted());
    }

    #[test]
    fn a_reaped_child_has_vanished_and_an_unknown_name_is_absent() {
        let mut child = std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
        let dir = TaskDir::process(Pid(child.id().cast_signed())).unwrap();
        let mut buffer = Vec::new();
        assert!(dir.read_into("no-such-file", &mut buffer).unwrap_err().is_absent());
        assert!(dir.read_into("comm", &mut buffer).unwrap().ends_with(b"\n"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(dir.read_into("comm", &mut buffer).unwrap_err().is_vanished());
        assert!(dir.fds().unwrap_err().is_vanished());
        let thread = super::super::ThreadName::new(Pid(child.id().cast_signed()), Tid(child.id().cast_signed()));
        assert!(thread.read_into("comm", &mut buffer).unwrap_err().is_vanished());
        assert!(dir.task(Tid(child.id().cast_signed())).unwrap_err().is_vanished());
        assert!(TaskDir::process(Pid(child.id().cast_signed())).unwrap_err().is_vanished());
    }
}
