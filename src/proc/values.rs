//! Files of /proc/PID that hold one value, and the list of children.

use super::error::{Error, ParseError};
use super::files::Files;
use super::scan;
use super::task_dir::TaskDir;
use crate::image::model::id::Pid;

/// `coredump_filter`: which mappings a core file holds; `None` where the task has no address space.
///
/// # Errors
/// See [`Error`].
pub fn coredump_filter(task: &TaskDir, buffer: &mut Vec<u8>) -> Result<Option<u32>, Error> {
    task.parse("coredump_filter", buffer, |text| match text {
        [] => Ok(None),
        text => one("coredump_filter", "a hexadecimal number", text, scan::hex).map(Some),
    })
}

/// `oom_score_adj`, -1000 to 1000.
///
/// # Errors
/// See [`Error`].
pub fn oom_score_adj(task: &TaskDir, buffer: &mut Vec<u8>) -> Result<i32, Error> {
    task.parse("oom_score_adj", buffer, |text| one("oom_score_adj", "a number", text, scan::signed))
}

/// `loginuid`, 4294967295 when it was never set.
///
/// # Errors
/// [`Error::Absent`] on a kernel without audit; else see [`Error`].
pub fn loginuid(task: &TaskDir, buffer: &mut Vec<u8>) -> Result<u32, Error> {
    task.parse("loginuid", buffer, |text| one("loginuid", "a user id", text, scan::decimal))
}

/// `personality`: personality(2).
///
/// # Errors
/// See [`Error`].
pub fn personality(task: &TaskDir, buffer: &mut Vec<u8>) -> Result<u32, Error> {
    task.parse("personality", buffer, |text| one("personality", "a hexadecimal number", text, scan::hex))
}

/// CPU time used in nanoseconds: the first number of `schedstat`.
///
/// # Errors
/// [`Error::Absent`] on a kernel without CONFIG_SCHED_INFO; else see [`Error`].
pub fn cpu_time(task: &TaskDir, buffer: &mut Vec<u8>) -> Result<u64, Error> {
    task.parse("schedstat", buffer, |text| {
        let first = scan::words(text).next().unwrap_or_default();
        one("schedstat", "a number", first, scan::decimal)
    })
}

/// `timerslack_ns` of a thread, in nanoseconds. It lies in `/proc/TID` alone, not in `/proc/PID/task/TID`.
///
/// # Errors
/// [`Error::Permission`] without CAP_SYS_NICE for any thread but the caller, even of the same user: without it only
/// prctl(PR_GET_TIMERSLACK) of the thread itself tells. Else see [`Error`].
pub fn timerslack(task: &TaskDir, buffer: &mut Vec<u8>) -> Result<u64, Error> {
    task.parse("timerslack_ns", buffer, |text| one("timerslack_ns", "nanoseconds", text, scan::decimal))
}

/// The nice value of `autogroup`.
///
/// # Errors
/// [`Error::Absent`] on a kernel without autogroups; else see [`Error`].
pub fn autogroup_nice(task: &TaskDir, buffer: &mut Vec<u8>) -> Result<Option<i32>, Error> {
    task.parse("autogroup", buffer, parse_autogroup)
}

/// `/autogroup-11 nice 0`; nothing where autogroups are off.
///
/// # Errors
/// Says what was expected.
pub fn parse_autogroup(text: &[u8]) -> Result<Option<i32>, ParseError> {
    let line = scan::only_line(text);
    if line.is_empty() {
        return Ok(None);
    }
    let at = line.windows(6).rposition(|window| window == b" nice ");
    let nice = at.and_then(|at| scan::signed(&line[at + 6..]));
    nice.map(Some).ok_or_else(|| ParseError::new("autogroup", 1, "/autogroup-N nice N", line))
}

/// `attr/current`: the label of the security module, empty without one.
///
/// # Errors
/// See [`Error`].
pub fn lsm_label(task: &TaskDir, buffer: &mut Vec<u8>) -> Result<Vec<u8>, Error> {
    match task.read_into("attr/current", buffer) {
        Ok(label) => {
            let label = scan::only_line(label);
            Ok(label.strip_suffix(b"\0").unwrap_or(label).to_vec())
        }
        // No module is there to answer.
        Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => Ok(Vec::new()),
        Err(Error::Absent { .. }) => Ok(Vec::new()),
        Err(other) => Err(other),
    }
}

