//! What is written is read: every way of writing with every way of reading.

use super::sample::*;
use crate::dump::image_file;
use crate::image::model::address::{Addr, PAGE_SIZE, PageRange};
use crate::image::{Image, PageCounts, PageRun, WriteError, WriteOptions, Writer, ZeroPolicy};
use std::io;
use std::os::unix::fs::PermissionsExt;

/// Pages of all owners, dense and scattered, equal ones and zero ones, more than a block of them.
fn memory() -> Memory {
    let mut memory = Memory::default();
    for i in 0..700 {
        memory.put(MM, ANON + i * PAGE_SIZE, if i % 50 == 0 { 0 } else { 1 + i % 300 });
    }
    for i in 0..600 {
        memory.put(MM, ANON + (1000 + 2 * i) * PAGE_SIZE, 7000 + i);
    }
    for i in 0..4 {
        memory.put(MM, PRIVATE_FILE + i * PAGE_SIZE, i % 2);
        memory.put(SHM, 2 * i * PAGE_SIZE, 1 + i);
        memory.put(FILE, (60 + i) * PAGE_SIZE, 1 + i);
    }
    memory
}

fn all_options() -> Vec<WriteOptions> {
    let mut all = Vec::new();
    for compression in [None, Some(1)] {
        for workers in [1, 3] {
            for references in [false, true] {
                all.push(WriteOptions { compression, workers, references });
            }
        }
    }
    all
}

fn restored(image: &Image, workers: usize) -> Memory {
    let sink = Collect::default();
    assert_eq!(image.restore_pages(&sink, workers).unwrap(), stats());
    sink.memory()
}

#[test]
fn every_option_gives_the_same_pages_mapped_and_streamed() {
    let memory = memory();
    for options in all_options() {
        for (policy, expected) in [(ZeroPolicy::Keep, memory.clone()), (ZeroPolicy::Drop, memory.without_zero())] {
            let bytes = image(&snapshot(), &memory, policy, options);
            let mapped = Image::open(bytes.clone()).unwrap();
            assert_eq!(mapped.snapshot(), &snapshot());
            assert_eq!(mapped.stats(), Some(&stats()));
            assert_eq!(restored(&mapped, 3), expected, "{options:?}");
            assert_eq!(restored(&mapped, 1), expected, "{options:?}");
            let streamed = Image::stream(io::Cursor::new(bytes)).unwrap();
            assert_eq!(streamed.snapshot(), &snapshot());
            assert_eq!(restored(&streamed, 2), expected, "{options:?}");
            assert!(streamed.restore_pages(&Collect::default(), 1).is_err(), "a stream is read once");
        }
    }
}

#[test]
fn equal_blocks_are_stored_once() {
    let mut memory = Memory::default();
    for i in 0..1024 {
        memory.put(MM, ANON + i * PAGE_SIZE, 1 + i % 256);
    }
    let options = WriteOptions { references: true, workers: 2, compression: None };
    let bytes = image(&snapshot(), &memory, ZeroPolicy::Drop, options);
    assert!(bytes.len() < 1_200_000, "{}", bytes.len());
    assert_eq!(restored(&Image::open(bytes.clone()).unwrap(), 2), memory);
    assert_eq!(restored(&Image::stream(io::Cursor::new(bytes)).unwrap(), 2), memory);
}

