//! The kernel for the machine: its image, and those of its modules that the tests use.

use super::arguments::Arguments;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package that stands for the newest kernel for virtual machines.
const DEFAULT: &str = "linux-image-cloud-amd64";

/// Modules that the tests use, where they are not a part of the kernel.
const WANTED: &[&str] = &[
    "unix_diag",
    "af_packet_diag",
    "netlink_diag",
    "tcp_diag",
    "udp_diag",
    "raw_diag",
    "nf_tables",
    "nft_ct",
    "veth",
    "dummy",
    "tun",
    "bridge",
];

/// A kernel that can be booted.
pub struct Kernel {
    /// `vmlinuz`.
    pub image: PathBuf,
    /// As uname(2) gives it; the name of the file if there are no modules.
    pub version: String,
    /// File name and content of each module, in the order in which they can be loaded.
    pub modules: Vec<(String, Vec<u8>)>,
}

/// Finds the kernel that the user has named, or gets that of the distribution.
pub fn find(arguments: &Arguments, place: &Path) -> Result<Kernel, String> {
    let packages: Vec<PathBuf> =
        arguments.kernel.iter().filter(|path| path.extension().is_some_and(|end| end == "deb")).cloned().collect();
    let unpacked = match &arguments.kernel[..] {
        [] => unpack(&[download(place)?], place)?,
        [path] if path.is_dir() => path.clone(),
        [path] if packages.is_empty() => return with_modules(path.clone(), arguments.modules.as_deref()),
        all if all.len() == packages.len() => unpack(&packages, place)?,
        _ => return Err("--kernel: either one vmlinuz, or one directory, or packages".into()),
    };
    let mut files = Vec::new();
    list(&unpacked, &mut files)?;
    let image =
        files.iter().find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")));
    let image = image.ok_or_else(|| format!("{}: no vmlinuz in it", unpacked.display()))?;
    let modules = arguments.modules.clone().or_else(|| modules_below(&unpacked));
    with_modules(image.clone(), modules.as_deref())
}

/// Gets the package of the kernel, without installing it.
fn download(place: &Path) -> Result<PathBuf, String> {
    let depends = output(Command::new("apt-cache").args(["depends", DEFAULT]))?;
    let name = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    let name = name
        .map(|rest| format!("linux-image-{rest}"))
        .ok_or_else(|| format!("{DEFAULT}: apt knows no such package"))?;
    let there = || {
        let entries = fs::read_dir(place).ok()?;
        let is_it = |path: &PathBuf| {
            path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&format!("{name}_")))
        };
        entries.flatten().map(|entry| entry.path()).find(is_it)
    };
    if there().is_none() {
        output(Command::new("apt-get").args(["download", "-qq", &name]).current_dir(place))?;
    }
    there().ok_or_else(|| format!("{name}: apt-get download left no package"))
}

/// Unpacks packages into one directory, which is made anew.
fn unpack(packages: &[PathBuf], place: &Path) -> Result<PathBuf, String> {
    let directory = place.join("kernel");
    let _ = fs::remove_dir_all(&directory);
    for package in packages {
        output(Command::new("dpkg-deb").arg("-x").arg(package).arg(&directory))?;
    }
    Ok(directory)
}

fn modules_below(unpacked: &Path) -> Option<PathBuf> {
    let roots = ["lib/modules", "usr/lib/modules"].map(|name| unpacked.join(name));
    roots.iter().find_map(|root| Some(fs::read_dir(root).ok()?.next()?.ok()?.path()))
}

fn with_modules(image: PathBuf, directory: Option<&Path>) -> Result<Kernel, String> {
    let Some(directory) = directory else {
        let version = image.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        return Ok(Kernel { image, version, modules: Vec::new() });
    };
    let mut files = Vec::new();
    list(directory, &mut files)?;
    let mut loaded = Vec::new();
    for name in WANTED {
        add(name, &files, &mut loaded)?;
    }
    let version = directory.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Ok(Kernel { image, version, modules: loaded })
}

/// Adds a module behind those that it depends on. One that is no file is a part of the kernel, or the kernel does without.
fn add(name: &str, files: &[PathBuf], loaded: &mut Vec<(String, Vec<u8>)>) -> Result<(), String> {
    let stem = |path: &Path| {
        let file = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        file.split_once(".ko").map(|(stem, _)| stem.replace('-', "_"))
    };
    let file = format!("{name}.ko");
    let Some(path) = files.iter().find(|path| stem(path).as_deref() == Some(name)) else { return Ok(()) };
    if loaded.iter().any(|(there, _)| *there == file) {
        return Ok(());
    }
    let content = decompress(path)?;
    for needed in depends(&content) {
        add(&needed, files, loaded)?;
    }
    loaded.push((file, content));
    Ok(())
}

/// The `depends=` of the section .modinfo, whose strings end with a zero byte each.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let list = module[at + KEY.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list).replace('-', "_");
    list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn decompress(path: &Path) -> Result<Vec<u8>, String> {
    let program = match path.extension().and_then(|end| end.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).map_err(|error| format!("{}: {error}", path.display())),
    };
    let output = Command::new(program).arg("-dc").arg(path).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("{program} -dc {}: {}", path.display(), output.status))
    }
}

/// Every regular file below a directory.
fn list(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => list(&entry.path(), files)?,
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    Ok(())
}

/// Runs a command to its end and returns what it wrote.
pub fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}
