//! What this user may: capabilities, Yama, limits.

use super::{Feature, Need, State, fact, feature, line};
use crate::proc::{TaskDir, status};
use crate::sys::bpf;
use std::fs;

/// Capability, number (include/uapi/linux/capability.h), and what it is good for.
const CAPABILITIES: [(&str, u32, &str); 7] = [
    ("CAP_CHECKPOINT_RESTORE", 40, "the same pids, /proc/PID/exe, map_files"),
    ("CAP_SYS_PTRACE", 19, "processes of other users, and those that are not dumpable"),
    ("CAP_SYS_ADMIN", 21, "seccomp filters and BPF maps of the target; PFNs, to find shared copy-on-write pages"),
    ("CAP_SYS_RESOURCE", 24, "hard limits above ours"),
    ("CAP_SYS_NICE", 23, "real-time scheduling, negative nice values"),
    ("CAP_SETUID", 7, "programs that run as other users"),
    ("CAP_SETPCAP", 8, "bounding sets"),
];

/// Reads them.
pub fn probe() -> Vec<Feature> {
    let effective = TaskDir::current()
        .and_then(|task| status::read(&task, &mut Vec::new()))
        .map_or(0, |status| status.capabilities.effective);
    let mut features: Vec<Feature> = CAPABILITIES
        .iter()
        .map(|&(name, bit, used_for)| capability(name, effective >> bit & 1 == 1, used_for))
        .collect();
    features.push(map_files());
    features.push(bpf_maps());
    features.push(fact("Yama ptrace_scope", "whether processes of the same user may be stopped", yama()));
    features.push(fact("RLIMIT_NOFILE", "programs with many open files", nofile()));
    features
}

fn capability(name: &'static str, held: bool, used_for: &'static str) -> Feature {
    let (state, detail) = if held { (State::Usable, "held") } else { (State::Denied, "not held") };
    Feature { name, state, detail: detail.into(), need: Need::Sometimes, used_for }
}

/// Opens what a mapping of this process is of.
fn map_files() -> Feature {
    let opened = fs::read_dir("/proc/self/map_files")
        .and_then(|mut entries| entries.next().transpose())
        .and_then(|entry| entry.map_or(Ok(()), |entry| fs::File::open(entry.path()).map(drop)));
    let (state, detail) = match opened {
        Ok(()) => (State::Usable, String::new()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => (State::Denied, error.to_string()),
        Err(error) => (State::Missing, error.to_string()),
    };
    Feature {
        name: "/proc/PID/map_files",
        state,
        detail,
        need: Need::Sometimes,
        used_for: "mapped files that were deleted or replaced",
    }
}

/// Looks for the maps of all programs, as a dump of one that has maps does.
fn bpf_maps() -> Feature {
    let used_for = "maps of bpf(2), and who else has them";
    let found = bpf::maps().map(|maps| maps.len() as u64);
    feature("BPF_MAP_GET_NEXT_ID", Need::Sometimes, used_for, found, |count| format!("{count} maps in this kernel"))
}

fn yama() -> Option<String> {
    Some(match line("/proc/sys/kernel/yama/ptrace_scope") {
        None => "no Yama: processes of the same user can be stopped".to_owned(),
        Some(scope) => match scope.as_str() {
            "0" => "0: processes of the same user can be stopped".to_owned(),
            "1" => "1: only descendants, without CAP_SYS_PTRACE".to_owned(),
            "2" => "2: only with CAP_SYS_PTRACE".to_owned(),
            "3" => "3: nobody can be stopped until the next boot".to_owned(),
            other => other.to_owned(),
        },
    })
}

fn nofile() -> Option<String> {
    let (soft, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).ok()?;
    Some(format!("{soft}, can be raised to {hard}"))
}
