//! `snap dump`.

use super::args::{Compression, DumpArgs, TcpPolicy};
use super::exit::Exit;
use super::exit_code::Code;
use super::failure::Failure;
use super::output::{self, Output as Streams};
use super::progress_bar::Bar;
use crate::dump::{self, After, Border, Error, Options, Output, Policy, Report, Urgency, interrupt};
use crate::image::model::id::Pid;
use crate::inspect::text::{bytes, count, nanos};
use crate::restore;
use serde::Serialize;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

/// Dumps, and says what was done; as urgently as it was begun.
pub fn run(args: &DumpArgs, streams: Streams, urgency: &Urgency) -> Result<Exit, Failure> {
    let output = destination(args)?;
    if output == Output::Stdout && io::stdout().is_terminal() {
        return Err(Failure::new(
            Code::Usage,
            "the image would be written to the terminal",
            "redirect it, as in: snap dump PID -o - > job.snap",
        ));
    }
    interrupt::catch().map_err(|source| {
        Failure::new(Code::Internal, format!("installing handlers of SIGINT and SIGTERM: {source}"), "")
    })?;
    let bar = Bar::new(streams);
    let options = Options {
        pid: Pid(args.pid),
        output: output.clone(),
        after: after(args),
        timeout: args.timeout,
        compression: match args.compress {
            Compression::None => None,
            Compression::Zstd(level) => Some(level),
        },
        border: Border {
            externals: args.external.clone(),
            leaks: args.allow_leak,
            drop_events: args.drop_events,
            plain_eventfds: args.plain_eventfds,
            tcp: policy(args.tcp),
        },
        unrestorable: restore::unrestorable,
        progress: &bar,
    };
    let done = dump::run(&options, urgency);
    let report = done.map_err(|error| explain(args.pid, error))?;
    bar.finish();
    tell(args, &output, &report, streams)?;
    Ok(Exit::Code(Code::Ok))
}

fn destination(args: &DumpArgs) -> Result<Output, Failure> {
    match &args.output {
        Some(path) if path.as_os_str() == "-" => Ok(Output::Stdout),
        Some(path) if path.is_dir() => Err(Failure::new(
            Code::Usage,
            format!("{}: is a directory", path.display()),
            format!("name a file in it: -o {}", path.join(format!("snap-{}.snap", args.pid)).display()),
        )),
        Some(path) => Ok(Output::File(path.clone())),
        None => Ok(Output::File(PathBuf::from(format!("snap-{}.snap", args.pid)))),
    }
}

fn policy(policy: TcpPolicy) -> Policy {
    match policy {
        TcpPolicy::Keep => Policy::Keep,
        TcpPolicy::Close => Policy::Close,
        TcpPolicy::Refuse => Policy::Refuse,
    }
}

fn after(args: &DumpArgs) -> After {
    match (args.kill, args.leave_stopped) {
        (true, _) => After::Kill,
        (false, true) => After::LeaveStopped,
        (false, false) => After::LeaveRunning,
    }
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    pid: i32,
    image: Option<String>,
    image_bytes: u64,
    processes: u64,
    threads: u64,
    resident_bytes: u64,
    written_bytes: u64,
    zero_bytes: u64,
    clean_file_bytes: u64,
    pause_ns: u64,
    total_ns: u64,
    after: &'static str,
    unreaped: Vec<i32>,
    warnings: &'a [String],
}

fn tell(args: &DumpArgs, output: &Output, report: &Report, streams: Streams) -> Result<(), Failure> {
    let text = match (args.json, streams.quiet) {
        (true, _) => output::pretty(&document(args, output, report))?,
        (false, true) => return Ok(()),
        (false, false) => summary(args, output, report),
    };
    match output {
        Output::File(_) => streams.text(&text),
        Output::Stdout => streams.aside(&text),
    }
}

fn document<'a>(args: &DumpArgs, output: &Output, report: &'a Report) -> Document<'a> {
    let stats = &report.stats;
    Document {
        schema: "snap.dump/1",
        pid: args.pid,
        image: match output {
            Output::File(path) => Some(path.display().to_string()),
            Output::Stdout => None,
        },
        image_bytes: report.image_size,
        processes: stats.processes,
        threads: stats.threads,
        resident_bytes: stats.resident,
        written_bytes: stats.written,
        zero_bytes: stats.zero,
        clean_file_bytes: stats.clean_file,
        pause_ns: stats.pause,
        total_ns: u64::try_from(report.total.as_nanos()).unwrap_or(u64::MAX),
        after: match after(args) {
            After::LeaveRunning => "running",
            After::LeaveStopped => "stopped",
            After::Kill => "killed",
        },
        unreaped: report.unreaped.iter().map(|pid| pid.0).collect(),
        warnings: &report.warnings,
    }
}

