//! `snap restore`.

use super::args::{self, RestoreArgs};
use super::exit::Exit;
use super::exit_code::Code;
use super::failure::Failure;
use super::output::Output;
use super::progress_bar::Bar;
use crate::inspect::text::count;
use crate::restore::{self, Addresses, Error, FilesPolicy, Ids, Input, Options, Outcome, RestorePlan, Restored};
use serde::Serialize;
use std::io::{self, IsTerminal};

/// Restores, and ends as the program does; or prints its pid, or the plan.
pub fn run(args: &RestoreArgs, output: Output) -> Result<Exit, Failure> {
    let image = input(args)?;
    let bar = Bar::new(output);
    let options = Options {
        image,
        detach: args.detach,
        stopped: args.stopped,
        files: match args.files {
            args::FilesPolicy::Check => FilesPolicy::Check,
            args::FilesPolicy::Truncate => FilesPolicy::Truncate,
            args::FilesPolicy::Ignore => FilesPolicy::Ignore,
        },
        ignore_changed: args.ignore_changed.clone(),
        inherit: args.inherit.clone(),
        new_pid_namespace: args.new_pid_namespace,
        new_pids: args.new_pids,
        new_ipc_namespace: args.new_ipc_namespace,
        addresses: Addresses { close: args.tcp_close, mapped: args.map_address.clone() },
        progress: &bar,
    };
    if args.dry_run {
        return dry_run(&restore::plan(&options).map_err(|error| explain(args, error))?, output);
    }
    let restored = restore::run(&options).map_err(|error| explain(args, error))?;
    bar.finish();
    tell(restored, output)
}

fn input(args: &RestoreArgs) -> Result<Input, Failure> {
    if args.image.as_os_str() != "-" {
        return Ok(Input::File(args.image.clone()));
    }
    if io::stdin().is_terminal() {
        return Err(Failure::new(
            Code::Usage,
            "the image would be read from the terminal",
            "pipe it in, as in: snap restore - < job.snap",
        ));
    }
    Ok(Input::Stdin)
}

#[derive(Serialize)]
struct Plan {
    schema: &'static str,
    pid: i32,
    threads: usize,
    notices: Vec<String>,
    steps: Vec<String>,
}

fn dry_run(plan: &RestorePlan, output: Output) -> Result<Exit, Failure> {
    let text = plan.to_string();
    if output.json {
        // The first line names the process, and notices stand by themselves.
        let steps = text.lines().skip(1 + plan.notices.len()).map(|line| line.trim_start().to_owned());
        output.document(&Plan {
            schema: "snap.plan/1",
            pid: plan.pid.0,
            threads: plan.processes.iter().map(|process| process.timed.len()).sum(),
            notices: plan.notices.clone(),
            steps: steps.collect(),
        })?;
    } else {
        output.text(&text)?;
    }
    Ok(Exit::Code(Code::Ok))
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    outcome: &'static str,
    pid: Option<i32>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    /// New ids by the old ones.
    ids: Option<Ids>,
}

fn tell(restored: Restored, output: Output) -> Result<Exit, Failure> {
    let Restored { outcome, ids } = restored;
    let mut document =
        Document { schema: "snap.restore/1", outcome: "exited", pid: None, exit_code: None, signal: None, ids };
    let exit = match outcome {
        Outcome::Exited(code) => {
            document.exit_code = Some(code);
            Exit::Program((code & 0xff) as u8)
        }
        Outcome::Signaled(signal) => {
            (document.outcome, document.signal) = ("signaled", Some(signal));
            Exit::Signal(signal)
        }
        Outcome::Left(pid) => {
            (document.outcome, document.pid) = ("left", Some(pid.0));
            Exit::Code(Code::Ok)
        }
    };
    if output.json {
        output.document(&document)?;
    } else if let Outcome::Left(pid) = outcome {
        // The pid is the result of --detach, not a summary: -q leaves it.
        output.text(&pid.to_string())?;
    }
    Ok(exit)
}

fn explain(args: &RestoreArgs, error: Error) -> Failure {
    let message = format!("cannot restore: {error}");
    match error {
        Error::Blocked(blockers) => Failure {
            code: Code::Unsupported,
            message: format!("cannot restore here: {}. Nothing has run.", count(blockers.len() as u64, "reason")),
            remedy: String::new(),
            blockers,
        },
        Error::Image { remedy, .. } => Failure::new(Code::BadImage, message, remedy),
        Error::Permission { .. } => Failure::new(
            Code::Permission,
            message,
            if args.new_pid_namespace {
                "run snap check to see what this user may do; docs/privilege.md says what lifts it"
            } else {
                "try --new-pid-namespace, which needs no privilege; see docs/privilege.md"
            },
        ),
        Error::Step { .. } => Failure::new(
            Code::RestoreFailed,
            format!("{message}. Whatever was built is gone again."),
            "run again with -vv and report what it says",
        ),
    }
}
