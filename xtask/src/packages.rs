//! Debian packages whose programs the tests run: installed when we are root, otherwise named.

use std::path::Path;
use std::process::{Command, Stdio};

/// A package, and how one sees that it is there.
struct Package {
    name: &'static str,
    probe: Probe,
}

enum Probe {
    /// This program is on the search path.
    Program(&'static str),
    /// gcc finds this library.
    Library(&'static str),
    /// There is this file or directory.
    File(&'static str),
}

const PACKAGES: &[Package] = &[
    Package { name: "make", probe: Probe::Program("make") },
    Package { name: "tmux", probe: Probe::Program("tmux") },
    Package { name: "vim", probe: Probe::Program("vim") },
    Package { name: "less", probe: Probe::Program("less") },
    Package { name: "procps", probe: Probe::Program("top") },
    Package { name: "bsdutils", probe: Probe::Program("script") },
    Package { name: "stress-ng", probe: Probe::Program("stress-ng") },
    Package { name: "gcc", probe: Probe::Program("gcc") },
    Package { name: "g++", probe: Probe::Program("g++") },
    Package { name: "libc6-dev", probe: Probe::Library("libc.a") },
    Package { name: "golang-go", probe: Probe::Program("go") },
    Package { name: "python3", probe: Probe::Program("python3") },
    Package { name: "perl", probe: Probe::Program("perl") },
    Package { name: "sqlite3", probe: Probe::Program("sqlite3") },
    Package { name: "xz-utils", probe: Probe::Program("xz") },
    Package { name: "zstd", probe: Probe::Program("zstd") },
    Package { name: "nodejs", probe: Probe::Program("node") },
    Package { name: "default-jdk-headless", probe: Probe::Program("javac") },
    Package { name: "xvfb", probe: Probe::Program("Xvfb") },
    Package { name: "twm", probe: Probe::Program("twm") },
    Package { name: "xterm", probe: Probe::Program("xterm") },
    Package { name: "xfonts-base", probe: Probe::File("/usr/share/fonts/X11/misc/fonts.alias") },
    Package { name: "xdotool", probe: Probe::Program("xdotool") },
    Package { name: "x11-apps", probe: Probe::Program("xwd") },
    Package { name: "openssh-server", probe: Probe::File("/usr/sbin/sshd") },
    Package { name: "openssh-client", probe: Probe::Program("ssh") },
    Package { name: "dbus-daemon", probe: Probe::Program("dbus-daemon") },
    Package { name: "dbus-bin", probe: Probe::Program("dbus-monitor") },
    Package { name: "util-linux", probe: Probe::Program("unshare") },
    Package { name: "strace", probe: Probe::Program("strace") },
    Package { name: "iproute2", probe: Probe::Program("ip") },
    Package { name: "redis-server", probe: Probe::Program("redis-server") },
    Package { name: "redis-tools", probe: Probe::Program("redis-benchmark") },
    Package { name: "nginx-light", probe: Probe::Program("nginx") },
    Package { name: "memcached", probe: Probe::Program("memcached") },
    Package { name: "postgresql", probe: Probe::File("/usr/lib/postgresql") },
    Package { name: "mariadb-server-core", probe: Probe::Program("mariadbd") },
    Package { name: "mariadb-client-core", probe: Probe::Program("mariadb") },
    Package { name: "fio", probe: Probe::Program("fio") },
    Package { name: "openmpi-bin", probe: Probe::Program("mpirun.openmpi") },
    Package { name: "python3-mpi4py", probe: Probe::File("/usr/lib/python3/dist-packages/mpi4py") },
    Package { name: "wrk", probe: Probe::Program("wrk") },
    Package { name: "tcpdump", probe: Probe::Program("tcpdump") },
];

/// What `cargo xtask vm` needs beside cargo and a C compiler.
const FOR_VM: &[Package] = &[
    Package { name: "qemu-system-x86", probe: Probe::Program("qemu-system-x86_64") },
    Package { name: "busybox-static", probe: Probe::Program("busybox") },
    Package { name: "util-linux", probe: Probe::Program("unshare") },
    Package { name: "iproute2", probe: Probe::Program("ip") },
    Package { name: "xz-utils", probe: Probe::Program("xz") },
];

/// Installs what the tests need and is missing, or names it.
pub fn provide() -> Result<(), String> {
    provide_these(PACKAGES)
}

/// The same for `cargo xtask vm`.
pub fn provide_for_vm() -> Result<(), String> {
    provide_these(FOR_VM)
}

fn provide_these(packages: &[Package]) -> Result<(), String> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if !is_root() {
        return Err(format!("these Debian packages are missing: {names}\n  sudo apt-get install {names}"));
    }
    eprintln!("== installing {names}");
    apt_get(&["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(&missing);
    apt_get(&arguments)?;
    match self::missing(packages) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("still missing after apt-get install: {}", left.join(" "))),
    }
}

fn missing(packages: &[Package]) -> Vec<&'static str> {
    packages.iter().filter(|package| !package.probe.succeeds()).map(|package| package.name).collect()
}

impl Probe {
    fn succeeds(&self) -> bool {
        match self {
            Self::Program(name) => on_search_path(name),
            Self::Library(name) => gcc_finds(name),
            Self::File(path) => Path::new(path).exists(),
        }
    }
}

fn on_search_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}

/// gcc answers with the bare name when it knows no such file.
fn gcc_finds(library: &str) -> bool {
    Command::new("gcc")
        .arg(format!("-print-file-name={library}"))
        .output()
        .is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_absolute())
}

/// Whether we may do everything.
pub fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

fn apt_get(arguments: &[&str]) -> Result<(), String> {
    let status = Command::new("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(arguments)
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("apt-get: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("apt-get {}: {status}", arguments.join(" "))) }
}
