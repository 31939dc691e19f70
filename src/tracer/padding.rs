//! Where stubs and batches can stand: the unused rest of the last page of an executable segment, behind what its file holds.

use super::batch;
use super::error::Error;
use super::memory::Memory;
use super::remainder;
use super::stub::{self, Stub};
use crate::image::model::address::{Addr, PAGE_SIZE, PageRange};
use crate::image::model::memory::Prot;
use crate::proc::maps::Mapping;
use std::os::unix::ffi::OsStrExt;

/// Bytes from one place to the next.
const STRIDE: usize = 512;

const _: () = assert!(2 * stub::LEN == STRIDE && batch::LEN == STRIDE);

/// A place for two stubs: one for the thread that holds the scratch mapping, one for whichever else works for us; and, where there is room
/// behind them, for a batch of the latter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub host: Stub,
    pub guest: Stub,
    pub in_vdso: bool,
    pub has_batch: bool,
}

impl Place {
    const fn new(at: Addr, in_vdso: bool, has_batch: bool) -> Self {
        Self { host: Stub::new(at), guest: Stub::new(at.add(stub::LEN as u64)), in_vdso, has_batch }
    }

    pub const fn start(self) -> Addr {
        self.host.at()
    }

    /// Bytes of all that stands there.
    pub const fn len(self) -> usize {
        if self.has_batch { 2 * STRIDE } else { STRIDE }
    }

    pub const fn contains(self, rip: u64) -> bool {
        rip >= self.start().0 && rip < self.start().0 + self.len() as u64
    }
}

/// What stands in a place now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Zeroes.
    Free,
    /// The stubs or the batch of a predecessor that was killed. Once no thread is in them they may be overwritten.
    Stale,
}

/// All places of an address space that are free or stale, those with room for a batch first, then by how good the mapping is.
///
/// # Errors
/// [`Error::Memory`] when code cannot be read.
pub(super) fn places(maps: &[Mapping], memory: &Memory) -> Result<Vec<(Place, Content)>, Error> {
    let mut candidates: Vec<&Mapping> = maps.iter().filter(|mapping| rank(mapping).is_some()).collect();
    candidates.sort_by_key(|mapping| rank(mapping));
    let mut found = Vec::new();
    for mapping in candidates {
        let Some(padding) = behind_segment(mapping, maps, memory) else { continue };
        let bytes = memory.read_vec(padding.0, padding.1)?;
        let contents: Vec<Option<Content>> = bytes.chunks_exact(STRIDE).map(content).collect();
        for (number, content) in contents.iter().enumerate() {
            let at = padding.0.add((number * STRIDE) as u64);
            let has_batch = matches!(contents.get(number + 1), Some(Some(_)));
            found.extend(content.map(|content| (Place::new(at, rank(mapping) == Some(0), has_batch), content)));
        }
        if found.iter().any(|(_, content)| *content == Content::Free) {
            break;
        }
    }
    found.sort_by_key(|(place, _)| !place.has_batch);
    Ok(found)
}

/// Places without a batch in all mappings, as many as there are.
///
/// # Errors
/// [`Error::Memory`] when code cannot be read.
pub(super) fn all_places(maps: &[Mapping], memory: &Memory) -> Result<Vec<(Place, Content)>, Error> {
    let mut candidates: Vec<&Mapping> = maps.iter().filter(|mapping| rank(mapping).is_some()).collect();
    candidates.sort_by_key(|mapping| rank(mapping));
    let mut found = Vec::new();
    for mapping in candidates {
        let Some((start, len)) = behind_segment(mapping, maps, memory) else { continue };
        let bytes = memory.read_vec(start, len)?;
        let strides = bytes.chunks_exact(STRIDE).zip((0..).step_by(STRIDE));
        let usable = strides.filter_map(|(bytes, offset)| Some((offset, content(bytes)?)));
        found.extend(usable.map(|(offset, content)| (Place::new(start.add(offset), is_vdso(mapping), false), content)));
    }
    Ok(found)
}

