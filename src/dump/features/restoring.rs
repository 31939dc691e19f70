//! Features that put a process back where it was.

use super::{Feature, Need, fact, feature, line, nothing};
use crate::image::model::id::Tid;
use crate::sys::{self, probe, sched};
use nix::errno::Errno;

/// The limit where /proc does not say.
const DEFAULT_PID_MAX: i32 = 32_768;

/// Tries them.
pub fn probe() -> Vec<Feature> {
    let pid_max = line("/proc/sys/kernel/pid_max");
    let limit = pid_max.as_deref().and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_PID_MAX);
    vec![
        feature(
            "clone3 set_tid",
            Need::Sometimes,
            "the same pids; without it: snap restore --new-pid-namespace",
            probe::set_tid(limit),
            |pid| format!("tried with pid {pid}"),
        ),
        feature(
            "PR_SET_MM_MAP",
            Need::Always,
            "where the program's code, heap, arguments and environment lie",
            probe::mm_map_size(),
            |_| String::new(),
        ),
        feature(
            "ARCH_MAP_VDSO_64",
            Need::Sometimes,
            "the vdso at its old address",
            exists(probe::in_child(probe::map_vdso)),
            nothing,
        ),
        feature(
            "PR_TIMER_CREATE_RESTORE_IDS",
            Need::Sometimes,
            "POSIX timers with their ids at once",
            probe::in_child(probe::timer_with_id),
            nothing,
        ),
        feature(
            "MEMBARRIER_CMD_GET_REGISTRATIONS",
            Need::Sometimes,
            "which registrations of membarrier(2) a program has (.NET, Java, liburcu); without it (before Linux 6.3) it gets all",
            probe::membarrier_registrations(),
            nothing,
        ),
        feature(
            "ARCH_REQ_XCOMP_PERM",
            Need::Sometimes,
            "programs with AMX tiles",
            probe::xcomp_supported(),
            |features| format!("components {features:#x}"),
        ),
        feature(
            "core scheduling",
            Need::Sometimes,
            "programs with a core scheduling cookie",
            sched::core_cookie(Tid(0)),
            nothing,
        ),
        namespaces(
            "user and pid namespaces",
            "restore without privilege: --new-pid-namespace",
            probe::NEW_USER | probe::NEW_PID,
        ),
        namespaces("pid namespaces", "--new-pid-namespace as root", probe::NEW_PID),
        namespaces(
            "time namespaces",
            "CLOCK_MONOTONIC that goes on after a reboot or on another host",
            probe::NEW_TIME,
        ),
        fact("kernel.pid_max", "pids must lie below it", pid_max),
    ]
}

fn namespaces(name: &'static str, used_for: &'static str, kinds: i32) -> Feature {
    feature(name, Need::Sometimes, used_for, probe::in_child(|| probe::unshare(kinds)), nothing)
}

/// EEXIST comes from a kernel that would do it, were there not one already.
fn exists(answer: sys::Result<u64>) -> sys::Result<u64> {
    if answer == Err(Errno::EEXIST) { Ok(0) } else { answer }
}
