//! Event descriptors: timerfd_create(2), parameters of epoll(7), pidfds of what has ended.
#![allow(unsafe_code)]

use super::open::owned;
use super::{Result, checked};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

// include/uapi/linux/eventpoll.h
const EPIOCSPARAMS: libc::c_ulong = 0x4008_8a01;
const EPIOCGPARAMS: libc::c_ulong = 0x8008_8a02;
// include/uapi/linux/timerfd.h
const TFD_IOC_SET_TICKS: libc::c_ulong = 0x4008_5400;
// include/uapi/linux/pidfd.h: `struct pidfd_info` has 64 bytes in its first version.
const PIDFD_GET_INFO: libc::c_ulong = 0xc040_ff0b;
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// TFD_IOC_SET_TICKS, for a script.
pub const SET_TICKS: u64 = TFD_IOC_SET_TICKS;

/// `struct epoll_params`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EpollParams {
    /// Microseconds of busy polling.
    pub busy_poll_usecs: u32,
    /// Packets.
    pub busy_poll_budget: u16,
    /// Whether polling is preferred to interrupts.
    pub prefer_busy_poll: u8,
    padding: u8,
}

const _: () = assert!(size_of::<EpollParams>() == 8);

impl EpollParams {
    /// Parameters to set.
    #[must_use]
    pub const fn new(busy_poll_usecs: u32, busy_poll_budget: u16, prefer: bool) -> Self {
        Self { busy_poll_usecs, busy_poll_budget, prefer_busy_poll: prefer as u8, padding: 0 }
    }
}

/// EPIOCGPARAMS; `None` on kernels without.
#[must_use]
pub fn epoll_params(epoll: BorrowedFd<'_>) -> Option<EpollParams> {
    let mut params = EpollParams::default();
    // SAFETY: EPIOCGPARAMS writes one epoll_params to the pointer, which is valid for it.
    let rc = unsafe { libc::ioctl(epoll.as_raw_fd(), EPIOCGPARAMS, &raw mut params) };
    (rc >= 0).then_some(params)
}

/// EPIOCSPARAMS.
///
/// # Errors
/// As ioctl_eventpoll(2): EPERM for a large budget without CAP_NET_ADMIN.
pub fn set_epoll_params(epoll: &File, params: EpollParams) -> io::Result<()> {
    // SAFETY: EPIOCSPARAMS reads one epoll_params from the pointer, which is valid for it.
    let rc = unsafe { libc::ioctl(epoll.as_raw_fd(), EPIOCSPARAMS, &raw const params) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// socketpair(2) of datagrams, close-on-exec.
///
/// # Errors
/// As socketpair(2).
pub fn datagram_pair() -> io::Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two descriptors to the array.
    let made =
        unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()) };
    let [one, other] = if made < 0 { [made; 2] } else { ends };
    Ok((owned(one)?, owned(other)?))
}

/// timerfd_create(2).
///
/// # Errors
/// As timerfd_create(2).
pub fn timerfd(clock: i32) -> io::Result<File> {
    // SAFETY: takes integers; the result is ours.
    owned(unsafe { libc::timerfd_create(clock, libc::TFD_CLOEXEC) })
}

/// timerfd_gettime(2): nanoseconds until it fires next. A periodic timer that has fired counts what it has missed and goes on.
///
/// # Errors
/// As timerfd_gettime(2).
pub fn timer_remaining(timer: BorrowedFd<'_>) -> io::Result<u64> {
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut value = libc::itimerspec { it_interval: zero, it_value: zero };
    // SAFETY: the kernel writes one itimerspec to the pointer, which is valid for it.
    match unsafe { libc::timerfd_gettime(timer.as_raw_fd(), &raw mut value) } {
        0 => Ok(value.it_value.tv_sec as u64 * 1_000_000_000 + value.it_value.tv_nsec as u64),
        _ => Err(io::Error::last_os_error()),
    }
}

