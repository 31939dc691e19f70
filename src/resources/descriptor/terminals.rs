//! The pseudo-terminals of a tree: which ends it holds, and what they are set to.

use super::{Findings, OpenFd};
use crate::image::model::file::{Description, OpenObject};
use crate::image::model::id::{Fd, Pid, TerminalId, Tid};
use crate::image::model::terminal::{ControllingTerminal, Terminal};
use crate::resources::CollectError;
use crate::resources::border::{Outsider, Tie, terminal_index};
use crate::sys::terminal;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

/// The terminals of a tree while they are collected.
#[derive(Debug, Default)]
pub struct Terminals {
    /// By number.
    ends: HashMap<u32, Ends>,
    /// For each description of a slave, in order, what it is where the master is outside.
    outside: Vec<OpenObject>,
}

/// What is known of one.
#[derive(Debug)]
struct Ends {
    id: TerminalId,
    master: Option<File>,
    slave: Option<File>,
    holder: (Tid, Fd),
}

impl Terminals {
    /// The master end.
    ///
    /// # Errors
    /// As ioctl_tty(2).
    pub(super) fn master(&mut self, tid: Tid, fd: &OpenFd<'_>) -> io::Result<OpenObject> {
        let ends = self.ends(terminal::index(fd.file.as_fd())?, tid, fd.fd);
        ends.master = Some(fd.file.try_clone()?);
        Ok(OpenObject::TerminalMaster(ends.id))
    }

    /// The slave end, by its path or as /dev/tty; `outside` where it is a terminal of another kind.
    ///
    /// # Errors
    /// As ioctl_tty(2).
    pub(super) fn slave(&mut self, tid: Tid, fd: &OpenFd<'_>, outside: OpenObject) -> io::Result<OpenObject> {
        let device = match terminal::device(fd.file.as_fd()) {
            // Every request fails once it has hung up (drivers/tty/tty_io.c, `hung_up_tty_ioctl`).
            Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                return Ok(match outside {
                    OpenObject::ControllingTerminal(file) | OpenObject::OutsideTerminal(file) => {
                        OpenObject::HungUpTerminal(file)
                    }
                    other => other,
                });
            }
            device => device?,
        };
        let Some(index) = terminal_index(device) else { return Ok(outside) };
        let ends = self.ends(index, tid, fd.fd);
        ends.slave = Some(fd.file.try_clone()?);
        let id = ends.id;
        let inside = match outside {
            OpenObject::ControllingTerminal(_) => OpenObject::OwnTerminal(id),
            _ => OpenObject::TerminalSlave(id),
        };
        self.outside.push(outside);
        Ok(inside)
    }

    fn ends(&mut self, index: u32, tid: Tid, fd: Fd) -> &mut Ends {
        let id = TerminalId(self.ends.len() as u32);
        self.ends.entry(index).or_insert_with(|| Ends { id, master: None, slave: None, holder: (tid, fd) })
    }

    /// The terminal of a session, from what /proc/PID/stat says.
    #[must_use]
    pub fn controlling(&self, tty_nr: i32, tpgid: i32) -> Option<ControllingTerminal> {
        if tty_nr == 0 {
            return None;
        }
        let index = terminal_index(u64::from(tty_nr.cast_unsigned()));
        let terminal = index.and_then(|index| self.ends.get(&index)).map(|ends| ends.id);
        let foreground = (tpgid > 0).then_some(Pid(tpgid));
        Some(ControllingTerminal { terminal, foreground })
    }

    /// Ties of those whose master is in the tree to processes that may have the slave.
    pub fn ties(&self) -> impl Iterator<Item = Tie> {
        self.ends.iter().filter(|(_, ends)| ends.master.is_some()).filter_map(|(index, ends)| ends.tie(*index))
    }

    /// Refuses those whose slave a process outside has.
    pub fn refuse_outside(&self, outsiders: &HashMap<Tie, Outsider>, findings: &mut Findings) {
        let mut ends: Vec<_> = self.ends.iter().filter(|(_, ends)| ends.master.is_some()).collect();
        ends.sort_by_key(|(_, ends)| ends.id);
        for (index, ends) in ends {
            if let Some(outsider) = ends.tie(*index).and_then(|tie| outsiders.get(&tie)) {
                let (tid, fd) = ends.holder;
                findings.block(
                    format!("pid {tid}"),
                    format!("fd {fd}: /dev/pts/{index}"),
                    format!("it is the terminal of {outsider}, which is outside"),
                    "end that process, or dump the one that made both: snap dump PID of their common parent",
                );
            }
        }
    }

    /// Reads all of them once every table is known. A slave whose master nobody in the tree has is a terminal outside.
    ///
    /// # Errors
    /// A kernel interface that failed.
    pub fn finish(
        self,
        descriptions: &mut [Description],
        findings: &mut Findings,
    ) -> Result<Vec<Terminal>, CollectError> {
        let mut ends: Vec<(u32, Ends)> = self.ends.into_iter().collect();
        ends.sort_by_key(|(_, ends)| ends.id);
        let mut terminals = Vec::with_capacity(ends.len());
        for (index, ends) in &ends {
            let error = |action| CollectError::at(ends.holder.0, action);
            terminals.push(collect(*index, ends).map_err(error("reading a terminal"))?);
            if ends.master.is_some() {
                refuse_unread(*index, ends, findings).map_err(error("FIONREAD of a terminal"))?;
            }
        }
        let mut outside = self.outside.into_iter();
        for description in descriptions {
            if let OpenObject::TerminalSlave(id) | OpenObject::OwnTerminal(id) = description.object
                && let Some(outside) = outside.next()
                && ends[id.0 as usize].1.master.is_none()
            {
                description.object = outside;
            }
        }
        Ok(terminals)
    }
}

