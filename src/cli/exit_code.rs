//! Exit codes of `snap`: part of its interface, so that scripts can tell what happened.
//!
//! `snap restore` in the foreground is the exception: once the program runs it ends as the program does.

use crate::dump::own::RESTORED;
use std::process::ExitCode;

/// Why `snap` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// Everything that was asked for is done.
    Ok,
    /// A fault of `snap`, of the kernel, or of the disk that the image goes to.
    Internal,
    /// The command line makes no sense.
    Usage,
    /// The tree or the image holds state that cannot be saved, or cannot be had again here; the list of blockers says which.
    Unsupported,
    /// The kernel does not let this user do it.
    Permission,
    /// The target does not exist, or ended meanwhile.
    Vanished,
    /// The image cannot be read, is damaged, or was written by a newer version.
    BadImage,
    /// A step of the restore failed; whatever was built is gone again.
    RestoreFailed,
    /// What `snap dump` ends with as a restored parent sees it, in whose tree it was itself.
    Restored,
    /// `--timeout` passed; the target runs on. The code of timeout(1).
    TimedOut,
    /// SIGINT or SIGTERM ended a dump; the target runs on. The code a shell gives to SIGINT.
    Interrupted,
}

impl Code {
    /// Every code, for the tables in help and man pages.
    pub const ALL: [Self; 11] = [
        Self::Ok,
        Self::Internal,
        Self::Usage,
        Self::Unsupported,
        Self::Permission,
        Self::Vanished,
        Self::BadImage,
        Self::RestoreFailed,
        Self::Restored,
        Self::TimedOut,
        Self::Interrupted,
    ];

    /// The number that the shell sees in `$?`.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Internal => 1,
            Self::Usage => 2,
            Self::Unsupported => 3,
            Self::Permission => 4,
            Self::Vanished => 5,
            Self::BadImage => 6,
            Self::RestoreFailed => 7,
            Self::Restored => RESTORED,
            Self::TimedOut => 124,
            Self::Interrupted => 130,
        }
    }

    /// The name in `--json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Internal => "internal",
            Self::Usage => "usage",
            Self::Unsupported => "unsupported",
            Self::Permission => "permission",
            Self::Vanished => "vanished",
            Self::BadImage => "bad-image",
            Self::RestoreFailed => "restore-failed",
            Self::Restored => "restored",
            Self::TimedOut => "timed-out",
            Self::Interrupted => "interrupted",
        }
    }

    /// One line for help and man pages.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Internal => "a fault of snap, of the kernel, or of the disk the image goes to",
            Self::Usage => "the command line makes no sense",
            Self::Unsupported => "state that cannot be saved or had again here; all of it is listed",
            Self::Permission => "the kernel does not let this user do it",
            Self::Vanished => "the target does not exist or ended meanwhile",
            Self::BadImage => "the image cannot be read, is damaged, or from a newer version",
            Self::RestoreFailed => "the restore failed; nothing of it is left",
            Self::Restored => "snap dump of its own tree, as its parent sees it end after a restore",
            Self::TimedOut => "--timeout passed; the target runs on",
            Self::Interrupted => "interrupted (Ctrl-C); the target runs on",
        }
    }

    /// The lines of the exit code table: number, meaning.
    #[must_use]
    pub fn table() -> String {
        let mut text = String::from("Exit codes:\n");
        for code in Self::ALL {
            text.push_str(&format!("  {:>3}  {}\n", code.number(), code.meaning()));
        }
        text.push_str("snap restore in the foreground ends as the restored program does.");
        text
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_documented_ones_and_differ() {
        let numbers: Vec<u8> = Code::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 10, 124, 130]);
    }

    #[test]
    fn the_table_names_each_code() {
        let table = Code::table();
        for code in Code::ALL {
            assert!(table.contains(&format!("{:>3}  {}", code.number(), code.meaning())), "{code:?}");
        }
    }
}