/// timerfd_settime(2), with what is left, or the time on its clock with TFD_TIMER_ABSTIME, and the period.
///
/// # Errors
/// As timerfd_settime(2).
pub fn set_timer(timer: BorrowedFd<'_>, flags: u32, value: u64, interval: u64) -> Result<()> {
    let time =
        |nanos: u64| libc::timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 };
    let new = libc::itimerspec { it_interval: time(interval), it_value: time(value) };
    let (fd, old) = (timer.as_raw_fd(), std::ptr::null_mut());
    // SAFETY: the kernel reads one itimerspec from the pointer, which is valid for it, and writes nothing to a null one.
    checked(unsafe { libc::timerfd_settime(fd, flags.cast_signed(), &raw const new, old) }.into()).map(drop)
}

/// TFD_IOC_SET_TICKS: expirations that nobody has read.
///
/// # Errors
/// As ioctl(2): ENOTTY without CONFIG_CHECKPOINT_RESTORE.
pub fn set_ticks(timer: BorrowedFd<'_>, ticks: u64) -> Result<()> {
    // SAFETY: the kernel reads one word from the pointer, which is valid for it.
    checked(unsafe { libc::ioctl(timer.as_raw_fd(), TFD_IOC_SET_TICKS, &raw const ticks) }.into()).map(drop)
}

/// An item of an epoll(7) instance: what it is called there, which events, and what epoll_wait(2) gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The number under which the file is added.
    pub number: i32,
    /// EPOLL* bits.
    pub events: u32,
    /// What epoll_wait(2) gives back.
    pub data: u64,
}

/// EPOLL_CTL_ADD of a file under a number that it is given for that, whoever has it. Makes system calls alone.
///
/// # Errors
/// As dup3(2) and epoll_ctl(2).
pub fn watch_as(epoll: BorrowedFd<'_>, file: BorrowedFd<'_>, item: Watched) -> Result<()> {
    // SAFETY: takes numbers alone; who had the number before is the caller's concern.
    checked(unsafe { libc::dup3(file.as_raw_fd(), item.number, libc::O_CLOEXEC) }.into())?;
    control(epoll, libc::EPOLL_CTL_ADD, item)
}

/// EPOLL_CTL_MOD.
///
/// # Errors
/// As epoll_ctl(2).
pub fn watch_otherwise(epoll: BorrowedFd<'_>, item: Watched) -> Result<()> {
    control(epoll, libc::EPOLL_CTL_MOD, item)
}

fn control(epoll: BorrowedFd<'_>, operation: i32, Watched { number, events, data }: Watched) -> Result<()> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: the kernel reads one epoll_event from the pointer, which is valid for it.
    checked(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, number, &raw mut event) }.into()).map(drop)
}

/// Takes one event of an epoll(7) instance, if there is one now. Makes system calls alone.
///
/// # Errors
/// As epoll_wait(2).
pub fn take_event(epoll: BorrowedFd<'_>) -> Result<bool> {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: the kernel writes at most one epoll_event to the pointer, which is valid for it.
    checked(unsafe { libc::epoll_wait(epoll.as_raw_fd(), &raw mut event, 1, 0) }.into()).map(|count| count == 1)
}

/// Whether expirations can be given back (TFD_IOC_SET_TICKS, CONFIG_CHECKPOINT_RESTORE).
#[must_use]
pub fn has_timer_ticks() -> bool {
    let one = 1_u64;
    timerfd(libc::CLOCK_MONOTONIC).is_ok_and(|timer| {
        // SAFETY: the kernel reads one word from the pointer, which is valid for it.
        unsafe { libc::ioctl(timer.as_raw_fd(), TFD_IOC_SET_TICKS, &raw const one) == 0 }
    })
}

