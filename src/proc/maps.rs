//! `/proc/PID/maps`: one line for each mapping (fs/proc/task_mmu.c, `show_map_vma`).

use super::error::{Error, ParseError};
use super::files::Files;
use super::path::PathText;
use super::scan;
use super::task_dir::TaskDir;
use crate::image::model::address::PageRange;
use crate::image::model::memory::Prot;

const KIND: &str = "maps";

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Addresses.
    pub range: PageRange,
    /// `rwx`.
    pub prot: Prot,
    /// `s` (VM_MAYSHARE) rather than `p`.
    pub shared: bool,
    /// Bytes from the start of the file; 0 for anonymous memory.
    pub offset: u64,
    /// Device of the inode as `dev_t`, 0 without one. On btrfs and overlayfs this is not what stat(2) says.
    pub dev: u64,
    /// Inode number, 0 without one.
    pub ino: u64,
    /// Path or name such as `[heap]`, empty for none.
    pub name: PathText,
    /// The name holds `\012`. The kernel writes so for a newline, but does not escape the backslash, so that the four
    /// characters themselves look the same: `map_files` tells which it is.
    pub name_is_ambiguous: bool,
}

impl Mapping {
    /// The name of PR_SET_VMA_ANON_NAME: `[anon:NAME]`, `[anon_shmem:NAME]`.
    #[must_use]
    pub fn anon_name(&self) -> Option<&[u8]> {
        let inner = self.name.raw.strip_suffix(b"]")?;
        inner.strip_prefix(b"[anon:").or_else(|| inner.strip_prefix(b"[anon_shmem:"))
    }

    /// Whether the name is a path below a file system.
    #[must_use]
    pub fn has_path(&self) -> bool {
        self.name.raw.starts_with(b"/")
    }

    /// Name of the link in `map_files`.
    #[must_use]
    pub fn map_files_name(&self) -> String {
        format!("map_files/{}", self.range)
    }
}

/// Parses the whole file.
///
/// # Errors
/// Names the line that is no mapping.
pub fn parse(text: &[u8]) -> Result<Vec<Mapping>, ParseError> {
    let mut mappings = Vec::with_capacity(text.len() / SHORTEST_LINE);
    for (number, line) in scan::lines(text) {
        mappings.push(parse_line(line).map_err(|expected| ParseError::new(KIND, number, expected, line))?);
    }
    Ok(mappings)
}

/// About the length of a line without a name.
const SHORTEST_LINE: usize = 48;

/// Reads the mappings of a process in ascending order.
///
/// # Errors
/// See [`Error`].
pub fn read(task: &TaskDir, buffer: &mut Vec<u8>) -> Result<Vec<Mapping>, Error> {
    task.parse("maps", buffer, parse)
}

/// Parses one line, also the first of each mapping in `smaps`; the error says what was expected.
pub(super) fn parse_line(line: &[u8]) -> Result<Mapping, &'static str> {
    let (range, rest) = scan::split_once(line, b' ').ok_or("address range")?;
    let (start, end) = scan::split_once(range, b'-').ok_or("address range")?;
    let (start, end) = scan::hex(start).zip(scan::hex(end)).ok_or("address range")?;
    let (perms, rest) = scan::split_once(rest, b' ').ok_or("permissions")?;
    let (prot, shared) = permissions(perms).ok_or("permissions such as r-xp")?;
    let (offset, rest) = scan::split_once(rest, b' ').ok_or("offset")?;
    let (dev, rest) = scan::split_once(rest, b' ').ok_or("device")?;
    // Without a name the inode is followed by one blank.
    let (ino, name) = scan::split_once(rest, b' ').unwrap_or((rest, b""));
    let raw = name.trim_ascii_start();
    let decoded = scan::unescape(raw, b"\n");
    Ok(Mapping {
        range: PageRange::new(start, end),
        prot,
        shared,
        offset: scan::hex(offset).ok_or("offset")?,
        dev: scan::hex_device(dev).ok_or("device")?,
        ino: scan::decimal(ino).ok_or("inode number")?,
        name_is_ambiguous: decoded.len() != raw.len(),
        name: PathText { raw: decoded.into_owned() },
    })
}

