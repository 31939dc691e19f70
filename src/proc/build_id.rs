//! GNU build ids: the NT_GNU_BUILD_ID note of an ELF file or of the vdso (elf(5)).

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
/// Longest table of program headers that the kernel loads (fs/binfmt_elf.c, `load_elf_phdrs`), and more than any
/// linker's notes take.
const MOST: u64 = 65536;
/// Program headers and the build id mostly lie in the first page: one read gets them.
const HEAD: usize = 4096;

/// The build id of a file; `None` if it is no little-endian ELF file or has none. Reads headers and notes alone.
///
/// # Errors
/// When the file cannot be read.
pub fn of_file(file: &File) -> io::Result<Option<Vec<u8>>> {
    let mut head = vec![0; HEAD];
    let len = read_at_most(file, &mut head, 0)?;
    head.truncate(len);
    find(&head, |offset, len| {
        let mut bytes = vec![0; len];
        let got = read_at_most(file, &mut bytes, offset)?;
        Ok((got == len).then_some(Cow::Owned(bytes)))
    })
}

/// The build id of a file held in memory, or of the vdso, whose segments lie at their file offsets.
#[must_use]
pub fn of_bytes(bytes: &[u8]) -> Option<Vec<u8>> {
    find(bytes, |_, _| Ok(None)).unwrap_or(None)
}

fn read_at_most(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(got) => done += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // An offset that no file can have.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Looks through the notes; what the head does not hold, `more` reads, or says that it is not there.
fn find<'a>(
    head: &'a [u8],
    more: impl Fn(u64, usize) -> io::Result<Option<Cow<'a, [u8]>>>,
) -> io::Result<Option<Vec<u8>>> {
    let Some(table) = ProgramHeaders::of(head) else {
        return Ok(None);
    };
    let part = |offset: u64, len: u64| {
        let range = usize::try_from(offset).ok().zip(usize::try_from(offset.saturating_add(len)).ok());
        match range.and_then(|(start, end)| head.get(start..end)) {
            Some(bytes) => Ok(Some(Cow::Borrowed(bytes))),
            None if len <= MOST => more(offset, len as usize),
            None => Ok(None),
        }
    };
    let Some(headers) = part(table.offset, table.len())? else {
        return Ok(None);
    };
    for header in headers.chunks_exact(table.entry_size as usize) {
        let Some((offset, size, align)) = table.note(header) else {
            continue;
        };
        if let Some(id) = part(offset, size)?.as_deref().and_then(|notes| build_id(notes, align)) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Where the program headers lie.
struct ProgramHeaders {
    is_64: bool,
    offset: u64,
    count: u64,
    entry_size: u64,
}

impl ProgramHeaders {
    fn of(header: &[u8]) -> Option<Self> {
        let is_64 = match header.first_chunk()? {
            b"\x7fELF\x01\x01" => false,
            b"\x7fELF\x02\x01" => true,
            _ => return None,
        };
        let (offset, entry_size, count) = if is_64 {
            (word64(header, 32)?, word16(header, 54)?, word16(header, 56)?)
        } else {
            (u64::from(word32(header, 28)?), word16(header, 42)?, word16(header, 44)?)
        };
        let (count, entry_size) = (u64::from(count), u64::from(entry_size));
        let expected = if is_64 { 56 } else { 32 };
        (entry_size == expected && count * entry_size <= MOST).then_some(Self { is_64, offset, count, entry_size })
    }

    const fn len(&self) -> u64 {
        self.count * self.entry_size
    }

    /// File offset, size and alignment of a PT_NOTE segment.
    fn note(&self, header: &[u8]) -> Option<(u64, u64, u64)> {
        if word32(header, 0)? != PT_NOTE {
            return None;
        }
        if self.is_64 {
            Some((word64(header, 8)?, word64(header, 32)?, word64(header, 48)?))
        } else {
            let word = |at| word32(header, at).map(u64::from);
            Some((word(4)?, word(16)?, word(28)?))
        }
    }
}

/// Walks the notes of one segment.
fn build_id(mut notes: &[u8], align: u64) -> Option<Vec<u8>> {
    // A note is aligned to 4 bytes, or to 8 in a segment that says so (.note.gnu.property).
    let align = if align == 8 { 8 } else { 4 };
    loop {
        let name_len = word32(notes, 0)? as usize;
        let desc_len = word32(notes, 4)? as usize;
        let kind = word32(notes, 8)?;
        let desc_at = name_len.checked_add(12)?.checked_next_multiple_of(align)?;
        let desc_end = desc_at.checked_add(desc_len)?;
        let desc = notes.get(desc_at..desc_end)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..12 + name_len)? == b"GNU\0" && !desc.is_empty() {
            return Some(desc.to_vec());
        }
        notes = notes.get(desc_end.checked_next_multiple_of(align)?..)?;
    }
}

fn word16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn note(name: &[u8], kind: u32, desc: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for word in [name.len() as u32, desc.len() as u32, kind] {
            note.extend(word.to_le_bytes());
        }
        for part in [name, desc] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    /// A 64-bit file with one PT_NOTE segment at `offset`.
    fn elf(offset: u64, notes: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32] = 64;
        file[54] = 56;
        file[56] = 1;
        file[64] = 4;
        file[72..80].copy_from_slice(&offset.to_le_bytes());
        file[96..104].copy_from_slice(&(notes.len() as u64).to_le_bytes());
        file[112] = 4;
        file.resize(offset as usize, 0);
        file.extend(notes);
        file
    }

    fn in_file(bytes: &[u8]) -> Option<Vec<u8>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        of_file(&file).unwrap()
    }

    #[test]
    fn among_other_notes_near_and_far() {
        let notes = [note(b"stapsdt\0", 3, b"xyz"), note(b"GNU\0", 1, b"1234"), note(b"GNU\0", 3, &[7; 20])].concat();
        for offset in [120, 4090, 100_000] {
            let file = elf(offset, &notes);
            assert_eq!(of_bytes(&file), Some(vec![7; 20]));
            assert_eq!(in_file(&file), Some(vec![7; 20]));
            assert_eq!(in_file(&file[..file.len() - 1]), None);
        }
    }

    #[test]
    fn files_without_one() {
        assert_eq!(of_bytes(b""), None);
        assert_eq!(in_file(b"#!/bin/sh\n"), None);
        assert_eq!(in_file(&elf(120, &note(b"GNU\0", 1, b"x"))), None);
        let mut hostile = elf(120, &note(b"GNU\0", 3, b"x"));
        hostile[72..80].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(in_file(&hostile), None);
        hostile[96..104].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(in_file(&hostile), None);
    }

    #[test]
    fn of_the_shell_both_ways() {
        let from_file = of_file(&File::open("/bin/sh").unwrap()).unwrap();
        assert_eq!(from_file, of_bytes(&std::fs::read("/bin/sh").unwrap()));
        assert_eq!(from_file.map(|id| id.len()), Some(20));
    }
}
