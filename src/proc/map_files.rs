//! `/proc/PID/map_files`: links to the mapped files themselves (proc_pid_map_files(5)); a directory of the process alone,
//! not of its threads.

use super::error::Error;
use super::maps::Mapping;
use super::path::PathText;
use super::task_dir::TaskDir;
use std::fs::File;

/// Reads the link of a mapping: the path without escapes, which `maps` cannot always give.
///
/// # Errors
/// [`Error::Absent`] if the mapping has no file or changed since; else see [`Error`].
pub fn read_link(task: &TaskDir, mapping: &Mapping) -> Result<PathText, Error> {
    Ok(PathText { raw: task.read_link(&mapping.map_files_name())? })
}

/// Opens the mapped file itself for reading, even if it was unlinked or replaced.
///
/// # Errors
/// [`Error::Permission`] without CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the initial user namespace; else see
/// [`Error`].
pub fn open(task: &TaskDir, mapping: &Mapping) -> Result<File, Error> {
    task.open(&mapping.map_files_name())
}

#[cfg(test)]
mod tests {
    use super::super::{fd_link, maps};
    use super::*;
    use crate::image::model::id::Pid;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn tell_a_newline_from_its_escape() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["new\nline", "new\\012line"] {
            let path = dir.path().join(name);
            std::fs::write(&path, [1; 4096]).unwrap();
            let mapped = crate::sys::file_map::map(&File::open(&path).unwrap()).unwrap();
            let task = TaskDir::process(Pid(std::process::id().cast_signed())).unwrap();
            let maps = maps::read(&task, &mut Vec::new()).unwrap();
            let start = mapped.as_ptr() as u64;
            let mapping = maps.iter().find(|mapping| mapping.range.start.0 == start).unwrap();
            assert!(mapping.name_is_ambiguous);
            assert_eq!(read_link(&task, mapping).unwrap().raw, path.as_os_str().as_bytes());
        }
        assert_eq!(fd_link::memfd_name(b"/memfd: (deleted)"), Some(b"".as_slice()));
    }
}
