//! The file of an image: it has no name until it is whole, so that a dump that is killed leaves nothing.

use crate::image::{ImageFile, WriteError, WriteOptions, Writer};
use crate::sys::open;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Readable by its owner alone: an image holds all that a process knew.
const MODE: u32 = 0o600;

/// An image begun.
#[derive(Debug)]
pub struct Created {
    /// What writes it.
    pub writer: Writer,
    /// The file, unless what is written to is none.
    pub file: Option<File>,
}

/// Begins an image that will appear under `path` when it is whole, mode 0600. What exists there and is no regular file (a FIFO,
/// /dev/null) is written to as a stream.
///
/// # Errors
/// When the file cannot be created or written.
pub fn create(path: &Path, options: WriteOptions) -> Result<Created, WriteError> {
    let failed = |action, source| WriteError::Output { path: path.to_owned(), action, source };
    // A symbolic link stays, and the image takes the place of what it points to.
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match fs::metadata(&real) {
        Ok(meta) if meta.is_dir() => Err(failed("creating", ErrorKind::IsADirectory.into())),
        Ok(meta) if !meta.is_file() => {
            let stream = OpenOptions::new().write(true).open(&real).map_err(|e| failed("opening", e))?;
            Ok(Created { writer: Writer::stream(path, stream, options)?, file: None })
        }
        Ok(_) | Err(_) => {
            let unpublished = Unpublished::create(real).map_err(|e| failed("creating", e))?;
            let file = unpublished.file.try_clone().map_err(|e| failed("creating", e))?;
            Ok(Created { writer: Writer::file(path, unpublished, options)?, file: Some(file) })
        }
    }
}

/// A file on the file system of its goal that nobody sees, save under a temporary name where there is no other way.
#[derive(Debug)]
struct Unpublished {
    file: File,
    goal: PathBuf,
    /// Removed unless it becomes the goal.
    temporary: Option<PathBuf>,
}

impl Unpublished {
    fn create(goal: PathBuf) -> io::Result<Self> {
        match open::nameless(directory(&goal), libc::O_RDWR, MODE) {
            Ok(file) => Ok(Self { file, goal, temporary: None }),
            Err(error) if open::lacks_nameless(&error) => Self::named(goal),
            Err(error) => Err(error),
        }
    }

    /// Where the file system has no files without a name: `.NAME.PID.tmp` beside the goal.
    fn named(goal: PathBuf) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(MODE);
        let (temporary, file) = beside(&goal, |path| options.open(path))?;
        Ok(Self { file, goal, temporary: Some(temporary) })
    }

    /// link(2) never takes the place of another file; rename(2) does, and wants a name to begin with.
    fn give_name(&mut self) -> Result<(), (&'static str, io::Error)> {
        if self.temporary.is_none() {
            match open::link(&self.file, &self.goal) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    let (path, ()) =
                        beside(&self.goal, |path| open::link(&self.file, path)).map_err(|e| ("linking", e))?;
                    self.temporary = Some(path);
                }
                result => return result.map_err(|e| ("linking", e)),
            }
        }
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.goal).map_err(|e| ("renaming", e))?;
            self.temporary = None;
        }
        Ok(())
    }
}

impl ImageFile for Unpublished {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// fsync of the file, its name, fsync of the directory.
    fn publish(mut self: Box<Self>, length: u64) -> Result<(), (&'static str, io::Error)> {
        // Pages may have been copied behind the end before another way was taken.
        if self.file.metadata().is_ok_and(|meta| meta.len() > length) {
            self.file.set_len(length).map_err(|e| ("cutting off", e))?;
        }
        self.file.sync_all().map_err(|e| ("flushing to the disk", e))?;
        self.give_name()?;
        let directory = File::open(directory(&self.goal)).and_then(|directory| directory.sync_all());
        directory.map_err(|e| ("flushing the directory to the disk", e))
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary);
        }
    }
}

fn directory(goal: &Path) -> &Path {
    goal.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes something under the first temporary name that is free: what a killed process with our pid left behind may hold one.
fn beside<T>(goal: &Path, make: impl Fn(&Path) -> io::Result<T>) -> io::Result<(PathBuf, T)> {
    let name = goal.file_name().ok_or(ErrorKind::InvalidFilename)?;
    for attempt in 0..100 {
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(match attempt {
            0 => format!(".{}.tmp", std::process::id()),
            _ => format!(".{}.{attempt}.tmp", std::process::id()),
        });
        let path = goal.with_file_name(temporary);
        match make(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            result => return result.map(|made| (path, made)),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(directory: &Path) -> Vec<OsString> {
        let mut names: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    type Create = fn(PathBuf) -> io::Result<Unpublished>;

    /// With and without files that have no name, and what is seen while they are written.
    const WAYS: [(Create, usize); 2] = [(Unpublished::create, 0), (Unpublished::named, 1)];

    #[test]
    fn a_file_appears_whole_and_private_and_leaves_nothing_beside_it() {
        for (create, seen) in WAYS {
            for old in [None, Some("the old image")] {
                let room = tempfile::tempdir().unwrap();
                let goal = room.path().join("job.snap");
                old.iter().for_each(|old| fs::write(&goal, old).unwrap());
                let file = Box::new(create(goal.clone()).unwrap());
                file.write_at(b"image", 4).unwrap();
                assert_eq!(names(room.path()).len(), seen + usize::from(old.is_some()));
                assert_eq!(fs::read_to_string(&goal).ok().as_deref(), old);
                file.publish(9).unwrap();
                assert_eq!(fs::read(&goal).unwrap(), b"\0\0\0\0image");
                assert_eq!(fs::metadata(&goal).unwrap().permissions().mode() & 0o7777, MODE);
                assert_eq!(names(room.path()), ["job.snap"]);
            }
        }
    }

    #[test]
    fn what_is_not_published_is_gone() {
        for (create, _) in WAYS {
            let room = tempfile::tempdir().unwrap();
            let goal = room.path().join("job.snap");
            drop(create(goal.clone()).unwrap());
            assert!(names(room.path()).is_empty());
            let late = Box::new(create(goal.clone()).unwrap());
            fs::create_dir(&goal).unwrap();
            late.publish(0).expect_err("a directory has taken its place");
            assert_eq!(names(room.path()), ["job.snap"]);
        }
    }

    #[test]
    fn a_temporary_name_that_is_taken_is_passed_over() {
        let room = tempfile::tempdir().unwrap();
        let goal = room.path().join("job.snap");
        fs::write(&goal, "the old image").unwrap();
        let taken = room.path().join(format!(".job.snap.{}.tmp", std::process::id()));
        fs::write(&taken, "left behind").unwrap();
        for (create, _) in WAYS {
            Box::new(create(goal.clone()).unwrap()).publish(0).unwrap();
            assert_eq!(fs::read(&goal).unwrap(), b"");
            assert_eq!(names(room.path()).len(), 2);
        }
    }

    #[test]
    fn a_full_disk_is_named() {
        let failed = create("/dev/full".as_ref(), WriteOptions::default()).err();
        assert!(matches!(failed, Some(WriteError::NoSpace { .. })), "{failed:?}");
        assert!(Path::new("/dev/full").exists());
    }

    #[test]
    fn a_symbolic_link_stays() {
        let room = tempfile::tempdir().unwrap();
        let (goal, link) = (room.path().join("job.snap"), room.path().join("link"));
        fs::write(&goal, "the old image").unwrap();
        std::os::unix::fs::symlink(&goal, &link).unwrap();
        drop(create(&link, WriteOptions::default()).unwrap());
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(room.path()), ["job.snap", "link"]);
    }
}
