//! Pseudo-terminals.

use super::id::{Pid, TerminalId};
use serde::{Deserialize, Serialize};

/// A terminal that tasks of the tree have open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// Its place in [`super::Snapshot::terminals`].
    pub id: TerminalId,
    /// Number under /dev/pts.
    pub index: u32,
    /// Whether the tree holds the master. Without, it belongs to somebody outside, and that of `snap restore` takes its place.
    pub inside: bool,
    /// Modes.
    pub modes: TerminalModes,
    /// Rows, columns, and both in pixels (TIOCGWINSZ).
    pub window: [u16; 4],
    /// TIOCPKT.
    pub packet: bool,
    /// Whether a slave was open and none is any more: a read from the master fails (EIO), where one that nobody has opened yet waits.
    pub widowed: bool,
    /// TIOCSPTLCK: the slave cannot be opened.
    pub locked: bool,
    /// TIOCEXCL: the slave cannot be opened a second time.
    pub exclusive: bool,
    /// Permission bits of the slave.
    pub mode: u32,
    /// Owner of the slave.
    pub uid: u32,
    /// Group of the slave.
    pub gid: u32,
}

/// `struct termios2` of asm/termbits.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalModes {
    /// Input, output, control and local modes.
    pub flags: [u32; 4],
    /// Line discipline.
    pub line: u8,
    /// Control characters.
    pub characters: [u8; 19],
    /// Input and output speed.
    pub speeds: [u32; 2],
}

/// The terminal of a session, as each of its processes sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllingTerminal {
    /// Which; `None` for one that no task of the tree has open.
    pub terminal: Option<TerminalId>,
    /// Its foreground process group, if there is one.
    pub foreground: Option<Pid>,
}
