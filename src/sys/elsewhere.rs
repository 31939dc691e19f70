//! Calls made by a child of ours that has our descriptors, and another pid, root directory or user: the kernel notes who has made them.
#![allow(unsafe_code)]

use super::skeleton::CloneArgs;
use super::{Result, checked};
use std::ffi::CString;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

/// What is other about the child.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// Its pid.
    pub pid: Option<i32>,
    /// Its root directory, and where it is below that.
    pub root: Option<(CString, CString)>,
    /// Its effective user and group.
    pub user: Option<(u32, u32)>,
    /// Whether it keeps its capabilities as that user.
    pub keeps_capabilities: bool,
    /// Its supplementary groups.
    pub groups: Option<Vec<u32>>,
    /// Whether it has a copy of our descriptors, in which it may put what it likes under any number.
    pub own_descriptors: bool,
}

/// Why nothing came of it.
#[derive(Debug)]
pub enum Failure {
    /// There could be no such child: clone3(2), where EEXIST says that the pid is taken.
    Birth(io::Error),
    /// It could not become what it was to be: chroot(2), setgroups(2), setresuid(2).
    Entry(io::Error),
    /// A call of it has failed.
    Call(io::Error),
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Birth(error) | Failure::Entry(error) | Failure::Call(error) => error,
        }
    }
}

/// What both have: whether the child got so far, an errno, and what its calls gave.
#[derive(Clone, Copy)]
struct Board<'a> {
    entered: &'a AtomicI32,
    error: &'a AtomicI32,
    values: &'a [AtomicI32],
}

/// Has the child make calls that give `count` values, and waits for its end. `calls` must make system calls alone: the child is a copy of one thread
/// of ours. Descriptors that it opens are ours too, unless it has its own. It is in the time namespace of our children.
///
/// # Errors
/// See [`Failure`].
pub fn call(
    place: &Elsewhere,
    count: usize,
    calls: impl FnOnce(&[AtomicI32]) -> Result<()>,
) -> std::result::Result<Vec<i32>, Failure> {
    let len = (count + 2) * size_of::<AtomicI32>();
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping takes nobody's memory.
    let shared = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
    if shared == libc::MAP_FAILED {
        return Err(Failure::Birth(io::Error::last_os_error()));
    }
    // SAFETY: the mapping has so many, which are zero, and lives until it is unmapped below.
    let words: &[AtomicI32] = unsafe { std::slice::from_raw_parts(shared.cast(), count + 2) };
    let board = Board { entered: &words[0], error: &words[1], values: &words[2..] };
    board.error.store(libc::EIO, Ordering::SeqCst);
    let done = run(place, calls, board);
    let error = board.error.load(Ordering::SeqCst);
    let entered = board.entered.load(Ordering::SeqCst) != 0;
    let values = board.values.iter().map(|value| value.load(Ordering::SeqCst)).collect();
    // SAFETY: the mapping is ours, and no reference into it is used any more.
    unsafe { libc::munmap(shared, len) };
    done.map_err(|errno| Failure::Birth(errno.into()))?;
    match (error, entered) {
        (0, _) => Ok(values),
        (error, true) => Err(Failure::Call(io::Error::from_raw_os_error(error))),
        (error, false) => Err(Failure::Entry(io::Error::from_raw_os_error(error))),
    }
}

fn run(place: &Elsewhere, calls: impl FnOnce(&[AtomicI32]) -> Result<()>, board: Board<'_>) -> Result<()> {
    let wanted = place.pid.unwrap_or(0);
    let args = CloneArgs {
        flags: if place.own_descriptors { 0 } else { libc::CLONE_FILES as u64 },
        set_tid: if place.pid.is_some() { (&raw const wanted) as u64 } else { 0 },
        set_tid_size: u64::from(place.pid.is_some()),
        ..CloneArgs::default()
    };
    // SAFETY: as fork(2): without a stack of its own the child goes on with a copy of this one.
    let child = checked(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })?;
    if child == 0 {
        // SAFETY: takes numbers alone.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let entered = enter(place);
        board.entered.store(entered.is_ok().into(), Ordering::SeqCst);
        let error = entered.and_then(|()| calls(board.values)).map_or_else(|errno| errno as i32, |()| 0);
        board.error.store(error, Ordering::SeqCst);
        // SAFETY: ends this process.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes one int to the pointer.
        match checked(unsafe { libc::waitpid(child as i32, &raw mut status, libc::__WALL) }.into()) {
            Err(nix::errno::Errno::EINTR) => {}
            // Where SIGCHLD is ignored nothing is left to be reaped.
            _ => return Ok(()),
        }
    }
}

fn enter(place: &Elsewhere) -> Result<()> {
    const SECBIT_NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
    if let Some((root, directory)) = &place.root {
        // SAFETY: both are strings.
        unsafe {
            checked(libc::chroot(root.as_ptr()).into())?;
            checked(libc::chdir(directory.as_ptr()).into())?;
        }
    }
    // Not the C library's functions, which would have all threads do it.
    if let Some(groups) = &place.groups {
        // SAFETY: the kernel reads so many ids.
        checked(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    }
    if let Some((uid, gid)) = place.user {
        // SAFETY: all of these take numbers alone.
        unsafe {
            if place.keeps_capabilities {
                checked(libc::prctl(libc::PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP).into())?;
            }
            checked(libc::syscall(libc::SYS_setresgid, -1, gid, -1))?;
            checked(libc::syscall(libc::SYS_setresuid, -1, uid, -1))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    #[test]
    fn what_the_child_says_comes_back() {
        let pid = std::process::id() as i32;
        let said = call(&Elsewhere::default(), 2, |values| {
            values[1].store(nix::unistd::getppid().as_raw(), Ordering::SeqCst);
            Ok(())
        });
        assert_eq!(said.unwrap(), [0, pid]);
        let refused = call(&Elsewhere::default(), 0, |_| Err(Errno::ENOTDIR));
        assert!(matches!(refused, Err(Failure::Call(error)) if error.raw_os_error() == Some(libc::ENOTDIR)));
        let nowhere = Elsewhere { root: Some((c"/nonexistent".into(), c"/".into())), ..Elsewhere::default() };
        assert!(matches!(call(&nowhere, 0, |_| Ok(())), Err(Failure::Entry(_))));
    }
}
