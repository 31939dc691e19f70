//! Event descriptors: what epoll(7) watches, timers of timerfd_create(2), pidfds.

use super::id::{DescriptionId, Fd, Tid};
use serde::{Deserialize, Serialize};

/// An epoll instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoll {
    /// What it watches, in the order of the kernel.
    pub items: Vec<EpollItem>,
    /// EPIOCSPARAMS; `None` on kernels without (before 6.9).
    pub busy_poll: Option<BusyPoll>,
}

/// One item of an epoll(7) instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpollItem {
    /// The descriptor through which the file was added. It may be closed since, or refer to something else.
    pub fd: Fd,
    /// What is watched.
    pub description: DescriptionId,
    /// EPOLL* bits.
    pub events: u32,
    /// What epoll_wait(2) gives back.
    pub data: u64,
}

impl EpollItem {
    /// EPOLLWAKEUP, EPOLLONESHOT, EPOLLET, EPOLLEXCLUSIVE: how, not what.
    pub const MANNER: u32 = 0xf000_0000;

    /// What can be waited for.
    pub const ANYTHING: u32 = 0x7ff;

    /// Whether it has fired once and waits to be armed again: an armed item always has EPOLLERR and EPOLLHUP.
    #[must_use]
    pub const fn is_disarmed(&self) -> bool {
        self.events & !Self::MANNER == 0
    }
}

/// `struct epoll_params`: busy polling of network devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusyPoll {
    /// Microseconds.
    pub usecs: u32,
    /// Packets.
    pub budget: u16,
    /// Whether it is preferred to interrupts.
    pub prefer: bool,
}

/// timerfd_create(2). Times are in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timerfd {
    /// CLOCK_*.
    pub clock: i32,
    /// TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET.
    pub settime: u32,
    /// When it fires next: on its clock with TFD_TIMER_ABSTIME, else from now on; 0 when disarmed.
    pub value: u64,
    /// Period, 0 for one shot.
    pub interval: u64,
    /// Expirations that nobody has read yet.
    pub ticks: u64,
}

/// What pidfd_open(2) gives; whether it means a thread is O_EXCL among the flags of the description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pidfd {
    /// Of a task of the image, which may have ended.
    Task(Tid),
    /// Of a task that was reaped, with its wait status where the kernel tells it.
    Gone(Option<i32>),
}
