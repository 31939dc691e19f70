//! `/proc/PID/timers`: POSIX timers (fs/proc/base.c, `show_timer`), without their times.

use super::error::{Error, ParseError};
use super::files::Files;
use super::scan;
use super::task_dir::TaskDir;
use crate::image::model::id::Tid;

const KIND: &str = "timers";

/// One timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// The kernel's id.
    pub id: i32,
    /// Signal number, also of those that send none.
    pub signal: i32,
    /// `sigev_value`.
    pub value: u64,
    /// How it tells.
    pub notify: Notify,
    /// CLOCK_*, negative for CPU clocks.
    pub clock: i32,
}

/// SIGEV_*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// SIGEV_NONE.
    None,
    /// SIGEV_SIGNAL: to the process.
    Signal,
    /// SIGEV_THREAD, which the C library turns into SIGEV_THREAD_ID; the kernel treats it as SIGEV_SIGNAL.
    SignalOfLibrary,
    /// SIGEV_THREAD_ID: to this thread, as seen in our pid namespace; 0 once it is gone.
    Thread(Tid),
}

/// Reads the timers of a process in the order of the kernel (the newest first, from 6.x).
///
/// # Errors
/// [`Error::Absent`] on a kernel without POSIX timers or without CONFIG_CHECKPOINT_RESTORE; else see [`Error`].
pub fn read(task: &TaskDir, buffer: &mut Vec<u8>) -> Result<Vec<Timer>, Error> {
    task.parse("timers", buffer, parse)
}

/// Parses the whole file, four lines a timer.
///
/// # Errors
/// Names the line.
pub fn parse(text: &[u8]) -> Result<Vec<Timer>, ParseError> {
    let mut lines = scan::lines(text);
    let mut timers = Vec::new();
    let mut last = 0;
    while let Some((number, line)) = lines.next() {
        last = number.max(last);
        let mut current = Some((number, line));
        let mut field = |key: &'static str| {
            let (number, line) = current.take().or_else(|| lines.next()).unwrap_or((last + 1, b""));
            last = number;
            let value = line.strip_prefix(key.as_bytes()).and_then(|rest| rest.strip_prefix(b": "));
            value.map(|value| (number, value)).ok_or_else(|| ParseError::new(KIND, number, key, line))
        };
        let id = converted(field("ID")?, "timer id", scan::signed)?;
        let (signal, value) = converted(field("signal")?, "signal/value", signal)?;
        let notify = converted(field("notify")?, "notification", notify)?;
        let clock = converted(field("ClockID")?, "clock id", scan::signed)?;
        timers.push(Timer { id, signal, value, notify, clock });
    }
    Ok(timers)
}

fn converted<T>(
    (number, value): (usize, &[u8]),
    expected: &'static str,
    convert: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<T, ParseError> {
    convert(value).ok_or_else(|| ParseError::new(KIND, number, expected, value))
}

/// `40/0000000000001234`
fn signal(text: &[u8]) -> Option<(i32, u64)> {
    let (signal, value) = scan::split_once(text, b'/')?;
    // Before 5.x the pointer could come with its prefix.
    let value = value.strip_prefix(b"0x").unwrap_or(value);
    Some((scan::signed(signal)?, scan::hex(value)?))
}

/// `signal/tid.12`
fn notify(text: &[u8]) -> Option<Notify> {
    let (kind, whom) = scan::split_once(text, b'/')?;
    let (whom, id) = scan::split_once(whom, b'.')?;
    let id = scan::signed(id)?;
    match (kind, whom) {
        (b"signal", b"tid") => Some(Notify::Thread(Tid(id))),
        (b"signal", b"pid") => Some(Notify::Signal),
        (b"none", b"pid") => Some(Notify::None),
        (b"thread", b"pid") => Some(Notify::SignalOfLibrary),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_program_with_one_of_each() {
        let timers = parse(include_bytes!("../../fixtures/proc/fds/timers")).unwrap();
        let expected = [
            Timer { id: 3, signal: 14, value: 3, notify: Notify::Signal, clock: -6 },
            Timer { id: 2, signal: 41, value: 0xdead_beef, notify: Notify::Thread(Tid(19853)), clock: 7 },
            Timer { id: 1, signal: 0, value: 0, notify: Notify::None, clock: 0 },
            Timer { id: 0, signal: 40, value: 0x1234, notify: Notify::Signal, clock: 1 },
        ];
        assert_eq!(timers, expected);
        assert!(parse(b"").unwrap().is_empty());
    }

    #[test]
    fn a_cut_off_timer_names_the_line() {
        let error = parse(b"ID: 0\nsignal: 1/0\nnotify: signal/pid.1\n").unwrap_err();
        assert_eq!((error.line, error.expected), (4, "ClockID"));
        let error = parse(b"ID: 0\nsignal: 1/0\nnotify: mail/pid.1\nClockID: 0\n").unwrap_err();
        assert_eq!((error.line, error.expected), (3, "notification"));
    }
}
