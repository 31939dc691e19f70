//! ioctl_tty(2): what a terminal is told and tells through a descriptor of either of its ends.

#![allow(unsafe_code)]

use crate::image::model::terminal::TerminalModes;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};

// include/uapi/asm-generic/ioctls.h
const TCGETS2: u64 = 0x802c_542a;
const TCSETS2: u64 = 0x402c_542b;
const TIOCEXCL: u64 = 0x540c;
const TIOCGWINSZ: u64 = 0x5413;
const TIOCSWINSZ: u64 = 0x5414;
const FIONREAD: u64 = 0x541b;
const TIOCPKT: u64 = 0x5420;
const TIOCGPTN: u64 = 0x8004_5430;
const TIOCSPTLCK: u64 = 0x4004_5431;
const TIOCGDEV: u64 = 0x8004_5432;
const TIOCGPKT: u64 = 0x8004_5438;
const TIOCGPTLCK: u64 = 0x8004_5439;
const TIOCGEXCL: u64 = 0x8004_5440;
const TIOCGPTPEER: u64 = 0x5441;

/// Make a terminal the controlling one of the session that one leads.
pub const TIOCSCTTY: u64 = 0x540e;
/// Set the foreground process group.
pub const TIOCSPGRP: u64 = 0x5410;

/// `struct termios2` of asm/termbits.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Termios2 {
    flags: [u32; 4],
    line: u8,
    characters: [u8; 19],
    speeds: [u32; 2],
}

const _: () = assert!(size_of::<Termios2>() == 44);

/// # Safety
/// `argument` is what the request takes: a pointer that is valid for its type, or a number.
unsafe fn ioctl(fd: BorrowedFd<'_>, request: u64, argument: u64) -> io::Result<c_int> {
    // SAFETY: the caller's promise.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn get_int(fd: BorrowedFd<'_>, request: u64) -> io::Result<c_int> {
    let mut value: c_int = 0;
    // SAFETY: each of these requests writes one int.
    unsafe { ioctl(fd, request, (&raw mut value) as u64) }?;
    Ok(value)
}

fn set_int(fd: BorrowedFd<'_>, request: u64, value: c_int) -> io::Result<()> {
    // SAFETY: each of these requests reads one int.
    unsafe { ioctl(fd, request, (&raw const value) as u64) }.map(drop)
}

/// Modes, through either end.
///
/// # Errors
/// As ioctl_tty(2); EIO once the other end is closed for good.
pub fn modes(fd: BorrowedFd<'_>) -> io::Result<TerminalModes> {
    let mut raw = Termios2::default();
    // SAFETY: TCGETS2 writes one termios2.
    unsafe { ioctl(fd, TCGETS2, (&raw mut raw) as u64) }?;
    let Termios2 { flags, line, characters, speeds } = raw;
    Ok(TerminalModes { flags, line, characters, speeds })
}

/// Sets the modes at once.
///
/// # Errors
/// As [`modes`].
pub fn set_modes(fd: BorrowedFd<'_>, modes: &TerminalModes) -> io::Result<()> {
    let TerminalModes { flags, line, characters, speeds } = *modes;
    let raw = Termios2 { flags, line, characters, speeds };
    // SAFETY: TCSETS2 reads one termios2.
    unsafe { ioctl(fd, TCSETS2, (&raw const raw) as u64) }.map(drop)
}

/// Rows, columns, and both in pixels.
///
/// # Errors
/// As ioctl_tty(2).
pub fn window(fd: BorrowedFd<'_>) -> io::Result<[u16; 4]> {
    let mut window = [0_u16; 4];
    // SAFETY: TIOCGWINSZ writes four shorts.
    unsafe { ioctl(fd, TIOCGWINSZ, (&raw mut window) as u64) }?;
    Ok(window)
}

/// Sets them; the foreground group gets SIGWINCH if they change.
///
/// # Errors
/// As ioctl_tty(2).
pub fn set_window(fd: BorrowedFd<'_>, window: [u16; 4]) -> io::Result<()> {
    // SAFETY: TIOCSWINSZ reads four shorts.
    unsafe { ioctl(fd, TIOCSWINSZ, (&raw const window) as u64) }.map(drop)
}

/// Bytes that a read would give now, in canonical mode those of whole lines. What is on its way from the other end arrives first.
///
/// # Errors
/// As ioctl_tty(2), poll(2).
pub fn readable(fd: BorrowedFd<'_>) -> io::Result<usize> {
    // n_tty_poll() flushes the work that moves input into the line discipline.
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO)?;
    get_int(fd, FIONREAD).map(|count| count.max(0) as usize)
}