fn summary(args: &DumpArgs, output: &Output, report: &Report) -> String {
    let stats = &report.stats;
    let name = match output {
        Output::File(path) => path.display().to_string(),
        Output::Stdout => "standard output".to_owned(),
    };
    let fate = match after(args) {
        After::LeaveRunning => "runs on",
        After::LeaveStopped => "is stopped",
        After::Kill => "is killed",
    };
    let mut text = format!(
        "{name}: {}, {}; memory {} resident, {} written, skipped {} zero and {} clean file; image {}; pause {}, total {}; pid {} {fate}",
        count(stats.processes, "task"),
        count(stats.threads, "thread"),
        bytes(stats.resident),
        bytes(stats.written),
        bytes(stats.zero),
        bytes(stats.clean_file),
        bytes(report.image_size),
        nanos(stats.pause),
        nanos(u64::try_from(report.total.as_nanos()).unwrap_or(u64::MAX)),
        args.pid,
    );
    for warning in &report.warnings {
        text.push_str(&format!("\nwarning: {warning}"));
    }
    text.push_str(&unreaped(&report.unreaped));
    text
}

/// Says which pids stay taken, or how many.
fn unreaped(pids: &[Pid]) -> String {
    const NAMED: usize = 10;
    let (named, others) = pids.split_at(pids.len().min(NAMED));
    let names = named.iter().map(Pid::to_string).collect::<Vec<_>>().join(", ");
    match (pids.len(), others.len()) {
        (0, _) => String::new(),
        (1, _) => format!("\nwarning: pid {names} is dead but stays taken until its parent reaps it (wait(2))"),
        (_, 0) => format!("\nwarning: pids {names} are dead but stay taken until their parents reap them (wait(2))"),
        (_, more) => {
            format!(
                "\nwarning: pids {names} and {more} more are dead but stay taken until their parents reap them (wait(2))"
            )
        }
    }
}

/// The user's view of an error of a dump; the target runs on in every case.
pub fn explain(pid: i32, error: Error) -> Failure {
    explain_as(&format!("cannot dump pid {pid}"), pid, error)
}

/// The same where nothing was to be dumped.
pub fn explain_check(pid: i32, error: Error) -> Failure {
    explain_as(&format!("cannot check pid {pid}"), pid, error)
}

fn explain_as(what: &str, pid: i32, error: Error) -> Failure {
    let said = error.to_string();
    // The pid stands there already.
    let own = format!("pid {pid}");
    let said = said.strip_prefix(&own).map_or(said.as_str(), |rest| rest.trim_start_matches([':', ' ']));
    let message = format!("{what}: {said}");
    match error {
        Error::Blocked(blockers) => Failure {
            code: Code::Unsupported,
            message: format!(
                "cannot dump pid {pid}: {}. It was not changed, and goes on as before.",
                count(blockers.len() as u64, "reason")
            ),
            remedy: String::new(),
            blockers,
        },
        Error::Permission { .. } => Failure::new(Code::Permission, message, "see: snap check, docs/privilege.md"),
        Error::Vanished(_) => Failure::new(Code::Vanished, message, "see which processes there are: ps -e"),
        Error::Traced { tracer, .. } => Failure::new(
            Code::Unsupported,
            message,
            format!("a process has one tracer at most: detach the debugger, or end pid {tracer}, and try again"),
        ),
        Error::TimedOut(_) => Failure::new(
            Code::TimedOut,
            format!("{message}. It runs on; no image was written."),
            "give a longer --timeout",
        ),
        Error::Interrupted => {
            Failure::new(Code::Interrupted, format!("{message}. It runs on; no image was written."), "")
        }
        // The writer names the file too.
        Error::Output { path, source } => Failure::new(
            Code::Internal,
            format!(
                "{what}: {}. The process runs on; no image is left.",
                if source.to_string().starts_with(&path) { source.to_string() } else { format!("{path}: {source}") }
            ),
            if path == "standard output" {
                "whoever reads the image must read all of it, and have room for it"
            } else {
                "write to a directory that exists, with room and permission: -o FILE"
            },
        ),
        Error::Kernel { .. } => Failure::new(
            Code::Internal,
            format!("{message}. The process runs on."),
            "run again with -vv and report what it says",
        ),
    }
}
