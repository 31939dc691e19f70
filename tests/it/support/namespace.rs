//! One process, one pid namespace and one IPC namespace for each test.
//!
//! A restore takes fixed pids, so no two tests may draw pids from one pool. The test binary therefore starts itself again, as pid 1
//! of a new pid namespace with a /proc and System V identifiers of its own, to run the body of a single test there. As pid 1 it inherits every orphan
//! (restored trees too), and when it ends, however it ends, the kernel kills whatever it has started.

use super::needs::NOT_RUN;
use super::room::Room;
use super::{snap, wait};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// Set in the process that runs the body.
const INSIDE: &str = "SNAP_TEST_INSIDE";

/// Set where the victims are built already and cargo must not run: as a user who cannot write to the build.
const BUILT_ALREADY: &str = "SNAP_TEST_BUILT";

/// Names a file to which a line is added for each test that was not run.
const REPORT: &str = "SNAP_TEST_NOT_RUN";

/// Bound on a test that says nothing else.
const LIMIT: Duration = Duration::from_secs(180);

/// Runs `body` as pid 1 of a pid namespace of its own.
pub fn isolated<F: FnOnce(&Room)>(body: F) {
    isolated_for(LIMIT, body);
}

/// As [`isolated`], with a bound of its own.
pub fn isolated_for<F: FnOnce(&Room)>(limit: Duration, body: F) {
    isolated_as::<F>(limit, body);
}

/// As [`isolated_for`], for bodies that several tests share: `Test` is the type of a closure written in the test itself.
pub fn isolated_as<Test>(limit: Duration, body: impl FnOnce(&Room)) {
    let name = test_name::<Test>();
    if std::env::var_os(INSIDE).is_some() {
        // The session of the caller lies outside the namespace and has no number in it.
        let _ = nix::unistd::setsid();
        close_on_exec();
        body(&Room::new(&name));
    } else {
        outside(&name, limit);
    }
}

/// Descriptors that the caller of the tests left open must not become state of the victims.
pub fn close_on_exec() {
    // SAFETY: close_range with CLOSE_RANGE_CLOEXEC closes nothing now.
    let result = unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
    assert_eq!(result, 0, "close_range: {}", std::io::Error::last_os_error());
}

/// `it::roundtrip::idle::name::{{closure}}` is the test `roundtrip::idle::name`.
fn test_name<F>() -> String {
    let path = std::any::type_name::<F>();
    let path = path.strip_suffix("::{{closure}}").expect("the body is a closure in the test");
    path.split_once("::").map_or(path, |(_, name)| name).to_owned()
}

fn outside(name: &str, limit: Duration) {
    build_victims();
    let log = tempfile::NamedTempFile::new().expect("a file for the output");
    let stream = || File::options().append(true).open(log.path()).expect("the file for the output");
    // Who runs the tests in the background may ignore signals that they send.
    let mut child = Command::new("env")
        .args([
            "--default-signal",
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--ipc",
        ])
        .args(user_namespace())
        .arg("--")
        .arg(std::env::current_exe().expect("the path of this test"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .stdout(stream())
        .stderr(stream())
        .spawn()
        .expect("env of coreutils, setpriv and unshare of util-linux");
    let ended = wait::exit_of(&mut child, limit);
    if ended.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let text = String::from_utf8_lossy(&fs::read(log.path()).unwrap_or_default()).into_owned();
    let Some(status) = ended else { panic!("{name}: not finished after {limit:?}\n{text}") };
    assert!(status.success(), "{name}: {status} (signal {:?})\n{text}", status.signal());
    // The name must have matched, or nothing has been tested.
    assert!(text.contains("1 passed"), "{name}: no such test inside the namespace\n{text}");
    // What the test had to say is seen with `--nocapture`.
    print!("{text}");
    text.lines().filter_map(|line| line.strip_prefix(NOT_RUN)).for_each(|reason| report(name, reason));
}

/// Tells the person and the program that run the tests that one was not run.
fn report(name: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "{name}: {NOT_RUN}{reason}");
    if let Some(path) = std::env::var_os(REPORT) {
        let line = format!("{name}: {reason}\n");
        let written =
            File::options().append(true).create(true).open(path).and_then(|mut file| file.write_all(line.as_bytes()));
        written.unwrap_or_else(|error| panic!("{REPORT}: {error}"));
    }
}

/// Without privilege the pid namespace needs a user namespace around it.
fn user_namespace() -> &'static [&'static str] {
    if nix::unistd::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] }
}

/// The victims in Rust are binaries of another package, which cargo builds for nobody but us.
fn build_victims() {
    static BUILT: OnceLock<()> = OnceLock::new();
    if std::env::var_os(BUILT_ALREADY).is_some() {
        return;
    }
    BUILT.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build
            .args(["build", "--quiet", "--package", "fixtures", "--bins"])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
        if snap::is_release() {
            build.arg("--release");
        }
        let status = build.status().expect("cargo");
        assert!(status.success(), "building the victims: {status}");
    });
}
