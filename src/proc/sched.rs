//! `/proc/PID/task/TID/sched`: the scheduler's own accounts (kernel/sched/debug.c, `proc_sched_show_task`).
//!
//! The file is for people and changes from release to release: whatever is not there is `None`.

use super::error::Error;
use super::files::Files;
use super::scan;

/// What is of use in it. Times are in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sched {
    /// The scheduler's clock when the thread was last put on a CPU or its account was updated.
    pub exec_start: Option<u64>,
    /// CPU time used.
    pub sum_exec_runtime: Option<u64>,
    /// How often it gave up the CPU by itself.
    pub voluntary_switches: Option<u64>,
    /// SCHED_*.
    pub policy: Option<u32>,
    /// The kernel's priority, 120 for nice 0.
    pub priority: Option<i32>,
    /// Slice of the fair scheduler.
    pub slice: Option<u64>,
    /// Utilisation clamps that were asked for: minimum and maximum.
    pub uclamp: Option<[u32; 2]>,
}

/// Reads the accounts of a thread.
///
/// # Errors
/// [`Error::Absent`] on a kernel without CONFIG_SCHED_DEBUG; else see [`Error`].
pub fn read(task: &impl Files, buffer: &mut Vec<u8>) -> Result<Sched, Error> {
    Ok(parse(task.read_into("sched", buffer)?))
}

/// Takes from the text what it finds. The name on the first line may hold newlines and colons, and therefore forge
/// lines; the kernel's own come later and win.
#[must_use]
pub fn parse(text: &[u8]) -> Sched {
    let mut sched = Sched::default();
    let (mut min, mut max) = (None, None);
    for (_, line) in scan::lines(text) {
        let Some((key, value)) = scan::split_once(line, b':') else {
            continue;
        };
        let value = scan::trim(value);
        match scan::trim(key) {
            b"se.exec_start" => sched.exec_start = milliseconds(value),
            b"se.sum_exec_runtime" => sched.sum_exec_runtime = milliseconds(value),
            b"nr_voluntary_switches" => sched.voluntary_switches = scan::decimal(value),
            b"policy" => sched.policy = scan::decimal(value),
            b"prio" => sched.priority = scan::signed(value),
            b"se.slice" => sched.slice = scan::decimal(value),
            b"uclamp.min" => min = scan::decimal(value),
            b"uclamp.max" => max = scan::decimal(value),
            _ => {}
        }
    }
    sched.uclamp = min.zip(max).map(|(min, max)| [min, max]);
    sched
}

/// `47.224712` milliseconds in nanoseconds.
fn milliseconds(text: &[u8]) -> Option<u64> {
    let (whole, fraction) = scan::split_once(text, b'.')?;
    if fraction.len() != 6 {
        return None;
    }
    scan::decimal::<u64>(whole)?.checked_mul(1_000_000)?.checked_add(scan::decimal(fraction)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_real_thread_whose_name_holds_a_newline() {
        let sched = parse(include_bytes!("../../fixtures/proc/fds/sched"));
        let expected = Sched {
            exec_start: Some(2_906_300_484_250),
            sum_exec_runtime: Some(47_224_712),
            voluntary_switches: Some(12),
            policy: Some(0),
            priority: Some(120),
            slice: sched.slice,
            uclamp: None,
        };
        assert_eq!(sched, expected);
        assert!(sched.slice.is_some());
    }

    #[test]
    fn what_is_missing_or_odd_is_none() {
        assert_eq!(parse(b""), Sched::default());
        let sched = parse(b"policy : x\nuclamp.min : 3\nuclamp.max: 1024\nse.exec_start : -1.000000\n");
        assert_eq!((sched.policy, sched.uclamp, sched.exec_start), (None, Some([3, 1024]), None));
    }
}
