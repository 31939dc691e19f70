//! Names of UNIX sockets that are paths.
//!
//! A name is bound in a room: a directory of ours that stands in for the root directory meanwhile. So any name can be had, be its path gone or
//! taken, or its directory lost, and the file of the old socket stays until the new one takes its place (rename(2)), at the very end.

use crate::image::model::socket::unix::SocketFile;
use crate::resources::socket::unix::{address_of, is_path};
use crate::sys::elsewhere::{self, Elsewhere};
use crate::sys::{open, socket};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};
use std::ffi::{CString, OsStr};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt, lchown};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A room with one socket in it. Dropped, it is gone with what is in it.
#[derive(Debug)]
pub struct Room {
    root: PathBuf,
    /// Where the socket is, from outside.
    inner: PathBuf,
    /// What it takes to be inside.
    inside: Elsewhere,
    /// Where the socket belongs, and whether another's file is there.
    place: Option<(PathBuf, bool)>,
    put: bool,
}

impl Room {
    /// Binds a socket to a path, and gives its file the owner and the mode that it had. Without `file` the path was gone.
    ///
    /// # Errors
    /// `AddrInUse` when somebody is found by that path.
    pub fn bind(fd: &File, name: &[u8], file: Option<&SocketFile>) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let place = file.map(|file| free_place(Path::new(OsStr::from_bytes(&file.path)))).transpose()?;
        let parent = place.as_ref().and_then(|(path, _)| path.parent());
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = parent.join(format!(".snap-{}-{number}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&root)?;
        let Layout { directory, way, inner } = layout(name);
        let mut room = Self { inner: root.join(&inner), root, inside: Elsewhere::default(), place, put: false };
        for part in [&directory].into_iter().chain(&way) {
            fs::create_dir_all(room.root.join(part))?;
        }
        let string = |path: &Path| CString::new(path.as_os_str().as_bytes());
        room.inside.root = Some((string(&room.root)?, string(&Path::new("/").join(&directory))?));
        let address = address_of(name);
        elsewhere::call(&room.inside, 0, |_| socket::bind(fd.as_fd(), &address).map_err(|_| Errno::last()))?;
        if let Some(SocketFile { path: _, dev: _, ino: _, mode, uid, gid }) = file {
            // Without privilege it belongs to whoever makes it.
            if nix::unistd::geteuid().is_root() {
                lchown(&room.inner, Some(*uid), Some(*gid))?;
            }
            fs::set_permissions(&room.inner, Permissions::from_mode(*mode))?;
        }
        Ok(room)
    }

    /// What it takes to be inside.
    pub fn inside(&self) -> &Elsewhere {
        &self.inside
    }

    /// Puts the file where it belongs, if its path was there.
    ///
    /// # Errors
    /// As rename(2).
    pub fn put(&mut self) -> io::Result<()> {
        if let Some((path, _)) = &self.place {
            fs::rename(&self.inner, path)?;
            self.put = true;
        }
        Ok(())
    }

    /// The program runs: what was put stays.
    pub fn keep(&mut self) {
        self.place = None;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
        // Where another's file was, that of a socket which nobody has is no other than before.
        if let (true, Some((path, false))) = (self.put, &self.place) {
            let _ = fs::remove_file(path);
        }
    }
}

/// What there must be in a room, below its root, for a name to be bound.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    /// Where whoever binds it is.
    directory: PathBuf,
    /// Directories through which the name leads.
    way: Vec<PathBuf>,
    /// Where it leads.
    inner: PathBuf,
}

fn layout(name: &[u8]) -> Layout {
    let name = Path::new(OsStr::from_bytes(name));
    let up = name.components().filter(|part| matches!(part, Component::ParentDir)).count();
    // Deep enough for the name to lead nowhere above.
    let directory: PathBuf = if name.is_absolute() { PathBuf::new() } else { (0..up).map(|_| "d").collect() };
    let (mut inner, mut way) = (directory.clone(), Vec::new());
    for part in name.components() {
        match part {
            Component::ParentDir => {
                way.push(inner.clone());
                inner.pop();
            }
            Component::Normal(part) => {
                way.push(inner.clone());
                inner.push(part);
            }
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    Layout { directory, way, inner }
}

/// A place to which a socket may be renamed, and whether the file of another is there, by which nobody is found.
fn free_place(path: &Path) -> io::Result<(PathBuf, bool)> {
    let found = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((path.to_path_buf(), false)),
        found => found?,
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is not a socket"));
    }
    // A path may be too long for an address; one through a descriptor is not.
    let file = open::path(path, (libc::O_PATH | libc::O_NOFOLLOW) as u32)?;
    let short = format!("/proc/self/fd/{}", file.as_raw_fd());
    for kind in [libc::SOCK_DGRAM, libc::SOCK_STREAM] {
        let prober = socket::make(libc::AF_UNIX, kind | libc::SOCK_NONBLOCK, 0)?;
        match socket::connect(prober.as_fd(), &address_of(short.as_bytes())) {
            Err(Errno::ECONNREFUSED) => return Ok((path.to_path_buf(), true)),
            // One of another kind is found: a listener gets no connection from us.
            Err(Errno::EPROTOTYPE) => break,
            _ => {}
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "another socket is bound to it"))
}

/// Whether something stands in the way of a name, as far as can be seen before it is wanted.
///
/// # Errors
/// `AddrInUse` where another socket has it, `NotFound` without its directory, `AlreadyExists`, `PermissionDenied`.
pub fn obstacle(name: &[u8], file: Option<&SocketFile>, kind: i32) -> io::Result<()> {
    if !is_path(name) {
        let trial = socket::make(libc::AF_UNIX, kind, 0)?;
        return socket::bind(trial.as_fd(), &address_of(name));
    }
    let Some(file) = file else { return Ok(()) };
    let path = Path::new(OsStr::from_bytes(&file.path));
    free_place(path)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    Ok(faccessat(AT_FDCWD, directory, AccessFlags::W_OK | AccessFlags::X_OK, AtFlags::AT_EACCESS)?)
}

/// Binds a socket to a name of whatever kind; gives the room of one that is a path.
///
/// # Errors
/// As [`Room::bind`] and bind(2).
pub fn bind(fd: &File, name: &[u8], file: Option<&SocketFile>) -> io::Result<Option<Room>> {
    if is_path(name) {
        return Room::bind(fd, name, file).map(Some);
    }
    socket::bind(fd.as_fd(), &address_of(name)).map(|()| None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_root() {
        let laid_out = |name: &str, directory: &str, inner: &str, way: &[&str]| {
            let way = way.iter().map(PathBuf::from).collect();
            let expected = Layout { directory: directory.into(), way, inner: inner.into() };
            assert_eq!(layout(name.as_bytes()), expected, "{name}");
        };
        laid_out("/run/../tmp/x", "", "tmp/x", &["", "run", "", "tmp"]);
        laid_out("x", "", "x", &[""]);
        laid_out("../../a/./x", "d/d", "a/x", &["d/d", "d", "", "a"]);
    }
}
