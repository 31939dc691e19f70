//! Event descriptors: eventfd(2), signalfd(2), timerfd_create(2), pidfd_open(2) and epoll(7), from what fdinfo shows of them.

use crate::image::model::event::{BusyPoll, Epoll, Pidfd, Timerfd};
use crate::image::model::file::OpenObject;
use crate::image::model::id::{Fd, Tid};
use crate::proc::TaskDir;
use crate::proc::fdinfo::{self, FdInfo};
use crate::sys::event;
use std::collections::HashSet;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// An eventfd. Before Linux 6.5 nobody can see whether it is a semaphore; then it is none if the user says that there are only `plain` ones.
///
/// # Errors
/// Why it cannot be saved.
pub fn eventfd(info: &FdInfo, plain: bool) -> Result<OpenObject, String> {
    let number = |key, radix| {
        let text = info.value(key).and_then(|value| std::str::from_utf8(value).ok())?;
        u64::from_str_radix(text, radix).ok()
    };
    let counter = number("eventfd-count", 16).ok_or("its counter cannot be read")?;
    let semaphore = number("eventfd-semaphore", 10).or(plain.then_some(0)).ok_or(
        "whether it is a semaphore (EFD_SEMAPHORE, which few programs use) is told by Linux 6.5 or newer; --plain-eventfds says that it is none",
    )?;
    Ok(OpenObject::Eventfd { counter, semaphore: semaphore != 0 })
}

/// A signalfd.
///
/// # Errors
/// Why it cannot be saved.
pub fn signalfd(info: &FdInfo) -> Result<OpenObject, String> {
    let text = info.value("sigmask").and_then(|value| std::str::from_utf8(value).ok());
    let mask = text.and_then(|text| u64::from_str_radix(text, 16).ok()).ok_or("its signals cannot be read")?;
    Ok(OpenObject::Signalfd(mask))
}

/// A timerfd. One that is periodic and has fired stands still until somebody asks for it; then it counts what it has missed and goes on, which
/// no reader can tell from having been asked later.
///
/// # Errors
/// Why it cannot be saved.
pub fn timerfd(file: &File, info: &FdInfo) -> Result<OpenObject, String> {
    /// How late the interrupt of a timer may come.
    const LATE: Duration = Duration::from_micros(500);
    let mut timer = parse_timerfd(info).ok_or("its state cannot be read")?;
    let mut now = clock_now(timer.clock)?;
    let look = || {
        let own = TaskDir::current().and_then(|this| fdinfo::read(&this, Fd(file.as_raw_fd()), &mut Vec::new()));
        let own = own.map_err(|error| format!("its state cannot be read: {error}"))?;
        parse_timerfd(&own).ok_or_else(|| "its state cannot be read".to_owned())
    };
    // One whose time has come and whose interrupt has not looks like one that is not armed.
    let begun = Instant::now();
    while timer.value == 0 && timer.ticks == 0 && begun.elapsed() < LATE {
        std::thread::sleep(LATE / 10);
        now = clock_now(timer.clock)?;
        timer = look()?;
    }
    if timer.value == 0 && timer.interval != 0 && timer.ticks != 0 {
        event::timer_remaining(file.as_fd()).map_err(|error| format!("timerfd_gettime: {error}"))?;
        now = clock_now(timer.clock)?;
        timer = look()?;
    }
    if timer.value != 0 && timer.settime & libc::TFD_TIMER_ABSTIME as u32 != 0 {
        timer.value = timer.value.saturating_add(now);
    }
    Ok(OpenObject::Timerfd(timer))
}

/// The clocks that wake a sleeping machine are those that they are named after.
fn clock_now(clock: i32) -> Result<u64, String> {
    let clock = match clock {
        libc::CLOCK_REALTIME_ALARM => libc::CLOCK_REALTIME,
        libc::CLOCK_BOOTTIME_ALARM => libc::CLOCK_BOOTTIME,
        other => other,
    };
    event::now(clock).map_err(|error| format!("its clock {clock} cannot be read: {error}"))
}

/// What fdinfo says, with the time that is left as the value.
fn parse_timerfd(info: &FdInfo) -> Option<Timerfd> {
    let text = |key| std::str::from_utf8(info.value(key)?).ok();
    let time = |key| {
        let (seconds, nanoseconds) = text(key)?.strip_prefix('(')?.strip_suffix(')')?.split_once(", ")?;
        seconds.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanoseconds.parse().ok()?)
    };
    Some(Timerfd {
        clock: text("clockid")?.parse().ok()?,
        settime: u32::from_str_radix(text("settime flags")?, 8).ok()?,
        value: time("it_value")?,
        interval: time("it_interval")?,
        ticks: text("ticks")?.parse().ok()?,
    })
}

/// A pidfd. `inside` are the tasks of the tree.
///
/// # Errors
/// Why it cannot be saved.
pub fn pidfd(file: &File, info: &FdInfo, inside: &HashSet<Tid>) -> Result<OpenObject, String> {
    let pid = info.value("Pid").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    match pid.ok_or("whose it is cannot be read")? {
        -1 => Ok(OpenObject::Pidfd(Pidfd::Gone(event::status_of_gone(file.as_fd())))),
        0 => Err("it means a process in another pid namespace".into()),
        pid if inside.contains(&Tid(pid)) => Ok(OpenObject::Pidfd(Pidfd::Task(Tid(pid)))),
        pid => {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            Err(format!("it means pid {pid} ({}), which is outside", name.trim_end()))
        }
    }
}

/// An epoll instance whose items are found later, once every descriptor is known.
pub fn epoll(file: &File) -> OpenObject {
    let busy_poll = event::epoll_params(file.as_fd()).map(|params| BusyPoll {
        usecs: params.busy_poll_usecs,
        budget: params.busy_poll_budget,
        prefer: params.prefer_busy_poll != 0,
    });
    OpenObject::Epoll(Epoll { items: Vec::new(), busy_poll })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timerfd_tells_its_times() {
        let text = b"pos:\t0\nflags:\t02\nmnt_id:\t17\nino:\t1038\nclockid: 7\nticks: 3\nsettime flags: 03\n\
            it_value: (1, 29764997)\nit_interval: (0, 50000000)\n";
        let info = fdinfo::parse(text).unwrap();
        let timer = Timerfd { clock: 7, settime: 3, value: 1_029_764_997, interval: 50_000_000, ticks: 3 };
        assert_eq!(parse_timerfd(&info), Some(timer));
    }
}
