//! How fast pages go into an image and out of it, beside a memcpy of the same size in the same run.
//!
//! `cargo bench --bench image_pages -- [MIB] [DIRECTORY]` (1024 MiB and /dev/shm by default). Medians of five runs, of
//! wall-clock time and, for a machine that does other things too, of processor time of all threads.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use snap::dump::image_file;
use snap::image::model::address::{Addr, PageRange};
use snap::image::model::id::ShmId;
use snap::image::model::inventory::Stats;
use snap::image::model::memory::{ContentOwner, SharedMemory, SharedMemoryKind};
use snap::image::{Image, PageReader, PageRun, PageSink, WriteOptions, ZeroPolicy};
use snap::sys::file_map;
use std::fs::File;
use std::hint::black_box;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const RUNS: usize = 5;

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let mib: usize = args.next().map_or(1024, |arg| arg.parse().expect("MIB is a number"));
    let dir = args.next().unwrap_or_else(|| "/dev/shm".into());
    let path = &Path::new(&dir).join(format!("image-pages-{}.snap", std::process::id()));
    let source = &random(mib << 20);
    let mut target = vec![1u8; source.len()];
    let copy = median(|| target.copy_from_slice(black_box(source)));
    drop(target);
    println!("{mib} MiB in {dir}: wall and processor ms, and each as a multiple of memcpy");
    let report = |what: &str, time: Times| {
        let (wall, cpu) = (time.wall.as_secs_f64(), time.cpu.as_secs_f64());
        let (wall_m, cpu_m) = (wall / copy.wall.as_secs_f64(), cpu / copy.cpu.as_secs_f64());
        println!("{what:44} {:8.1} {:8.1}  {wall_m:6.2} {cpu_m:6.2}", wall * 1e3, cpu * 1e3);
    };
    report("memcpy", copy);
    report("write(2) alone, 1 MiB at a time", median(|| plain_write(path, source)));
    for workers in [1, 2] {
        let options = WriteOptions { workers, ..WriteOptions::default() };
        let memory = Memory { source, process: None };
        report(&format!("write, memory copied, {workers} workers"), median(|| write(path, options, &memory)));
        let process = Some(File::open("/proc/self/mem").expect("the own memory"));
        let memory = Memory { source, process };
        report(&format!("write, /proc/self/mem, {workers} workers"), median(|| write(path, options, &memory)));
    }
    for workers in [1, 2] {
        report(&format!("map and verify, {workers} workers"), median(|| read(path, workers, &Nowhere)));
        report(&format!("map and copy out, {workers} workers"), median(|| read(path, workers, &Hot)));
        report(&format!("stream and copy out, {workers} workers"), median(|| stream(path, workers)));
    }
    let memory = Memory { source, process: None };
    let two = WriteOptions { workers: 2, ..WriteOptions::default() };
    let references = WriteOptions { references: true, ..two };
    report("write with references, 2 workers", median(|| write(path, references, &memory)));
    let zstd = WriteOptions { compression: Some(1), ..two };
    report("write with zstd 1 (random data), 2 workers", median(|| write(path, zstd, &memory)));
    let zero = vec![0; source.len()];
    let memory = Memory { source: &zero, process: None };
    report("write zero pages, 2 workers", median(|| write(path, two, &memory)));
    std::fs::remove_file(path).expect("the image is removed");
}

/// What a piece of work took.
#[derive(Clone, Copy)]
struct Times {
    wall: Duration,
    cpu: Duration,
}

/// Medians of several runs.
fn median(mut work: impl FnMut()) -> Times {
    let mut times: Vec<(Duration, Duration)> = (0..RUNS)
        .map(|_| {
            let (start, cpu) = (Instant::now(), processor_time());
            work();
            (start.elapsed(), processor_time() - cpu)
        })
        .collect();
    times.sort_unstable_by_key(|time| time.0);
    let wall = times[RUNS / 2].0;
    times.sort_unstable_by_key(|time| time.1);
    Times { wall, cpu: times[RUNS / 2].1 }
}

fn processor_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the own usage");
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| Duration::from_micros(time.num_microseconds() as u64))
        .sum()
}

/// Bytes without a zero page.
fn random(len: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252u64;
    let mut out = vec![0; len];
    for word in out.as_chunks_mut::<8>().0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *word = state.to_ne_bytes();
    }
    out
}

/// The memory to be written: copied, or read through the kernel as that of another process is.
struct Memory<'a> {
    source: &'a [u8],
    process: Option<File>,
}

impl PageReader for Memory<'_> {
    fn read(&self, _: ContentOwner, runs: &[PageRange], mut buf: &mut [u8]) -> io::Result<()> {
        for run in runs {
            let (out, rest) = buf.split_at_mut(run.len() as usize);
            let from = &self.source[run.start.0 as usize..run.end.0 as usize];
            match &self.process {
                None => out.copy_from_slice(from),
                Some(file) => file.read_exact_at(out, from.as_ptr() as u64)?,
            }
            buf = rest;
        }
        Ok(())
    }
}

fn plain_write(path: &Path, source: &[u8]) {
    let file = File::create(path).expect("a file");
    for (i, part) in source.chunks(1 << 20).enumerate() {
        file.write_all_at(part, (i << 20) as u64).expect("room");
    }
    std::fs::remove_file(path).expect("the file is removed");
}

fn write(path: &Path, options: WriteOptions, memory: &Memory<'_>) {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/golden/v1-small.snap");
    let golden = Image::open(std::fs::read(golden).expect("a golden image")).expect("an image");
    let mut snapshot = golden.snapshot().clone();
    let id = ShmId(snapshot.shared_memory.len() as u32);
    let size = memory.source.len() as u64;
    snapshot.shared_memory.push(SharedMemory { id, kind: SharedMemoryKind::Anonymous, size });
    let owner = ContentOwner::SharedMemory(id);
    let runs = [PageRun { owner, range: PageRange::new(0, size), zero: ZeroPolicy::Drop }];
    let mut writer = image_file::create(path, options).expect("a file").writer;
    writer.snapshot(&snapshot).expect("room");
    writer.pages(&runs, memory, &|_, _| Ok(())).expect("room");
    writer.complete(&Stats::default()).expect("room").publish().expect("room");
}

fn read(path: &Path, workers: usize, sink: &dyn PageSink) {
    let file = File::open(path).expect("the image");
    let image = Image::open(file_map::map(&file).expect("a mapping")).expect("an image");
    image.restore_pages(sink, workers).expect("an intact image");
}

fn stream(path: &Path, workers: usize) {
    let image = Image::stream(File::open(path).expect("the image")).expect("an image");
    image.restore_pages(&Hot, workers).expect("an intact image");
}

/// Looks at nothing.
struct Nowhere;

impl PageSink for Nowhere {
    fn fill(&self, _: ContentOwner, _: Addr, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn zero(&self, _: ContentOwner, _: PageRange) -> io::Result<()> {
        Ok(())
    }
}

/// Copies into a small buffer that stays in the cache.
struct Hot;

impl PageSink for Hot {
    fn fill(&self, _: ContentOwner, _: Addr, data: &[u8]) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        for part in data.chunks(buffer.len()) {
            buffer[..part.len()].copy_from_slice(part);
            black_box(&mut buffer);
        }
        Ok(())
    }

    fn zero(&self, _: ContentOwner, _: PageRange) -> io::Result<()> {
        Ok(())
    }
}
