//! What the machine holds: `snap`, the victims, the integration tests, the few programs that these call, and the libraries of all.

use super::archive::Archive;
use super::arguments::Arguments;
use super::kernel::{Kernel, output};
use crate::steps;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The first program in the machine, and what it calls for each user.
const INIT: &str = include_str!("init.sh");

/// Programs of this machine that the tests call, or the first program.
const PROGRAMS: &[&str] = &[
    "bash", "sh", "busybox", "env", "cat", "sleep", "true", "mkdir", "mknod", "chmod", "ln", "ls", "head", "tail",
    "wc", "chown", "mount", "umount", "unshare", "setpriv", "setsid", "prlimit", "flock", "ipcrm", "nsenter", "ip",
    "stty", "kill", "ps", "grep", "sed", "uname", "dmesg", "strace", "tmux", "script", "id", "chroot", "nice", "cp",
    "rm", "mv",
];

/// Tests that need no program beside the victims and say what a kernel can do: the default.
const TESTS: &[&str] = &["roundtrip::", "faults::named::", "cli::check", "cli::dump", "cli::demo", "tree::"];

/// What cargo has built.
pub struct Built {
    /// The binary of the integration tests.
    tests: PathBuf,
    /// `snap` and the victims.
    programs: Vec<PathBuf>,
    /// Where the victims in other languages lie.
    foreign: PathBuf,
}

/// Builds all of it.
pub fn build() -> Result<Built, String> {
    let victims = cargo(&["build", "--package", "fixtures", "--bins"])?;
    let tests = cargo(&["test", "--no-run", "--test", "it"])?;
    let foreign = tests.lines().filter(|line| line.contains("build-script-executed") && line.contains("fixtures"));
    let foreign = foreign.filter_map(|line| value(line, "out_dir")).next_back();
    let (test, programs): (Vec<_>, Vec<_>) = victims
        .lines()
        .chain(tests.lines())
        .filter_map(|line| value(line, "executable"))
        .map(PathBuf::from)
        .partition(|path| path.parent().is_some_and(|above| above.ends_with("deps")));
    match (test.into_iter().next_back(), foreign) {
        (Some(tests), Some(foreign)) => Ok(Built { tests, programs, foreign: foreign.into() }),
        _ => Err("cargo did not say what it has built".into()),
    }
}

fn cargo(arguments: &[&str]) -> Result<String, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    output(Command::new(cargo).args(arguments).arg("--message-format=json").current_dir(steps::root()))
}

/// The string behind a key in a line of JSON; paths with quotes are not cargo's custom.
fn value<'line>(line: &'line str, key: &str) -> Option<&'line str> {
    let (_, rest) = line.split_once(&format!("\"{key}\":\""))?;
    rest.split('"').next()
}

/// Packs it all, and returns the archive.
pub fn pack(built: &Built, kernel: &Kernel, arguments: &Arguments, place: &Path) -> Result<PathBuf, String> {
    let path = place.join("initramfs.cpio");
    let mut archive = Archive::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    fill(&mut archive, built, kernel, arguments, place)
        .map_err(|error| format!("the archive for the machine: {error}"))?;
    archive.finish().map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

fn fill(archive: &mut Archive, built: &Built, kernel: &Kernel, arguments: &Arguments, place: &Path) -> io::Result<()> {
    for name in ["/proc", "/sys", "/dev", "/run", "/vm/modules", "/root"] {
        archive.directory(Path::new(name), 0o755)?;
    }
    for name in ["/tmp", "/var/tmp"] {
        archive.directory(Path::new(name), 0o1777)?;
    }
    for name in ["/bin", "/sbin", "/lib", "/lib64"].map(Path::new).iter().filter(|name| name.is_symlink()) {
        archive.link(name, &fs::read_link(name)?)?;
    }
    archive.file(Path::new("/init"), 0o755, INIT.as_bytes())?;
    archive.file(Path::new("/vm/tests"), 0o644, what_to_run(built, arguments).as_bytes())?;
    let mut order = String::new();
    for (name, content) in &kernel.modules {
        archive.file(&Path::new("/vm/modules").join(name), 0o644, content)?;
        order += &format!("{name}\n");
    }
    archive.file(Path::new("/vm/modules/order"), 0o644, order.as_bytes())?;
    for name in ["/etc/passwd", "/etc/group", "/etc/nsswitch.conf"].map(Path::new).iter().filter(|name| name.exists()) {
        archive.copy(name)?;
    }
    let mut binaries: BTreeSet<PathBuf> = built.programs.iter().cloned().collect();
    binaries.insert(built.tests.clone());
    binaries.extend(fs::read_dir(&built.foreign)?.flatten().map(|entry| entry.path()).filter(|path| path.is_file()));
    for binary in &binaries {
        archive.file(binary, 0o755, &stripped(binary, place)?)?;
    }
    let programs = PROGRAMS.iter().filter_map(|name| on_search_path(name));
    binaries.extend(programs.inspect(|program| drop(archive.copy(program))));
    for library in libraries(&binaries)? {
        archive.copy(&library)?;
    }
    Ok(())
}

/// The command line of the tests, sourced by the first program.
fn what_to_run(built: &Built, arguments: &Arguments) -> String {
    let tests: Vec<String> = match &arguments.tests[..] {
        [] => TESTS.iter().map(|&name| name.to_owned()).collect(),
        named => named.to_vec(),
    };
    let skipped: String = arguments.skip.iter().map(|word| format!(" --skip '{word}'")).collect();
    let snap = built
        .programs
        .iter()
        .find(|path| path.ends_with("snap"))
        .map_or_else(String::new, |path| path.display().to_string());
    format!(
        "SNAP='{snap}'\nIT='{}'\nTESTS='{}{skipped}'\nAS_USER={}\n",
        built.tests.display(),
        tests.join(" "),
        i32::from(arguments.as_user)
    )
}

/// A binary without what debuggers need, which is most of it.
fn stripped(binary: &Path, place: &Path) -> io::Result<Vec<u8>> {
    let to = place.join("stripped");
    let status = Command::new("strip").arg("-o").arg(&to).arg(binary).status()?;
    if status.success() {
        fs::read(&to)
    } else {
        Err(io::Error::other(format!("strip {}: {status}", binary.display())))
    }
}

fn on_search_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// The shared libraries and interpreters of all that have some.
fn libraries(binaries: &BTreeSet<PathBuf>) -> io::Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd").args(binaries).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = text.lines().filter(|line| line.starts_with(char::is_whitespace)).flat_map(str::split_whitespace);
    Ok(paths.filter(|word| word.starts_with('/')).map(PathBuf::from).filter(|path| path.is_file()).collect())
}
