//! `/proc/PID/mountinfo`: mounts of a task's namespace that its root can reach (proc_pid_mountinfo(5)).

use super::error::{Error, ParseError};
use super::files::Files;
use super::scan;
use super::task_dir::TaskDir;

const KIND: &str = "mountinfo";

/// What fs/proc_namespace.c escapes; the backslash is among it.
const ESCAPED: &[u8] = b" \t\n\\#";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its id, that of `fdinfo`.
    pub id: i32,
    /// The mount it is mounted on.
    pub parent: i32,
    /// `st_dev` of files in it, but for btrfs.
    pub dev: u64,
    /// Directory of the file system that is its root. Raw bytes, escapes decoded.
    pub root: Vec<u8>,
    /// Where it is mounted, seen from the task's root. Raw bytes, escapes decoded.
    pub mount_point: Vec<u8>,
    /// Options of the mount.
    pub options: Vec<u8>,
    /// `shared:N`, `master:N`, `propagate_from:N`, `unbindable`.
    pub propagation: Vec<Vec<u8>>,
    /// Type of the file system.
    pub fs_type: Vec<u8>,
    /// Its source. Raw bytes, escapes decoded.
    pub source: Vec<u8>,
    /// Options of the file system.
    pub super_options: Vec<u8>,
}

/// Reads the mounts of a task.
///
/// # Errors
/// A zombie gives EINVAL as [`Error::Io`]; else see [`Error`].
pub fn read(task: &TaskDir, buffer: &mut Vec<u8>) -> Result<Vec<Mount>, Error> {
    task.parse("mountinfo", buffer, parse)
}

/// Parses the whole file.
///
/// # Errors
/// Names the line.
pub fn parse(text: &[u8]) -> Result<Vec<Mount>, ParseError> {
    scan::lines(text)
        .map(|(number, line)| mount(line).map_err(|expected| ParseError::new(KIND, number, expected, line)))
        .collect()
}

fn mount(line: &[u8]) -> Result<Mount, &'static str> {
    // Names never hold a blank, but the source may be empty, so that words are split at every single one.
    let mut words = line.split(|&byte| byte == b' ');
    let mut next = |expected| words.next().ok_or(expected);
    let id = scan::signed(next("mount id")?).ok_or("mount id")?;
    let parent = scan::signed(next("parent id")?).ok_or("parent id")?;
    let dev = scan::decimal_device(next("major:minor")?).ok_or("major:minor")?;
    let root = decoded(next("root")?);
    let mount_point = decoded(next("mount point")?);
    let options = next("mount options")?.to_vec();
    let propagation: Vec<_> = words.by_ref().take_while(|word| *word != b"-").map(<[u8]>::to_vec).collect();
    let mut next = |expected| words.next().ok_or(expected);
    let fs_type = decoded(next("file system type")?);
    let source = decoded(next("source")?);
    let super_options = next("file system options")?.to_vec();
    Ok(Mount { id, parent, dev, root, mount_point, options, propagation, fs_type, source, super_options })
}

fn decoded(word: &[u8]) -> Vec<u8> {
    scan::unescape(word, ESCAPED).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_real_namespace() {
        let mounts = parse(include_bytes!("../../fixtures/proc/fds/mountinfo")).unwrap();
        assert_eq!(mounts.len(), 20);
        let root = mounts.iter().find(|mount| mount.mount_point == b"/").unwrap();
        assert_eq!((root.id, root.parent, root.dev), (27, 1, libc::makedev(254, 0)));
        assert_eq!((root.fs_type.as_slice(), root.source.as_slice()), (b"ext4".as_slice(), b"/dev/vda".as_slice()));
        let odd = Mount {
            id: 42,
            parent: 27,
            dev: libc::makedev(0, 39),
            root: b"/".to_vec(),
            mount_point: b"/tmp/fx/mnt a".to_vec(),
            options: b"rw,relatime".to_vec(),
            propagation: vec![b"shared:1".to_vec()],
            fs_type: b"tmpfs".to_vec(),
            source: b"src #\\x".to_vec(),
            super_options: b"rw".to_vec(),
        };
        assert_eq!(mounts.last(), Some(&odd));
    }

    #[test]
    fn an_empty_source_and_errors() {
        let mount = &parse(b"1 2 0:3 / / rw - tmpfs  rw\n").unwrap()[0];
        assert_eq!((mount.source.as_slice(), mount.super_options.as_slice()), (b"".as_slice(), b"rw".as_slice()));
        assert_eq!(parse(b"1 2 0:3 / / rw shared:1\n").unwrap_err().expected, "file system type");
        assert_eq!(parse(b"1 2 03 / / rw\n").unwrap_err().expected, "major:minor");
    }
}