/// `wchan`: the function of the kernel in which the thread waits, empty when it does not or may not be told.
///
/// # Errors
/// [`Error::Absent`] on a kernel without CONFIG_KALLSYMS; else see [`Error`].
pub fn wchan(task: &impl Files, buffer: &mut Vec<u8>) -> Result<Vec<u8>, Error> {
    let text = task.read_into("wchan", buffer)?;
    Ok(if text == b"0" { Vec::new() } else { text.to_vec() })
}

/// `children` of a thread (in `/proc/PID/task/TID` alone), in the order of their birth. Whole only while the thread
/// and its children are stopped (proc_pid_children(5)).
///
/// # Errors
/// [`Error::Absent`] on a kernel without CONFIG_PROC_CHILDREN; else see [`Error`].
pub fn children(task: &TaskDir, buffer: &mut Vec<u8>) -> Result<Vec<Pid>, Error> {
    task.parse("children", buffer, parse_children)
}

/// Pids between blanks.
///
/// # Errors
/// Says what was expected.
pub fn parse_children(text: &[u8]) -> Result<Vec<Pid>, ParseError> {
    scan::words(scan::only_line(text))
        .map(|word| scan::decimal(word).map(Pid).ok_or_else(|| ParseError::new("children", 1, "a pid", word)))
        .collect()
}

/// Parses a file of one value.
pub(super) fn one<T>(
    kind: &'static str,
    expected: &'static str,
    text: &[u8],
    parse: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<T, ParseError> {
    let value = scan::trim(text);
    parse(value).ok_or_else(|| ParseError::new(kind, 1, expected, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> TaskDir {
        TaskDir::process(Pid(std::process::id().cast_signed())).unwrap()
    }

    #[test]
    fn our_own_values() {
        let mut buffer = Vec::new();
        personality(&own(), &mut buffer).unwrap();
        assert!((-1000..=1000).contains(&oom_score_adj(&own(), &mut buffer).unwrap()));
        assert!(coredump_filter(&own(), &mut buffer).unwrap().is_some());
        let calling_thread = TaskDir::process(Pid(nix::unistd::gettid().as_raw())).unwrap();
        assert!(timerslack(&calling_thread, &mut buffer).unwrap() > 0);
        assert!(super::super::if_present(loginuid(&own(), &mut buffer)).is_ok());
        assert!(super::super::if_present(autogroup_nice(&own(), &mut buffer)).is_ok());
        assert!(super::super::if_present(wchan(&own(), &mut buffer)).is_ok());
        lsm_label(&own(), &mut buffer).unwrap();
    }

    #[test]
    fn our_own_children() {
        let mut child = std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
        let listed = children(&TaskDir::current().unwrap(), &mut Vec::new()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(listed.contains(&Pid(child.id().cast_signed())));
    }

    #[test]
    fn captured_text() {
        let autogroup = parse_autogroup(include_bytes!("../../fixtures/proc/fds/autogroup")).unwrap();
        assert_eq!(autogroup, Some(0));
        assert_eq!(parse_autogroup(b"/autogroup-1 nice -7\n").unwrap(), Some(-7));
        assert_eq!(parse_autogroup(b"").unwrap(), None);
        assert!(parse_autogroup(b"/autogroup-1\n").is_err());
        assert_eq!(parse_children(include_bytes!("../../fixtures/proc/fds/children")).unwrap(), [Pid(19856)]);
        assert!(parse_children(b"1 x").is_err());
        assert_eq!(one("personality", "", include_bytes!("../../fixtures/proc/fds/personality"), scan::hex), Ok(0_u32));
        let filter = include_bytes!("../../fixtures/proc/fds/coredump_filter");
        assert_eq!(one("coredump_filter", "", filter, scan::hex), Ok(0x33_u32));
    }
}