/// Nanoseconds on a clock.
///
/// # Errors
/// As clock_gettime(2).
pub fn now(clock: i32) -> io::Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec to the pointer, which is valid for it.
    match unsafe { libc::clock_gettime(clock, &raw mut time) } {
        0 => Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the kernel lets this process hold off the sleep of the machine (EPOLLWAKEUP, which it else drops in silence).
#[must_use]
pub fn may_hold_off_sleep() -> bool {
    let watch = || -> io::Result<bool> {
        let (epoll, event) = (super::open::epoll()?, super::open::eventfd(0, false)?);
        let mut item = libc::epoll_event { events: libc::EPOLLWAKEUP as u32, u64: 0 };
        // SAFETY: the kernel reads one epoll_event from the pointer, which is valid for it.
        if unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, event.as_raw_fd(), &raw mut item) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", epoll.as_raw_fd()))?;
        let events = told.lines().find_map(|line| line.split_once("events:"));
        let events = events.and_then(|(_, rest)| u32::from_str_radix(rest.split_whitespace().next()?, 16).ok());
        Ok(events.is_some_and(|events| events & libc::EPOLLWAKEUP as u32 != 0))
    };
    watch().unwrap_or(false)
}

/// The wait status of a task that was reaped, where the kernel tells it (PIDFD_GET_INFO, since Linux 6.15).
#[must_use]
pub fn status_of_gone(pidfd: BorrowedFd<'_>) -> Option<i32> {
    // `struct pidfd_info`: the mask first, the status last.
    let mut info = [0_u64; 8];
    info[0] = PIDFD_INFO_EXIT;
    // SAFETY: the kernel reads and writes 64 bytes at the pointer, which is valid for them.
    let rc = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (rc >= 0 && info[0] & PIDFD_INFO_EXIT != 0).then_some((info[7] >> 32) as i32)
}

/// A pidfd of a child that has ended with this wait status and was reaped.
///
/// # Errors
/// As clone(2), pidfd_open(2).
pub fn pidfd_of_gone(status: i32, flags: u32) -> io::Result<File> {
    // SAFETY: without a signal at its end and without shared memory, this is fork(2) whose child only a wait for clones sees; it makes system
    // calls alone.
    let pid = unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) };
    if pid == 0 {
        end_as(status);
    }
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes integers.
    let pidfd = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, flags) } as libc::c_int);
    // SAFETY: the child is ours, and nobody else waits for it.
    while unsafe { libc::waitpid(pid as libc::pid_t, std::ptr::null_mut(), libc::__WALL) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    pidfd
}

/// Ends this process with a wait status, without a core.
fn end_as(status: i32) -> ! {
    let signal = status & 0x7f;
    // SAFETY: these calls take integers and memory of this function alone; the process is a child that does nothing else.
    unsafe {
        if signal != 0 {
            libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
            let default = std::mem::zeroed::<libc::sigaction>();
            libc::sigaction(signal, &raw const default, std::ptr::null_mut());
            let mut mask = std::mem::zeroed::<libc::sigset_t>();
            libc::sigaddset(&raw mut mask, signal);
            libc::sigprocmask(libc::SIG_UNBLOCK, &raw const mask, std::ptr::null_mut());
            libc::kill(libc::getpid(), signal);
        }
        libc::_exit(status >> 8 & 0xff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_pidfd_of_what_has_ended_keeps_its_status() {
        for status in [0, 7 << 8, libc::SIGKILL, libc::SIGTERM] {
            let pidfd = pidfd_of_gone(status, 0).unwrap();
            let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
            assert!(told.contains("Pid:\t-1"), "{told}");
            if let Some(kept) = status_of_gone(pidfd.as_fd()) {
                assert_eq!(kept, status);
            }
        }
    }

    #[test]
    fn the_time_that_is_left() {
        let timer = timerfd(libc::CLOCK_MONOTONIC).unwrap();
        assert_eq!(timer_remaining(timer.as_fd()).unwrap(), 0);
        assert!(now(libc::CLOCK_MONOTONIC).unwrap() > 0);
    }
}
