//! `/proc/PID/fdinfo/FD`: what the kernel says of an open file description (fs/proc/fd.c, `seq_show`).

use super::error::{Error, ParseError};
use super::files::Files;
use super::locks::{self, Lock};
use super::scan;
use super::task_dir::TaskDir;
use crate::image::model::id::Fd;

const KIND: &str = "fdinfo";

/// One descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FdInfo {
    /// Offset in bytes.
    pub pos: i64,
    /// Access mode and status flags; O_CLOEXEC for the descriptor's own flag.
    pub flags: u32,
    /// Mount of the file, as in `mountinfo`.
    pub mnt_id: i32,
    /// Inode number, from 5.14.
    pub ino: Option<u64>,
    /// Locks and leases held through it.
    pub locks: Vec<Lock>,
    /// The lines that its kind adds: `eventfd-count: 0`, `tfd: 5 events: ...`.
    pub extra: Vec<Vec<u8>>,
}

impl FdInfo {
    /// Whether the descriptor is close-on-exec.
    #[must_use]
    pub const fn close_on_exec(&self) -> bool {
        self.flags & libc::O_CLOEXEC as u32 != 0
    }

    /// Flags without O_CLOEXEC, as F_GETFL gives them.
    #[must_use]
    pub const fn status_flags(&self) -> u32 {
        self.flags & !(libc::O_CLOEXEC as u32)
    }

    /// The value of the first extra line `key:`, without the blanks around it.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        self.extra.iter().find_map(|line| {
            let (name, value) = scan::split_once(line, b':')?;
            (name == key.as_bytes()).then(|| scan::trim(value))
        })
    }
}

/// One `tfd:` line of an epoll instance (fs/eventpoll.c, `ep_show_fdinfo`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpollTarget {
    /// The descriptor's number when it was added.
    pub fd: Fd,
    /// EPOLL* bits.
    pub events: u32,
    /// The caller's data.
    pub data: u64,
    /// Inode number of the file, from 4.7.
    pub ino: Option<u64>,
}

impl FdInfo {
    /// What an epoll instance watches; `None` when a line is not what the kernel writes.
    #[must_use]
    pub fn epoll_targets(&self) -> Option<Vec<EpollTarget>> {
        let lines = self.extra.iter().filter(|line| line.starts_with(b"tfd:"));
        lines.map(|line| epoll_target(line)).collect()
    }
}

fn epoll_target(line: &[u8]) -> Option<EpollTarget> {
    let mut words = scan::words(line);
    let mut value = |key: &[u8]| if words.next()? == key { words.next() } else { None };
    let (fd, events, data) = (value(b"tfd:")?, value(b"events:")?, value(b"data:")?);
    let ino = words.find_map(|word| word.strip_prefix(b"ino:"));
    Some(EpollTarget {
        fd: Fd(scan::decimal(fd)?),
        events: scan::hex(events)?,
        data: scan::hex(data)?,
        ino: ino.and_then(scan::hex),
    })
}

/// Reads what is known of one descriptor.
///
/// # Errors
/// [`Error::Absent`] if it is closed by now; else see [`Error`].
pub fn read(task: &TaskDir, fd: Fd, buffer: &mut Vec<u8>) -> Result<FdInfo, Error> {
    task.parse(&format!("fdinfo/{fd}"), buffer, parse)
}

/// Parses the whole file.
///
/// # Errors
/// Names the line.
pub fn parse(text: &[u8]) -> Result<FdInfo, ParseError> {
    let missing = |key| ParseError::new(KIND, 0, key, b"");
    let (mut pos, mut flags, mut mnt_id, mut ino) = (None, None, None, None);
    let (mut locks, mut extra) = (Vec::new(), Vec::new());
    for (number, line) in scan::lines(text) {
        let fail = |expected| ParseError::new(KIND, number, expected, line);
        let (key, value) = scan::split_once(line, b':').unwrap_or((line, b""));
        let value = scan::trim(value);
        // The first four lines are every kind's; a kind's own lines may use these keys again (`pos` of inotify).
        match key {
            b"pos" if pos.is_none() => pos = Some(scan::signed(value).ok_or_else(|| fail("pos"))?),
            b"flags" if flags.is_none() => flags = Some(scan::octal(value).ok_or_else(|| fail("flags"))?),
            b"mnt_id" if mnt_id.is_none() => mnt_id = Some(scan::signed(value).ok_or_else(|| fail("mnt_id"))?),
            b"ino" if ino.is_none() => ino = Some(scan::decimal(value).ok_or_else(|| fail("ino"))?),
            b"lock" => locks.push(locks::parse_line(value).map_err(fail)?),
            _ => extra.push(line.to_vec()),
        }
    }
    Ok(FdInfo {
        pos: pos.ok_or_else(|| missing("pos"))?,
        flags: flags.ok_or_else(|| missing("flags"))?,
        mnt_id: mnt_id.ok_or_else(|| missing("mnt_id"))?,
        ino,
        locks,
        extra,
    })
}

