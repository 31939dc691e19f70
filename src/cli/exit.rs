//! How `snap` ends: with a code of its own, or as the restored program ended.

use super::exit_code::Code;
use std::process::ExitCode;

/// The end of a command that did what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// One of the documented codes.
    Code(Code),
    /// The restored program's exit code.
    Program(u8),
    /// The signal that ended the restored program.
    Signal(i32),
}

impl Exit {
    /// The code for `main` to return; does not come back where the program was ended by a signal that can end us too.
    pub fn leave(self) -> ExitCode {
        match self {
            Self::Code(code) => code.into(),
            Self::Program(code) => code.into(),
            Self::Signal(signal) => {
                crate::restore::ending::die_by(signal);
                ExitCode::from(128u8.saturating_add(u8::try_from(signal).unwrap_or(127)))
            }
        }
    }
}
