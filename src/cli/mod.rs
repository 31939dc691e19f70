//! The command line: one file per command, one clap definition ([`args`]).
//!
//! Results go to standard output, progress and log to standard error. With `--json` standard output holds exactly one
//! JSON document, also when the command fails.

pub mod args;
mod check;
mod demo;
mod dump;
mod exit;
pub mod exit_code;
mod failure;
mod generate;
mod inspect;
mod log;
mod net;
mod output;
mod progress_bar;
mod restore;

use crate::dump::Urgency;
use args::{Cli, Command};
use clap::Parser;
use exit::Exit;
use exit_code::Code;
use failure::Failure;
use output::Output;
use std::mem::ManuallyDrop;
use std::process::ExitCode;

/// Parses the command line, runs the command, and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    // On a busy machine a dump waits for its first instants as for any other, and for its end: so it is urgent until the process has ended.
    let urgency = ManuallyDrop::new(Urgency::take());
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    if !matches!(cli.command, Command::Dump(_)) {
        urgency.give_up();
    }
    log::start(cli.quiet, cli.verbose);
    let output = Output { quiet: cli.quiet, json: wants_json(&cli.command) };
    match run(&cli.command, output, &urgency) {
        Ok(exit) => exit.leave(),
        Err(failure) => {
            failure.tell(output);
            failure.code.into()
        }
    }
}

fn run(command: &Command, output: Output, urgency: &Urgency) -> Result<Exit, Failure> {
    match command {
        Command::Dump(args) => dump::run(args, output, urgency),
        Command::Restore(args) => restore::run(args, output),
        Command::Inspect(args) => inspect::run(args, output),
        Command::Check(args) => check::run(args, output),
        Command::Net(args) => net::run(args, output),
        Command::Demo(args) => demo::run(args, output),
        Command::DemoCounter(args) => demo::count(args),
        Command::Generate(args) => generate::run(args, output),
    }
}

fn wants_json(command: &Command) -> bool {
    match command {
        Command::Dump(args) => args.json,
        Command::Restore(args) => args.json,
        Command::Inspect(args) => args.json,
        Command::Check(args) => args.json,
        Command::Net(_) | Command::Demo(_) | Command::DemoCounter(_) | Command::Generate(_) => false,
    }
}

/// Help and version are results, everything else that clap says is a usage error.
fn refuse(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { Code::Usage.into() } else { Code::Ok.into() }
}
