//! Namespaces: a target outside those of `snap` would come back in another world.

use super::Findings;
use crate::image::model::id::Pid;
use crate::proc::{TaskDir, status};
use std::ffi::OsString;
use std::fs::read_link;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Each kind with what would differ after a restore.
const KINDS: [(&str, &str); 8] = [
    ("mnt", "its paths name other files"),
    ("pid", "its process ids are others"),
    ("user", "its user ids and capabilities are others"),
    ("net", "its network is another"),
    ("ipc", "its System V and POSIX IPC objects are others"),
    ("uts", "its host name may be another"),
    ("cgroup", "it sees its cgroups under other names"),
    ("time", "its clocks have an offset"),
];

/// The namespaces of `snap`, in the order of their kinds.
#[derive(Debug)]
pub struct Namespaces([Option<PathBuf>; KINDS.len()]);

impl Namespaces {
    /// Those of the calling process.
    #[must_use]
    pub fn own() -> Self {
        Self(of(|link| read_link(format!("/proc/self/{link}")).ok()))
    }

    /// Those of a process.
    #[must_use]
    pub fn of(task: &TaskDir) -> Self {
        Self(of(|link| task.read_link(link).ok().map(|text| OsString::from_vec(text).into())))
    }

    /// The kind of namespace behind a descriptor, if it is one of these.
    #[must_use]
    pub fn kind_of(&self, link: &[u8]) -> Option<&'static str> {
        let is_it = |own: &Option<PathBuf>| own.as_ref().is_some_and(|own| own.as_os_str().as_bytes() == link);
        self.0.iter().position(is_it).map(|at| KINDS[at].0)
    }

    /// Refuses a process that is in another one.
    pub fn check(&self, pid: Pid, theirs: &Self, findings: &mut Findings) {
        let all = KINDS.iter().zip(&theirs.0).zip(&self.0);
        let others: Vec<_> =
            all.filter(|((_, theirs), ours)| theirs.is_some() && theirs != ours).map(|((kind, _), _)| *kind).collect();
        if others.is_empty() {
            return;
        }
        // Those alone: to enter one that we are in already may take more than we have (setns(2)).
        let options: String = others.iter().map(|(kind, _)| format!(" --{}", kind.replace("mnt", "mount"))).collect();
        let remedy = format!("run snap inside: nsenter --target {pid}{options} snap dump {}", number_inside(pid));
        for (kind, difference) in others {
            let reason = format!("it is not the one of snap: {difference}");
            findings.block(format!("pid {pid}"), format!("{kind} namespace"), reason, remedy.clone());
        }
    }
}

/// What a process is called in its own pid namespace.
fn number_inside(pid: Pid) -> Pid {
    let status = TaskDir::process(pid).and_then(|dir| status::read(&dir, &mut Vec::new()));
    status.ok().and_then(|status| status.ns_pid.last().copied()).map_or(pid, Pid)
}

/// What the links say: kind and inode number.
fn of(look: impl Fn(&str) -> Option<PathBuf>) -> [Option<PathBuf>; KINDS.len()] {
    KINDS.map(|(kind, _)| look(&format!("ns/{kind}")))
}
