//! Namespaces of one's own, and the processes that stand in them.
#![allow(unsafe_code)]

use crate::image::model::id::Pid;
use std::ffi::CStr;
use std::io;

/// clone3(2) without a function to run: goes on in both processes. `None` in the child.
///
/// # Errors
/// As fork(2).
pub fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: every caller has no other thread, so that no lock is held by a thread that the child lacks, or makes nothing but system calls
    // in the child.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(Pid(pid))),
    }
}

/// unshare(2).
///
/// # Errors
/// As unshare(2).
pub fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: unshare takes an integer.
    done(unsafe { libc::unshare(flags) })
}

/// Gives this process, alone in a new mount and pid namespace, a /proc of its own; nobody outside sees it.
///
/// # Errors
/// As mount(2).
pub fn mount_proc() -> io::Result<()> {
    mount(c"none", c"/", None, libc::MS_REC | libc::MS_PRIVATE)?;
    mount(c"proc", c"/proc", Some(c"proc"), libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC)
}

fn mount(source: &CStr, target: &CStr, kind: Option<&CStr>, flags: libc::c_ulong) -> io::Result<()> {
    let kind = kind.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: all are strings; the kernel takes no data with these.
    done(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind, flags, std::ptr::null()) })
}

/// Ends this process at once, without running what std or libc would.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: nothing of this process is needed any more.
    unsafe { libc::_exit(code) }
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
