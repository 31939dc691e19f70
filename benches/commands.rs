//! Whole commands, as a user waits for them: `snap dump`, `snap dump --kill` and `snap restore`, beside `memcpy` of the same size in the same run.
//!
//! `cargo bench --bench commands [-- NAME]`. Medians of several runs, in milliseconds; images lie on /dev/shm. The programs run in a pid
//! namespace of their own, as those of the tests do. `SNAP_BENCH_CRIU=/path/of/criu` measures that one too, in the same run. Beside the times stand the time
//! after which all threads stood still, the size of the image, and the memory of all processes (each page that several have in part) before and after the restore.
//!
//! A case that fails says in which run and why; the others go on, and the exit status tells.

#[path = "../tests/it/support/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "made for the tests, of which a benchmark needs a part")]
mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use support::{Room, wait};

/// Set in the process that measures.
const INSIDE: &str = "SNAP_BENCH_INSIDE";

/// A program to dump and restore.
struct Case {
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    /// Memory that is copied for comparison.
    mebibytes: usize,
    runs: usize,
}

const CASES: &[Case] = &[
    Case { name: "idle", program: "c-nolibc", arguments: &[], mebibytes: 1, runs: 21 },
    Case { name: "256 MiB", program: "ballast", arguments: &["256"], mebibytes: 256, runs: 7 },
    Case { name: "1 GiB", program: "ballast", arguments: &["1024"], mebibytes: 1024, runs: 5 },
    Case { name: "1,000 threads", program: "threads", arguments: &["1000"], mebibytes: 16, runs: 7 },
    Case { name: "10,000 VMAs", program: "vmas", arguments: &["10000"], mebibytes: 20, runs: 7 },
    Case { name: "200 processes", program: "horde", arguments: &["200"], mebibytes: 16, runs: 5 },
    Case { name: "1,000 processes", program: "horde", arguments: &["1000", "5"], mebibytes: 64, runs: 3 },
    Case { name: "100 children", program: "copies", arguments: &["anonymous", "512", "100"], mebibytes: 512, runs: 3 },
    Case { name: "2,000 mixed", program: "medley", arguments: &["2000"], mebibytes: 1, runs: 9 },
    Case { name: "15,000 files", program: "hoard", arguments: &["15000"], mebibytes: 1, runs: 5 },
    Case { name: "10,000 TCP", program: "medley", arguments: &["10000", "tcp"], mebibytes: 1, runs: 3 },
    Case { name: "10,000 idle", program: "crowd", arguments: &["10000"], mebibytes: 64, runs: 3 },
    Case { name: "1,000 of 10,000", program: "crowd", arguments: &["9000", "1000"], mebibytes: 64, runs: 3 },
];

/// What is measured.
const COLUMNS: [&str; 8] = ["memcpy", "dump", "pause", "freeze", "dump --kill", "restore", "criu dump", "criu restore"];

/// What is counted, in MiB.
const SIZES: [&str; 3] = ["image", "memory", "restored"];

/// One run.
struct Run {
    /// In the order of [`COLUMNS`]; the last two only with a CRIU.
    times: Vec<Duration>,
    /// In the order of [`SIZES`].
    sizes: [u64; 3],
}

