//! `/proc/PID/timens_offsets`: how far the clocks of a time namespace are off (time_namespaces(7)).

use super::error::{Error, ParseError};
use super::files::Files;
use super::scan;
use super::task_dir::TaskDir;

const KIND: &str = "timens_offsets";

/// Offsets to the initial time namespace in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// Of CLOCK_MONOTONIC.
    pub monotonic: i64,
    /// Of CLOCK_BOOTTIME.
    pub boottime: i64,
}

/// Reads the offsets of the namespace in which the children of a process are born.
///
/// # Errors
/// [`Error::Absent`] on a kernel without time namespaces; else see [`Error`].
pub fn read(task: &TaskDir, buffer: &mut Vec<u8>) -> Result<Offsets, Error> {
    task.parse("timens_offsets", buffer, parse)
}

/// Parses the whole file: clock, seconds, nanoseconds. Clocks of later kernels are passed over.
///
/// # Errors
/// Names the line.
pub fn parse(text: &[u8]) -> Result<Offsets, ParseError> {
    let mut offsets = Offsets::default();
    for (number, line) in scan::lines(text) {
        let fail = || ParseError::new(KIND, number, "clock, seconds, nanoseconds", line);
        let words: Vec<&[u8]> = scan::words(line).collect();
        let &[clock, seconds, nanos] = words.as_slice() else {
            return Err(fail());
        };
        let offset = offset(seconds, nanos).ok_or_else(fail)?;
        // Before 5.6 was released the clocks were numbers.
        match clock {
            b"monotonic" | b"1" => offsets.monotonic = offset,
            b"boottime" | b"7" => offsets.boottime = offset,
            _ => {}
        }
    }
    Ok(offsets)
}

fn offset(seconds: &[u8], nanos: &[u8]) -> Option<i64> {
    scan::signed::<i64>(seconds)?.checked_mul(1_000_000_000)?.checked_add(scan::decimal::<i64>(nanos)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_be_negative_and_nanoseconds_may_not() {
        let offsets = parse(b"monotonic      100000         5\nboottime           -2 999999999\n").unwrap();
        assert_eq!(offsets, Offsets { monotonic: 100_000_000_000_005, boottime: -1_000_000_001 });
        assert_eq!(parse(b"monotonic 0 0\nboottime 0 -1\n").unwrap_err().line, 2);
        assert_eq!(parse(b"boottime 0\n").unwrap_err().line, 1);
    }
}
