//! `/proc/PID/smaps`: mappings with their flags and page counts (fs/proc/task_mmu.c, `show_smap`).

use super::error::{Error, ParseError};
use super::maps::{self, Mapping};
use super::scan;
use super::task_dir::TaskDir;
use super::vm_flags::{self, UnknownCode, VmFlags};
use std::ops::Range;

const KIND: &str = "smaps";

/// One mapping with its details. Counts are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vma {
    /// The line of `maps`.
    pub mapping: Mapping,
    /// The flags.
    pub flags: VmFlags,
    /// Codes of flags that this version does not know: a reason to refuse the mapping by name.
    pub unknown_flags: Vec<UnknownCode>,
    /// Bytes of a page of this mapping: 4096, or the huge page size of hugetlbfs.
    pub kernel_page_size: u64,
    /// Resident, huge pages of hugetlbfs left out.
    pub rss: u64,
    /// Resident pages that belong to no file.
    pub anonymous: u64,
    /// Of these, in transparent huge pages.
    pub anon_huge_pages: u64,
    /// Resident pages that another address space maps as well, unchanged or changed since they were made.
    pub shared: [u64; 2],
    /// In swap.
    pub swap: u64,
    /// Huge pages of hugetlbfs that others map as well.
    pub shared_hugetlb: u64,
    /// Huge pages of hugetlbfs of this mapping alone.
    pub private_hugetlb: u64,
    /// Resident pages of a file in huge pages.
    pub file_pmd_mapped: u64,
    /// Resident pages of shared memory in huge pages.
    pub shmem_pmd_mapped: u64,
    /// Memory protection key; `None` where the CPU has none.
    pub protection_key: Option<u8>,
}

impl Vma {
    fn new(mapping: Mapping) -> Self {
        Self {
            mapping,
            flags: VmFlags::empty(),
            unknown_flags: Vec::new(),
            kernel_page_size: 0,
            rss: 0,
            anonymous: 0,
            anon_huge_pages: 0,
            shared: [0; 2],
            swap: 0,
            shared_hugetlb: 0,
            private_hugetlb: 0,
            file_pmd_mapped: 0,
            shmem_pmd_mapped: 0,
            protection_key: None,
        }
    }
}

/// Less than the bytes of any mapping, for each of which the kernel walks its page tables.
const SHORTEST: usize = 512;

/// Reads the mappings of a process in ascending order.
///
/// # Errors
/// See [`Error`].
pub fn read(task: &TaskDir, buffer: &mut Vec<u8>) -> Result<Vec<Vma>, Error> {
    let text = task.read_by_record("smaps", SHORTEST, buffer)?;
    parse(text).map_err(|source| task.unreadable("smaps", source))
}

/// Parses the whole file in one pass. Lines of later kernels are passed over.
///
/// # Errors
/// Names the line; a mapping without `VmFlags` is an error, for nothing could be refused by its flags.
pub fn parse(text: &[u8]) -> Result<Vec<Vma>, ParseError> {
    let vmas = Vec::with_capacity(text.len() / SHORTEST_BLOCK);
    let mut parser = Parser { rest: text, number: 0, vmas, shape: Shape::default(), last_flags: b"" };
    while !parser.rest.is_empty() {
        parser.mapping()?;
    }
    Ok(parser.vmas)
}

/// About the length of what an old kernel prints of one mapping.
const SHORTEST_BLOCK: usize = 500;
const NO_FLAGS: &str = "VmFlags of the mapping";
const FLAGS: &[u8] = b"VmFlags:";

