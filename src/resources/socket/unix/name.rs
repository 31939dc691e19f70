//! Names of UNIX sockets: what they are, which file is behind them, and who has them.

use crate::image::model::id::Pid;
use crate::image::model::socket::unix::SocketFile;
use crate::proc::TaskDir;
use crate::sys::sock_diag::{LISTENING, UnixSocket};
use crate::sys::socket;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes of `sa_family`, before `sun_path`.
const FAMILY: usize = 2;
/// Bytes of `sun_path`.
const PATH_MAX: usize = 108;

/// `sun_path` of a whole address: without the closing zero of a path, which the kernel adds.
#[must_use]
pub fn name_of(address: &[u8]) -> Vec<u8> {
    let name = address.get(FAMILY..).unwrap_or_default();
    match name.first() {
        Some(0) | None => name.to_vec(),
        Some(_) => name.split(|byte| *byte == 0).next().unwrap_or_default().to_vec(),
    }
}

/// `struct sockaddr_un` of a name.
#[must_use]
pub fn address_of(name: &[u8]) -> Vec<u8> {
    [&(libc::AF_UNIX as u16).to_ne_bytes()[..], name].concat()
}

/// Whether a name is a path.
#[must_use]
pub fn is_path(name: &[u8]) -> bool {
    name.first().is_some_and(|byte| *byte != 0)
}

/// The file of a socket's name, if that is a path and still leads there.
pub fn file(fd: BorrowedFd<'_>, name: &[u8], known: Option<(u64, u64)>, holder: Pid) -> Option<SocketFile> {
    if !is_path(name) {
        return None;
    }
    // Without privilege its path is guessed.
    let (path, (dev, ino)) = match socket::bound_file(fd) {
        Ok(file) => {
            let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
            let meta = file.metadata().ok()?;
            (path, (meta.dev(), meta.ino()))
        }
        Err(_) => (resolve(name, holder)?, known?),
    };
    let meta = path.symlink_metadata().ok().filter(|meta| (meta.dev(), meta.ino()) == (dev, ino))?;
    Some(describe(path, &meta))
}

fn describe(path: PathBuf, meta: &Metadata) -> SocketFile {
    SocketFile {
        path: path.into_os_string().into_vec(),
        dev: meta.dev(),
        ino: meta.ino(),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
    }
}

/// The path that a name means to a task.
pub fn resolve(name: &[u8], holder: Pid) -> Option<PathBuf> {
    let name = Path::new(OsStr::from_bytes(name));
    if name.is_absolute() {
        return Some(name.to_path_buf());
    }
    let directory = TaskDir::process(holder).ok()?.read_link("cwd").ok()?;
    Some(Path::new(OsStr::from_bytes(&directory)).join(name))
}

/// Whether a connected socket has bound its name itself. Otherwise it has that of the listener that has accepted it, be it gone. `named` are all with that name.
///
/// # Errors
/// As socket(2).
pub fn is_bound<'a>(
    fd: BorrowedFd<'_>,
    own: &UnixSocket,
    named: impl Iterator<Item = &'a UnixSocket>,
) -> io::Result<bool> {
    let is_other = |other: &&UnixSocket| other.ino != own.ino && other.kind == own.kind;
    if named.filter(is_other).any(|other| other.state == LISTENING || other.peer.is_none()) {
        return Ok(false);
    }
    let probe = |name: &[u8]| -> io::Result<bool> {
        // One that is bound is found, and is of another kind.
        let prober = socket::make(libc::AF_UNIX, libc::SOCK_DGRAM, 0)?;
        let answer = socket::connect(std::os::fd::AsFd::as_fd(&prober), &address_of(name));
        Ok(answer == Err(nix::errno::Errno::EPROTOTYPE))
    };
    if !is_path(&own.name) {
        return probe(&own.name);
    }
    match socket::bound_file(fd) {
        Ok(file) => probe(format!("/proc/self/fd/{}", file.as_raw_fd()).as_bytes()),
        Err(_) if own.name.len() < PATH_MAX && own.name.starts_with(b"/") => probe(&own.name),
        Err(_) => Ok(false),
    }
}
