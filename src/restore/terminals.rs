//! Makes the pseudo-terminals of an image.

use super::descriptors::{OpenError, failed};
use crate::image::model::id::TerminalId;
use crate::image::model::terminal::Terminal;
use crate::sys::{open, terminal};
use std::collections::HashMap;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};

const MASTER: &str = "/dev/ptmx";

/// More terminals than this are not opened to find one number.
const TRIES: u32 = 4096;

/// The terminals, until their descriptions are open.
#[derive(Debug, Default)]
pub struct Terminals {
    made: HashMap<TerminalId, Made>,
    /// Numbers from here on are free for our own use.
    top: i32,
}

#[derive(Debug)]
struct Made {
    master: File,
    slave: Option<File>,
}

impl Terminals {
    /// Makes those whose master is in the image, under their old numbers where these are free. Everything is set through the master, for
    /// a slave that was never opened must not have been.
    ///
    /// # Errors
    /// What could not be had.
    pub fn make(terminals: &[Terminal], top: i32) -> Result<Self, OpenError> {
        let mut made = HashMap::new();
        for wanted in terminals.iter().filter(|terminal| terminal.inside) {
            let error = || failed(format!("terminal /dev/pts/{}", wanted.index));
            let master = under_number(wanted.index).and_then(|master| open::lift(master, top)).map_err(error())?;
            set_up(&master, wanted).map_err(error())?;
            made.insert(wanted.id, Made { master, slave: None });
        }
        Ok(Self { made, top })
    }

    /// The master: there is one description of it.
    ///
    /// # Errors
    /// As dup(2).
    pub fn master(&self, id: TerminalId) -> Result<File, OpenError> {
        let made = self.made.get(&id).ok_or_else(|| io::ErrorKind::NotFound.into());
        made.and_then(|made| made.master.try_clone()).map_err(failed("master of a terminal"))
    }

    /// A description of the slave.
    ///
    /// # Errors
    /// As open(2).
    pub fn slave(&mut self, id: TerminalId, flags: u32) -> Result<File, OpenError> {
        let top = self.top;
        let open = |made: &mut Made| {
            let slave = terminal::open_slave(made.master.as_fd(), flags | libc::O_NOCTTY as u32)?;
            made.slave = Some(open::lift(slave.try_clone()?, top)?);
            Ok(slave)
        };
        let made = self.made.get_mut(&id).ok_or_else(|| io::ErrorKind::NotFound.into());
        made.and_then(open).map_err(failed("slave of a terminal"))
    }

    /// What keeps others from opening slaves, once all are open.
    ///
    /// # Errors
    /// As ioctl_tty(2).
    pub fn close_doors(&self, terminals: &[Terminal]) -> Result<(), OpenError> {
        for wanted in terminals {
            let Some(Made { master, slave }) = self.made.get(&wanted.id) else { continue };
            let error = || failed(format!("terminal /dev/pts/{}", wanted.index));
            if wanted.locked {
                terminal::set_locked(master.as_fd(), true).map_err(error())?;
            }
            if let (true, Some(slave)) = (wanted.exclusive, slave) {
                terminal::set_exclusive(slave.as_fd()).map_err(error())?;
            }
        }
        Ok(())
    }
}

/// A slave whose terminal hangs up at once, for its master is closed.
///
/// # Errors
/// As open(2).
pub fn hung_up(flags: u32) -> Result<File, OpenError> {
    let make = || {
        let master = open::path(MASTER.as_ref(), (libc::O_RDWR | libc::O_NOCTTY) as u32)?;
        terminal::set_locked(master.as_fd(), false)?;
        terminal::open_slave(master.as_fd(), flags | libc::O_NOCTTY as u32)
    };
    make().map_err(failed("terminal that has hung up"))
}

/// A master with this number, or with another where it is taken. The kernel gives out the lowest that is free.
fn under_number(wanted: u32) -> io::Result<File> {
    let mut lower = Vec::new();
    loop {
        let master = open::path(MASTER.as_ref(), (libc::O_RDWR | libc::O_NOCTTY) as u32)?;
        let index = terminal::index(master.as_fd())?;
        if index == wanted {
            return Ok(master);
        }
        if index > wanted || lower.len() as u32 > TRIES {
            tracing::warn!("/dev/pts/{wanted} is taken: /dev/pts/{index} takes its place");
            return Ok(master);
        }
        lower.push(master);
    }
}

fn set_up(master: &File, wanted: &Terminal) -> io::Result<()> {
    let fd = master.as_fd();
    terminal::set_locked(fd, false)?;
    if wanted.widowed {
        drop(terminal::open_slave(fd, (libc::O_RDWR | libc::O_NOCTTY) as u32)?);
    }
    terminal::set_modes(fd, &wanted.modes)?;
    terminal::set_window(fd, wanted.window)?;
    terminal::set_packet(fd, wanted.packet)?;
    let path = format!("/dev/pts/{}", terminal::index(fd)?);
    // Without privilege the slave belongs to whoever makes it, who is its owner then too.
    if nix::unistd::geteuid().is_root() {
        chown(&path, Some(wanted.uid), Some(wanted.gid))?;
    }
    std::fs::set_permissions(&path, Permissions::from_mode(wanted.mode))
}