/// The vdso first, since every program has one; then libraries that every thread shares; then anything else.
fn rank(mapping: &Mapping) -> Option<u8> {
    if mapping.prot != Prot::READ | Prot::EXEC || mapping.shared {
        return None;
    }
    let name = mapping.name.raw.as_slice();
    let has = |part: &[u8]| name.windows(part.len()).any(|window| window == part);
    match name {
        b"[vdso]" => Some(0),
        _ if !mapping.has_path() => None,
        _ if has(b"/libc.so") || has(b"/libc-") => Some(1),
        _ if has(b"/ld-") => Some(2),
        _ => Some(3),
    }
}

/// Mappings whose padding every thread can reach for as long as the program runs: nobody unmaps the C library or the loader. The vdso, which has little
/// of it, comes after them; and in a program that has neither, the program itself.
pub(super) fn lasting<'a>(maps: &'a [Mapping], memory: &Memory) -> Vec<&'a Mapping> {
    let mut lasting: Vec<&Mapping> = maps.iter().filter(|mapping| matches!(rank(mapping), Some(0..=2))).collect();
    lasting.sort_by_key(|mapping| (is_vdso(mapping), rank(mapping)));
    if lasting.iter().all(|mapping| is_vdso(mapping))
        && let Ok(program) = std::fs::read_link(format!("/proc/{}/exe", memory.pid().0))
    {
        let is_of_program = |mapping: &&Mapping| mapping.name.raw == program.as_os_str().as_bytes();
        lasting.extend(maps.iter().filter(|mapping| rank(mapping) == Some(3)).filter(is_of_program));
    }
    lasting
}

/// Whether it is the code that the kernel gives to every program.
pub(super) fn is_vdso(mapping: &Mapping) -> bool {
    rank(mapping) == Some(0)
}

/// Padding of lasting mappings that a place leaves over, and its batch if the process has `many` threads to ask, and that is not [`behind_places`]: start
/// and end.
///
/// # Errors
/// [`Error::Memory`] when code cannot be read.
pub(super) fn tails(maps: &[Mapping], many: bool, memory: &Memory) -> Result<Vec<(Addr, Addr)>, Error> {
    let mut tails = Vec::new();
    for mapping in lasting(maps, memory) {
        let Some((start, len)) = behind_segment(mapping, maps, memory) else { continue };
        let bytes = memory.read_vec(start, len)?;
        let fits: Vec<bool> = bytes.chunks_exact(STRIDE).map(|chunk| content(chunk).is_some()).collect();
        let batch = fits.windows(2).position(|pair| pair == [true; 2]).map(|first| first + 2);
        let place = fits.iter().position(|fits| *fits).map(|first| first + 1);
        let Some(strides) = (if many { batch.or(place) } else { place }) else { continue };
        let timeouts = if is_vdso(mapping) {
            let header = memory.read_vec(mapping.range.start, PAGE_SIZE as usize)?;
            behind_places(mapping.range.start, &header).map_or(0, |(_, len)| len)
        } else {
            0
        };
        tails.push((start.add((strides * STRIDE) as u64), start.add((len - timeouts) as u64)));
    }
    Ok(tails)
}

/// The bytes in the last page of a mapping that its ELF segment does not reach: aligned start and length.
fn behind_segment(mapping: &Mapping, maps: &[Mapping], memory: &Memory) -> Option<(Addr, usize)> {
    let base = if mapping.ino == 0 {
        mapping
    } else {
        let same = |other: &&Mapping| {
            (other.dev, other.ino, &other.name.raw) == (mapping.dev, mapping.ino, &mapping.name.raw)
                && other.offset == 0
                && other.range.start <= mapping.range.start
        };
        maps.iter().rev().find(same)?
    };
    let bytes = memory.read_vec(base.range.start, PAGE_SIZE as usize).ok()?;
    let header = ElfHeader::new(&bytes)?;
    let in_file =
        if is_vdso(mapping) { header.image_end()? } else { header.segment_end(mapping.offset, mapping.range.len())? };
    let start = mapping.range.start.add(in_file.next_multiple_of(16) - mapping.offset);
    let last_page = mapping.range.end.0 - PAGE_SIZE;
    (start.0 >= last_page && start < mapping.range.end).then(|| (start, (mapping.range.end.0 - start.0) as usize))
}

