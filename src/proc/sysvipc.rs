//! `/proc/sysvipc/shm`, `sem` and `msg`: the System V objects of an IPC namespace (proc_sysvipc(5); ipc/util.c, `sysvipc_proc_show`).

use super::error::{Error, ParseError};
use super::scan;
use super::task_dir::read_whole;
use crate::image::model::id::Pid;

/// What every object has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the kernel's own names")]
pub struct Entry {
    pub key: i32,
    pub id: i32,
    /// Permission bits; of segments also SHM_DEST and SHM_LOCKED.
    pub perms: u32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    /// Seconds since the epoch when something was last done to it.
    pub time: i64,
}

/// A segment of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the kernel's own names")]
pub struct Segment {
    pub entry: Entry,
    pub size: u64,
    pub cpid: Pid,
    pub lpid: Pid,
    pub nattch: u64,
    /// Bytes that are swapped out; 0 on a kernel that does not tell.
    pub swap: u64,
}

/// A set of semaphores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the kernel's own names")]
pub struct SemaphoreSet {
    pub entry: Entry,
    pub nsems: u32,
}

/// A message queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the kernel's own names")]
pub struct MessageQueue {
    pub entry: Entry,
    /// Bytes in it.
    pub cbytes: u64,
    pub qnum: u64,
    pub lspid: Pid,
    pub lrpid: Pid,
}

/// Reads the segments of our own IPC namespace; none on a kernel without them.
///
/// # Errors
/// See [`Error`].
pub fn segments(buffer: &mut Vec<u8>) -> Result<Vec<Segment>, Error> {
    read("/proc/sysvipc/shm", buffer, parse_segments)
}

/// Reads the sets of semaphores of our own IPC namespace; none on a kernel without them.
///
/// # Errors
/// See [`Error`].
pub fn semaphores(buffer: &mut Vec<u8>) -> Result<Vec<SemaphoreSet>, Error> {
    read("/proc/sysvipc/sem", buffer, parse_semaphores)
}

/// Reads the message queues of our own IPC namespace; none on a kernel without them.
///
/// # Errors
/// See [`Error`].
pub fn queues(buffer: &mut Vec<u8>) -> Result<Vec<MessageQueue>, Error> {
    read("/proc/sysvipc/msg", buffer, parse_queues)
}

fn read<T>(
    path: &'static str,
    buffer: &mut Vec<u8>,
    parse: fn(&[u8]) -> Result<Vec<T>, ParseError>,
) -> Result<Vec<T>, Error> {
    match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.and_then(|file| read_whole(&file, buffer)).map_err(|source| Error::from_io(path, source))?,
    }
    parse(buffer).map_err(|source| Error::Parse { path: path.into(), source })
}

/// Parses `shm`.
///
/// # Errors
/// Names the line.
pub fn parse_segments(text: &[u8]) -> Result<Vec<Segment>, ParseError> {
    lines("sysvipc/shm", text, |columns| {
        let head = columns.head()?;
        let size = columns.number("size")?;
        let (cpid, lpid, nattch) = (columns.pid("cpid")?, columns.pid("lpid")?, columns.number("nattch")?);
        let entry = columns.owner(head, &["atime", "dtime", "ctime"])?;
        let _resident = columns.0.next();
        let swap = columns.0.next().and_then(scan::decimal).unwrap_or(0);
        Ok(Segment { entry, size, cpid, lpid, nattch, swap })
    })
}

/// Parses `sem`.
///
/// # Errors
/// Names the line.
pub fn parse_semaphores(text: &[u8]) -> Result<Vec<SemaphoreSet>, ParseError> {
    lines("sysvipc/sem", text, |columns| {
        let head = columns.head()?;
        let nsems = columns.number("nsems")?;
        Ok(SemaphoreSet { entry: columns.owner(head, &["otime", "ctime"])?, nsems })
    })
}

