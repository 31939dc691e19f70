//! A short-lived child under a chosen process id: what the kernel remembers of who did a thing, it then remembers of that id.
#![allow(unsafe_code)]

use super::skeleton::CloneArgs;
use crate::image::model::id::Pid;
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use std::io;

/// What a child ends with that was ended by a signal.
const KILLED: i32 = 255;

/// Runs `body`, which makes nothing but system calls and allocates nothing, in a child with this id, or with any other where that is taken. Returns
/// what it returned, of which 8 bits count; the child is gone then.
///
/// # Errors
/// As clone3(2).
pub fn run(pid: Option<Pid>, body: &dyn Fn() -> i32) -> io::Result<i32> {
    let child = match pid.map(|pid| clone(Some(pid), body)) {
        Some(Ok(child)) => child,
        // Taken, beyond the limit, or not ours to choose.
        Some(Err(_)) | None => clone(None, body)?,
    };
    loop {
        match waitpid(nix::unistd::Pid::from_raw(child.0), None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(code),
            Ok(_) => return Ok(KILLED),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn clone(pid: Option<Pid>, body: &dyn Fn() -> i32) -> io::Result<Pid> {
    let wanted = pid.map_or(0, |pid| pid.0);
    let parent = nix::unistd::getpid();
    let args = CloneArgs {
        exit_signal: libc::SIGCHLD as u64,
        set_tid: if pid.is_some() { (&raw const wanted) as u64 } else { 0 },
        set_tid_size: u64::from(pid.is_some()),
        ..CloneArgs::default()
    };
    // SAFETY: as fork(2): the child has a copy of our memory and of our stack, and the caller's `body` makes nothing but system calls.
    let child = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match child {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: takes numbers alone.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            let code = if nix::unistd::getppid() == parent { body() } else { KILLED };
            // SAFETY: ends the child, of which nothing is needed any more.
            unsafe { libc::_exit(code) }
        }
        child => Ok(Pid(child as i32)),
    }
}

/// Takes the effective ids of somebody else, and keeps all capabilities. For a child that is soon gone.
///
/// # Errors
/// As setresuid(2).
pub fn become_user(uid: u32, gid: u32) -> super::Result<()> {
    const SECBIT_NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
    // SAFETY: all of these take numbers alone. The raw calls are of this thread, the only one of its process.
    unsafe {
        libc::prctl(libc::PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP);
        super::checked(libc::syscall(libc::SYS_setresgid, -1, gid, -1))?;
        super::checked(libc::syscall(libc::SYS_setresuid, -1, uid, -1)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_ends_with_what_its_body_returns() {
        assert_eq!(run(None, &|| 7).unwrap(), 7);
        // Our own id is taken: it gets another.
        let own = nix::unistd::getpid();
        let other = move || i32::from(nix::unistd::getpid() != own);
        assert_eq!(run(Some(Pid(own.as_raw())), &other).unwrap(), 1);
    }
}