/// Whether a slave of this master was open and none is any more.
///
/// # Errors
/// As poll(2).
pub fn is_widowed(master: BorrowedFd<'_>) -> io::Result<bool> {
    says(master, PollFlags::POLLHUP)
}

/// Whether a status of packet mode waits at this master.
///
/// # Errors
/// As poll(2).
pub fn has_status(master: BorrowedFd<'_>) -> io::Result<bool> {
    says(master, PollFlags::POLLPRI)
}

fn says(fd: BorrowedFd<'_>, what: PollFlags) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd, what)];
    poll(&mut fds, PollTimeout::ZERO)?;
    Ok(fds[0].revents().unwrap_or(PollFlags::empty()).contains(what))
}

/// Number under /dev/pts, through the master.
///
/// # Errors
/// ENOTTY for anything but a master.
pub fn index(master: BorrowedFd<'_>) -> io::Result<u32> {
    get_int(master, TIOCGPTN).map(i32::cast_unsigned)
}

/// The device behind a descriptor of /dev/tty.
///
/// # Errors
/// As ioctl_tty(2).
pub fn device(fd: BorrowedFd<'_>) -> io::Result<u64> {
    get_int(fd, TIOCGDEV).map(|device| u64::from(device.cast_unsigned()))
}

/// TIOCGPKT, through the master.
///
/// # Errors
/// As ioctl_tty(2).
pub fn is_packet(master: BorrowedFd<'_>) -> io::Result<bool> {
    get_int(master, TIOCGPKT).map(|value| value != 0)
}

/// TIOCPKT.
///
/// # Errors
/// As ioctl_tty(2).
pub fn set_packet(master: BorrowedFd<'_>, packet: bool) -> io::Result<()> {
    set_int(master, TIOCPKT, c_int::from(packet))
}

/// TIOCGPTLCK.
///
/// # Errors
/// As ioctl_tty(2).
pub fn is_locked(master: BorrowedFd<'_>) -> io::Result<bool> {
    get_int(master, TIOCGPTLCK).map(|value| value != 0)
}

/// TIOCSPTLCK.
///
/// # Errors
/// As ioctl_tty(2).
pub fn set_locked(master: BorrowedFd<'_>, locked: bool) -> io::Result<()> {
    set_int(master, TIOCSPTLCK, c_int::from(locked))
}

/// TIOCGEXCL.
///
/// # Errors
/// As ioctl_tty(2).
pub fn is_exclusive(fd: BorrowedFd<'_>) -> io::Result<bool> {
    get_int(fd, TIOCGEXCL).map(|value| value != 0)
}

/// TIOCEXCL.
///
/// # Errors
/// As ioctl_tty(2).
pub fn set_exclusive(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCEXCL takes nothing.
    unsafe { ioctl(fd, TIOCEXCL, 0) }.map(drop)
}

/// Opens the slave with these flags of open(2), wherever devpts is mounted.
///
/// # Errors
/// As open(2); EIO while it is locked.
pub fn open_slave(master: BorrowedFd<'_>, flags: u32) -> io::Result<File> {
    // SAFETY: TIOCGPTPEER takes a number.
    let fd = unsafe { ioctl(master, TIOCGPTPEER, u64::from(flags)) }?;
    // SAFETY: it is new, and nobody else's.
    Ok(unsafe { File::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn both_ends_tell_the_same() {
        let flags = (libc::O_RDWR | libc::O_NOCTTY) as u32;
        let master = crate::sys::open::path("/dev/ptmx".as_ref(), flags).unwrap();
        assert!(is_locked(master.as_fd()).unwrap());
        set_locked(master.as_fd(), false).unwrap();
        let slave = open_slave(master.as_fd(), flags).unwrap();
        assert_eq!(device(slave.as_fd()).unwrap(), libc::makedev(136, index(master.as_fd()).unwrap()));
        let mut changed = modes(slave.as_fd()).unwrap();
        changed.characters[0] = 5;
        set_modes(slave.as_fd(), &changed).unwrap();
        assert_eq!(modes(master.as_fd()).unwrap(), changed);
        set_window(master.as_fd(), [7, 9, 0, 0]).unwrap();
        assert_eq!(window(slave.as_fd()).unwrap(), [7, 9, 0, 0]);
        assert_eq!(readable(master.as_fd()).unwrap(), 0);
        (&slave).write_all(b"abc").unwrap();
        assert_eq!(readable(master.as_fd()).unwrap(), 3);
        assert_eq!(readable(slave.as_fd()).unwrap(), 0);
    }
}
