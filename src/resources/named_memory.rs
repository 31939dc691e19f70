//! Files of tmpfs that are shared memory, as POSIX shared memory and named semaphores are, and small ones of /tmp: they go with the machine, so that
//! their content travels.

use super::file::path;
use super::pages::data_ranges;
use crate::image::model::address::PAGE_SIZE;
use crate::image::model::file::{File as FileModel, HeldFutex};
use nix::sys::statfs::fstatfs;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// Where anybody may tidy up, and a start of the machine does (hier(7), file-hierarchy(7)).
const PASSING: [&str; 2] = ["/tmp", "/var/tmp"];

/// Bytes that are read at once.
const STEP: usize = 1 << 20;

/// Whether it is where shm_open(3) and sem_open(3) make what they make: whoever has it open, for whatever, has it as shared memory.
#[must_use]
pub fn is_posix(file: &FileModel) -> bool {
    path(file).and_then(Path::parent) == Some(Path::new("/dev/shm"))
}

/// Whether a file lies in memory (TMPFS_MAGIC of linux/magic.h).
#[must_use]
pub fn is_memory(file: &File) -> bool {
    const TMPFS: i64 = 0x0102_1994;
    fstatfs(file).is_ok_and(|fs| fs.filesystem_type().0 == TMPFS)
}

/// Whether the content of a shared mapping travels: it lies in memory, or it is small and where files go as they do with the machine, as those are in which
/// Java shows what it does, and which the next one that starts removes.
#[must_use]
pub fn travels(model: &FileModel, file: &File) -> bool {
    const LARGEST: u64 = 1 << 20;
    let is_passing = path(model).is_some_and(|path| PASSING.iter().any(|place| path.starts_with(place)));
    is_memory(file) || is_passing && model.size <= LARGEST
}

/// Opens it by its name for reading, if that still leads to it.
#[must_use]
pub fn open(file: &FileModel) -> Option<File> {
    let opened = File::open(path(file)?).ok()?;
    let meta = opened.metadata().ok()?;
    ((meta.dev(), meta.ino()) == (file.dev, file.ino)).then_some(opened)
}

/// What tells whether the first `size` bytes have changed: the CRC-32C of the numbers and bytes of all pages that are not zero, whether the others are
/// there or not, and whatever has become of the robust futexes.
///
/// # Errors
/// As read(2), lseek(2).
pub fn checksum(file: &File, size: u64, held: &[HeldFutex]) -> io::Result<u32> {
    let mut buffer = vec![0; STEP];
    let mut checksum = 0;
    for range in data_ranges(file, size)? {
        let (mut at, end) = (range.start.0, range.end.0.min(size));
        while at < end {
            let len = (end - at).min(STEP as u64) as usize;
            let (part, whole) = (&mut buffer[..len], len.next_multiple_of(PAGE_SIZE as usize));
            file.read_exact_at(part, at)?;
            buffer[len..whole].fill(0);
            for offset in held.iter().map(|futex| futex.offset).filter(|offset| (at..at + len as u64).contains(offset))
            {
                let word = (offset - at) as usize;
                buffer[word..whole.min(word + size_of::<u32>())].fill(0);
            }
            for (number, page) in (at / PAGE_SIZE..).zip(buffer[..whole].chunks(PAGE_SIZE as usize)) {
                if page.iter().any(|byte| *byte != 0) {
                    checksum = crc32c::crc32c_append(checksum, &number.to_le_bytes());
                    checksum = crc32c::crc32c_append(checksum, page);
                }
            }
            at += len as u64;
        }
    }
    Ok(checksum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_as_nothing_and_all_else_counts_with_its_place() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10 * PAGE_SIZE + 7).unwrap();
        let size = file.metadata().unwrap().len();
        let empty = checksum(&file, size, &[]).unwrap();
        file.write_all_at(&[0; 100], 5 * PAGE_SIZE).unwrap();
        assert_eq!(checksum(&file, size, &[]).unwrap(), empty);
        let mut seen = vec![empty];
        for at in [2 * PAGE_SIZE, 3 * PAGE_SIZE + 9, size - 1] {
            file.write_all_at(&[1], at).unwrap();
            let now = checksum(&file, size, &[]).unwrap();
            assert!(!seen.contains(&now));
            seen.push(now);
        }
        assert_eq!(checksum(&file, size - 1, &[]).unwrap(), seen[2]);
        let held = HeldFutex { offset: 2 * PAGE_SIZE, word: 1, inherits: false };
        let masked = checksum(&file, size, &[held]).unwrap();
        file.write_all_at(&[7; 4], held.offset).unwrap();
        assert_eq!(checksum(&file, size, &[held]).unwrap(), masked);
    }
}
