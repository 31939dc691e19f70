//! `snap inspect`.

use super::args::{InspectArgs, Report as Kind};
use super::exit::Exit;
use super::exit_code::Code;
use super::failure::Failure;
use super::output::{self, Output};
use crate::image::{self, Error, Image};
use crate::inspect::{self, Report};
use crate::restore::input;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

/// Shows one report.
pub fn run(args: &InspectArgs, output: Output) -> Result<Exit, Failure> {
    let name = args.image.display().to_string();
    let image = open(&args.image)?;
    let bad = |error: Error| damaged(&name, &error);
    let snapshot = image.snapshot();
    match args.report {
        Kind::Summary => show(&inspect::summary::report(&image), output),
        Kind::Tree => show(&inspect::tree::report(snapshot), output),
        Kind::Threads => show(&inspect::threads::report(snapshot), output),
        Kind::Maps => show(&inspect::maps::report(&image).map_err(bad)?, output),
        Kind::Fds => show(&inspect::fds::report(snapshot), output),
        Kind::Signals => show(&inspect::signals::report(snapshot), output),
        Kind::Timers => show(&inspect::timers::report(snapshot), output),
        Kind::Files => show(&inspect::files::report(snapshot), output),
        Kind::Ipc => show(&inspect::ipc::report(snapshot), output),
        Kind::Env => show(&inspect::env::report(&image).map_err(bad)?, output),
        Kind::Stats => show(&inspect::stats::report(&image).map_err(bad)?, output),
    }
}

fn show(report: &impl Report, output: Output) -> Result<Exit, Failure> {
    if output.json {
        output.document(report)?;
    } else {
        output.text(&report.text(output::columns()))?;
    }
    Ok(Exit::Code(Code::Ok))
}

/// Standard input is read to its end first, so that reports can look anywhere in it.
pub(super) fn open(path: &Path) -> Result<Image, Failure> {
    let name = path.display().to_string();
    if path.as_os_str() != "-" {
        let unreadable = |error: &io::Error| unreadable(&name, error);
        let file = File::open(path).map_err(|error| unreadable(&error))?;
        if path.is_dir() {
            return Err(unreadable(&io::ErrorKind::IsADirectory.into()));
        }
        let bytes = input::map(&file).map_err(|error| unreadable(&error))?;
        return Image::open(bytes).map_err(|error| damaged(&name, &error));
    }
    let mut stdin = io::stdin().lock();
    if stdin.is_terminal() {
        return Err(Failure::new(
            Code::Usage,
            "the image would be read from the terminal",
            "pipe it in, as in: snap inspect - < job.snap",
        ));
    }
    let mut bytes = Vec::new();
    stdin.read_to_end(&mut bytes).map_err(|error| unreadable("standard input", &error))?;
    Image::open(bytes).map_err(|error| damaged("standard input", &error))
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure::new(Code::BadImage, format!("cannot read the image {name}: {error}"), image::unreadable(error))
}

fn damaged(name: &str, error: &Error) -> Failure {
    Failure::new(Code::BadImage, format!("cannot read the image {name}: {error}"), error.remedy())
}
