//! A victim: a program that is dumped, and asked through files in its directory (see the library of package `fixtures`).

use super::facts;
use super::room::Room;
use super::snap::BINARY;
use super::wait;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A running victim, or one that is dead and waits to be restored. Killed when it is dropped.
pub struct Victim {
    pid: i32,
    directory: PathBuf,
    asked: Cell<u32>,
}

/// Where a victim of this kind lies: built by cargo, or by the build script of `fixtures`.
pub fn program(kind: &str) -> PathBuf {
    let rust = Path::new(BINARY).with_file_name(kind);
    let program = if rust.is_file() { rust } else { Path::new(fixtures::FOREIGN).join(kind) };
    assert!(program.is_file(), "no victim {kind}: `cargo build -p fixtures` builds them");
    program
}

impl Victim {
    /// Starts `kind` with the directory as its first argument and waits until it is ready.
    pub fn start(room: &Room, kind: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program(kind));
        let directory = Self::directory_in(room, kind);
        command.arg(&directory).args(arguments);
        Self::start_command(command, directory)
    }

    /// A new directory for the questions to a victim.
    pub fn directory_in(room: &Room, kind: &str) -> PathBuf {
        let name = kind.replace('/', "-");
        let directory = (0..)
            .map(|number| room.path(&format!("victim-{name}-{number}")))
            .find(|path| !path.exists())
            .expect("a name that is free");
        fs::create_dir(&directory).expect("the directory of a victim");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).expect("chmod of the directory of a victim");
        directory
    }

    /// Starts any command that answers in `directory`. It has its own process group, no terminal, and a file as standard error.
    pub fn start_command(mut command: Command, directory: PathBuf) -> Self {
        command.stdin(Stdio::null());
        Self::start_with_stdin(command, directory)
    }

    /// As [`Victim::start_command`], with a standard input of the caller's choice.
    pub fn start_with_stdin(mut command: Command, directory: PathBuf) -> Self {
        command.process_group(0);
        Self::start_in_our_group(command, directory)
    }

    /// As [`Victim::start_with_stdin`], in the process group of the test, which it may leave for a session of its own.
    #[allow(
        clippy::zombie_processes,
        reason = "reaped by its pid, under which a restore may bring it back as another child"
    )]
    pub fn start_in_our_group(mut command: Command, directory: PathBuf) -> Self {
        let stderr = File::create(directory.join("stderr")).expect("a file for standard error");
        // A restore opens it again, perhaps as another user.
        stderr.set_permissions(fs::Permissions::from_mode(0o666)).expect("chmod of standard error");
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .current_dir(&directory)
            .env_remove("LD_LIBRARY_PATH")
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let victim = Self { pid: child.id() as i32, directory, asked: Cell::new(0) };
        victim.reply(0).unwrap_or_else(|what| panic!("{name} is not ready: {what}"));
        victim
    }

    /// The pid of its main thread; the same after a restore.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// From now on it is another process: its image was restored under another pid.
    pub fn goes_by(&mut self, pid: i32) {
        self.pid = pid;
    }

    /// A path in its directory.
    pub fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.directory.join(Path::new(&name))
    }

    /// Lets it verify itself. Panics with what it found wrong.
    #[track_caller]
    pub fn check(&self) {
        self.ask("check");
    }

    /// Gives a command and returns the answer. Panics when it fails.
    #[track_caller]
    pub fn ask(&self, command: &str) -> String {
        match self.try_ask(command) {
            Ok(answer) => answer,
            Err(what) => panic!("{command}: {what}{}", self.circumstances()),
        }
    }

    /// Gives a command; the error is what the victim found wrong.
    pub fn try_ask(&self, command: &str) -> Result<String, String> {
        self.reply(self.put(command))
    }

    /// Tells it to exit and waits until it has. A restored one begins to look for questions anew: it must not find this one.
    #[track_caller]
    pub fn quit(&self, code: i32) {
        self.put(&format!("quit {code}"));
        wait::until("its end", || matches!(self.state(), None | Some('Z' | 'X')).then_some(()));
        let _ = fs::remove_file(self.path("ask"));
    }

    /// Waits until its pid is free after somebody has killed it.
    #[track_caller]
    pub fn killed(&mut self) {
        let end = wait::gone(self.pid);
        assert!(
            matches!(end, None | Some(WaitStatus::Signaled(_, Signal::SIGKILL, _))),
            "the victim was to be killed: {end:?}"
        );
    }

    /// Where it keeps its files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Kills it and waits until its pid is free.
    #[track_caller]
    pub fn end(&mut self) {
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        wait::gone(self.pid);
    }

    /// The letter of its state; `None` when there is no such process.
    pub fn state(&self) -> Option<char> {
        facts::state(self.pid)
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        facts::threads(self.pid).len()
    }

    fn put(&self, command: &str) -> u32 {
        let number = self.asked.get() + 1;
        self.asked.set(number);
        let hidden = self.path(".ask");
        fs::write(&hidden, format!("{number} {command}\n")).expect("a question");
        fs::rename(&hidden, self.path("ask")).expect("a question");
        number
    }

    fn reply(&self, number: u32) -> Result<String, String> {
        let path = self.path(format!("reply-{number}"));
        let text = wait::until(&format!("{} of pid {}", path.display(), self.pid), || {
            let text = fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'));
            if text.is_none() {
                self.assert_alive();
            }
            text
        });
        let _ = fs::remove_file(&path);
        let _ = fs::remove_file(self.path("ask"));
        match text.trim_end().split_once(": ").unwrap_or((text.trim_end(), "")) {
            ("ok", answer) => Ok(answer.to_owned()),
            (_, what) => Err(what.to_owned()),
        }
    }

    fn assert_alive(&self) {
        // The main thread may have ended before the others.
        let runs = |tid: &i32| !matches!(facts::state(*tid), None | Some('Z' | 'X'));
        assert!(facts::threads(self.pid).iter().any(runs), "the victim is dead{}", self.circumstances());
    }

    fn circumstances(&self) -> String {
        let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        let status = read(PathBuf::from(format!("/proc/{}/status", self.pid)));
        format!("\n--- stderr of the victim\n{}\n--- its status\n{status}", read(self.path("stderr")))
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Only what is still ours: a pid that was freed may be a restored tree's, which is also ours, or nobody's.
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(Pid::from_raw(self.pid), None);
    }
}
