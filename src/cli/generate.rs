//! Hidden `snap generate`: man pages and shell completions from the one definition of the command line.

use super::args::{Cli, Generate, GenerateArgs};
use super::exit::Exit;
use super::exit_code::Code;
use super::failure::Failure;
use super::output::Output;
use clap::CommandFactory;
use std::fs;
use std::io;
use std::path::Path;

/// Writes them.
pub fn run(args: &GenerateArgs, output: Output) -> Result<Exit, Failure> {
    match &args.what {
        Generate::Man { directory } => man(directory).map_err(|error| {
            Failure::new(
                Code::Internal,
                format!("{}: {error}", directory.display()),
                "name a directory that can be written",
            )
        })?,
        Generate::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "snap", &mut text);
            output.text(&String::from_utf8_lossy(&text))?;
        }
    }
    Ok(Exit::Code(Code::Ok))
}

fn man(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Cli::command(), directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().expect("a directory");
        man(directory.path()).expect("pages");
        for page in ["snap", "snap-dump", "snap-restore"] {
            let text = fs::read_to_string(directory.path().join(format!("{page}.1"))).expect(page);
            assert!(text.contains(".SH"), "{page}");
        }
        assert!(!directory.path().join("snap-generate.1").exists());
    }
}
