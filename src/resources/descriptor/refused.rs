//! Descriptors that are refused: which kind each is, why it cannot be saved, and what to do instead.

use super::OpenFd;
use crate::blocker::Blocker;
use crate::resources::socket;
use std::fs;

/// What most refusals advise.
pub(super) const CLOSE: &str = "close it before the dump";

/// Why a descriptor is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub reason: String,
    pub remedy: String,
    /// Whether this may be over in a moment.
    pub passes: bool,
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self { reason, remedy: CLOSE.into(), passes: false }
    }
}

impl From<Blocker> for Refusal {
    fn from(Blocker { task: _, object: _, reason, remedy }: Blocker) -> Self {
        Self { reason, remedy, passes: false }
    }
}

impl From<socket::Refusal> for Refusal {
    fn from(refusal: socket::Refusal) -> Self {
        match refusal {
            socket::Refusal::Never(reason) => reason.into(),
            socket::Refusal::Passing(reason) => {
                Self { reason, remedy: "try again when it has been read or sent".into(), passes: true }
            }
        }
    }
}

impl From<&str> for Refusal {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

fn refusal(reason: &str, remedy: &str) -> Refusal {
    Refusal { reason: reason.into(), remedy: remedy.into(), passes: false }
}

/// Kinds without a path: what stands in brackets behind `anon_inode:`.
pub(super) fn anonymous(fd: &OpenFd<'_>, kind: &[u8]) -> Refusal {
    let kind = String::from_utf8_lossy(kind);
    match &*kind {
        "io_uring" => io_uring(fd),
        "userfaultfd" => refusal(
            "a userfaultfd: which faults wait for an answer, and what its owner would answer, cannot be saved",
            "end what handles page faults before the dump",
        ),
        "perf_event" => refusal(
            "a performance counter: neither its settings nor what it has counted can be read and set again",
            "stop profiling before the dump",
        ),
        "landlock-ruleset" => {
            refusal("a Landlock ruleset in the making: its rules cannot be read", "enforce or close it before the dump")
        }
        "fscontext" => refusal(
            "a file system that is being configured (fsopen, fspick): its parameters cannot be read",
            "finish it by fsmount(2), or close it before the dump",
        ),
        "bpf-prog" | "bpf_link" | "bpf-link" | "bpf_iter" | "bpf-token" => refusal(
            &format!("{kind}: what was loaded into the kernel cannot be read back as it was given"),
            "close it before the dump, and load it again after the restore",
        ),
        "seccomp notify" => refusal(
            "a listener of seccomp notifications: the calls that wait for its answer cannot be saved",
            "dump the process that listens and those that are listened to at another time",
        ),
        kvm if kvm.starts_with("kvm") => refusal(
            &format!("{kvm}: the virtual machine in the kernel cannot be saved from outside"),
            "save the guest by the means of its virtual machine monitor",
        ),
        _ => refusal(&format!("{kind} descriptors are not supported: their state cannot be read"), CLOSE),
    }
}

fn io_uring(fd: &OpenFd<'_>) -> Refusal {
    let number = |key| fd.info.value(key).and_then(|value| std::str::from_utf8(value).ok()?.parse::<i64>().ok());
    let mut hindrances = vec!["the flags with which it was set up cannot be read".to_owned()];
    let counted = [("UserFiles", "registered files"), ("UserBufs", "registered buffers")];
    for (count, what) in counted.into_iter().filter_map(|(key, what)| Some((number(key)?, what))) {
        if count > 0 {
            hindrances.push(format!("it has {count} {what}"));
        }
    }
    if number("SqThread").is_some_and(|thread| thread >= 0) {
        hindrances.push("a thread of the kernel takes its requests (IORING_SETUP_SQPOLL)".into());
    }
    if fd.info.extra.iter().any(|line| line.starts_with(b"  op=")) {
        hindrances.push("requests are in flight".into());
    }
    refusal(
        &format!("a ring of io_uring: {}", hindrances.join("; ")),
        "have the program use no io_uring (many have a switch for it; kernel.io_uring_disabled=2 makes all do without)",
    )
}

/// A character or block device.
pub(super) fn device(kind: &str, rdev: u64) -> Refusal {
    let (major, minor) = (libc::major(rdev), libc::minor(rdev));
    let class = if kind == "block" { "block" } else { "char" };
    let told = fs::read_to_string(format!("/sys/dev/{class}/{major}:{minor}/uevent")).unwrap_or_default();
    let name = told.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    let name = name.map_or_else(String::new, |name| format!("/dev/{name}, "));
    format!("{name}{kind} device {major}:{minor}, has state that cannot be saved").into()
}

/// A path that leads to no mount of the namespace.
pub(super) fn detached(fd: &OpenFd<'_>) -> Refusal {
    const SECRETMEM_MAGIC: i64 = 0x5345_434d;
    let magic = nix::sys::statfs::fstatfs(&fd.file).map_or(0, |fs| fs.filesystem_type().0);
    if magic == SECRETMEM_MAGIC || fd.text.starts_with(b"/secretmem") {
        return refusal("secret memory (memfd_secret), which nobody but its owner can read", CLOSE);
    }
    refusal(
        "it lies in a mount that is attached nowhere (fsmount, open_tree, or unmounted meanwhile) or in another mount namespace, \
         and no path here leads to it",
        "attach the mount by move_mount(2), or close it before the dump",
    )
}
