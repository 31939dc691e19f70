//! Event descriptors: eventfd(2), signalfd(2) and epoll(7), from what fdinfo shows of them.

use crate::image::model::file::{EpollItem, OpenObject};
use crate::image::model::id::{Fd, Tid};
use crate::proc::fdinfo::FdInfo;
use crate::sys::kcmp;

/// An eventfd.
///
/// # Errors
/// Why it cannot be saved.
pub fn eventfd(info: &FdInfo) -> Result<OpenObject, String> {
    let number = |key, radix| {
        let text = info.value(key).and_then(|value| std::str::from_utf8(value).ok())?;
        u64::from_str_radix(text, radix).ok()
    };
    let counter = number("eventfd-count", 16).ok_or("its counter cannot be read")?;
    // Kernels before 6.5 do not say.
    let semaphore = number("eventfd-semaphore", 10).ok_or("whether it is a semaphore is not told by this kernel")?;
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

/// An epoll instance. An item stays when its descriptor is closed and the file lives on: then no number leads to it.
///
/// # Errors
/// Why it cannot be saved.
pub fn epoll(tid: Tid, epoll: Fd, info: &FdInfo) -> Result<OpenObject, String> {
    let targets = info.epoll_targets().ok_or("what it watches cannot be read")?;
    let mut items = Vec::with_capacity(targets.len());
    for target in targets {
        let number = target.fd.0 as u32;
        match kcmp::watches(tid, epoll.0 as u32, number, number) {
            Ok(true) => items.push(EpollItem { fd: target.fd, events: target.events, data: target.data }),
            Ok(false) | Err(nix::errno::Errno::EBADF) => {
                return Err(format!("it watches a file whose descriptor {number} was closed or reused"));
            }
            Err(error) => {
                return Err(format!("whether descriptor {number} is what it watches cannot be told: {error}"));
            }
        }
    }
    Ok(OpenObject::Epoll(items))
}
