//! Large memory on its way into a file of tmpfs: copied by threads of ours in the target's address space while it stands still, or in its copy.
//!
//! Where that cannot be, pages are read and written as anywhere else. It is never worse than slow: whatever fails is done again in that way.

use crate::fault::{self, Point};
use crate::image::model::Snapshot;
use crate::image::model::address::PageRange;
use crate::image::model::id::Pid;
use crate::image::model::memory::{ContentOwner, Prot};
use crate::image::{Copied, CopyError, PageCopier, PageRun, Place};
use crate::parasite::copiers::{self, Copiers, Layout};
use crate::proc::TaskDir;
use crate::proc::cgroup::{self, Membership};
use crate::sys::userfaultfd::CopyWindow;
use crate::tracer::{self, FrozenTree, RemoteSession, Twin};
use std::fs::File;
use std::io;

/// Bytes from which on it is worth its preparations.
const WORTHWHILE: u64 = 16 << 20;

/// How it is done, if a test asks for one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Always,
    Never,
}

/// `SNAP_COPIERS=always` for whatever size, `SNAP_COPIERS=never`; for tests.
fn wish() -> Option<Wish> {
    match std::env::var("SNAP_COPIERS").ok()?.as_str() {
        "always" => Some(Wish::Always),
        "never" => Some(Wish::Never),
        _ => None,
    }
}

/// Takes those runs out that one address space can copy itself, if they are many.
pub fn take(runs: &mut Vec<PageRun>, owner: ContentOwner, snapshot: &Snapshot) -> Vec<PageRun> {
    let ContentOwner::Mm(id) = owner else { return Vec::new() };
    let Some(mm) = snapshot.mms.get(id.0 as usize) else { return Vec::new() };
    let closed = mm.vmas.iter().filter(|vma| !vma.prot.contains(Prot::READ) || vma.pkey != 0);
    let closed: Vec<PageRange> = closed.map(|vma| vma.range).collect();
    let is_open = |run: &PageRun| {
        let at = closed.partition_point(|range| range.end <= run.range.start);
        run.owner == owner && closed.get(at).is_none_or(|range| range.start >= run.range.end)
    };
    let bytes: u64 = runs.iter().filter(|run| is_open(run)).map(|run| run.range.len()).sum();
    let enough = if wish() == Some(Wish::Always) { 1 } else { WORTHWHILE };
    if bytes < enough || wish() == Some(Wish::Never) || !copiers::are_possible() {
        return Vec::new();
    }
    let (taken, left) = std::mem::take(runs).into_iter().partition(is_open);
    *runs = left;
    taken
}

/// In which address space.
#[derive(Debug)]
pub enum Source<'a> {
    /// That of a process that stands still.
    Frozen(&'a mut FrozenTree, Pid),
    /// Its copy.
    Twin(&'a mut Twin),
}

/// Copies pages into the file of an image.
#[derive(Debug)]
pub struct Copying<'a> {
    source: Source<'a>,
    file: &'a File,
    /// The file as it was mapped.
    pub window: Option<CopyWindow>,
}

