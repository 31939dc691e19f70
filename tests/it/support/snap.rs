//! Runs of `snap` itself: with a bound, and with everything it said at hand when a test fails.

use super::wait;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_snap");

/// Bound on one run.
const LIMIT: Duration = Duration::from_secs(100);

/// Whether the tests were built with `--release`.
pub fn is_release() -> bool {
    Path::new(BINARY).parent().is_some_and(|directory| directory.ends_with("release"))
}

/// A run of `snap` that is being put together.
pub struct Snap {
    directory: PathBuf,
    program: Vec<OsString>,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    stdin: Option<File>,
    stdout: Option<File>,
}

impl Snap {
    /// `snap` with these arguments, in this directory.
    pub fn new<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(directory: &Path, arguments: I) -> Self {
        Self {
            directory: directory.to_path_buf(),
            program: vec![BINARY.into()],
            arguments: arguments.into_iter().map(|argument| argument.as_ref().to_os_string()).collect(),
            environment: Vec::new(),
            stdin: None,
            stdout: None,
        }
    }

    /// One more argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_os_string());
        self
    }

    /// More arguments.
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_os_string()));
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Runs through another program, such as `setpriv --reuid=nobody`; `binary` replaces the path of `snap`.
    pub fn through(mut self, wrapper: &[&str], binary: &Path) -> Self {
        self.program = wrapper.iter().map(Into::into).chain([binary.as_os_str().to_os_string()]).collect();
        self
    }

    /// Standard input.
    pub fn stdin(mut self, file: File) -> Self {
        self.stdin = Some(file);
        self
    }

    /// Standard output, which then cannot be looked at.
    pub fn stdout(mut self, file: File) -> Self {
        self.stdout = Some(file);
        self
    }

    /// Starts it.
    pub fn spawn(self) -> Running {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let stream = |name: &str| self.directory.join(format!("run-{run}.{name}"));
        let create = |path: &Path| File::create(path).expect("a file for the output of snap");
        let (stdout, stderr) = (stream("stdout"), stream("stderr"));
        let command_line =
            self.program.iter().chain(&self.arguments).map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let child = Command::new(&self.program[0])
            .args(&self.program[1..])
            .args(&self.arguments)
            .envs(self.environment)
            .current_dir(&self.directory)
            .stdin(self.stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(self.stdout.unwrap_or_else(|| create(&stdout)))
            .stderr(create(&stderr))
            .spawn()
            .unwrap_or_else(|error| panic!("{command_line}: {error}"));
        Running { child, command_line, stdout, stderr }
    }

    /// Runs it to its end.
    pub fn run(self) -> Output {
        self.spawn().finish()
    }
}

/// A `snap` at work; killed when it is dropped.
pub struct Running {
    child: Child,
    command_line: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Kills it.
    pub fn kill(mut self) -> Output {
        let _ = self.child.kill();
        self.finish()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Output {
        let status = wait::exit_of(&mut self.child, LIMIT);
        let output = |status: Option<ExitStatus>| Output {
            command_line: self.command_line.clone(),
            code: status.and_then(|status| status.code()),
            signal: status.and_then(|status| status.signal()),
            stdout: self.stdout(),
            stderr: self.stderr(),
        };
        assert!(status.is_some(), "not finished after {LIMIT:?}: {}", output(None));
        output(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// How a run ended and what it said.
#[derive(Debug)]
pub struct Output {
    command_line: String,
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Panics unless it exited with this code.
    pub fn expect(self, code: i32) -> Self {
        assert!(self.code == Some(code), "expected exit code {code}: {self}");
        self
    }

    /// Panics unless standard error holds this text.
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "standard error does not say `{text}`: {self}");
        self
    }

    /// Standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self}"))
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: code {:?}, signal {:?}", self.command_line, self.code, self.signal)?;
        writeln!(f, "--- stdout\n{}--- stderr\n{}", self.stdout, self.stderr)
    }
}
