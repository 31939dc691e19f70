//! What a test needs and a machine, a user or a second run may lack: it is said, named and counted, never passed over in silence.

use std::io::Write;

/// What a line on standard error starts with when a test was not run.
pub const NOT_RUN: &str = "not run: ";

/// Whether a machine that cannot run a test makes it fail.
pub fn strict() -> bool {
    is_set("SNAP_TEST_STRICT")
}

/// Whether this is the second run of the tests, as an ordinary user, after one as root: what takes root or a long time was done there.
pub fn second_run() -> bool {
    is_set("SNAP_TEST_ORDINARY_USER")
}

/// Whether this is root itself, and not only root of a user namespace.
pub fn privileged() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let everybody = map.split_whitespace().eq(["0", "0", "4294967295"]);
    everybody && nix::unistd::geteuid().is_root()
}

/// Whether /proc/cpuinfo lists this flag.
pub fn cpu_has(flag: &str) -> bool {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines().filter(|line| line.starts_with("flags")).any(|line| line.split_whitespace().any(|word| word == flag))
}

/// Major and minor version of the kernel.
pub fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the version of the kernel");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Says that this machine lacks something.
///
/// # Panics
/// Under `SNAP_TEST_STRICT=1`.
#[track_caller]
pub fn lacks(reason: &str) {
    assert!(!strict(), "required by SNAP_TEST_STRICT=1: {reason}");
    not_run(reason);
}

/// Says that a test was not run.
pub fn not_run(reason: &str) {
    // Past the capture of libtest, which has begun a line with the name of the test: nobody may take this for one that has passed.
    let _ = writeln!(std::io::stderr(), "\n{NOT_RUN}{reason}");
}

fn is_set(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| value == "1")
}

/// Ends a test for which this machine lacks something: a failure under `SNAP_TEST_STRICT=1`, else said on standard error.
macro_rules! require {
    ($condition:expr, $($reason:tt)+) => {
        if !$condition {
            return $crate::support::needs::lacks(&format!($($reason)+));
        }
    };
}
pub(crate) use require;

/// Ends a test of what this CPU does not have at all, by its flag in /proc/cpuinfo, and says so: there is nothing to lose on it.
macro_rules! require_cpu {
    ($flag:expr, $($reason:tt)+) => {
        if !$crate::support::needs::cpu_has($flag) {
            return $crate::support::needs::not_run(&format!($($reason)+));
        }
    };
}
pub(crate) use require_cpu;

/// Ends a test of what this kernel does not have yet, by the version that brought it, and says so: there is nothing to lose on it.
macro_rules! require_kernel {
    ($major:literal, $minor:literal, $($reason:tt)+) => {
        if $crate::support::needs::kernel() < ($major, $minor) {
            return $crate::support::needs::not_run(&format!($($reason)+));
        }
    };
}
pub(crate) use require_kernel;

/// Ends a test that takes root and says so; a failure under `SNAP_TEST_STRICT=1` unless root has run it before.
macro_rules! require_root {
    ($($reason:tt)+) => {
        if !$crate::support::needs::privileged() {
            let reason = format!("takes root: {}", format!($($reason)+));
            return match $crate::support::needs::second_run() {
                true => $crate::support::needs::not_run(&reason),
                false => $crate::support::needs::lacks(&reason),
            };
        }
    };
}
pub(crate) use require_root;

/// Ends a long test in the second run, where it would show nothing that the first has not.
macro_rules! only_once {
    ($($reason:tt)+) => {
        if $crate::support::needs::second_run() {
            return $crate::support::needs::not_run(&format!("run as root before: {}", format!($($reason)+)));
        }
    };
}
pub(crate) use only_once;