/// Why it is not done, or no longer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Copiers(#[from] copiers::Error),
    #[error(transparent)]
    Tracer(#[from] tracer::Error),
    #[error("{0}: {1}")]
    File(&'static str, io::Error),
    #[error("{0}")]
    Unfit(&'static str),
}

impl<'a> Copying<'a> {
    /// Copies from there into this file.
    pub const fn new(source: Source<'a>, file: &'a File) -> Self {
        Self { source, file, window: None }
    }

    fn attempt(
        &mut self,
        jobs: &[Vec<PageRange>],
        place: Place,
        progress: &dyn Fn(u64) -> io::Result<()>,
    ) -> Result<Vec<Copied>, Failure> {
        let pid = match &self.source {
            Source::Frozen(_, pid) => *pid,
            Source::Twin(twin) => twin.pid(),
        };
        if !shares_cgroups(pid) {
            // The kernel charges page tables and the like to the one who copies.
            return Err(Failure::Unfit("it is in another cgroup than snap"));
        }
        let most: u64 = jobs.iter().map(|runs| longest(place, runs)).sum();
        self.file.set_len(place.start + most).map_err(|e| Failure::File("extending the image", e))?;
        let window = CopyWindow::open(self.file, (place.start + most).next_multiple_of(1 << 12));
        let window = window.map_err(|e| Failure::File("userfaultfd", e))?;
        let layout = Layout { start: place.start, head: place.head, head_run: place.head_run };
        let done = self.source.copy(jobs, layout, &window, progress)?;
        let end = |copied: &Copied| copied.content + u64::from(pages(copied)) * 4096;
        let end = done.iter().map(end).max().unwrap_or(0).max(place.start);
        self.file.set_len(end).map_err(|e| Failure::File("cutting off the image", e))?;
        self.window = Some(window);
        tracing::info!("{} bytes were copied by threads in its memory", end - place.start);
        Ok(done)
    }
}

impl PageCopier for Copying<'_> {
    fn copy(
        &mut self,
        jobs: &[Vec<PageRange>],
        place: Place,
        progress: &(dyn Fn(u64) -> io::Result<()> + Sync),
    ) -> Result<Vec<Copied>, CopyError> {
        self.attempt(jobs, place, progress).map_err(|failure| match failure {
            // One that cannot be stopped may still be writing.
            Failure::Copiers(copiers::Error::Tracer(error @ tracer::Error::Unstoppable { .. })) => {
                CopyError::Stopped(io::Error::other(error))
            }
            Failure::Copiers(copiers::Error::Stopped(source)) | Failure::Tracer(tracer::Error::Fault(source)) => {
                CopyError::Stopped(source)
            }
            failure => {
                tracing::info!("no threads can copy its memory, which would be faster: {failure}");
                let _ = self.file.set_len(place.start);
                CopyError::Unable
            }
        })
    }
}

impl Source<'_> {
    fn copy(
        &mut self,
        jobs: &[Vec<PageRange>],
        layout: Layout,
        window: &CopyWindow,
        progress: &dyn Fn(u64) -> io::Result<()>,
    ) -> Result<Vec<Copied>, Failure> {
        let size = copiers::memory_for(jobs);
        match self {
            Self::Frozen(tree, pid) => {
                let mut session = RemoteSession::open_with(tree, *pid, size)?;
                let mut child = session.child(tracer::Fate::DiesWithUs, &[])?;
                let area = child.scratch();
                let done = work(child.deputy()?, area, jobs, layout, window, progress);
                let ended = child.end().and_then(|()| session.close());
                let done = done?;
                ended?;
                Ok(done)
            }
            Self::Twin(twin) => {
                let deputy = twin.deputy().ok_or(Failure::Unfit("a seccomp filter watches it"))?;
                let area = deputy.hole(size)?;
                let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
                let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE) as u64;
                let args = [area.start.0, area.len(), protection, flags, u64::MAX, 0];
                let mapped = deputy.syscall(libc::SYS_mmap, args)?;
                let mapped = mapped.map_err(|errno| Failure::File("mapping memory in the copy", errno.into()))?;
                if mapped != area.start.0 {
                    return Err(Failure::Unfit("the kernel maps elsewhere"));
                }
                work(deputy, area, jobs, layout, window, progress)
            }
        }
    }
}

fn work(
    deputy: &mut tracer::Deputy,
    area: PageRange,
    jobs: &[Vec<PageRange>],
    layout: Layout,
    window: &CopyWindow,
    progress: &dyn Fn(u64) -> io::Result<()>,
) -> Result<Vec<Copied>, Failure> {
    let copiers = Copiers::start(deputy, area, jobs, layout, window)?;
    fault::pass(Point::Copying).map_err(copiers::Error::Stopped)?;
    let done = copiers.finish(progress)?;
    Ok(done.into_iter().map(|job| Copied { kept: job.kept, content: job.content, crc: job.crc }).collect())
}

/// Most bytes that a job takes in the file.
fn longest(place: Place, runs: &[PageRange]) -> u64 {
    let content: u64 = runs.iter().map(|run| run.len()).sum();
    // One run for each page, if every second page is zero.
    let front = place.head + place.head_run * content.div_ceil(4096);
    content + front.next_multiple_of(4096)
}

fn pages(copied: &Copied) -> u32 {
    copied.kept.iter().map(|word| word.count_ones()).sum()
}

/// Whether a process is where we are, as far as memory and CPU are shared out.
fn shares_cgroups(pid: Pid) -> bool {
    let of = |dir: Result<TaskDir, _>| -> Option<Vec<Membership>> {
        let mut all = cgroup::read(&dir.ok()?, &mut Vec::new()).ok()?;
        all.retain(|membership| {
            let mut controllers = membership.controllers.split(|byte| *byte == b',');
            membership.hierarchy == 0 || controllers.any(|name| matches!(name, b"memory" | b"cpu" | b"cpuset"))
        });
        Some(all)
    };
    let own = of(TaskDir::current());
    own.is_some() && own == of(TaskDir::process(pid))
}
