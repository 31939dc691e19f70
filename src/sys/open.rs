//! Opening, placing and setting up descriptors as fcntl(2), open(2) and memfd_create(2) do.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Kinds of locks that belong to a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// flock(2).
    Flock,
    /// F_OFD_SETLK.
    OpenDescription,
    /// F_SETLEASE.
    Lease,
}

/// open(2) of an existing file: never creates, truncates, or takes a controlling terminal; close-on-exec.
///
/// # Errors
/// As open(2).
pub fn path(path: &Path, flags: u32) -> io::Result<File> {
    let never = libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_ASYNC;
    open(path, (flags as i32 & !never) | libc::O_NOCTTY | libc::O_CLOEXEC, 0)
}

/// O_TMPFILE: a regular file without a name in a directory, close-on-exec; [`link`] can give it one.
///
/// # Errors
/// As open(2); see [`lacks_nameless`].
pub fn nameless(directory: &Path, access: i32, mode: u32) -> io::Result<File> {
    open(directory, libc::O_TMPFILE | access | libc::O_CLOEXEC, mode)
}

/// Whether [`nameless`] has failed because the file system or, for the last two, the kernel has no such files (open(2)).
#[must_use]
pub fn lacks_nameless(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT))
}

/// linkat(2): gives the file behind a descriptor a name, one more or its first. AT_EMPTY_PATH would take CAP_DAC_READ_SEARCH.
///
/// # Errors
/// As linkat(2); `AlreadyExists` when the name is taken.
pub fn link(file: &File, name: &Path) -> io::Result<()> {
    let from = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let name = CString::new(name.as_os_str().as_bytes())?;
    let follow = libc::AT_SYMLINK_FOLLOW;
    // SAFETY: both paths are strings.
    done(unsafe { libc::linkat(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, name.as_ptr(), follow) })
}

/// A regular file without a name in the file system of `parent`, for reading and writing.
///
/// # Errors
/// As open(2), unlink(2).
pub fn nameless_file(parent: &Path) -> io::Result<File> {
    match nameless(parent, libc::O_RDWR, 0o600) {
        Err(error) if lacks_nameless(&error) => {
            let name = parent.join(format!(".snap-{}", std::process::id()));
            let file = open(&name, libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | libc::O_CLOEXEC, 0o600)?;
            std::fs::remove_file(name)?;
            Ok(file)
        }
        result => result,
    }
}

/// A directory without a name in the file system of `parent`.
///
/// # Errors
/// As mkdir(2), open(2), rmdir(2).
pub fn nameless_directory(parent: &Path) -> io::Result<File> {
    let name = parent.join(format!(".snap-{}", std::process::id()));
    std::fs::create_dir(&name)?;
    let opened = open(&name, libc::O_DIRECTORY | libc::O_CLOEXEC, 0);
    std::fs::remove_dir(name)?;
    opened
}

/// A FIFO without a name in the file system of `parent`, open for reading and writing.
///
/// # Errors
/// As mkfifo(3), open(2), unlink(2).
pub fn nameless_fifo(parent: &Path) -> io::Result<File> {
    let name = parent.join(format!(".snap-{}", std::process::id()));
    nix::unistd::mkfifo(&name, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    let opened = open(&name, libc::O_RDWR | libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC, 0);
    std::fs::remove_file(name)?;
    opened
}

/// memfd_create(2) of one that can be sealed: who may not seal it has F_SEAL_SEAL, which is set at the end.
///
/// # Errors
/// As memfd_create(2).
pub fn memfd(name: &str, flags: u32) -> io::Result<File> {
    let name = CString::new(name)?;
    // SAFETY: the name is a string; the result is ours.
    owned(unsafe { libc::memfd_create(name.as_ptr(), flags | libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) })
}

/// eventfd(2) with any counter that one can have.
///
/// # Errors
/// As eventfd(2), write(2).
pub fn eventfd(counter: u64, semaphore: bool) -> io::Result<File> {
    let flags = libc::EFD_CLOEXEC | if semaphore { libc::EFD_SEMAPHORE } else { 0 };
    // SAFETY: the result is ours.
    let file = owned(unsafe { libc::eventfd(0, flags) })?;
    io::Write::write_all(&mut &file, &counter.to_ne_bytes())?;
    Ok(file)
}

/// signalfd4(2).
///
/// # Errors
/// As signalfd(2).
pub fn signalfd(mask: u64) -> io::Result<File> {
    // SAFETY: the mask is read, and the result is ours.
    owned(unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, 8, libc::SFD_CLOEXEC) as libc::c_int })
}

