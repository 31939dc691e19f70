//! Tests that were not run: each says so in a file, and the test run shows their names and numbers.

use crate::steps;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The file in which they are collected.
pub struct NotRun(PathBuf);

impl NotRun {
    /// An empty file in the build directory, to which every user may add.
    pub fn collect() -> Result<Self, String> {
        let path = steps::root().join("target/not-run.txt");
        let create = || {
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            File::create(&path)?.set_permissions(Permissions::from_mode(0o666))
        };
        create().map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Takes out and shows what the tests of one step have said; returns how many there were.
    pub fn show(&self, title: &str) -> usize {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let _ = File::create(&self.0);
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        if !lines.is_empty() {
            eprintln!("== {title}: {} not run", lines.len());
            lines.iter().for_each(|line| eprintln!("   {line}"));
        }
        lines.len()
    }
}
