//! The temporary directory of the demonstration, and the numbers in it.

use crate::cli::exit_code::Code;
use crate::cli::failure::Failure;
use crate::dump::interrupt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How often the file is looked at.
const GLANCE: Duration = Duration::from_millis(5);

/// A directory for this user alone, removed in `Drop`.
#[derive(Debug)]
pub struct Workplace(PathBuf);

impl Workplace {
    /// Makes it.
    pub fn new() -> io::Result<Self> {
        let template = std::env::temp_dir().join("snap-demo-XXXXXX");
        Ok(Self(nix::unistd::mkdtemp(&template)?))
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// The image.
    pub fn image(&self) -> PathBuf {
        self.0.join("counter.snap")
    }

    /// The file that the program writes.
    pub fn numbers(&self) -> PathBuf {
        self.0.join("numbers")
    }

    /// The last whole number in the file, 0 for none.
    pub fn last(&self) -> Result<u64, Failure> {
        Ok(self.read()?.last().copied().unwrap_or(0))
    }

    /// Waits until the program has counted so far; returns how far it has.
    pub fn wait_for(&self, number: u64, patience: Duration) -> Result<u64, Failure> {
        let started = Instant::now();
        loop {
            let last = self.last()?;
            if last >= number {
                return Ok(last);
            }
            if interrupt::requested() {
                return Err(Failure::new(Code::Interrupted, "snap demo: interrupted; everything of it is removed", ""));
            }
            if started.elapsed() > patience {
                let message = format!("snap demo: the program stands at {last} and does not count to {number}");
                return Err(Failure::new(Code::Internal, message, "run it again with -vv and report what it says"));
            }
            thread::sleep(GLANCE);
        }
    }

    /// Waits until it has counted on by so many numbers; returns the first and the last new one. A gap is a failure.
    pub fn counted_on(&self, before: u64, numbers: u64, patience: Duration) -> Result<(u64, u64), Failure> {
        let last = self.wait_for(before + numbers, patience)?;
        let all = self.read()?;
        match all.iter().zip(1..).find(|(found, expected)| **found != *expected) {
            None => Ok((before + 1, last)),
            Some((found, expected)) => Err(Failure::new(
                Code::Internal,
                format!("snap demo: the program went on with {found} where {expected} should follow"),
                "this must not happen: please report it",
            )),
        }
    }

    /// Every whole line of the file.
    fn read(&self) -> Result<Vec<u64>, Failure> {
        let text = match fs::read_to_string(self.numbers()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(Failure::new(Code::Internal, format!("{}: {error}", self.numbers().display()), ""));
            }
        };
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        Ok(whole.lines().filter_map(|line| line.parse().ok()).collect())
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_repetitions_are_seen_and_halves_of_lines_are_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = Workplace(directory.path().join("place"));
        fs::create_dir(place.directory()).expect("a directory");
        let with = |text: &str| {
            fs::write(place.numbers(), text).expect("a file");
            place.counted_on(2, 1, Duration::ZERO).map_err(|failure| failure.message)
        };
        assert_eq!(with("1\n2\n3\n"), Ok((3, 3)));
        assert_eq!(with("1\n2\n3\n4\n5"), Ok((3, 4)));
        assert!(with("1\n2\n4\n").is_err());
        assert!(with("1\n2\n2\n3\n").is_err());
        assert!(with("1\n2\n").is_err());
    }
}
