//! A dump: orders the phases, owns no kind of resource.

mod address_space;
mod ahead;
mod collect;
mod collected;
mod connections;
mod content;
mod copying;
mod error;
pub mod features;
pub mod image_file;
pub mod inherited;
pub mod interrupt;
mod inventory;
mod options;
pub mod own;
mod preflight;
mod process;
mod rings;
mod shared;
mod standard_output;
mod warnings;

pub use error::Error;
pub use options::{After, Options, Output, Report};
pub use preflight::{Preflight, preflight};

use crate::fault::{self, Point};
use crate::image::model::Snapshot;
use crate::image::model::address::PageRange;
use crate::image::model::id::Pid;
use crate::image::model::inventory::Stats;
use crate::image::model::memory::ContentOwner;
use crate::image::{Complete, PageCounts, PageRun, WriteOptions, Writer};
pub use crate::resources::socket::tcp::tree::Policy;
use crate::resources::syscall_restart::sample::sleepers;
use crate::resources::syscall_restart::timeout;
use crate::resources::syscall_restart::transfer;
use crate::resources::together::Unseen;
use crate::sys::undo::Undo;
pub use crate::tracer::Urgency;
use crate::tracer::{self, FreezeOptions, FrozenTree, Scope, Twin};
pub use collect::Border;
use collected::Collected;
use connections::Connections;
use content::{TargetMemory, TargetPages};
use copying::{Copying, Source};
use error::Failure;
use image_file::Created;
use own::Own;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

/// Dumps a tree, as urgently as may be.
///
/// # Errors
/// See [`Error`].
pub fn run(options: &Options<'_>, urgency: &Urgency) -> Result<Report, Error> {
    let done = Dump { options, started: Instant::now(), urgency }.run();
    urgency.afterwards();
    done
}

/// How often a dump is tried whose only obstacles pass by themselves; with a time limit, as often as that allows.
const TRIES: u32 = 20;
/// How long the target runs in between.
const PAUSE_BETWEEN_TRIES: Duration = Duration::from_millis(15);

/// An image in the making.
struct Image {
    writer: Writer,
    /// The file, if pages may be copied into it.
    file: Option<File>,
    stats: Stats,
}

impl Image {
    fn count(&mut self, counts: PageCounts) {
        self.stats.written += counts.written;
        self.stats.zero += counts.zero;
    }
}

/// A dump under way.
struct Dump<'a> {
    options: &'a Options<'a>,
    started: Instant,
    urgency: &'a Urgency,
}