/// A line of use before `VmFlags`: its key and where its value goes.
type Field = (&'static [u8], fn(&mut Vma, &[u8]) -> Option<()>);

macro_rules! counter {
    ($field:ident $([$index:literal])?) => {
        |vma, value| {
            vma.$field $([$index])? = kilobytes(value)?;
            Some(())
        }
    };
}

const FIELDS: [Field; 12] = [
    (b"KernelPageSize:", counter!(kernel_page_size)),
    (b"Rss:", counter!(rss)),
    (b"Shared_Clean:", counter!(shared[0])),
    (b"Shared_Dirty:", counter!(shared[1])),
    (b"Anonymous:", counter!(anonymous)),
    (b"AnonHugePages:", counter!(anon_huge_pages)),
    (b"ShmemPmdMapped:", counter!(shmem_pmd_mapped)),
    (b"FilePmdMapped:", counter!(file_pmd_mapped)),
    (b"Shared_Hugetlb:", counter!(shared_hugetlb)),
    (b"Private_Hugetlb:", counter!(private_hugetlb)),
    (b"Swap:", counter!(swap)),
    (b"ProtectionKey:", |vma, value| {
        vma.protection_key = Some(scan::decimal(scan::trim(value))?);
        Some(())
    }),
];

/// `      12 kB` in bytes.
fn kilobytes(value: &[u8]) -> Option<u64> {
    scan::decimal::<u64>(scan::trim(value).strip_suffix(b" kB")?)?.checked_mul(1024)
}

/// Where the lines of use lie in the details of one mapping. The kernel prints the same lines for every mapping, at the
/// same distances unless a number outgrows its column, so that the mapping before mostly tells where to look.
#[derive(Default)]
struct Shape {
    /// Start and end of each line of use, without its newline.
    fields: Vec<(Range<usize>, &'static Field)>,
    /// Where `VmFlags` begins.
    flags: usize,
    /// Lines before it.
    lines: usize,
}

struct Parser<'a> {
    rest: &'a [u8],
    /// Lines before `rest`.
    number: usize,
    vmas: Vec<Vma>,
    shape: Shape,
    /// The `VmFlags` of the last mapping: neighbours mostly have the same.
    last_flags: &'a [u8],
}

impl<'a> Parser<'a> {
    fn mapping(&mut self) -> Result<(), ParseError> {
        let line = self.line();
        let mut vma = Vma::new(maps::parse_line(line).map_err(|expected| self.error(expected, line))?);
        if self.known_details(&mut vma).is_none() {
            vma = Vma::new(vma.mapping);
            self.details(&mut vma)?;
        }
        self.flags(&mut vma)?;
        self.vmas.push(vma);
        // What a later kernel may add behind the flags.
        while !self.rest.is_empty() && !is_mapping(self.rest) {
            self.line();
        }
        Ok(())
    }

    fn line(&mut self) -> &'a [u8] {
        let (line, rest) = scan::split_line(self.rest);
        self.rest = rest;
        self.number += 1;
        line
    }

    fn error(&self, expected: &'static str, found: &[u8]) -> ParseError {
        ParseError::new(KIND, self.number, expected, found)
    }

    /// Takes the details from where they were in the mapping before; `None` if anything there is not as it was.
    fn known_details(&mut self, vma: &mut Vma) -> Option<()> {
        let flags = self.rest.get(self.shape.flags..).filter(|rest| rest.starts_with(FLAGS))?;
        for (place, (key, set)) in &self.shape.fields {
            let whole = self.rest.get(..place.start)?.last().is_none_or(|&byte| byte == b'\n');
            let line = self.rest.get(place.clone()).filter(|_| whole && self.rest.get(place.end) == Some(&b'\n'))?;
            set(vma, line.strip_prefix(*key)?)?;
        }
        self.number += self.shape.lines;
        self.rest = flags;
        Some(())
    }

    /// Walks through the details up to `VmFlags` and learns their shape.
    fn details(&mut self, vma: &mut Vma) -> Result<(), ParseError> {
        let (start, first) = (self.rest.len(), self.number);
        let mut fields = Vec::new();
        while !self.rest.starts_with(FLAGS) {
            if self.rest.is_empty() || is_mapping(self.rest) {
                return Err(ParseError::new(KIND, self.number + 1, NO_FLAGS, scan::split_line(self.rest).0));
            }
            let at = start - self.rest.len();
            let line = self.line();
            if let Some(field) = FIELDS.iter().find(|(key, _)| line.starts_with(key)) {
                (field.1)(vma, &line[field.0.len()..]).ok_or_else(|| self.error("a number", line))?;
                fields.push((at..at + line.len(), field));
            }
        }
        self.shape = Shape { fields, flags: start - self.rest.len(), lines: self.number - first };
        Ok(())
    }

    fn flags(&mut self, vma: &mut Vma) -> Result<(), ParseError> {
        let line = self.line();
        if let Some(before) = self.vmas.last().filter(|_| line == self.last_flags) {
            vma.flags = before.flags;
            vma.unknown_flags.clone_from(&before.unknown_flags);
            return Ok(());
        }
        let parsed = vm_flags::parse(&line[FLAGS.len().min(line.len())..]);
        (vma.flags, vma.unknown_flags) = parsed.ok_or_else(|| self.error("codes of two letters", line))?;
        self.last_flags = line;
        Ok(())
    }
}