fn permissions(text: &[u8]) -> Option<(Prot, bool)> {
    let &[read, write, exec, sharing] = text else {
        return None;
    };
    let mut prot = Prot::empty();
    for (byte, letter, bit) in [(read, b'r', Prot::READ), (write, b'w', Prot::WRITE), (exec, b'x', Prot::EXEC)] {
        if byte == letter {
            prot |= bit;
        } else if byte != b'-' {
            return None;
        }
    }
    match sharing {
        b's' => Some((prot, true)),
        b'p' => Some((prot, false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::model::address::Addr;

    fn named(start: u64) -> Mapping {
        let maps = parse(include_bytes!("../../fixtures/proc/mappings/maps")).unwrap();
        maps.into_iter().find(|mapping| mapping.range.start == Addr(start)).unwrap()
    }

    #[test]
    fn a_file_mapping() {
        let expected = Mapping {
            range: PageRange::new(0x100_01a0_0000, 0x100_01a0_2000),
            prot: Prot::READ,
            shared: true,
            offset: 0x2000,
            dev: libc::makedev(0xfe, 0),
            ino: 10_018_968,
            name: PathText { raw: b"/tmp/fx/f plain".to_vec() },
            name_is_ambiguous: false,
        };
        assert_eq!(named(0x100_01a0_0000), expected);
    }

    #[test]
    fn protections() {
        let prots = [0x100_0000_0000, 0x100_0010_0000, 0x100_0020_0000, 0x100_0030_0000].map(|at| named(at).prot);
        assert_eq!(prots, [Prot::READ | Prot::WRITE, Prot::empty(), Prot::EXEC, Prot::WRITE]);
    }

    #[test]
    fn odd_names() {
        assert_eq!(named(0x100_01b0_0000).name.without_deleted(), Some(b"/tmp/fx/deleted".as_slice()));
        assert_eq!(named(0x100_01c0_0000).name.raw, b"/tmp/fx/really (deleted)");
        let newline = named(0x100_01d0_0000);
        assert_eq!((newline.name.raw.as_slice(), newline.name_is_ambiguous), (b"/tmp/fx/new\nline".as_slice(), true));
        let literal = named(0x100_01e0_0000);
        assert_eq!(literal.name.raw, b"/tmp/fx/lit\neral\\040 ");
        assert!(literal.name_is_ambiguous);
        assert_eq!(named(0x100_01f0_0000).name.raw, b"/tmp/fx/\xff\xfe");
        assert_eq!(named(0x100_0170_0000).name.raw, b"/memfd:my mem (deleted)");
        assert!(named(0x100_0000_0000).name.raw.is_empty());
    }

    #[test]
    fn of_java() {
        let maps = parse(include_bytes!("../../fixtures/proc/java/maps")).unwrap();
        assert_eq!(maps.len(), 168);
        assert!(maps.is_sorted_by_key(|mapping| mapping.range.start));
        assert!(maps.iter().any(|mapping| mapping.name.raw.ends_with(b"/libjvm.so")));
    }

    #[test]
    fn names_given_by_prctl() {
        let text = b"1000-2000 rw-p 00000000 00:00 0                          [anon:my: name]\n\
                     2000-3000 rw-s 00000000 00:01 7                          [anon_shmem:x]\n\
                     3000-4000 rw-p 00000000 00:00 0                          [heap]\n";
        let maps = parse(text).unwrap();
        let names: Vec<_> = maps.iter().map(Mapping::anon_name).collect();
        assert_eq!(names, [Some(b"my: name".as_slice()), Some(b"x".as_slice()), None]);
        assert_eq!(maps[0].map_files_name(), "map_files/1000-2000");
    }

    #[test]
    fn errors_name_the_line() {
        let good = "1000-2000 rw-p 00000000 00:00 0 \n";
        let error = |line: &str| parse(format!("{good}{line}\n").as_bytes()).unwrap_err();
        assert_eq!(error("1000-2000 rwqp 00000000 00:00 0").expected, "permissions such as r-xp");
        assert_eq!(error("1000 rw-p 00000000 00:00 0").expected, "address range");
        assert_eq!(error("10000000000000000-2 rw-p 0 00:00 0").expected, "address range");
        assert_eq!((error("1-2 rw-p 0 00:00").line, error("1-2 rw-p 0 00:00").expected), (2, "device"));
        assert_eq!(error("").expected, "address range");
    }
}
