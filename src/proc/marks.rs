//! The `inotify` and `fanotify` lines of fdinfo (fs/notify/fdinfo.c).

use super::fdinfo::FdInfo;
use super::scan;

/// An inode, as the kernel names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// `st_dev`, but for btrfs.
    pub dev: u64,
    /// Its number.
    pub ino: u64,
    /// Its handle: type and bytes, where its file system has such.
    pub handle: Option<(i32, Vec<u8>)>,
}

/// What a mark is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum On {
    /// An inode.
    Inode(Inode),
    /// A mount, by its id.
    Mount(i32),
    /// A file system, by its device.
    FileSystem(u64),
}

/// A watch of inotify(7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InotifyWatch {
    /// Its number.
    pub wd: i32,
    /// What is watched.
    pub inode: Inode,
    /// IN_* bits.
    pub mask: u32,
}

/// A mark of fanotify(7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FanotifyMark {
    /// What is marked.
    pub on: On,
    /// FAN_MARK_* bits.
    pub flags: u32,
    /// Events.
    pub mask: u32,
    /// Events to ignore.
    pub ignored: u32,
}

/// A fanotify group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FanotifyGroup {
    /// FAN_* bits.
    pub flags: u32,
    /// O_* bits.
    pub event_flags: u32,
    /// Its marks.
    pub marks: Vec<FanotifyMark>,
}

/// The watches of an inotify instance; `None` when a line is not what the kernel writes.
#[must_use]
pub fn inotify(info: &FdInfo) -> Option<Vec<InotifyWatch>> {
    let lines = info.extra.iter().filter_map(|line| line.strip_prefix(b"inotify "));
    lines
        .map(|line| Some(InotifyWatch { wd: hex(line, b"wd:")?, inode: inode(line)?, mask: hex(line, b"mask:")? }))
        .collect()
}

/// A fanotify group; `None` when a line is not what the kernel writes.
#[must_use]
pub fn fanotify(info: &FdInfo) -> Option<FanotifyGroup> {
    let mut lines = info.extra.iter().filter_map(|line| line.strip_prefix(b"fanotify "));
    let head = lines.next()?;
    let marks = lines.map(|line| {
        let on = if let Some(mount) = hex(line, b"mnt_id:") {
            On::Mount(mount)
        } else if value(line, b"ino:").is_some() {
            On::Inode(inode(line)?)
        } else {
            On::FileSystem(device(line)?)
        };
        Some(FanotifyMark {
            on,
            flags: hex(line, b"mflags:")?,
            mask: hex(line, b"mask:")?,
            ignored: hex(line, b"ignored_mask:")?,
        })
    });
    Some(FanotifyGroup {
        flags: hex(head, b"flags:")?,
        event_flags: hex(head, b"event-flags:")?,
        marks: marks.collect::<Option<_>>()?,
    })
}

fn value<'a>(line: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    scan::words(line).find_map(|word| word.strip_prefix(key))
}

fn hex<T: TryFrom<u64>>(line: &[u8], key: &[u8]) -> Option<T> {
    scan::hex(value(line, key)?)
}

/// A `dev_t` of the kernel: twelve bits above twenty.
fn device(line: &[u8]) -> Option<u64> {
    let device: u32 = hex(line, b"sdev:")?;
    Some(libc::makedev(device >> 20, device & 0xf_ffff))
}

fn inode(line: &[u8]) -> Option<Inode> {
    let handle = || {
        let digits = value(line, b"f_handle:")?;
        let bytes = digits.chunks_exact(2).map(scan::hex::<u8>).collect::<Option<Vec<u8>>>()?;
        (bytes.len() == hex::<usize>(line, b"fhandle-bytes:")?).then_some(())?;
        Some((hex::<u32>(line, b"fhandle-type:")? as i32, bytes))
    };
    Some(Inode { dev: device(line)?, ino: hex(line, b"ino:")?, handle: handle() })
}

#[cfg(test)]
mod tests {
    use super::super::fdinfo::parse;
    use super::*;

    const HEAD: &str = "pos:\t0\nflags:\t02\nmnt_id:\t17\nino:\t1038\n";

    #[test]
    fn watches_of_inotify() {
        let text = format!(
            "{HEAD}inotify wd:186a1 ino:a4400c sdev:fe00000 mask:80000fff ignored_mask:0 fhandle-bytes:8 fhandle-type:1 \
             f_handle:0c40a400db3530a4\ninotify wd:1 ino:2 sdev:17 mask:2 ignored_mask:0\n"
        );
        let handle = Some((1, vec![0x0c, 0x40, 0xa4, 0, 0xdb, 0x35, 0x30, 0xa4]));
        let first = Inode { dev: libc::makedev(0xfe, 0), ino: 0xa4_400c, handle };
        let second = Inode { dev: libc::makedev(0, 0x17), ino: 2, handle: None };
        let wanted = [
            InotifyWatch { wd: 100_001, inode: first, mask: 0x8000_0fff },
            InotifyWatch { wd: 1, inode: second, mask: 2 },
        ];
        assert_eq!(inotify(&parse(text.as_bytes()).unwrap()), Some(wanted.to_vec()));
        let damaged = format!("{HEAD}inotify wd:x ino:2 sdev:17 mask:2\n");
        assert_eq!(inotify(&parse(damaged.as_bytes()).unwrap()), None);
    }

    #[test]
    fn marks_of_fanotify() {
        let text = format!(
            "{HEAD}fanotify flags:0 event-flags:8000\nfanotify sdev:15 mflags:0 mask:20 ignored_mask:0\n\
             fanotify mnt_id:1b mflags:0 mask:20 ignored_mask:1\n\
             fanotify ino:4 sdev:15 mflags:200 mask:40000020 ignored_mask:0 fhandle-bytes:2 fhandle-type:1 f_handle:0c40\n"
        );
        let group = fanotify(&parse(text.as_bytes()).unwrap()).unwrap();
        assert_eq!((group.flags, group.event_flags, group.marks.len()), (0, 0x8000, 3));
        assert_eq!(group.marks[0].on, On::FileSystem(libc::makedev(0, 0x15)));
        assert_eq!((&group.marks[1].on, group.marks[1].ignored), (&On::Mount(0x1b), 1));
        assert_eq!((group.marks[2].flags, group.marks[2].mask), (0x200, 0x4000_0020));
    }
}
