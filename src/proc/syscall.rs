//! `/proc/PID/syscall`: what a thread is blocked in (fs/proc/base.c, `proc_pid_syscall`).

use super::error::{Error, ParseError};
use super::files::Files;
use super::scan;
use crate::image::model::address::Addr;

const KIND: &str = "syscall";

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It runs, or is on its way.
    Running,
    /// It is blocked, though in no system call: stopped by a signal, or in a fault.
    Blocked {
        /// Stack pointer.
        sp: Addr,
        /// Program counter.
        pc: Addr,
    },
    /// It is blocked in a system call.
    InSyscall {
        /// Its number.
        number: u64,
        /// Its arguments.
        args: [u64; 6],
        /// Stack pointer.
        sp: Addr,
        /// Program counter, behind the instruction.
        pc: Addr,
    },
}

/// Reads what a thread is blocked in.
///
/// # Errors
/// [`Error::Absent`] on a kernel without CONFIG_HAVE_ARCH_TRACEHOOK; else see [`Error`].
pub fn read(task: &impl Files, buffer: &mut Vec<u8>) -> Result<Activity, Error> {
    task.parse("syscall", buffer, parse)
}

/// Parses the file.
///
/// # Errors
/// Says what was expected.
pub fn parse(text: &[u8]) -> Result<Activity, ParseError> {
    let line = scan::only_line(text);
    activity(line).ok_or_else(|| ParseError::new(KIND, 1, "running, or number, arguments, sp and pc", line))
}

fn activity(line: &[u8]) -> Option<Activity> {
    if line == b"running" {
        return Some(Activity::Running);
    }
    let (number, rest) = scan::split_once(line, b' ')?;
    let words: Vec<u64> = scan::words(rest).map(scan::prefixed_hex).collect::<Option<_>>()?;
    match (number, words.as_slice()) {
        (b"-1", &[sp, pc]) => Some(Activity::Blocked { sp: Addr(sp), pc: Addr(pc) }),
        (number, &[a, b, c, d, e, f, sp, pc]) => Some(Activity::InSyscall {
            number: scan::decimal(number)?,
            args: [a, b, c, d, e, f],
            sp: Addr(sp),
            pc: Addr(pc),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form() {
        let blocked = Activity::InSyscall {
            number: 0,
            args: [0, 0x28bc_d800, 0x2000, 1, 0, 0],
            sp: Addr(0x7ffe_f135_8bc0),
            pc: Addr(0x7f91_10ee_52ec),
        };
        assert_eq!(parse(include_bytes!("../../fixtures/proc/fds/syscall")).unwrap(), blocked);
        assert_eq!(parse(b"running\n").unwrap(), Activity::Running);
        assert_eq!(parse(b"-1 0x10 0x20\n").unwrap(), Activity::Blocked { sp: Addr(16), pc: Addr(32) });
    }

    #[test]
    fn other_text_is_refused() {
        for text in [b"".as_slice(), b"0", b"0 0x1\n", b"-1 0x1 0x2 0x3", b"-2 0x0 0x0 0x0 0x0 0x0 0x0 0x0 0x0"] {
            assert!(parse(text).is_err());
        }
    }
}