impl Dump<'_> {
    fn run(&self) -> Result<Report, Error> {
        preflight::by_nature(self.options.pid)?;
        let mut tries = 1;
        let mut obstacles = Vec::new();
        loop {
            let error = match self.attempt() {
                Err(Failure::Passing(blockers)) if tries < TRIES || self.options.timeout.is_some() => {
                    (tries, obstacles) = (tries + 1, blockers);
                    // The target runs on; what stood in the way may be gone in a moment.
                    std::thread::sleep(PAUSE_BETWEEN_TRIES);
                    match self.cancelled() {
                        Some(error) => error,
                        None => continue,
                    }
                }
                Err(Failure::Passing(blockers)) => return Err(Error::Blocked(blockers)),
                Err(Failure::Final(error)) => error,
                Ok(report) => return Ok(report),
            };
            // What it was waited for says more than that it took too long.
            return Err(match error {
                Error::TimedOut(_) if !obstacles.is_empty() => Error::Blocked(obstacles),
                error => error,
            });
        }
    }

    fn attempt(&self) -> Result<Report, Failure> {
        let options = self.options;
        self.urgency.real_time();
        let own = Own::look(options.output == Output::Stdout);
        let members = tracer::descendants(options.pid);
        preflight::tracers(&members)?;
        let mut samples = sleepers(&members);
        options.progress.phase("freezing");
        let frozen_at = Instant::now();
        let mut tree = self.freeze()?;
        timeout::measure(&mut tree, &mut samples, frozen_at);
        let (threads, microseconds) = (tree.threads().len(), frozen_at.elapsed().as_micros());
        tracing::info!("{threads} threads stand still after {microseconds} us");
        options.progress.phase("collecting");
        let cut = transfer::go_on(&mut tree, &mut samples, frozen_at).map_err(|e| self.collect_failure(e, &tree))?;
        let (mut collected, mut findings) =
            collect::collect(&mut tree, options.pid, &samples, frozen_at, options.after, &own, &options.border)
                .map_err(|e| self.collect_failure(e, &tree))?;
        findings.warnings.extend(cut);
        self.pass(Point::Collected)?;
        if findings.blockers.is_empty() {
            findings.blockers = (options.unrestorable)(&collected.snapshot);
        }
        if !findings.blockers.is_empty() {
            let blockers = findings.blockers.into_iter().chain(findings.passing);
            return Err(Error::Blocked(blockers.collect()).into());
        }
        if !findings.passing.is_empty() {
            return Err(Failure::Passing(findings.passing));
        }
        self.exchange(&mut tree, &mut collected)?;
        let connections =
            Connections { files: std::mem::take(&mut collected.connections), lock: collected.lock.take() };
        options.progress.phase("writing pages");
        self.urgency.high();
        let mut image = self.create(stats(&tree, &collected))?;
        image.writer.snapshot(&collected.snapshot).map_err(|e| self.write_error(e))?;
        let written = self.write_frozen(&mut image, &mut collected, &mut tree);
        written.map_err(|e| self.writing_failure(e, &tree))?;
        let frozen = if collected.forked_runs.is_empty() {
            Some(tree)
        } else {
            self.thaw(tree)?;
            None
        };
        image.stats.pause = frozen_at.elapsed().as_nanos() as u64;
        if frozen.is_none() {
            self.write_from_twins(&mut image, collected)?;
        }
        let Image { writer, file: _, stats } = image;
        let complete = writer.complete(&stats).map_err(|e| self.write_error(e))?;
        self.pass(Point::ImageWritten)?;
        let (image_size, unreaped) = self.end(frozen, complete, connections)?;
        Ok(Report { stats, image_size, total: self.started.elapsed(), unreaped, warnings: findings.warnings })
    }

    /// Looks into message queues, and asks rings for sending.
    fn exchange(&self, tree: &mut FrozenTree, collected: &mut Collected) -> Result<(), Failure> {
        let Collected { snapshot, exchanges, askings, .. } = collected;
        for exchange in &*exchanges {
            let done = exchange.run(tree, snapshot);
            self.done(done, tree)?;
        }
        for asking in &*askings {
            let done = asking.run(tree, snapshot);
            self.done(done, tree)?;
        }
        Ok(())
    }

    fn done(&self, done: Result<Result<(), Unseen>, tracer::Error>, tree: &FrozenTree) -> Result<(), Failure> {
        match done.map_err(|e| self.failure_of(tree, self.tracer_error(e)))? {
            Ok(()) => Ok(()),
            Err(Unseen::Never(blocker)) => Err(Error::Blocked(vec![blocker]).into()),
            Err(Unseen::Now(blocker)) => Err(Failure::Passing(vec![blocker])),
        }
    }

    fn freeze(&self) -> Result<FrozenTree, Error> {
        let bound = Duration::from_secs(10);
        let freeze = FreezeOptions {
            scope: Scope::Tree,
            bound,
            cancelled: &|| self.cancelled().is_some(),
            urgency: Some(self.urgency),
        };
        FrozenTree::freeze(self.options.pid, &freeze).map_err(|e| self.tracer_error(e))
    }

    fn thaw(&self, tree: FrozenTree) -> Result<(), Error> {
        self.urgency.real_time();
        let thawed = tree.thaw();
        self.urgency.afterwards();
        thawed.map_err(|e| self.tracer_error(e))
    }

    fn create(&self, stats: Stats) -> Result<Image, Error> {
        let options = WriteOptions { compression: self.options.compression, ..WriteOptions::default() };
        let created = match &self.options.output {
            Output::File(path) => image_file::create(path, options),
            Output::Stdout => {
                let deadline = self.options.timeout.and_then(|timeout| self.started.checked_add(timeout));
                let stream = standard_output::open(deadline);
                Writer::stream("standard output".as_ref(), stream, options).map(|writer| Created { writer, file: None })
            }
        };
        let Created { writer, file } = created.map_err(|e| self.write_error(e))?;
        let file = file.filter(|_| self.options.compression.is_none());
        Ok(Image { writer, file, stats })
    }

    /// Writes what has to be written while the tree stands still.
    fn write_frozen(&self, image: &mut Image, collected: &mut Collected, tree: &mut FrozenTree) -> Result<(), Error> {
        let reader = TargetPages { memories: &collected.memories, sources: &collected.sources };
        for process in &collected.snapshot.processes {
            let owner = ContentOwner::Mm(process.mm);
            let source = Source::Frozen(tree, process.pid);
            self.copy(image, &mut collected.runs, owner, &collected.snapshot, source, &reader)?;
        }
        self.write(image, &collected.runs, &reader)
    }

    /// Writes what the copies have kept; they are gone afterwards.
    fn write_from_twins(&self, image: &mut Image, mut collected: Collected) -> Result<(), Error> {
        let everywhere = || vec![PageRange::new(0, u64::MAX)];
        let memory = |twin: &Option<Twin>| -> Result<Option<TargetMemory>, Error> {
            let opened = twin.as_ref().map(|twin| TargetMemory::open(twin.pid(), everywhere()));
            let action = "opening the memory of its copy".into();
            opened.transpose().map_err(|source| Error::Kernel { pid: self.options.pid, action, source })
        };
        let memories = collected.twins.iter().map(memory).collect::<Result<Vec<_>, _>>()?;
        let reader = TargetPages { memories: &memories, sources: &HashMap::new() };
        for (mm, twin) in collected.snapshot.mms.iter().zip(&mut collected.twins) {
            let Some(twin) = twin else { continue };
            let owner = ContentOwner::Mm(mm.id);
            self.copy(image, &mut collected.forked_runs, owner, &collected.snapshot, Source::Twin(twin), &reader)?;
        }
        self.write(image, &collected.forked_runs, &reader)
    }

    /// Has an address space copy those of the pages that it can; they are gone from `runs` then.
    fn copy(
        &self,
        image: &mut Image,
        runs: &mut Vec<PageRun>,
        owner: ContentOwner,
        snapshot: &Snapshot,
        source: Source<'_>,
        reader: &TargetPages<'_>,
    ) -> Result<(), Error> {
        let Some(file) = &image.file else { return Ok(()) };
        let own = copying::take(runs, owner, snapshot);
        if own.is_empty() {
            return Ok(());
        }
        let mut copying = Copying::new(source, file);
        let counts = image.writer.pages_copied(&own, &mut copying, reader, &|done, total| self.progress(done, total));
        if let Some(window) = copying.window {
            // To unmap it takes a while, and nobody waits for that: where no thread can be started, it is done here.
            let _ = std::thread::Builder::new().spawn(move || drop(window));
        }
        image.count(counts.map_err(|e| self.write_error(e))?);
        Ok(())
    }

    fn write(&self, image: &mut Image, runs: &[PageRun], reader: &TargetPages<'_>) -> Result<(), Error> {
        let counts = image.writer.pages(runs, reader, &|done, total| self.progress(done, total));
        image.count(counts.map_err(|e| self.write_error(e))?);
        Ok(())
    }

    fn progress(&self, done: u64, total: u64) -> io::Result<()> {
        self.options.progress.pages(done, total);
        if done >= total / 2 {
            fault::pass(Point::PagesHalf)?;
        }
        if self.cancelled().is_some() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    /// Makes the image durable and lets the target go, in the order that loses neither.
    fn end(
        &self,
        tree: Option<FrozenTree>,
        complete: Complete,
        connections: Connections,
    ) -> Result<(u64, Vec<Pid>), Error> {
        let Some(tree) = tree else { return Ok((self.publish(complete)?, Vec::new())) };
        if self.options.after == After::LeaveRunning {
            self.thaw(tree)?;
            return Ok((self.publish(complete)?, Vec::new()));
        }
        if self.options.after == After::LeaveStopped {
            let size = self.publish(complete)?;
            self.pass(Point::ImageDurable)?;
            return Ok((size, tree.leave_stopped().map(|()| Vec::new()).map_err(|e| self.tracer_error(e))?));
        }
        let size = self.publish(complete)?;
        self.pass(Point::ImageDurable)?;
        let (undo, remover) = (Undo::default(), connections.remover().map_err(|e| self.connection_error(e))?);
        let vanishing = connections.vanish(remover.as_ref(), &undo).map_err(|e| self.connection_error(e))?;
        self.pass(Point::Vanishing)?;
        let doomed = tree.processes().iter().map(|process| process.pidfd());
        vanishing.commit(doomed).map_err(|e| self.connection_error(e))?;
        // Whoever has been sent SIGKILL does not come back: from there on the connections are the image's.
        let unreaped = tree.kill(|| vanishing.end()).map_err(|e| self.tracer_error(e))?;
        Ok((size, unreaped))
    }

    fn publish(&self, complete: Complete) -> Result<u64, Error> {
        self.options.progress.phase("making the image durable");
        complete.publish().map_err(|e| self.write_error(e))
    }

    /// Why the dump is to end early, if it is.
    fn cancelled(&self) -> Option<Error> {
        if interrupt::requested() {
            return Some(Error::Interrupted);
        }
        self.options.timeout.filter(|timeout| self.started.elapsed() > *timeout).map(Error::TimedOut)
    }

    fn pass(&self, point: Point) -> Result<(), Error> {
        if let Some(error) = self.cancelled() {
            return Err(error);
        }
        fault::pass(point).map_err(|source| Error::Kernel {
            pid: self.options.pid,
            action: "fault point".into(),
            source,
        })
    }
}

/// What is known before the pages are written.
fn stats(tree: &FrozenTree, collected: &Collected) -> Stats {
    Stats {
        processes: tree.processes().len() as u64,
        threads: tree.threads().len() as u64,
        resident: collected.resident,
        written: 0,
        zero: collected.zero,
        clean_file: collected.clean_file,
        pause: 0,
    }
}