fn main() -> ExitCode {
    if std::env::var_os(INSIDE).is_none() {
        return outside();
    }
    let _ = nix::unistd::setsid();
    support::namespace::close_on_exec();
    support::network::own_network();
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let columns = if criu().is_some() { COLUMNS.len() } else { COLUMNS.len() - 2 };
    let heads = COLUMNS[..columns].iter().chain(&SIZES).map(|name| format!("{name:>14}")).collect::<String>();
    println!("{:<16}{heads}   median, ms and MiB", "");
    let mut failed = 0;
    for case in CASES.iter().filter(|case| wanted.as_deref().is_none_or(|name| case.name.contains(name))) {
        match measure(case) {
            Ok(line) => println!("{:<16}{line}", case.name),
            Err(why) => {
                failed += 1;
                println!("{:<16}FAILED {why}", case.name);
                if let Err(left) = caught(end_all) {
                    println!("what is left of it would disturb the others, so that this is the end: {left}");
                    break;
                }
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Ends all other processes of the namespace that is ours alone.
fn end_all() {
    if std::process::id() == 1 {
        // With nobody there it fails, and that is as well.
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    }
    wait::alone();
}

/// The result of `work`, or what it said when it panicked; where that was, the panic has told on standard error.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

/// Starts this benchmark again as pid 1 of a new pid namespace.
fn outside() -> ExitCode {
    let user: &[&str] = if nix::unistd::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    let status = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(user)
        .arg("--")
        .arg(std::env::current_exe().expect("the path of this benchmark"))
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .status()
        .expect("unshare of util-linux");
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The CRIU to compare with.
fn criu() -> Option<PathBuf> {
    std::env::var_os("SNAP_BENCH_CRIU").map(PathBuf::from)
}

/// All runs of a case; which of them failed, and why.
fn measure(case: &Case) -> Result<String, String> {
    let run =
        |number: usize| caught(|| once(case)).map_err(|why| format!("in run {} of {}: {why}", number + 1, case.runs));
    let runs = (0..case.runs).map(run).collect::<Result<Vec<Run>, String>>()?;
    let median = |value: &dyn Fn(&Run) -> f64| {
        let mut sorted: Vec<f64> = runs.iter().map(value).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        format!("{:>14.2}", sorted[sorted.len() / 2])
    };
    let times = (0..runs[0].times.len()).map(|column| median(&|run| run.times[column].as_secs_f64() * 1000.0));
    let sizes = (0..SIZES.len()).map(|column| median(&|run| run.sizes[column] as f64 / f64::from(1 << 20)));
    Ok(times.chain(sizes).collect())
}

/// Memory of all processes of the room but our own, of what several have to each its part.
fn memory() -> u64 {
    let entries = std::fs::read_dir("/proc").expect("proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let proportional = |pid: u32| -> Option<u64> {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    pids.filter(|pid| *pid != std::process::id()).filter_map(proportional).sum::<u64>() << 10
}

/// What `snap -v` says of the time after which all threads stood still.
fn freeze(log: &str) -> Duration {
    let words = log.lines().find_map(|line| line.split_once(" stand still after ")).expect("the time of the freeze").1;
    let number = words.split_whitespace().next().and_then(|word| word.parse().ok()).expect("microseconds");
    Duration::from_micros(number)
}

fn once(case: &Case) -> Run {
    let room = Room::new("bench");
    let mut victim = room.victim(case.program, case.arguments);
    let pid = victim.pid().to_string();
    let copy = memcpy(case.mebibytes);
    let before = memory();
    let (dump, output) = timed(|| room.snap(["-v", "dump", "--json", &pid, "-o", "living.snap"]).run().expect(0));
    let freeze = freeze(&output.stderr);
    let image = std::fs::metadata(room.path("living.snap")).expect("the image").len();
    let pause = Duration::from_nanos(output.json()["pause_ns"].as_u64().expect("pause_ns"));
    std::fs::remove_file(room.path("living.snap")).expect("the image");
    let (kill, _) = std::thread::scope(|scope| {
        // As a shell would, which reaps its children at once.
        let shell = scope.spawn(|| victim.killed());
        let dumped = timed(|| room.snap(["dump", "--kill", &pid, "-o", "killed.snap"]).run().expect(0));
        shell.join().unwrap_or_else(|panic| resume_unwind(panic));
        dumped
    });
    wait::alone();
    let (restore, _) = timed(|| room.snap(["restore", "--detach", "killed.snap"]).run().expect(0));
    std::fs::remove_file(room.path("killed.snap")).expect("the image");
    let sizes = [image, before, memory()];
    victim.check();
    let mut times = vec![copy, dump, pause, freeze, kill, restore];
    if let Some(criu) = criu() {
        // Calls that CRIU's dump interrupts are counted as failures by the victim itself, so it is not asked again.
        let images = room.path("criu");
        std::fs::create_dir(&images).expect("a directory");
        let run = |verb: &[&str]| {
            let mut command = Command::new(&criu);
            command
                .args(verb)
                .args(["--shell-job", "--tcp-established", "--network-lock", "nftables", "-D"])
                .arg(&images)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let (time, status) = timed(|| command.status().expect("criu"));
            assert!(status.success(), "criu {verb:?}: {status}");
            time
        };
        times.push(run(&["dump", "-t", &pid]));
        victim.killed();
        wait::alone();
        times.push(run(&["restore", "-d"]));
    }
    victim.end();
    wait::alone();
    Run { times, sizes }
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let begun = Instant::now();
    let result = work();
    (begun.elapsed(), result)
}

/// Copies so much memory that both sides are resident before.
fn memcpy(mebibytes: usize) -> Duration {
    let source = vec![1u8; mebibytes << 20];
    let mut target = vec![2u8; mebibytes << 20];
    let (time, ()) = timed(|| target.copy_from_slice(black_box(&source)));
    black_box(&target);
    time
}