/// The part of the padding behind a vdso that is too short for a place, by its first page: start and length in bytes. Where there is enough of it, the first bytes
/// are left to a remainder.
pub(super) fn behind_places(base: Addr, header: &[u8]) -> Option<(Addr, usize)> {
    let end = ElfHeader::new(header)?.image_end()?;
    let (start, page_end) = (end.next_multiple_of(16), end.next_multiple_of(PAGE_SIZE));
    let rest = (page_end - start) as usize % STRIDE;
    let rest = if rest >= 2 * remainder::LEN { rest - remainder::LEN } else { rest };
    Some((base.add(page_end - rest as u64), rest))
}

/// The first page of an ELF file of 64 bits.
struct ElfHeader<'a>(&'a [u8]);

impl<'a> ElfHeader<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        (bytes.get(..5)? == b"\x7fELF\x02").then_some(Self(bytes))
    }

    /// A little-endian number.
    fn number(&self, at: usize, len: usize) -> Option<u64> {
        let bytes = self.0.get(at..at.checked_add(len)?)?;
        Some(bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// Flags, start and end in the file of each loadable segment.
    fn segments(&self) -> Option<Vec<(u64, u64, u64)>> {
        const PT_LOAD: u64 = 1;
        let (table, entry, count) =
            (self.number(32, 8)? as usize, self.number(54, 2)? as usize, self.number(56, 2)? as usize);
        let segment = |at: usize| {
            let (kind, flags) = (self.number(at, 4)?, self.number(at + 4, 4)?);
            let (start, size) = (self.number(at + 8, 8)?, self.number(at + 32, 8)?);
            Some((kind, (flags, start, start.checked_add(size)?)))
        };
        let all: Option<Vec<_>> = (0..count).map(|index| segment(table + index * entry)).collect();
        Some(all?.into_iter().filter(|(kind, _)| *kind == PT_LOAD).map(|(_, segment)| segment).collect())
    }

    /// The offset in the file of the end of the executable segment that was mapped from `offset` on.
    fn segment_end(&self, offset: u64, len: u64) -> Option<u64> {
        const PF_X: u64 = 1;
        let is_mapped = |(flags, start, end): &(u64, u64, u64)| {
            flags & PF_X != 0
                && start & !(PAGE_SIZE - 1) == offset
                && Some(end.next_multiple_of(PAGE_SIZE)) == offset.checked_add(len)
        };
        self.segments()?.into_iter().find(is_mapped).map(|(_, _, end)| end)
    }

    /// The end of all that the file holds. The kernel maps its vdso whole, with the table of sections behind the segment, which may be in another page.
    fn image_end(&self) -> Option<u64> {
        let sections = self.number(40, 8)? + self.number(58, 2)? * self.number(60, 2)?;
        self.segments()?.into_iter().map(|(_, _, end)| end).chain([sections]).max()
    }
}

fn content(bytes: &[u8]) -> Option<Content> {
    let code = stub::code();
    if bytes.iter().all(|byte| *byte == 0) {
        Some(Content::Free)
    } else if bytes.starts_with(&code) && bytes[stub::LEN..].starts_with(&code) || batch::is_stale(bytes) {
        Some(Content::Stale)
    } else {
        None
    }
}

/// The middle of the largest hole of an address space, as far as can be from where the kernel places the next mapping.
pub(super) fn hole(maps: &[Mapping], len: u64) -> Option<PageRange> {
    /// Mappings below are refused or unusual (mmap_min_addr).
    const LOWEST: u64 = 1 << 24;
    /// The end of user space with four levels of page tables.
    const HIGHEST: u64 = 0x7fff_ffff_f000;
    let starts = maps.iter().map(|mapping| mapping.range.start.0).chain([HIGHEST]);
    let ends = [LOWEST].into_iter().chain(maps.iter().map(|mapping| mapping.range.end.0));
    let (size, start) = ends
        .zip(starts)
        .map(|(end, start)| (start.min(HIGHEST).saturating_sub(end.max(LOWEST)), end.max(LOWEST)))
        .max_by_key(|(size, _)| *size)?;
    let middle = (start + size / 2) & !(PAGE_SIZE - 1);
    (size > 4 * len + 4 * PAGE_SIZE).then(|| PageRange::new(middle, middle + len))
}