impl Ends {
    fn tie(&self, index: u32) -> Option<Tie> {
        self.metadata(index).ok().map(|meta| Tie::Terminal(meta.dev(), index))
    }

    /// Of the slave, which may be open as /dev/tty alone.
    fn metadata(&self, index: u32) -> io::Result<std::fs::Metadata> {
        let slave = self.slave.as_ref().and_then(|slave| slave.metadata().ok());
        match slave.filter(|meta| terminal_index(meta.rdev()) == Some(index)) {
            Some(meta) => Ok(meta),
            None => std::fs::metadata(format!("/dev/pts/{index}")),
        }
    }
}

fn collect(index: u32, ends: &Ends) -> io::Result<Terminal> {
    let any = ends.slave.as_ref().or(ends.master.as_ref()).ok_or(io::ErrorKind::NotFound)?;
    let through_master = |ask: fn(std::os::fd::BorrowedFd<'_>) -> io::Result<bool>| {
        ends.master.as_ref().map_or(Ok(false), |master| ask(master.as_fd()))
    };
    let slave = ends.metadata(index)?;
    Ok(Terminal {
        id: ends.id,
        index,
        inside: ends.master.is_some(),
        modes: terminal::modes(any.as_fd())?,
        window: terminal::window(any.as_fd())?,
        widowed: ends.slave.is_none() && through_master(terminal::is_widowed)?,
        packet: through_master(terminal::is_packet)?,
        locked: through_master(terminal::is_locked)?,
        exclusive: ends.slave.as_ref().map_or(Ok(false), |slave| terminal::is_exclusive(slave.as_fd()))?,
        mode: slave.mode() & 0o7777,
        uid: slave.uid(),
        gid: slave.gid(),
    })
}

/// Looking never consumes, and the kernel has no way to look at what is in a terminal. To read it and to write it again would lose it if
/// somebody killed us in between.
fn refuse_unread(index: u32, ends: &Ends, findings: &mut Findings) -> io::Result<()> {
    let mut refuse = |reason: String, remedy| {
        findings.pass(format!("pid {}", ends.holder.0), format!("/dev/pts/{index}"), reason, remedy);
    };
    if ends.master.as_ref().map_or(Ok(false), |master| terminal::has_status(master.as_fd()))? {
        let reason = "a status of its packet mode (TIOCPKT) is in it, which cannot be read without taking it away";
        refuse(reason.into(), "try again when it has been read");
    }
    for (end, name) in [(&ends.master, "output"), (&ends.slave, "input")] {
        let count = end.as_ref().map_or(Ok(0), |end| terminal::readable(end.as_fd()))?;
        if count > 0 {
            let reason = format!("{count} bytes of {name} are in it, which cannot be read without taking them away");
            refuse(reason, "try again when they have been read");
        }
    }
    Ok(())
}
