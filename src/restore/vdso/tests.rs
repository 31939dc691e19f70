//! The vdso of this host as the old one and as the new one.

use super::patch::patch;
use super::*;
use crate::image::tests::sample;
use crate::proc::host::own_vdso;
use crate::restore::host::probe;
use iced_x86::{Code, Decoder, DecoderOptions};

fn vdso() -> Vec<u8> {
    own_vdso(&mut Vec::new()).unwrap().unwrap()
}

fn codes(bytes: &[u8], at: u64, count: usize) -> Vec<Code> {
    let mut decoder = Decoder::with_ip(64, &bytes[at as usize..], at, DecoderOptions::NONE);
    decoder.iter().take(count).map(|instruction| instruction.code()).collect()
}

#[test]
fn the_entry_points_of_this_host() {
    let entries = entries(&vdso());
    for name in ["clock_gettime", "gettimeofday", "time", "getcpu"] {
        let entry = entries.iter().find(|entry| entry.names == [name]).unwrap_or_else(|| panic!("{name}: {entries:?}"));
        assert!(entry.len >= 12, "{entry:?}");
    }
    assert!(entries.is_sorted_by_key(|entry| entry.offset));
    assert_eq!(super::entries(b"no ELF file"), []);
}

#[test]
fn an_entry_point_jumps_to_its_counterpart() {
    let (old, entries) = (vdso(), entries(&vdso()));
    let moved: Vec<Entry> =
        entries.iter().map(|entry| Entry { offset: entry.offset + 0x100, ..entry.clone() }).collect();
    let patched = patch(&old, &entries, Addr(0x7000_0000_0000), &moved).unwrap();
    for entry in &entries {
        let at = entry.offset as usize;
        assert_eq!(codes(&patched.bytes, entry.offset, 2), [Code::Mov_r64_imm64, Code::Jmp_rm64]);
        assert_eq!(patched.bytes[at + 2..at + 10], (0x7000_0000_0100 + entry.offset).to_le_bytes());
        let end = (entry.offset + entry.len) as usize;
        assert_eq!(patched.bytes[at + 12..end], old[at + 12..end], "{entry:?}");
    }
}

#[test]
fn what_the_host_lacks_is_a_system_call_or_fails() {
    let old = vdso();
    let mut all = entries(&old);
    all[0].names = vec!["sgx_enter_enclave".into()];
    let patched = patch(&old, &all, Addr::NULL, &[]).unwrap();
    assert_eq!(patched.failing, ["sgx_enter_enclave"]);
    assert_eq!(codes(&patched.bytes, all[0].offset, 2), [Code::Mov_r32_imm32, Code::Retnq]);
    let time = all.iter().find(|entry| entry.names == ["time"]).unwrap();
    assert_eq!(codes(&patched.bytes, time.offset, 3), [Code::Mov_r32_imm32, Code::Syscall, Code::Retnq]);
}

#[test]
fn an_entry_point_without_room_is_named() {
    let old = vdso();
    let mut all = entries(&old);
    all[0].len = 11;
    assert_eq!(patch(&old, &all, Addr::NULL, &all).unwrap_err(), all[0].names[0]);
}

/// A process whose vdso is that of this host at another address, of another kernel.
fn foreign() -> (crate::image::model::Snapshot, HostFacts) {
    let mut snapshot = sample::snapshot();
    let facts = probe(&snapshot).unwrap();
    snapshot.inventory.host.vdso = vdso();
    (snapshot, facts)
}

fn decided(snapshot: &crate::image::model::Snapshot, facts: &HostFacts) -> Result<Vdso, Vec<Blocker>> {
    decide(&snapshot.inventory.host, &snapshot.processes[0], &snapshot.mms[0], &facts.vdso, facts)
}