#[cfg(test)]
mod tests {
    use super::super::locks::LockClass;
    use super::*;

    #[test]
    fn an_epoll_instance_tells_what_it_watches() {
        let text = b"pos:\t0\nflags:\t02000002\nmnt_id:\t16\nino:\t2050\n\
            tfd:        4 events: 80000019 data:     7f00000000aa  pos:0 ino:802 sdev:10\n";
        let target = EpollTarget { fd: Fd(4), events: 0x8000_0019, data: 0x7f00_0000_00aa, ino: Some(0x802) };
        assert_eq!(parse(text).unwrap().epoll_targets(), Some(vec![target]));
        let damaged = b"pos:\t0\nflags:\t02\nmnt_id:\t16\ntfd: x events: 1 data: 2\n";
        assert_eq!(parse(damaged).unwrap().epoll_targets(), None);
    }

    fn captured(fd: u32) -> FdInfo {
        let path = format!("{}/fixtures/proc/fds/fdinfo/{fd}", env!("CARGO_MANIFEST_DIR"));
        parse(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn a_file_with_a_lock() {
        let info = captured(100);
        assert_eq!((info.pos, info.mnt_id, info.ino), (42, 27, Some(10_018_903)));
        assert!(info.close_on_exec());
        let status_flags = libc::O_RDWR | libc::O_APPEND | 0o100_000;
        assert_eq!(info.status_flags(), status_flags.cast_unsigned());
        let lock = Lock {
            number: 1,
            waiting: false,
            class: LockClass::Flock,
            state: "ADVISORY".into(),
            access: "WRITE".into(),
            pid: 19853,
            dev: Some(libc::makedev(0xfe, 0)),
            ino: 10_018_903,
            start: 0,
            end: None,
        };
        assert_eq!(info.locks, [lock]);
        assert!(info.extra.is_empty());
    }

    #[test]
    fn record_locks_and_a_lease() {
        let locks = captured(101).locks;
        assert_eq!((locks[0].class, locks[0].start, locks[0].end), (LockClass::Posix, 5, Some(14)));
        assert_eq!((locks[1].class, locks[1].pid, locks[1].end), (LockClass::OpenFile, -1, None));
        assert_eq!(captured(118).locks[0].class, LockClass::Lease);
    }

    #[test]
    fn lines_of_each_kind() {
        assert_eq!(captured(110).value("eventfd-count"), Some(b"3".as_slice()));
        assert_eq!(captured(112).value("it_interval"), Some(b"(0, 5)".as_slice()));
        assert_eq!(captured(113).value("sigmask"), Some(b"0000000000000200".as_slice()));
        assert_eq!(captured(115).value("Pid"), Some(b"19853".as_slice()));
        let epoll = captured(109);
        assert_eq!(epoll.extra, [b"tfd:        4 events: 80000019 data:     7f9100000004  pos:0 ino:40e sdev:10"]);
        assert!(captured(114).extra[0].starts_with(b"inotify wd:1 ino:98e056 sdev:fe00000 mask:2"));
        assert_eq!(captured(119).value("SqMask"), Some(b"0x3".as_slice()));
        assert_eq!(captured(106).value("none"), None);
    }

    #[test]
    fn kernels_without_an_inode_line_and_errors() {
        assert_eq!(parse(b"pos:\t-1\nflags:\t02\nmnt_id:\t9\n").unwrap().ino, None);
        assert_eq!(parse(b"pos:\t1\nflags:\t08\nmnt_id:\t9\n").unwrap_err().line, 2);
        assert_eq!(parse(b"pos:\t1\nflags:\t0\n").unwrap_err().expected, "mnt_id");
    }

    #[test]
    fn a_descriptor_of_our_own() {
        let task = TaskDir::current().unwrap();
        let fd = Fd(std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&task)));
        let info = read(&task, fd, &mut Vec::new()).unwrap();
        assert!(info.close_on_exec());
        assert!(read(&task, Fd(999_999), &mut Vec::new()).unwrap_err().is_absent());
    }
}