/// epoll_create1(2).
///
/// # Errors
/// As epoll_create1(2).
pub fn epoll() -> io::Result<File> {
    // SAFETY: the result is ours.
    owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
}

/// Moves a descriptor to a number of at least `least`.
///
/// # Errors
/// As fcntl(2): EMFILE or EINVAL beyond the limit of open files.
pub fn lift(file: File, least: i32) -> io::Result<File> {
    // SAFETY: F_DUPFD_CLOEXEC makes a new descriptor, which is ours.
    owned(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) })
}

/// A duplicate of a descriptor of this process that somebody has named, at `least` or above.
///
/// # Errors
/// EBADF when it is not open.
pub fn duplicate(number: i32, least: i32) -> io::Result<File> {
    // SAFETY: F_DUPFD_CLOEXEC makes a new descriptor, which is ours, of whatever the number is.
    owned(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, least) })
}

/// Moves a descriptor to exactly `number`.
///
/// # Errors
/// `AddrInUse` when the number is taken, else as fcntl(2).
pub fn place(file: File, number: i32) -> io::Result<File> {
    if file.as_raw_fd() == number {
        return Ok(file);
    }
    let placed = lift(file, number)?;
    if placed.as_raw_fd() == number { Ok(placed) } else { Err(io::ErrorKind::AddrInUse.into()) }
}

/// F_SETFL: the flags that it knows, of those given.
///
/// # Errors
/// As fcntl(2).
pub fn set_flags(file: &File, flags: i32) -> io::Result<()> {
    let settable = libc::O_APPEND | libc::O_DIRECT | libc::O_NOATIME | libc::O_NONBLOCK;
    // SAFETY: F_GETFL and F_SETFL take and give integers.
    let now = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    if now & settable == flags & settable {
        return Ok(());
    }
    // SAFETY: as above.
    done(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags & settable) })
}

/// F_SETPIPE_SZ.
///
/// # Errors
/// As fcntl(2): EPERM above the limit for users.
pub fn set_pipe_size(file: &File, size: u32) -> io::Result<()> {
    // SAFETY: F_SETPIPE_SZ takes an integer.
    done(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETPIPE_SZ, size as libc::c_int) })
}

/// F_ADD_SEALS.
///
/// # Errors
/// As fcntl(2).
pub fn add_seals(file: &File, seals: u32) -> io::Result<()> {
    // SAFETY: F_GET_SEALS and F_ADD_SEALS take and give integers.
    let now = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    if now as u32 == seals {
        return Ok(());
    }
    // SAFETY: as above.
    done(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals as libc::c_int) })
}

/// Sets owner, group and permission bits where they differ.
///
/// # Errors
/// As fchown(2), fchmod(2).
pub fn own(file: &File, uid: u32, gid: u32, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let meta = file.metadata()?;
    if (meta.uid(), meta.gid()) != (uid, gid) {
        fchown(file, Some(uid), Some(gid))?;
    }
    if meta.mode() & 0o7777 != mode {
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Takes a lock without waiting. `end` is the last byte, `None` for all that may come.
///
/// # Errors
/// As flock(2), fcntl(2): EAGAIN when somebody else holds it.
pub fn lock(file: &File, kind: LockKind, exclusive: bool, start: u64, end: Option<u64>) -> io::Result<()> {
    match kind {
        LockKind::Flock => {
            let how = if exclusive { libc::LOCK_EX } else { libc::LOCK_SH };
            // SAFETY: flock takes integers.
            done(unsafe { libc::flock(file.as_raw_fd(), how | libc::LOCK_NB) })
        }
        LockKind::OpenDescription => {
            let lock = libc::flock {
                l_type: if exclusive { libc::F_WRLCK } else { libc::F_RDLCK } as libc::c_short,
                l_whence: libc::SEEK_SET as libc::c_short,
                l_start: start as i64,
                l_len: end.map_or(0, |end| (end - start + 1) as i64),
                l_pid: 0,
            };
            // SAFETY: the kernel only reads the struct.
            done(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) })
        }
        LockKind::Lease => {
            let kind = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
            // SAFETY: F_SETLEASE takes an integer.
            done(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) })
        }
    }
}

fn open(path: &Path, flags: i32, mode: u32) -> io::Result<File> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a string; the result is ours.
    owned(unsafe { libc::open(path.as_ptr(), flags, mode) })
}

pub(super) fn owned(fd: libc::c_int) -> io::Result<File> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every caller has just made it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