#[test]
fn single_addresses_are_read_through_the_index() {
    let memory = memory();
    for options in all_options() {
        let image = Image::open(image(&snapshot(), &memory, ZeroPolicy::Keep, options)).unwrap();
        for (&(owner, start), page) in memory.0.iter().step_by(37) {
            let mut buf = [0xff; 100];
            assert_eq!(image.read_at(owner, start.add(50), &mut buf).unwrap(), 100);
            assert_eq!(buf, page[50..150]);
        }
        let mut across = vec![0; 2 * PAGE_SIZE as usize];
        assert_eq!(image.read_at(MM, Addr(ANON + 10), &mut across).unwrap(), across.len());
        assert_eq!(across[..10], page(0)[10..20]);
        assert_eq!(across[PAGE_SIZE as usize - 10..], [page(2), page(3)].concat()[..PAGE_SIZE as usize + 10]);
        let mut end = vec![0; 2 * PAGE_SIZE as usize];
        assert_eq!(image.read_at(MM, Addr(ANON + 1000 * PAGE_SIZE), &mut end).unwrap(), PAGE_SIZE as usize);
        assert_eq!(image.read_at(MM, Addr(ANON + 1001 * PAGE_SIZE), &mut end).unwrap(), 0);
        assert_eq!(image.read_at(MM, Addr(u64::MAX), &mut end).unwrap(), 0);
    }
}

#[test]
fn counts_and_progress_add_up() {
    let memory = memory();
    let mut writer = Writer::stream("sink".as_ref(), io::sink(), WriteOptions::default()).unwrap();
    writer.snapshot(&snapshot()).unwrap();
    let last = std::sync::atomic::AtomicU64::new(0);
    let progress = |done, total| {
        assert!(done <= total);
        last.fetch_max(done, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    };
    let counts = writer.pages(&memory.runs(ZeroPolicy::Drop), &memory, &progress).unwrap();
    let all = memory.0.len() as u64 * PAGE_SIZE;
    let stored = memory.without_zero().0.len() as u64 * PAGE_SIZE;
    assert_eq!(counts, PageCounts { written: stored, zero: all - stored });
    assert_eq!(last.into_inner(), all);
}

#[test]
fn raw_content_lies_at_pages_of_the_file() {
    let bytes = image(&snapshot(), &memory(), ZeroPolicy::Drop, WriteOptions::default());
    let first = memory().0.values().find(|page| page.iter().any(|&b| b != 0)).unwrap().clone();
    let at = bytes.windows(first.len()).position(|window| window == first).unwrap();
    assert_eq!(at as u64 % PAGE_SIZE, 0);
}

#[test]
fn a_file_appears_whole_and_private_and_leaves_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("job.snap");
    std::fs::write(&path, "the old image").unwrap();
    let memory = memory();
    let mut writer = image_file::create(&path, WriteOptions { workers: 2, ..WriteOptions::default() }).unwrap().writer;
    writer.snapshot(&snapshot()).unwrap();
    writer.pages(&memory.runs(ZeroPolicy::Keep), &memory, &|_, _| Ok(())).unwrap();
    let complete = writer.complete(&stats()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"the old image");
    let length = complete.publish().unwrap();
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!(meta.len(), length);
    assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let image = Image::open(std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(restored(&image, 2), memory);
}

#[test]
fn an_unfinished_file_is_seen_at_no_stage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("job.snap");
    for stage in 0..4 {
        let mut writer = image_file::create(&path, WriteOptions::default()).unwrap().writer;
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        if stage > 0 {
            writer.snapshot(&snapshot()).unwrap();
        }
        if stage == 2 {
            let runs = [PageRun { owner: MM, range: PageRange::new(ANON, ANON + PAGE_SIZE), zero: ZeroPolicy::Drop }];
            let failed = writer.pages(&runs, &Memory::default(), &|_, _| Ok(()));
            assert!(matches!(failed, Err(WriteError::Read { .. })), "{failed:?}");
        }
        if stage == 3 {
            drop(writer.complete(&stats()).unwrap());
        } else {
            drop(writer);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "stage {stage}");
    }
}

#[test]
fn progress_can_stop_the_work() {
    let memory = memory();
    let mut writer =
        Writer::stream("sink".as_ref(), io::sink(), WriteOptions { workers: 3, ..WriteOptions::default() }).unwrap();
    writer.snapshot(&snapshot()).unwrap();
    let stop = |_, _| Err(io::Error::other("interrupted"));
    let failed = writer.pages(&memory.runs(ZeroPolicy::Drop), &memory, &stop);
    assert!(matches!(failed, Err(WriteError::Stopped(_))), "{failed:?}");
}
