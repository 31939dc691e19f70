//! Pages that somebody else copies into the file: what is made of honest places, of wrong ones, and of none.

use super::sample::*;
use crate::dump::image_file;
use crate::image::model::address::{PAGE_SIZE, PageRange};
use crate::image::{
    Copied, CopyError, Image, PageCopier, PageCounts, PageReader, PageRun, Place, WriteError, WriteOptions, ZeroPolicy,
};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// It cannot copy, and says so when half is done.
    Unable,
    /// It leaves a gap.
    Gap,
    /// It forgets a job.
    Short,
    /// It is told to stop.
    Stopped,
}

/// Copies the pages of a memory, the last job first.
struct Copier {
    memory: Memory,
    file: File,
    fault: Fault,
}

impl PageCopier for Copier {
    fn copy(
        &mut self,
        jobs: &[Vec<PageRange>],
        place: Place,
        progress: &(dyn Fn(u64) -> io::Result<()> + Sync),
    ) -> Result<Vec<Copied>, CopyError> {
        let mut end = place.start;
        let mut all = Vec::new();
        for (number, runs) in jobs.iter().enumerate().rev() {
            match self.fault {
                Fault::Unable if number == jobs.len() / 2 => return Err(CopyError::Unable),
                Fault::Stopped => return Err(CopyError::Stopped(progress(0).expect_err("it is stopped"))),
                Fault::Gap if number == 0 => end += PAGE_SIZE,
                Fault::None | Fault::Unable | Fault::Gap | Fault::Short => {}
            }
            all.push(self.job(runs, place, &mut end));
        }
        all.reverse();
        all.truncate(all.len() - usize::from(self.fault == Fault::Short));
        Ok(all)
    }
}

impl Copier {
    fn job(&self, runs: &[PageRange], place: Place, end: &mut u64) -> Copied {
        let mut bytes = vec![0; runs.iter().map(|run| run.len() as usize).sum()];
        self.memory.read(MM, runs, &mut bytes).expect("its memory");
        let addresses = runs.iter().flat_map(|run| (run.start.0..run.end.0).step_by(PAGE_SIZE as usize));
        let (mut copied, mut content, mut blocks, mut last) = (Copied::default(), Vec::new(), 0, 0);
        for (number, (page, at)) in bytes.chunks_exact(PAGE_SIZE as usize).zip(addresses).enumerate() {
            if page.iter().any(|&byte| byte != 0) {
                copied.kept[number / 64] |= 1 << (number % 64);
                content.extend_from_slice(page);
                blocks += usize::from(at != last);
                last = at + PAGE_SIZE;
            }
        }
        if !content.is_empty() {
            copied.content = place.content(*end, blocks);
            copied.crc = crc32c::crc32c(&content);
            self.file.write_all_at(&content, copied.content).expect("room");
            *end = copied.content + content.len() as u64;
        }
        copied
    }
}

/// Dense and scattered pages with zero ones among them, and what stands beneath some of them is not zero.
fn memory() -> Memory {
    let mut memory = Memory::default();
    for i in 0..700 {
        memory.put(MM, ANON + i * PAGE_SIZE, if i % 50 == 0 || (256..512).contains(&i) { 0 } else { 1 + i % 300 });
    }
    for i in 0..600 {
        memory.put(MM, ANON + (1000 + 2 * i) * PAGE_SIZE, 7000 + i);
    }
    for i in 0..4 {
        memory.put(MM, PRIVATE_FILE + i * PAGE_SIZE, i % 2);
    }
    memory
}

/// Zero pages of the anonymous memory are left out, those of the private mapping of a file are noted.
fn runs(memory: &Memory) -> Vec<PageRun> {
    let mut runs = memory.runs(ZeroPolicy::Drop);
    let kept =
        runs.iter_mut().filter(|run| run.range.start.0 >= PRIVATE_FILE && run.range.start.0 < PRIVATE_FILE + 4096);
    kept.for_each(|run| run.zero = ZeroPolicy::Keep);
    runs
}

fn write(path: &Path, fault: Fault) -> Result<PageCounts, WriteError> {
    let memory = memory();
    let created = image_file::create(path, WriteOptions::default())?;
    let mut writer = created.writer;
    writer.snapshot(&snapshot())?;
    let mut copier = Copier { memory: memory.clone(), file: created.file.expect("a file"), fault };
    let progress = |_, _| match fault {
        Fault::Stopped => Err(io::Error::other("stopped")),
        Fault::None | Fault::Unable | Fault::Gap | Fault::Short => Ok(()),
    };
    let counts = writer.pages_copied(&runs(&memory), &mut copier, &memory, &progress)?;
    writer.complete(&stats())?.publish()?;
    Ok(counts)
}

#[test]
fn whatever_the_copier_does_the_image_is_whole() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("job.snap");
    let mut all = Vec::new();
    for fault in [Fault::None, Fault::Unable, Fault::Gap, Fault::Short] {
        let counts = write(&path, fault).unwrap();
        let image = Image::open(std::fs::read(&path).unwrap()).unwrap();
        image.verify().unwrap();
        let sink = Collect::default();
        image.restore_pages(&sink, 2).unwrap();
        all.push((counts, sink.memory()));
    }
    assert_eq!(all[0].1.without_zero(), memory().without_zero());
    assert!(all.iter().all(|one| *one == all[0]), "a page is lost where another way was taken");
}

#[test]
fn who_is_told_to_stop_leaves_nothing() {
    let room = tempfile::tempdir().unwrap();
    let failed = write(&room.path().join("job.snap"), Fault::Stopped);
    assert!(matches!(failed, Err(WriteError::Stopped(_))), "{failed:?}");
    assert_eq!(std::fs::read_dir(room.path()).unwrap().count(), 0);
}
