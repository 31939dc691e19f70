//! The steps of `cargo xtask test`, each one command.

use crate::packages;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One command of the test run.
pub struct Step {
    /// What the step shows.
    pub title: &'static str,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    directory: PathBuf,
}

/// Every step, in order; tests add those that were not run to the file `not_run`.
pub fn all(not_run: &Path) -> Vec<Step> {
    let mut steps = vec![
        cargo("format", &["fmt", "--all", "--check"]),
        cargo("lints", &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        cargo("victims", &["build", "--quiet", "--package", "fixtures", "--bins"]),
        cargo("tests", &["test", "--workspace", "--no-fail-fast"])
            .with("SNAP_TEST_STRICT", strictness())
            .with("SNAP_TEST_NOT_RUN", &not_run.to_string_lossy()),
    ];
    if packages::is_root() {
        steps.push(as_an_ordinary_user(not_run));
    }
    steps.push(cargo("documents", &["doc", "--quiet", "--workspace", "--no-deps"]).with("RUSTDOCFLAGS", "-D warnings"));
    steps.extend(fuzz(60));
    steps
}

/// Random kills in the run as an ordinary user, in all.
const KILLS_AS_AN_ORDINARY_USER: &str = "110";

/// The integration tests once more, as a user who may do nothing special. Root has built them; cargo runs what is built through a program that
/// changes the user.
fn as_an_ordinary_user(not_run: &Path) -> Step {
    cargo("tests as an ordinary user", &["test", "--test", "it", "--test", "tracer", "--no-fail-fast"])
        .with("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "bash xtask/src/ordinary.sh")
        .with("SNAP_TEST_BUILT", "1")
        .with("SNAP_TEST_ORDINARY_USER", "1")
        .with("SNAP_RANDOM_KILLS", KILLS_AS_AN_ORDINARY_USER)
        .with("SNAP_TEST_STRICT", strictness())
        .with("SNAP_TEST_NOT_RUN", &not_run.to_string_lossy())
}

/// What is fuzzed, each with what it starts from.
const FUZZ_TARGETS: [(&str, &str); 2] = [("image", "../fixtures/golden"), ("proc", "../fixtures/proc")];

/// Coverage for libFuzzer, with flags that need no nightly compiler. They take the place of those in `.cargo/config.toml`: libFuzzer looks for
/// the memcmp behind its own, which a static program does not have.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Fuzzes every target for so many seconds.
pub fn fuzz(seconds: u32) -> Vec<Step> {
    let step = |(target, seeds): (&'static str, &str)| {
        let time = format!("-max_total_time={seconds}");
        let (corpus, artifacts) = (format!("corpus/{target}"), format!("-artifact_prefix=artifacts/{target}/"));
        // A run must be repeatable, and an input of some kilobytes justifies no more memory and time than this.
        let limits = ["-seed=1", "-max_len=16384", "-rss_limit_mb=512", "-timeout=10", "-print_final_stats=1"];
        let mut step = cargo("fuzz", &["run", "--quiet", "--release", "--bin", target, "--"]);
        step.arguments.extend(limits.map(String::from));
        step.arguments.extend([time, artifacts, corpus, seeds.to_owned()]);
        step.directory.push("fuzz");
        step.with("RUSTFLAGS", COVERAGE)
    };
    FUZZ_TARGETS.map(step).into()
}

/// Makes the directories in which the fuzzer keeps inputs: those that reach something new, and those that fail.
pub fn make_corpora() -> Result<(), String> {
    let names = FUZZ_TARGETS.iter().flat_map(|(target, _)| [format!("corpus/{target}"), format!("artifacts/{target}")]);
    names.map(|name| root().join("fuzz").join(name)).try_for_each(|directory| {
        std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))
    })
}

impl Step {
    /// Runs it to its end.
    pub fn run(&self) -> Result<(), String> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.directory)
            .status()
            .map_err(|error| format!("{}: {error}", self.title))?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("{}: `cargo {}` failed: {status}", self.title, self.arguments.join(" ")))
        }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }
}

fn cargo(title: &'static str, arguments: &[&'static str]) -> Step {
    let arguments = arguments.iter().copied().map(String::from).collect();
    Step { title, arguments, environment: Vec::new(), directory: root() }
}

/// A requirement that a machine does not meet fails here, unless the caller said otherwise.
fn strictness() -> &'static str {
    match std::env::var("SNAP_TEST_STRICT").as_deref() {
        Ok("0") => "0",
        _ => "1",
    }
}

/// The workspace: the directory above this package, as `cargo run` tells it. A build directory that was copied has a binary of elsewhere in it.
pub fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&package).parent().map(Path::to_path_buf).unwrap_or_default()
}
