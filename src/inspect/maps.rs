//! `snap inspect FILE maps`: mappings, and how much of each is in the image.

use super::json::{Hex, Range};
use super::names::memory;
use super::table::{lines, table};
use super::text::bytes;
use super::{Report, place};
use crate::image::model::Snapshot;
use crate::image::model::address::PageRange;
use crate::image::model::id::MmId;
use crate::image::model::memory::{Backing, ContentOwner, Inherited, Mm, Vma};
use crate::image::{Error, Image};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt::Write;

/// The report: one entry for each address space.
#[derive(Debug, Serialize)]
pub struct Maps {
    schema: &'static str,
    address_spaces: Vec<Space>,
}

#[derive(Debug, Serialize)]
struct Space {
    id: u32,
    pids: Vec<i32>,
    exe: String,
    mapped_bytes: u64,
    layout: Layout,
    dumpable: u8,
    coredump_filter: Hex,
    thp_disable: u32,
    mdwe: u32,
    ksm_merge_any: bool,
    membarrier: Hex,
    lock_future: u32,
    xcomp_permitted: Hex,
    inherits: Option<Inherits>,
    remainders: Vec<Hex>,
    mappings: Vec<Mapping>,
}

/// Pages that are shared copy-on-write with the address space of the parent process.
#[derive(Debug, Serialize)]
struct Inherits {
    from: u32,
    bytes: u64,
    pages: Vec<Range>,
}

#[derive(Debug, Serialize)]
struct Layout {
    start_code: Hex,
    end_code: Hex,
    start_data: Hex,
    end_data: Hex,
    start_brk: Hex,
    brk: Hex,
    start_stack: Hex,
    arg_start: Hex,
    arg_end: Hex,
    env_start: Hex,
    env_end: Hex,
}

#[derive(Debug, Serialize)]
struct Mapping {
    start: Hex,
    end: Hex,
    bytes: u64,
    prot: String,
    shared: bool,
    kind: &'static str,
    offset: Hex,
    name: String,
    flags: Vec<String>,
    pkey: u8,
    policy: Option<String>,
    huge: Vec<Range>,
    guards: Vec<Range>,
    stored_bytes: Option<u64>,
}

/// Makes it.
///
/// # Errors
/// When a block of the image is damaged.
pub fn report(image: &Image) -> Result<Maps, Error> {
    let snapshot = image.snapshot();
    let stored = match image.size() {
        Some(_) => Some(Stored::of(&image.page_runs()?)),
        None => None,
    };
    let spaces = snapshot.mms.iter().map(|mm| space(snapshot, mm, stored.as_ref()));
    Ok(Maps { schema: "snap.inspect.maps/1", address_spaces: spaces.collect() })
}

/// Stored pages by owner, in ascending order and with running totals.
struct Stored(HashMap<ContentOwner, Vec<(PageRange, u64)>>);

impl Stored {
    fn of(runs: &[(ContentOwner, PageRange)]) -> Self {
        let mut owners: HashMap<ContentOwner, Vec<(PageRange, u64)>> = HashMap::new();
        for &(owner, run) in runs {
            owners.entry(owner).or_default().push((run, 0));
        }
        for runs in owners.values_mut() {
            runs.sort_by_key(|(run, _)| run.start);
            let mut total = 0;
            for (run, before) in runs {
                *before = total;
                total += run.len();
            }
        }
        Self(owners)
    }

    /// Bytes stored below an address; runs do not overlap, the reader has seen to that.
    fn below(&self, owner: ContentOwner, end: u64) -> u64 {
        let runs = self.0.get(&owner).map_or(&[][..], Vec::as_slice);
        let index = runs.partition_point(|(run, _)| run.start.0 < end);
        match index.checked_sub(1).and_then(|last| runs.get(last)) {
            Some((run, before)) => before + run.len().min(end - run.start.0),
            None => 0,
        }
    }

    fn within(&self, owner: ContentOwner, start: u64, end: u64) -> u64 {
        self.below(owner, end).saturating_sub(self.below(owner, start))
    }
}

