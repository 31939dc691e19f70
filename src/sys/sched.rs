//! How a task is scheduled: policy, I/O priority, core scheduling cookie.
#![allow(unsafe_code)]

use super::{Result, checked};
use crate::image::model::id::Tid;
use std::mem::offset_of;

/// `struct sched_attr` (include/uapi/linux/sched/types.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedAttr {
    /// Its length.
    pub size: u32,
    /// SCHED_*.
    pub policy: u32,
    /// SCHED_FLAG_*.
    pub flags: u64,
    /// Nice value of SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// Priority of SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// Nanoseconds.
    pub runtime: u64,
    /// Nanoseconds.
    pub deadline: u64,
    /// Nanoseconds.
    pub period: u64,
    /// Lower utilisation clamp.
    pub util_min: u32,
    /// Upper utilisation clamp.
    pub util_max: u32,
}

const _: () = assert!(size_of::<SchedAttr>() == 56);
const _: () = assert!(offset_of!(SchedAttr, runtime) == 24);
const _: () = assert!(offset_of!(SchedAttr, util_min) == 48);

/// sched_getattr(2).
///
/// # Errors
/// ESRCH, EPERM.
pub fn attributes(tid: Tid) -> Result<SchedAttr> {
    let mut attr = SchedAttr::default();
    // SAFETY: the kernel writes at most the given size to `attr`.
    checked(unsafe { libc::syscall(libc::SYS_sched_getattr, tid.0, &raw mut attr, size_of::<SchedAttr>(), 0) })?;
    Ok(attr)
}

/// sched_setattr(2).
///
/// # Errors
/// EPERM, EINVAL, EBUSY when a deadline cannot be admitted, ESRCH.
pub fn set_attributes(tid: Tid, attr: &SchedAttr) -> Result<()> {
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..*attr };
    // SAFETY: the kernel reads `size` bytes of `attr`.
    checked(unsafe { libc::syscall(libc::SYS_sched_setattr, tid.0, &raw const attr, 0) }).map(drop)
}

/// ioprio_get(2) of one task.
///
/// # Errors
/// ESRCH, EPERM.
pub fn io_priority(tid: Tid) -> Result<u32> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: ioprio_get takes no pointer.
    checked(unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, tid.0) }).map(|value| value as u32)
}

/// ioprio_set(2) of the calling thread.
///
/// # Errors
/// EPERM for the classes that take a privilege.
pub fn set_own_io_priority(priority: u32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: ioprio_set takes no pointer.
    checked(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) }).map(drop)
}

/// PR_SCHED_CORE_GET: a random number that tasks of one core scheduling group have in common; 0 for none.
///
/// # Errors
/// EINVAL on a kernel without core scheduling, ENODEV on a CPU without SMT, ESRCH, EPERM.
pub fn core_cookie(tid: Tid) -> Result<u64> {
    const PR_SCHED_CORE_GET: usize = 0;
    let mut cookie = 0u64;
    // SAFETY: the kernel writes one 64-bit word to `cookie`.
    unsafe { core_scheduling(PR_SCHED_CORE_GET, tid, &raw mut cookie) }?;
    Ok(cookie)
}

/// PR_SCHED_CORE_CREATE: gives a thread a cookie that nobody else has.
///
/// # Errors
/// As [`core_cookie`], and ENOMEM.
pub fn make_core_cookie(tid: Tid) -> Result<()> {
    const PR_SCHED_CORE_CREATE: usize = 1;
    // SAFETY: without a pointer.
    unsafe { core_scheduling(PR_SCHED_CORE_CREATE, tid, std::ptr::null_mut()) }
}

/// PR_SCHED_CORE_SHARE_TO: gives a thread the cookie of the calling one, or none if that has none.
///
/// # Errors
/// As [`core_cookie`].
pub fn give_core_cookie(to: Tid) -> Result<()> {
    const PR_SCHED_CORE_SHARE_TO: usize = 2;
    // SAFETY: without a pointer.
    unsafe { core_scheduling(PR_SCHED_CORE_SHARE_TO, to, std::ptr::null_mut()) }
}

/// PR_SCHED_CORE_SHARE_FROM: gives the calling thread the cookie of another one, or none if that has none.
///
/// # Errors
/// As [`core_cookie`].
pub fn take_core_cookie(from: Tid) -> Result<()> {
    const PR_SCHED_CORE_SHARE_FROM: usize = 3;
    // SAFETY: without a pointer.
    unsafe { core_scheduling(PR_SCHED_CORE_SHARE_FROM, from, std::ptr::null_mut()) }
}

/// PR_SCHED_CORE of one thread (PR_SCHED_CORE_SCOPE_THREAD).
///
/// # Safety
/// The kernel writes one word to `cookie`, where the command is PR_SCHED_CORE_GET; it must be null otherwise.
unsafe fn core_scheduling(command: usize, tid: Tid, cookie: *mut u64) -> Result<()> {
    const SCOPE_THREAD: usize = 0;
    // SAFETY: by the contract of this function.
    checked(i64::from(unsafe { libc::prctl(libc::PR_SCHED_CORE, command, tid.0 as usize, SCOPE_THREAD, cookie) }))
        .map(drop)
}

/// The nice value of a thread, which it has under every policy: sched_getattr(2) tells none of it for those of real time.
///
/// # Errors
/// ESRCH.
pub fn nice(tid: Tid) -> Result<i32> {
    // SAFETY: getpriority takes no pointer. The raw call returns 20 - nice, so that it is never negative.
    checked(unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, tid.0) }).map(|value| 20 - value as i32)
}

/// The nice value of the calling thread.
///
/// # Errors
/// None that is known.
pub fn own_nice() -> Result<i32> {
    nice(Tid(0))
}

/// Changes the nice value of the calling thread.
///
/// # Errors
/// EACCES when it would become more urgent without CAP_SYS_NICE.
pub fn set_own_nice(nice: i32) -> Result<()> {
    // SAFETY: setpriority takes no pointer.
    checked(unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, nice) }).map(drop)
}

/// Gives up the CPU to whoever waits for it.
pub fn yield_now() {
    // SAFETY: sched_yield takes no argument and cannot fail.
    unsafe { libc::sched_yield() };
}