/// Parses `msg`.
///
/// # Errors
/// Names the line.
pub fn parse_queues(text: &[u8]) -> Result<Vec<MessageQueue>, ParseError> {
    lines("sysvipc/msg", text, |columns| {
        let head = columns.head()?;
        let (cbytes, qnum) = (columns.number("cbytes")?, columns.number("qnum")?);
        let (lspid, lrpid) = (columns.pid("lspid")?, columns.pid("lrpid")?);
        let entry = columns.owner(head, &["stime", "rtime", "ctime"])?;
        Ok(MessageQueue { entry, cbytes, qnum, lspid, lrpid })
    })
}

fn lines<T>(
    kind: &'static str,
    text: &[u8],
    parse: impl Fn(&mut Columns<'_>) -> Result<T, &'static str>,
) -> Result<Vec<T>, ParseError> {
    // The first line names the columns.
    let lines = scan::lines(text).skip(1);
    lines
        .map(|(number, line)| {
            let mut columns = Columns(Box::new(scan::words(line)));
            parse(&mut columns).map_err(|expected| ParseError::new(kind, number, expected, line))
        })
        .collect()
}

/// Key, identifier, permissions.
type Head = (i32, i32, u32);

struct Columns<'a>(Box<dyn Iterator<Item = &'a [u8]> + 'a>);

impl Columns<'_> {
    fn signed(&mut self, name: &'static str) -> Result<i64, &'static str> {
        self.0.next().and_then(scan::signed).ok_or(name)
    }

    fn number<T: TryFrom<u64>>(&mut self, name: &'static str) -> Result<T, &'static str> {
        self.0.next().and_then(scan::decimal::<u64>).and_then(|number| T::try_from(number).ok()).ok_or(name)
    }

    fn pid(&mut self, name: &'static str) -> Result<Pid, &'static str> {
        i32::try_from(self.signed(name)?).map(Pid).map_err(|_| name)
    }

    /// Key, identifier, permissions.
    fn head(&mut self) -> Result<Head, &'static str> {
        let key = i32::try_from(self.signed("key")?).map_err(|_| "key")?;
        let id = i32::try_from(self.signed("identifier")?).map_err(|_| "identifier")?;
        let perms = self.0.next().and_then(scan::octal).ok_or("perms")?;
        Ok((key, id, perms))
    }

    /// The four columns that say whose it is, and the times behind them.
    fn owner(&mut self, (key, id, perms): Head, times: &[&'static str]) -> Result<Entry, &'static str> {
        let (uid, gid, cuid) = (self.number("uid")?, self.number("gid")?, self.number("cuid")?);
        let cgid = self.number("cgid")?;
        let mut time = 0;
        for name in times {
            time = time.max(self.signed(name)?);
        }
        Ok(Entry { key, id, perms, uid, gid, cuid, cgid, time })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/fixtures/proc/sysvipc/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    #[test]
    fn segments_one_of_which_is_destroyed() {
        let entry = Entry { key: 4660, id: 98310, perms: 0o600, uid: 0, gid: 0, cuid: 0, cgid: 0, time: 1_795_762_511 };
        let first = Segment { entry, size: 8192, cpid: Pid(9422), lpid: Pid(9422), nattch: 3, swap: 0 };
        let found = parse_segments(&captured("shm")).unwrap();
        assert_eq!((found.len(), found[0]), (2, first));
        assert_eq!((found[1].entry.perms, found[1].entry.key, found[1].entry.id), (0o3640, 0, 98311));
    }

    #[test]
    fn semaphores_and_queues() {
        let sets = parse_semaphores(&captured("sem")).unwrap();
        assert_eq!((sets[0].entry.key, sets[0].entry.id, sets[0].nsems), (-559_038_737, 98311, 3));
        let queues = parse_queues(&captured("msg")).unwrap();
        assert_eq!((queues[0].qnum, queues[0].lspid, queues[0].lrpid, queues[0].entry.uid), (2, Pid(77), Pid(0), 1000));
        assert!(parse_queues(b"").unwrap().is_empty() && parse_queues(b"key\n1 2\n").is_err());
    }

    #[test]
    fn those_of_this_machine_are_read() {
        let mut buffer = Vec::new();
        segments(&mut buffer).unwrap();
        semaphores(&mut buffer).unwrap();
        queues(&mut buffer).unwrap();
    }
}