fn space(snapshot: &Snapshot, mm: &Mm, stored: Option<&Stored>) -> Space {
    let layout = &mm.layout;
    Space {
        id: mm.id.0,
        pids: snapshot.processes.iter().filter(|process| process.mm == mm.id).map(|process| process.pid.0).collect(),
        exe: place::path(snapshot, mm.exe),
        mapped_bytes: mm.vmas.iter().fold(0u64, |sum, vma| sum.saturating_add(vma.range.len())),
        layout: Layout {
            start_code: layout.start_code.into(),
            end_code: layout.end_code.into(),
            start_data: layout.start_data.into(),
            end_data: layout.end_data.into(),
            start_brk: layout.start_brk.into(),
            brk: layout.brk.into(),
            start_stack: layout.start_stack.into(),
            arg_start: layout.arg_start.into(),
            arg_end: layout.arg_end.into(),
            env_start: layout.env_start.into(),
            env_end: layout.env_end.into(),
        },
        dumpable: mm.dumpable,
        coredump_filter: Hex(u64::from(mm.coredump_filter)),
        thp_disable: mm.thp_disable,
        mdwe: mm.mdwe,
        ksm_merge_any: mm.ksm_merge_any,
        membarrier: Hex(u64::from(mm.membarrier)),
        lock_future: mm.lock_future,
        xcomp_permitted: Hex(mm.xcomp_permitted),
        inherits: mm.inherited.as_ref().map(|Inherited { from, pages }| Inherits {
            from: from.0,
            bytes: pages.iter().map(|range| range.len()).sum(),
            pages: pages.iter().map(|range| Range { start: range.start.into(), end: range.end.into() }).collect(),
        }),
        remainders: mm.remainders.iter().map(|remainder| remainder.at.into()).collect(),
        mappings: mm.vmas.iter().map(|vma| mapping(snapshot, mm, vma, stored)).collect(),
    }
}

fn mapping(snapshot: &Snapshot, mm: &Mm, vma: &Vma, stored: Option<&Stored>) -> Mapping {
    let (kind, shared) = kind(&vma.backing);
    Mapping {
        start: vma.range.start.into(),
        end: vma.range.end.into(),
        bytes: vma.range.len(),
        prot: memory::prot(vma.prot),
        shared,
        kind,
        offset: Hex(place::offset(&vma.backing)),
        name: place::label(snapshot, mm, vma),
        flags: memory::vma_flags(vma.flags),
        pkey: vma.pkey,
        policy: vma.policy.as_ref().map(memory::policy),
        huge: vma.huge.iter().copied().map(Range::from).collect(),
        guards: vma.guards.iter().copied().map(Range::from).collect(),
        stored_bytes: stored.map(|stored| stored_of(mm.id, vma, stored)),
    }
}

fn stored_of(mm: MmId, vma: &Vma, stored: &Stored) -> u64 {
    match &vma.backing {
        // What is shared stands once in the image, under its object and by offset.
        Backing::Shared { shm, offset, may_write: _ } => {
            let end = offset.saturating_add(vma.range.len());
            stored.within(ContentOwner::SharedMemory(*shm), *offset, end)
        }
        Backing::BpfMap { map, offset, may_write: _ } => {
            let end = offset.saturating_add(vma.range.len());
            stored.within(ContentOwner::BpfMap(*map), *offset, end)
        }
        Backing::Anonymous
        | Backing::PrivateFile { file: _, offset: _ }
        | Backing::SharedFile { file: _, offset: _, may_write: _ }
        | Backing::PrivateShared { shm: _, offset: _ }
        | Backing::HugeTlb { page_size: _ }
        | Backing::PacketRing { ino: _ }
        | Backing::AioRing(_)
        | Backing::Vdso
        | Backing::Vvar
        | Backing::Vsyscall => stored.within(ContentOwner::Mm(mm), vma.range.start.0, vma.range.end.0),
    }
}

const fn kind(backing: &Backing) -> (&'static str, bool) {
    match backing {
        Backing::Anonymous => ("anonymous", false),
        Backing::PrivateFile { file: _, offset: _ } => ("file", false),
        Backing::SharedFile { file: _, offset: _, may_write: _ } => ("file", true),
        Backing::Shared { shm: _, offset: _, may_write: _ } => ("shared-memory", true),
        Backing::PrivateShared { shm: _, offset: _ } => ("shared-memory", false),
        Backing::HugeTlb { page_size: _ } => ("hugetlb", false),
        Backing::PacketRing { ino: _ } => ("packet-ring", true),
        Backing::BpfMap { map: _, offset: _, may_write: _ } => ("bpf-map", true),
        Backing::AioRing(_) => ("aio", true),
        Backing::Vdso => ("vdso", false),
        Backing::Vvar => ("vvar", false),
        Backing::Vsyscall => ("vsyscall", false),
    }
}

