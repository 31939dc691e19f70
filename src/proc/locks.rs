//! `/proc/locks` and the `lock:` lines of `fdinfo` (fs/locks.c, `lock_get_status`).

use super::error::{Error, ParseError};
use super::scan;
use super::task_dir::read_whole;

const KIND: &str = "locks";

/// One lock, lease or delegation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Number of the entry; those who wait for it have the same.
    pub number: u64,
    /// Whether it waits (`->`) rather than holds.
    pub waiting: bool,
    /// What it is.
    pub class: LockClass,
    /// `ADVISORY`, `MANDATORY`, `ACTIVE`, `BREAKING`, `BREAKER`.
    pub state: String,
    /// `READ`, `WRITE`, `UNLCK`, `RW`, `NONE`.
    pub access: String,
    /// Owner: -1 for OFDLCK, 0 for a process outside our pid namespace.
    pub pid: i32,
    /// Device of the file system (`s_dev`), `None` when the inode is not known.
    pub dev: Option<u64>,
    /// Inode number.
    pub ino: u64,
    /// First byte.
    pub start: u64,
    /// Last byte, `None` for the end of the file.
    pub end: Option<u64>,
}

/// What kind of lock it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockClass {
    /// fcntl(2) F_SETLK, of a process.
    Posix,
    /// fcntl(2) F_OFD_SETLK, of a description.
    OpenFile,
    /// flock(2).
    Flock,
    /// F_SETLEASE.
    Lease,
    /// An NFS server's.
    Delegation,
    /// An NFS server's layout.
    Layout,
    /// Of the kernel itself (`ACCESS`).
    Access,
    /// Named `UNKNOWN` by the kernel.
    Unknown,
}

/// Reads all locks that the reader's pid namespace may see.
///
/// # Errors
/// See [`Error`].
pub fn read(buffer: &mut Vec<u8>) -> Result<Vec<Lock>, Error> {
    let path = "/proc/locks";
    std::fs::File::open(path)
        .and_then(|file| read_whole(&file, buffer))
        .map_err(|source| Error::from_io(path, source))?;
    parse(buffer).map_err(|source| Error::Parse { path: path.into(), source })
}

/// Parses the whole file.
///
/// # Errors
/// Names the line.
pub fn parse(text: &[u8]) -> Result<Vec<Lock>, ParseError> {
    scan::lines(text)
        .map(|(number, line)| parse_line(line).map_err(|expected| ParseError::new(KIND, number, expected, line)))
        .collect()
}

/// Parses one line; the error says what was expected.
pub(super) fn parse_line(line: &[u8]) -> Result<Lock, &'static str> {
    let mut words = scan::words(line).peekable();
    let number = words.next().and_then(|word| scan::decimal(word.strip_suffix(b":")?)).ok_or("number of the lock")?;
    let waiting = words.next_if_eq(&b"->".as_slice()).is_some();
    let class = words.next().and_then(class).ok_or("class of lock")?;
    let state = words.next().map(text).ok_or("state of lock")?;
    let access = words.next().map(text).ok_or("access of lock")?;
    let pid = words.next().and_then(scan::signed).ok_or("pid")?;
    let (dev, ino) = words.next().and_then(inode).ok_or("device and inode")?;
    let start = words.next().and_then(scan::decimal).ok_or("first byte")?;
    let end = match words.next().ok_or("last byte")? {
        b"EOF" => None,
        end => Some(scan::decimal(end).ok_or("last byte")?),
    };
    Ok(Lock { number, waiting, class, state, access, pid, dev, ino, start, end })
}

fn class(word: &[u8]) -> Option<LockClass> {
    match word {
        b"POSIX" => Some(LockClass::Posix),
        b"OFDLCK" => Some(LockClass::OpenFile),
        b"FLOCK" => Some(LockClass::Flock),
        b"LEASE" => Some(LockClass::Lease),
        b"DELEG" => Some(LockClass::Delegation),
        b"LAYOUT" => Some(LockClass::Layout),
        b"ACCESS" => Some(LockClass::Access),
        b"UNKNOWN" => Some(LockClass::Unknown),
        _ => None,
    }
}

fn text(word: &[u8]) -> String {
    String::from_utf8_lossy(word).into_owned()
}

/// `major:minor:inode`, or `<none>:0`.
fn inode(word: &[u8]) -> Option<(Option<u64>, u64)> {
    let colon = word.iter().rposition(|&byte| byte == b':')?;
    let ino = scan::decimal(&word[colon + 1..])?;
    match &word[..colon] {
        b"<none>" => Some((None, ino)),
        device => Some((Some(scan::hex_device(device)?), ino)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locks_of_one_program() {
        let locks = parse(include_bytes!("../../fixtures/proc/fds/locks")).unwrap();
        let classes: Vec<_> = locks.iter().map(|lock| lock.class).collect();
        assert_eq!(classes, [LockClass::Lease, LockClass::OpenFile, LockClass::Posix, LockClass::Flock]);
        assert_eq!((locks[0].state.as_str(), locks[0].access.as_str()), ("ACTIVE", "READ"));
        assert_eq!((locks[1].ino, locks[1].start, locks[1].end), (10_018_908, 100, None));
    }

    #[test]
    fn who_waits_and_inodes_that_are_not_known() {
        let locks =
            parse(b"7: -> POSIX  ADVISORY  WRITE 12 fe:00:9 0 EOF\n8: POSIX ADVISORY READ 0 <none>:0 1 2\n").unwrap();
        assert_eq!((locks[0].waiting, locks[0].number, locks[0].pid), (true, 7, 12));
        assert_eq!((locks[1].waiting, locks[1].dev, locks[1].end), (false, None, Some(2)));
    }

    #[test]
    fn errors_name_the_line() {
        let good = "1: POSIX  ADVISORY  WRITE 12 fe:00:9 0 EOF\n";
        let error = parse(format!("{good}2: NOVEL ADVISORY WRITE 1 fe:00:9 0 EOF\n").as_bytes()).unwrap_err();
        assert_eq!((error.line, error.expected), (2, "class of lock"));
        assert_eq!(parse(b"1: POSIX ADVISORY WRITE 1 fe:00:9 0").unwrap_err().expected, "last byte");
    }

    #[test]
    fn a_lock_of_our_own_is_listed() {
        let file = tempfile::tempfile().unwrap();
        file.lock().unwrap();
        let ino = std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap());
        let own = std::process::id().cast_signed();
        let locks = read(&mut Vec::new()).unwrap();
        assert!(locks.iter().any(|lock| lock.ino == ino && lock.pid == own && lock.class == LockClass::Flock));
    }
}
