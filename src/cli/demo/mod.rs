//! `snap demo`: the two-minute proof. A counting program is dumped, killed, restored, and counts on.

mod counter;
mod workplace;

pub use counter::count;

use super::args::DemoArgs;
use super::exit::Exit;
use super::exit_code::Code;
use super::failure::Failure;
use super::output::Output;
use crate::dump::{self, After, Options, Urgency, interrupt};
use crate::image::model::id::Pid;
use crate::inspect::text::{bytes, count as counted, nanos};
use crate::progress::Silent;
use crate::restore;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use workplace::Workplace;

/// Numbers that the program counts before the dump, and again after the restore.
const NUMBERS: u64 = 10;

/// Longest wait for them.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the whole demonstration.
pub fn run(_: &DemoArgs, output: Output) -> Result<Exit, Failure> {
    interrupt::catch().map_err(|error| broken("installing handlers of signals", error))?;
    // What is restored with --detach becomes a child of the next subreaper: so it can be ended and reaped here.
    nix::sys::prctl::set_child_subreaper(true).map_err(|error| broken("becoming a subreaper", error))?;
    let place = Workplace::new().map_err(|error| broken("making a directory for temporary files", error))?;
    let say = |text: &str| if output.quiet { Ok(()) } else { output.text(text) };

    say(&format!("Everything happens in {} and is removed at the end.\n\n", place.directory().display()))?;
    let (before, pid) = dump_and_kill(&place, &say)?;
    let restored = restore(&place, pid, &say)?;
    let (first, last) = place.counted_on(before, NUMBERS, PATIENCE)?;
    say(&format!(
        "   It has counted on, from {first} to {last}: no number is missing, none is there twice.\n   \
         The count was nowhere but in the memory that snap brought back."
    ))?;
    restored.end()?;
    drop(place);
    output.text("\nIt works. Now try it on a program of yours: snap check PID, snap dump PID")?;
    Ok(Exit::Code(Code::Ok))
}

/// Steps one and two; returns the last number that was counted, and the pid.
fn dump_and_kill(place: &Workplace, say: &dyn Fn(&str) -> Result<(), Failure>) -> Result<(u64, Pid), Failure> {
    let mut program = Program::start(place)?;
    let pid = program.pid();
    let counted_to = place.wait_for(NUMBERS, PATIENCE)?;
    say(&format!(
        "1. A program was started as pid {pid}. It counts in memory and writes each number to a file:\n   \
         it has come to {counted_to}.\n\n"
    ))?;
    let image = place.image();
    say(&format!("2. $ snap dump {pid} -o {} --kill", image.display()))?;
    let options = Options {
        pid,
        output: dump::Output::File(image),
        after: After::Kill,
        timeout: Some(PATIENCE),
        compression: None,
        border: dump::Border::default(),
        unrestorable: restore::unrestorable,
        progress: &Silent,
    };
    let done = dump::run(&options, &Urgency::take());
    let report = done.map_err(|error| super::dump::explain(pid.0, error))?;
    program.reap()?;
    let last = place.last()?;
    let stats = &report.stats;
    say(&format!(
        "   Its {} and {} of memory are in an image of {}; that took {}.\n   \
         Pid {pid} is gone. The last number it wrote is {last}.\n\n",
        counted(stats.threads, "thread"),
        bytes(stats.resident),
        bytes(report.image_size),
        nanos(report.total.as_nanos() as u64),
    ))?;
    Ok((last, pid))
}

/// Step three: the same pid, or a pid namespace where this user may not choose pids.
fn restore(place: &Workplace, pid: Pid, say: &dyn Fn(&str) -> Result<(), Failure>) -> Result<Restored, Failure> {
    let image = place.image();
    say(&format!("3. $ snap restore {} --detach", image.display()))?;
    let started = Instant::now();
    let (restored, place) = match restored_by(&image, &[]) {
        Err(failure) if failure.code == Code::Permission => {
            say("   This user may not choose pids. So, in a pid namespace of its own:")?;
            say(&format!("   $ snap restore {} --detach --new-pid-namespace", image.display()))?;
            (
                restored_by(&image, &["--new-pid-namespace"])?,
                " (its pid out here; in a pid namespace of its own it has its old one)",
            )
        }
        other => (other?, ""),
    };
    let took = nanos(started.elapsed().as_nanos() as u64);
    say(&format!("   After {took} it runs again, as pid {}{place}; it was pid {pid}.", restored.0))?;
    Ok(restored)
}

/// `snap restore` as a command of its own, since it may enter namespaces.
fn restored_by(image: &Path, options: &[&str]) -> Result<Restored, Failure> {
    let finished = own_command()?
        .arg("restore")
        .arg(image)
        .args(["--detach", "--json"])
        .args(options)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| broken("starting snap restore", error))?;
    let document: serde_json::Value = serde_json::from_slice(&finished.stdout).unwrap_or_default();
    if let Some(pid) = document["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()) {
        return Ok(Restored(Pid(pid)));
    }
    let code = finished.status.code().and_then(|code| u8::try_from(code).ok());
    let message = String::from_utf8_lossy(&finished.stderr);
    Err(Failure::new(
        Code::ALL.into_iter().find(|known| Some(known.number()) == code).unwrap_or(Code::Internal),
        message.trim().trim_start_matches("snap: ").to_owned(),
        "run snap check to see what this kernel and this user can do",
    ))
}

fn own_command() -> Result<Command, Failure> {
    std::env::current_exe().map(Command::new).map_err(|error| broken("finding the program file of snap", error))
}

/// The counting program before the dump; killed and reaped in `Drop`, whatever happens.
struct Program(Child);

impl Program {
    fn start(place: &Workplace) -> Result<Self, Failure> {
        let quiet = || Stdio::null();
        own_command()?
            .arg("demo-counter")
            .arg(place.numbers())
            .current_dir("/")
            .stdin(quiet())
            .stdout(quiet())
            .stderr(quiet())
            .spawn()
            .map(Self)
            .map_err(|error| broken("starting the counting program", error))
    }

    fn pid(&self) -> Pid {
        Pid(self.0.id() as i32)
    }

    fn reap(&mut self) -> Result<(), Failure> {
        match self.0.wait() {
            // A dump that was its tracer and is its parent too has seen its end.
            Err(error) if error.raw_os_error() != Some(Errno::ECHILD as i32) => {
                Err(broken("waiting for the end of the counting program", error))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The restored program, by the pid that it has here.
///
/// It, or the first process of its namespace, is a child of ours by now: all children are killed and reaped in `Drop`.
struct Restored(Pid);

impl Restored {
    /// Ends it; the error is that it had ended before.
    fn end(self) -> Result<(), Failure> {
        if children().is_empty() {
            return Err(broken("ending the restored program", Errno::ESRCH));
        }
        Ok(())
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        for child in children() {
            let _ = kill(child, Signal::SIGKILL);
        }
        while waitpid(None, None::<WaitPidFlag>).is_ok() {}
    }
}

/// Children of this process, which has one thread.
fn children() -> Vec<nix::unistd::Pid> {
    let list = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).map(nix::unistd::Pid::from_raw).collect()
}

fn broken(what: &str, error: impl Into<std::io::Error>) -> Failure {
    Failure::new(
        Code::Internal,
        format!("snap demo: {what}: {}", error.into()),
        "run snap check to see what is missing",
    )
}
