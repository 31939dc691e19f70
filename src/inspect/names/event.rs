//! Event descriptors, in a few words.

use super::{bits, tasks};
use crate::image::model::event::{Epoll, EpollItem, Pidfd, Timerfd};
use crate::inspect::text::nanos;

/// What an epoll instance watches. A number in brackets is that of a descriptor which may be another one by now.
#[must_use]
pub fn epoll(epoll: &Epoll) -> String {
    let name = |item: &EpollItem| {
        let manner = [
            (0x1000_0000, "exclusive"),
            (0x2000_0000, "wakeup"),
            (0x4000_0000, if item.is_disarmed() { "fired" } else { "one-shot" }),
            (0x8000_0000, "edge"),
        ];
        let manner = bits(u64::from(item.events & EpollItem::MANNER), &manner);
        if manner.is_empty() { item.fd.to_string() } else { format!("{} ({})", item.fd, manner.join(", ")) }
    };
    let watched: Vec<String> = epoll.items.iter().map(name).collect();
    format!("watches {}", if watched.is_empty() { "nothing".into() } else { watched.join(", ") })
}

/// When a timer fires.
#[must_use]
pub fn timerfd(timer: &Timerfd) -> String {
    let when = match (timer.value, timer.settime & 1) {
        (0, _) => "not armed".to_owned(),
        (value, 0) => format!("in {}", nanos(value)),
        (value, _) => format!("at {}", nanos(value)),
    };
    let every = if timer.interval == 0 { String::new() } else { format!(", every {}", nanos(timer.interval)) };
    let unread = if timer.ticks == 0 { String::new() } else { format!(", {} expirations unread", timer.ticks) };
    format!("{} {when}{every}{unread}", tasks::clock(timer.clock))
}

/// Whose it is.
#[must_use]
pub fn pidfd(pidfd: &Pidfd) -> String {
    match pidfd {
        Pidfd::Task(tid) => format!("task {tid}"),
        Pidfd::Gone(_) => "a task that is gone".to_owned(),
    }
}