/// Whether a line begins a mapping: keys begin with a capital letter, addresses never do.
fn is_mapping(text: &[u8]) -> bool {
    text.first().is_some_and(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::model::address::{Addr, PageRange};
    use crate::image::model::memory::Prot;

    const MAPPINGS: &[u8] = include_bytes!("../../fixtures/proc/mappings/smaps");

    fn at(vmas: &[Vma], start: u64) -> &Vma {
        vmas.iter().find(|vma| vma.mapping.range.start == Addr(start)).unwrap()
    }

    #[test]
    fn every_flag_of_a_program_with_one_mapping_of_each_kind() {
        let vmas = parse(MAPPINGS).unwrap();
        assert_eq!(vmas.len(), 46);
        assert!(vmas.iter().all(|vma| vma.unknown_flags.is_empty()));
        let base = VmFlags::READ
            | VmFlags::WRITE
            | VmFlags::MAY_READ
            | VmFlags::MAY_WRITE
            | VmFlags::MAY_EXEC
            | VmFlags::ACCOUNT;
        let expected = [
            (0x100_0000_0000, base),
            (0x100_0050_0000, base.difference(VmFlags::ACCOUNT) | VmFlags::NO_RESERVE),
            (0x100_0060_0000, base | VmFlags::GROWS_DOWN),
            (0x100_0070_0000, base | VmFlags::LOCKED),
            (0x100_0080_0000, base | VmFlags::LOCKED | VmFlags::LOCK_ON_FAULT),
            (0x100_0090_0000, base | VmFlags::DONT_COPY),
            (0x100_00a0_0000, base | VmFlags::WIPE_ON_FORK),
            (0x100_00b0_0000, base | VmFlags::DONT_DUMP),
            (0x100_00c0_0000, base | VmFlags::NO_HUGE_PAGE),
            (0x100_00d0_0000, base | VmFlags::MERGEABLE),
            (0x100_00e0_0000, base | VmFlags::SEQUENTIAL),
            (0x100_00f0_0000, base | VmFlags::RANDOM),
            (0x100_0100_0000, base | VmFlags::SEALED),
            (0x200_0000_0000, base | VmFlags::HUGE_PAGE),
        ];
        for (start, flags) in expected {
            assert_eq!(at(&vmas, start).flags, flags, "{start:x}");
        }
        assert!(at(&vmas, 0x100_0110_0000).flags.contains(VmFlags::DROPPABLE | VmFlags::WIPE_ON_FORK));
    }

    #[test]
    fn details_of_pages() {
        let vmas = parse(MAPPINGS).unwrap();
        let huge = at(&vmas, 0x200_0000_0000);
        assert_eq!((huge.rss, huge.anon_huge_pages, huge.kernel_page_size), (4 << 20, 4 << 20, 4096));
        let hugetlb = at(&vmas, 0x200_1000_0000);
        assert_eq!((hugetlb.rss, hugetlb.private_hugetlb, hugetlb.kernel_page_size), (0, 2 << 20, 2 << 20));
        assert!(hugetlb.flags.contains(VmFlags::HUGETLB));
        let locked = at(&vmas, 0x100_0070_0000);
        assert_eq!((locked.rss, locked.anonymous, locked.swap), (16384, 16384, 0));
        // mprotect(PROT_EXEC) alone takes a key of its own (arch/x86/mm/pkeys.c), before pkey_alloc gives out the next.
        assert_eq!(at(&vmas, 0x100_0020_0000).protection_key, Some(1));
        assert_eq!(at(&vmas, 0x100_0130_0000).protection_key, Some(2));
        assert_eq!(at(&vmas, 0x100_0120_0000).protection_key, Some(0));
        let vsyscall = vmas.last().unwrap();
        assert_eq!(vsyscall.mapping.range, PageRange::new(0xffff_ffff_ff60_0000, 0xffff_ffff_ff60_1000));
        assert_eq!((vsyscall.mapping.prot, vsyscall.flags), (Prot::EXEC, VmFlags::EXEC));
    }

    #[test]
    fn mappings_are_those_of_maps() {
        let maps = maps::parse(include_bytes!("../../fixtures/proc/mappings/maps")).unwrap();
        let smaps: Vec<_> = parse(MAPPINGS).unwrap().into_iter().map(|vma| vma.mapping).collect();
        assert_eq!(smaps, maps);
    }

    #[test]
    fn unknown_codes_are_handed_out_for_each_mapping() {
        let text = "1000-2000 rw-p 00000000 00:00 0 \nRss: 4 kB\nVmFlags: rd zz ?? wr \n";
        let twice = [text, text].concat();
        let vmas = parse(twice.as_bytes()).unwrap();
        for vma in &vmas {
            assert_eq!(vma.flags, VmFlags::READ | VmFlags::WRITE);
            assert_eq!(vma.unknown_flags, [*b"zz", *b"??"]);
        }
        assert_eq!(vmas.len(), 2);
    }

    #[test]
    fn a_locked_mapping_with_a_flag_that_has_no_name_is_locked_on_fault() {
        let text = b"1000-2000 rw-p 00000000 00:00 0 \nRss: 4 kB\nVmFlags: rd wr lo ?? ac \n";
        let vmas = parse(text).unwrap();
        assert!(vmas[0].flags.contains(VmFlags::LOCK_ON_FAULT) && vmas[0].unknown_flags.is_empty());
    }

    #[test]
    fn errors_name_the_line() {
        let error = parse(b"1000-2000 rw-p 00000000 00:00 0 \nRss: 4 MB\n").unwrap_err();
        assert_eq!((error.line, error.expected), (2, "a number"));
        let error = parse(b"1000-2000 rw-p 00000000 00:00 0 \nRss: 4 kB\n").unwrap_err();
        assert_eq!((error.line, error.expected), (3, NO_FLAGS));
        let error = parse(b"Rss: 4 kB\n").unwrap_err();
        assert_eq!(error.to_string(), "smaps: line 1: expected address range, found `Rss: 4 kB`");
    }

    /// Blocks of single mappings.
    fn blocks(text: &[u8]) -> Vec<Vec<u8>> {
        let mut blocks: Vec<Vec<u8>> = Vec::new();
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            match blocks.last_mut().filter(|_| !is_mapping(line)) {
                Some(block) => block.extend(line),
                None => blocks.push(line.to_vec()),
            }
        }
        blocks
    }

    #[test]
    fn a_mapping_is_parsed_among_others_as_it_is_alone() {
        let captured = String::from_utf8_lossy(MAPPINGS).into_owned();
        let outgrown = captured.replacen("Rss:                 484 kB", "Rss:           123456789012 kB", 1);
        let shorter = captured.replacen("Swap:                  0 kB\n", "", 7);
        let later = captured.replacen("\nVmFlags: rd wr ", "\nNovel: 7 kB\nVmFlags: rd wr ", 3);
        let behind = captured.replacen(" ac \n", " ac \nNovel: 7 kB\n", 2);
        for text in [outgrown, shorter, later, behind] {
            assert_ne!(text, captured);
            let together = parse(text.as_bytes()).unwrap();
            let alone: Vec<Vma> = blocks(text.as_bytes()).iter().flat_map(|block| parse(block).unwrap()).collect();
            assert_eq!(together, alone);
        }
    }

    #[test]
    fn errors_count_the_lines_of_mappings_of_known_shape() {
        let mut text = MAPPINGS.to_vec();
        let lines = text.iter().filter(|&&byte| byte == b'\n').count();
        text.extend(b"1-2 rw-p 0 00:00\n");
        assert_eq!(parse(&text).unwrap_err().line, lines + 1);
    }

    #[test]
    fn our_own_mappings_hold_our_own_code() {
        let mut buffer = Vec::new();
        let vmas = read(&TaskDir::current().unwrap(), &mut buffer).unwrap();
        let code = Addr(parse as *const () as usize as u64);
        let vma = vmas.iter().find(|vma| vma.mapping.range.contains(code)).unwrap();
        assert_eq!(vma.mapping.prot, Prot::READ | Prot::EXEC);
        assert!(vma.mapping.has_path());
    }
}