#[test]
fn the_same_vdso_is_moved() {
    let (mut snapshot, mut facts) = foreign();
    facts.vdso_build_id = snapshot.inventory.host.vdso_build_id.clone();
    facts.vdso = vec![PageRange::new(0x10_0000, 0x10_4000), PageRange::new(0x10_4000, 0x10_6000)];
    let vdso = decided(&snapshot, &facts).unwrap();
    assert_eq!(vdso.home, Home::At(vec![Addr(0x7fff_0000_0000), Addr(0x7fff_0000_4000)]));
    assert_eq!(vdso.old, None);
    snapshot.mms[0].vmas.retain(|vma| !is_vdso(vma));
    assert_eq!(decided(&snapshot, &facts).unwrap(), Vdso::default());
}

#[test]
fn another_vdso_stands_beside_the_old_one() {
    let (snapshot, facts) = foreign();
    let vdso = decided(&snapshot, &facts).unwrap();
    assert_eq!(vdso.parts[0].start, Addr(0x7fff_0000_6000));
    let (start, bytes) = vdso.old.unwrap();
    assert_eq!((start, bytes.len()), (Addr(0x7fff_0000_4000), 0x2000));
    let mm = as_memory(&snapshot.mms[0]);
    assert!(!mm.vmas.iter().any(is_vdso));
    assert!(mm.vmas.iter().zip(&snapshot.mms[0].vmas).all(|(new, old)| new.range == old.range));
}

#[test]
fn another_vdso_goes_elsewhere_when_something_is_behind_the_old_one() {
    let (mut snapshot, facts) = foreign();
    snapshot.mms[0].vmas.push(sample::vma(PageRange::new(0x7fff_0000_7000, 0x7fff_0000_8000), Backing::Anonymous));
    let parts = decided(&snapshot, &facts).unwrap().parts;
    assert_eq!(parts.len(), facts.vdso.len());
    for (part, here) in parts.iter().zip(&facts.vdso) {
        assert_eq!(part.start.0 - parts[0].start.0, here.start.0 - facts.vdso[0].start.0);
        assert!(snapshot.mms[0].vmas.iter().all(|vma| !vma.range.overlaps(*part)), "{part}");
    }
}

#[test]
fn where_the_host_has_none_all_are_system_calls() {
    let (snapshot, mut facts) = foreign();
    (facts.vdso, facts.vdso_entries) = (Vec::new(), Vec::new());
    let vdso = decided(&snapshot, &facts).unwrap();
    assert_eq!((vdso.home, vdso.parts), (Home::Nowhere, Vec::new()));
    assert!(vdso.old.is_some() && vdso.notices.is_empty());
}

#[test]
fn a_sealed_vdso_stays_unless_it_is_in_the_way() {
    let (mut snapshot, mut facts) = foreign();
    facts.vdso_sealed = true;
    let vdso = decided(&snapshot, &facts).unwrap();
    assert_eq!((vdso.home, vdso.parts), (Home::Here, facts.vdso.clone()));
    assert!(vdso.old.is_some());
    snapshot.mms[0].vmas[1].range = facts.vdso[0];
    assert!(decided(&snapshot, &facts).unwrap_err()[0].remedy.contains("try again"));
}

#[test]
fn an_image_without_its_vdso_is_refused_by_another_kernel() {
    let (mut snapshot, facts) = foreign();
    snapshot.inventory.host.vdso.truncate(4096);
    assert!(decided(&snapshot, &facts).unwrap_err()[0].reason.contains("does not hold"));
}

#[test]
fn a_thread_inside_is_named() {
    let (mut snapshot, facts) = foreign();
    let entry = entries(&snapshot.inventory.host.vdso)[0].offset;
    let threads = &mut snapshot.processes[0].threads;
    threads[0].cpu.regs.rip = 0x7fff_0000_4000 + entry;
    threads[1].cpu.regs.rip = 0x7fff_0000_4000 + entry + 4;
    let blockers = decided(&snapshot, &facts).unwrap_err();
    assert_eq!(blockers.len(), 1);
    assert_eq!(blockers[0].object, "tid 101");
}
