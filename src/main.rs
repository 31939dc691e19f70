//! `snap`: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    snap::cli::main()
}