impl Report for Maps {
    fn text(&self, width: Option<u16>) -> String {
        let mut out = String::new();
        for space in &self.address_spaces {
            let pids: Vec<String> = space.pids.iter().map(ToString::to_string).collect();
            let _ = writeln!(
                out,
                "address space of process {}: {}, {} in {} mappings",
                pids.join(", "),
                space.exe,
                bytes(space.mapped_bytes),
                space.mappings.len()
            );
            let mut table = table(&[">START", ">END", "PROT", ">SIZE", ">STORED", "WHAT"], width);
            for mapping in &space.mappings {
                table.add_row(row(mapping));
            }
            out.push_str(&lines(&mut table));
            out.push('\n');
        }
        out
    }
}

fn row(mapping: &Mapping) -> [String; 6] {
    let stored = match mapping.stored_bytes {
        None => "?".to_owned(),
        Some(0) => "-".to_owned(),
        Some(stored) => bytes(stored),
    };
    [
        format!("{:x}", mapping.start.0),
        format!("{:x}", mapping.end.0),
        format!("{}{}", mapping.prot, if mapping.shared { 's' } else { 'p' }),
        bytes(mapping.bytes),
        stored,
        what(mapping),
    ]
}

fn what(mapping: &Mapping) -> String {
    let mut words = Vec::new();
    if !mapping.name.is_empty() {
        words.push(mapping.name.clone());
    }
    if mapping.offset.0 != 0 {
        words.push(format!("+{}", mapping.offset));
    }
    // `accounted` is what nearly every mapping is.
    words.extend(mapping.flags.iter().filter(|flag| *flag != "accounted").cloned());
    if mapping.kind == "hugetlb" {
        words.push("hugetlb".into());
    }
    if mapping.pkey != 0 {
        words.push(format!("pkey={}", mapping.pkey));
    }
    words.extend(mapping.policy.iter().map(|policy| format!("numa={policy}")));
    for (name, ranges) in [("huge", &mapping.huge), ("guards", &mapping.guards)] {
        if !ranges.is_empty() {
            let total = ranges.iter().fold(0u64, |sum, r| sum.saturating_add(r.end.0.saturating_sub(r.start.0)));
            words.push(format!("{name}={}", bytes(total).replace(' ', "")));
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::sample::small_image;

    #[test]
    fn mappings_say_what_is_stored_of_them() {
        let image = Image::open(small_image()).expect("an image");
        insta::assert_snapshot!(report(&image).expect("a report").text(None), @r"
        address space of process 100: /usr/bin/sample, 16.3 MiB in 9 mappings
                   START               END  PROT      SIZE   STORED  WHAT
                  100000           1100000  rw-p  16.0 MiB  4.0 KiB  [anon:arena] huge=2.0MiB
                50000000          50004000  rw-p  16.0 KiB  4.0 KiB  /usr/bin/sample +0x1000
                60000000          60040000  rw-s   256 KiB  4.0 KiB  shared memory 0
                61000000          61008000  rw-s  32.0 KiB        -  socket:[14]
                62000000          62001000  rw-s   4.0 KiB        -  bpf-map:[73] counters +0x1000
            7f0000000000      7f0000001000  rw-s   4.0 KiB        -  [aio], 2 events
            7fff00000000      7fff00004000  rw-p  16.0 KiB        -  [vvar]
            7fff00004000      7fff00006000  rw-p   8.0 KiB        -  [vdso]
        ffffffffff600000  ffffffffff601000  rw-p   4.0 KiB        -  [vsyscall]
        ");
    }

    #[test]
    fn json_has_addresses_as_hex() {
        let image = Image::open(small_image()).expect("an image");
        let json = serde_json::to_value(report(&image).expect("a report")).expect("JSON");
        let mapping = &json["address_spaces"][0]["mappings"][0];
        assert_eq!(mapping["start"], "0x100000");
        assert_eq!(mapping["huge"][0]["start"], "0x200000");
        assert_eq!(mapping["stored_bytes"], 4096);
    }

    #[test]
    fn stored_bytes_are_cut_to_the_mapping() {
        let owner = ContentOwner::Mm(MmId(0));
        let stored = Stored::of(&[(owner, PageRange::new(0x3000, 0x5000)), (owner, PageRange::new(0x1000, 0x2000))]);
        assert_eq!(stored.within(owner, 0, 0x10000), 0x3000);
        assert_eq!(stored.within(owner, 0x4000, 0x10000), 0x1000);
        assert_eq!(stored.within(owner, 0x2000, 0x3000), 0);
        assert_eq!(stored.within(ContentOwner::Mm(MmId(1)), 0, 0x10000), 0);
    }
}
