//! kcmp(2): whether two tasks share a kernel object, and an order of such objects.
#![allow(unsafe_code)]

use super::{Result, checked};
use crate::image::model::id::Tid;
use std::cmp::Ordering;

/// What to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Object {
    /// The open file descriptions behind two descriptors.
    File = 0,
    /// Address spaces.
    Vm = 1,
    /// Tables of descriptors.
    Files = 2,
    /// Working directory, root, umask.
    Fs = 3,
    /// Signal handlers.
    Sighand = 4,
    /// I/O contexts.
    Io = 5,
    /// System V semaphore undo lists.
    SysvSem = 6,
}

/// `struct kcmp_epoll_slot`.
#[repr(C)]
struct EpollSlot {
    efd: u32,
    tfd: u32,
    toff: u32,
}

const _: () = assert!(size_of::<EpollSlot>() == 12);

/// KCMP_EPOLL_TFD: whether descriptor `fd` of task `of` is open on the file that the epoll instance `epoll` of task `tid` watches as number `target`,
/// the `nth` of those with this number.
///
/// # Errors
/// ENOENT when it watches no such number, EBADF when `fd` is not open.
pub fn watches(tid: Tid, epoll: u32, (target, nth): (u32, u32), of: Tid, fd: u32) -> Result<bool> {
    const KCMP_EPOLL_TFD: libc::c_int = 7;
    let slot = EpollSlot { efd: epoll, tfd: target, toff: nth };
    let fd = libc::c_ulong::from(fd);
    // SAFETY: the kernel reads one kcmp_epoll_slot from the pointer.
    let order = checked(unsafe { libc::syscall(libc::SYS_kcmp, of.0, tid.0, KCMP_EPOLL_TFD, fd, &raw const slot) })?;
    Ok(order == 0)
}

/// Compares an object of two tasks; the indices are descriptors for [`Object::File`] and else unused. `Less` and `Greater` are
/// a total order that holds as long as the objects live. `None` when they differ and the kernel tells no order.
///
/// # Errors
/// EPERM, ESRCH, EBADF for a descriptor that is not open.
pub fn compare(a: Tid, b: Tid, object: Object, index_a: u32, index_b: u32) -> Result<Option<Ordering>> {
    // SAFETY: kcmp takes no pointer for these objects.
    let order = checked(unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            a.0,
            b.0,
            object as libc::c_int,
            libc::c_ulong::from(index_a),
            libc::c_ulong::from(index_b),
        )
    })?;
    Ok(match order {
        0 => Some(Ordering::Equal),
        1 => Some(Ordering::Less),
        2 => Some(Ordering::Greater),
        _ => None,
    })
}
