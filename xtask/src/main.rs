//! Tasks: `cargo xtask test` is the one command that tests everything.

mod not_run;
mod packages;
mod steps;
mod vm;

use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "\
usage: cargo xtask TASK

  test        install or name what is missing, build, check style, run every test, build the documents, fuzz
  fuzz [SECS] fuzz the reader of images and the parsers of /proc for so long each, 60 s by default
  packages    only install or name the Debian packages that the tests need
  vm [...]    run tests on another kernel or CPU, in QEMU; `cargo xtask vm --help` says more
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["test"] => test(),
        ["fuzz"] => fuzz("60"),
        ["fuzz", seconds] => fuzz(seconds),
        ["packages"] => packages::provide(),
        ["vm", "--help"] => {
            print!("{}", vm::USAGE);
            return ExitCode::SUCCESS;
        }
        ["vm", ..] => vm::run(&arguments[1..]),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("xtask: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Looks for input that makes a reader panic, disagree with itself, or take too much memory or time.
fn fuzz(seconds: &str) -> Result<(), String> {
    let seconds = seconds.parse().map_err(|error| format!("{seconds}: {error}"))?;
    steps::make_corpora()?;
    steps::fuzz(seconds).iter().try_for_each(steps::Step::run)
}

/// Everything, in the order in which a mistake shows soonest.
fn test() -> Result<(), String> {
    let start = Instant::now();
    packages::provide()?;
    steps::make_corpora()?;
    let not_run = not_run::NotRun::collect()?;
    let steps = steps::all(not_run.path());
    let mut missed = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        eprintln!("== {}/{}: {}", number + 1, steps.len(), step.title);
        let begun = Instant::now();
        let result = step.run();
        match not_run.show(step.title) {
            0 => {}
            count => missed.push(format!("; {}: {count} not run", step.title)),
        }
        result?;
        eprintln!("== {}: {:.0} s", step.title, begun.elapsed().as_secs_f64());
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("All tests passed: {} steps in {seconds:.0} s{}.", steps.len(), missed.concat());
    Ok(())
}
