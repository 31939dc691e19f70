//! `/proc/PID/fd/FD`: what a descriptor's link says, and what kind of object that names (proc_pid_fd(5)).

use super::error::Error;
use super::path::PathText;
use super::scan;
use super::task_dir::TaskDir;
use crate::image::model::id::Fd;

/// What the text of a link names. Only a path begins with a slash, so that no file can pass for an object of the kernel;
/// of `/memfd:` this does not hold (see [`FdLink::Memfd`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FdLink {
    /// `pipe:[1]`: an anonymous pipe and its inode number.
    Pipe(u64),
    /// `socket:[2]` and its inode number.
    Socket(u64),
    /// `anon_inode:[eventpoll]`, `anon_inode:inotify`: the name without brackets.
    AnonInode(Vec<u8>),
    /// `/memfd:name (deleted)`, the name alone. A file `/memfd:name` that was unlinked looks the same: fstatfs(2) of
    /// the real one is tmpfs, and F_GET_SEALS works on it.
    Memfd(Vec<u8>),
    /// `net:[4026531840]`, `pidfd:[12]` and the like: kind and inode number.
    Inode {
        /// What stands before the colon.
        kind: Vec<u8>,
        /// The number in brackets.
        ino: u64,
    },
    /// A path.
    Path(PathText),
    /// Nothing that is known.
    Other(Vec<u8>),
}

/// Reads the link of a descriptor.
///
/// # Errors
/// [`Error::Absent`] if it is closed by now; else see [`Error`].
pub fn read(task: &TaskDir, fd: Fd) -> Result<FdLink, Error> {
    Ok(parse(&task.read_link(&format!("fd/{fd}"))?))
}

/// Sorts the text of a link.
#[must_use]
pub fn parse(text: &[u8]) -> FdLink {
    if let Some(name) = memfd_name(text) {
        return FdLink::Memfd(name.to_vec());
    }
    if text.starts_with(b"/") || text.starts_with(b"(unreachable)") {
        return FdLink::Path(PathText { raw: text.to_vec() });
    }
    object(text).unwrap_or_else(|| FdLink::Other(text.to_vec()))
}

/// The name in `/memfd:name (deleted)`, also as `maps` has it.
#[must_use]
pub fn memfd_name(text: &[u8]) -> Option<&[u8]> {
    text.strip_prefix(b"/memfd:")?.strip_suffix(b" (deleted)")
}

fn object(text: &[u8]) -> Option<FdLink> {
    let (kind, name) = scan::split_once(text, b':')?;
    let inner = name.strip_prefix(b"[").and_then(|name| name.strip_suffix(b"]"));
    if kind == b"anon_inode" {
        return Some(FdLink::AnonInode(inner.unwrap_or(name).to_vec()));
    }
    let ino = scan::decimal(inner?)?;
    match kind {
        b"pipe" => Some(FdLink::Pipe(ino)),
        b"socket" => Some(FdLink::Socket(ino)),
        _ => Some(FdLink::Inode { kind: kind.to_vec(), ino }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(fd: u32) -> FdLink {
        parse(&std::fs::read(format!("{}/fixtures/proc/fds/fdinfo/{fd}.link", env!("CARGO_MANIFEST_DIR"))).unwrap())
    }

    fn path(text: &[u8]) -> FdLink {
        FdLink::Path(PathText { raw: text.to_vec() })
    }

    #[test]
    fn one_of_each_kind() {
        assert_eq!(captured(100), path(b"/tmp/fx/fd/plain file"));
        assert_eq!(captured(102), path(b"/tmp/fx/fd/gone (deleted)"));
        assert_eq!(captured(103), path(b"/tmp/fx/fd/odd \n\\012\xff (deleted)"));
        assert_eq!(captured(106), FdLink::Pipe(58635));
        assert_eq!(captured(108), FdLink::Socket(58636));
        let anon = [109, 110, 112, 113, 114, 119].map(captured);
        let names = ["eventpoll", "eventfd", "timerfd", "signalfd", "inotify", "io_uring"];
        assert_eq!(anon, names.map(|name| FdLink::AnonInode(name.as_bytes().to_vec())));
        assert_eq!(captured(111), FdLink::Memfd(b"my mem".to_vec()));
        assert_eq!(captured(116), FdLink::Inode { kind: b"net".to_vec(), ino: 4_026_531_833 });
    }

    #[test]
    fn odd_texts() {
        assert_eq!(parse(b"/pipe:[1]"), path(b"/pipe:[1]"));
        assert_eq!(parse(b"/memfd:x"), path(b"/memfd:x"));
        assert_eq!(parse(b"pipe:[x]"), FdLink::Other(b"pipe:[x]".to_vec()));
        assert_eq!(parse(b""), FdLink::Other(Vec::new()));
        let unreachable = PathText { raw: b"(unreachable)/a (deleted)".to_vec() };
        assert!(unreachable.is_unreachable() && unreachable.may_be_deleted());
        assert_eq!(unreachable.stripped(), b"/a");
        assert_eq!(parse(&unreachable.raw), FdLink::Path(unreachable));
    }

    #[test]
    fn a_pipe_of_our_own() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let ino = nix::sys::stat::fstat(&reader).unwrap().st_ino;
        let fd = Fd(std::os::fd::AsRawFd::as_raw_fd(&reader));
        assert_eq!(read(&TaskDir::current().unwrap(), fd).unwrap(), FdLink::Pipe(ino));
    }
}
