//! Programs that check themselves, started for one test.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use snap::image::model::id::Tid;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

/// A running program, killed when dropped.
pub struct Victim {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Victim {
    /// The self-checking program of `victim.c` with so many more idle threads; returns once all its threads exist.
    pub fn checking(idle: usize) -> Self {
        static BUILT: OnceLock<PathBuf> = OnceLock::new();
        let program = BUILT.get_or_init(|| compile("victim.c", &["-O1", "-pthread"]));
        Self::start(Command::new(program).arg(idle.to_string()))
    }

    /// A program that prints one line when it is ready.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("victim starts");
        let mut output = BufReader::new(child.stdout.take().expect("stdout"));
        let mut line = String::new();
        output.read_line(&mut line).expect("victim speaks");
        assert_eq!(line, "READY\n");
        Self { child, output }
    }

    pub fn pid(&self) -> snap::image::model::id::Pid {
        snap::image::model::id::Pid(self.child.id() as i32)
    }

    pub fn status(&self, key: &str) -> String {
        status(self.pid().leader(), key)
    }

    pub fn signal(&self, signal: i32) {
        kill(Pid::from_raw(self.pid().0), Signal::try_from(signal).expect("signal")).expect("kill");
    }

    /// Ends the self-checking program and asserts that it found nothing wrong.
    pub fn finish(self) {
        assert_eq!(self.finish_counting(), 0, "calls were interrupted");
    }

    /// As [`Self::finish`]; returns how many of those calls were interrupted that the kernel never restarts.
    pub fn finish_counting(mut self) -> u32 {
        let _ = kill(Pid::from_raw(self.pid().0), Signal::SIGTERM);
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("output");
        let status = self.child.wait().expect("wait");
        let count = rest.strip_prefix("OK interrupted ").and_then(|rest| rest.trim_end().parse().ok());
        count.unwrap_or_else(|| panic!("{rest:?}, {status:?}"))
    }

    /// Whether it has ended, which it never does of itself unless something is wrong.
    pub fn has_ended(&self) -> bool {
        self.status("State").starts_with('Z')
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One line of /proc/TID/status without its key.
pub fn status(tid: Tid, key: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{tid}/status")).expect("status");
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).expect("key");
    line.trim().to_owned()
}

/// The threads of a process as /proc lists them, sorted.
pub fn tids(pid: snap::image::model::id::Pid) -> Vec<Tid> {
    let mut tids: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/task"))
        .expect("task")
        .map(|entry| Tid(entry.expect("entry").file_name().to_str().expect("utf-8").parse().expect("tid")))
        .collect();
    tids.sort();
    tids
}

/// Compiles a C file of this folder.
pub fn compile(source: &str, flags: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tracer").join(source);
    let name = format!("{}-{}", source.file_stem().expect("stem").to_string_lossy(), std::process::id());
    // Another user than the one who has built the tests cannot write there.
    let built = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let writable = nix::unistd::access(&built, nix::unistd::AccessFlags::W_OK).is_ok();
    let program = if writable { built } else { std::env::temp_dir() }.join(name);
    let status = Command::new("gcc").args(flags).arg("-o").arg(&program).arg(&source).status().expect("gcc");
    assert!(status.success());
    program
}
