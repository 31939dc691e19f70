//! Robust futexes that the tree holds in files. When their holders die, and a dump with `--kill` has them die, the kernel marks these words (set_robust_list(2),
//! kernel/futex/core.c, `handle_futex_death`): they are not as they were for whoever looks at the file, and a restored holder still holds them.

use crate::image::model::file::HeldFutex;
use crate::image::model::id::{FileId, Pid};
use crate::image::model::memory::{Backing, Vma};
use crate::image::model::thread::RobustList;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Entries after which the kernel gives a list up (ROBUST_LIST_LIMIT).
const LIMIT: usize = 2048;
/// Bytes of `struct robust_list_head`.
const HEAD: u64 = 24;
/// In a pointer to an entry: its futex inherits priorities.
const INHERITS: u64 = 1;
const OWNER_DIED: u32 = 0x4000_0000;
const TID_MASK: u32 = 0x3fff_ffff;

/// Those in the lists of the threads of one process, by the files that they are in.
///
/// # Errors
/// As open(2) of its memory.
pub fn held<'a>(
    pid: Pid,
    vmas: &[Vma],
    lists: impl Iterator<Item = &'a RobustList>,
) -> io::Result<Vec<(FileId, HeldFutex)>> {
    if !vmas.iter().any(|vma| of_file(vma).is_some()) {
        return Ok(Vec::new());
    }
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let lists = lists.filter(|list| list.head.0 != 0 && list.len == HEAD);
    // What cannot be read ends the list for the kernel too.
    Ok(lists
        .flat_map(|list| walk(&memory, list.head.0).unwrap_or_default())
        .filter_map(|(at, inherits)| {
            let vma = vmas.iter().find(|vma| vma.range.start.0 <= at && at < vma.range.end.0)?;
            let (file, offset) = of_file(vma)?;
            let word = u32::from_ne_bytes(bytes(&memory, at).ok()?);
            // What is about to be taken may be somebody else's yet.
            (word & TID_MASK != 0)
                .then_some((file, HeldFutex { offset: offset + (at - vma.range.start.0), word, inherits }))
        })
        .collect())
}

fn of_file(vma: &Vma) -> Option<(FileId, u64)> {
    match vma.backing {
        Backing::SharedFile { file, offset, may_write: true } => Some((file, offset)),
        _ => None,
    }
}

/// Addresses of the futexes of a list, and whether they inherit priorities.
fn walk(memory: &File, head: u64) -> io::Result<Vec<(u64, bool)>> {
    let word = |at: u64| bytes(memory, at).map(u64::from_ne_bytes);
    let (first, offset, pending) = (word(head)?, word(head + 8)?, word(head + 16)?);
    let futex = |entry: u64| ((entry & !INHERITS).wrapping_add(offset), entry & INHERITS != 0);
    let mut found: Vec<(u64, bool)> = (pending != 0).then(|| futex(pending)).into_iter().collect();
    let mut entry = first;
    while entry & !INHERITS != head && found.len() < LIMIT {
        found.push(futex(entry));
        let Ok(next) = word(entry & !INHERITS) else { break };
        entry = next;
    }
    Ok(found)
}

fn bytes<const N: usize>(file: &File, at: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, at).map(|()| bytes)
}

/// What a word of a file is now.
///
/// # Errors
/// As read(2).
pub fn word(file: &File, held: &HeldFutex) -> io::Result<u32> {
    bytes(file, held.offset).map(u32::from_ne_bytes)
}

/// Whether a word is what the death of its holder makes of it.
#[must_use]
pub const fn is_marked(held: &HeldFutex, now: u32) -> bool {
    // One with waiters that inherit goes from one to the next while they die.
    held.inherits || now & OWNER_DIED != 0 && now & TID_MASK == 0
}

/// Gives a word back to its holder.
///
/// # Errors
/// As write(2).
pub fn give_back(file: &File, held: &HeldFutex) -> io::Result<()> {
    file.write_all_at(&held.word.to_ne_bytes(), held.offset)
}
