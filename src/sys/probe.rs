//! Trying kernel features out, each in a child of its own where it would change the caller.
//!
//! Every function makes the real call and hands back the kernel's answer; what it means, the caller says.
#![allow(unsafe_code)]

use super::{Result, checked};
use crate::image::model::id::{Pid, Tid};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const PAGE: usize = 4096;

/// Runs `probe` in a forked child and hands back what it returned.
///
/// # Errors
/// The errno of `probe`; that of fork(2) or pipe(2); ECHILD if the child died of what it tried.
pub fn in_child(probe: impl FnOnce() -> Result<u64>) -> Result<u64> {
    let (reader, writer) = nix::unistd::pipe()?;
    // SAFETY: the child runs `probe` and _exit alone. A caller with threads may hold locks of the allocator; glibc and
    // musl take care of theirs across fork.
    match checked(unsafe { libc::fork() }.into())? {
        0 => {
            let (tag, value) = match probe() {
                Ok(value) => (0u64, value),
                Err(errno) => (1, errno as u64),
            };
            let mut answer = [0; 16];
            answer[..8].copy_from_slice(&tag.to_le_bytes());
            answer[8..].copy_from_slice(&value.to_le_bytes());
            let _ = nix::unistd::write(&writer, &answer);
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(0) }
        }
        child => {
            drop(writer);
            let mut answer = [0u64; 2];
            let mut bytes = [0u8; 16];
            let told = fs::File::from(reader).read_exact(&mut bytes);
            reap(Pid(child as i32));
            for (word, chunk) in answer.iter_mut().zip(bytes.chunks_exact(8)) {
                *word = chunk.try_into().map_or(0, u64::from_le_bytes);
            }
            match (told, answer) {
                (Ok(()), [0, value]) => Ok(value),
                (Ok(()), [_, errno]) => Err(Errno::from_raw(errno as i32)),
                (Err(_), _) => Err(Errno::ECHILD),
            }
        }
    }
}

fn reap(child: Pid) {
    while waitpid(nix::unistd::Pid::from_raw(child.0), None) == Err(Errno::EINTR) {}
}

/// A child that does nothing, under a seccomp filter that allows everything; it is killed and reaped in `Drop`.
#[derive(Debug)]
pub struct Victim(Pid);

impl Victim {
    /// Makes one. It dies with us, whatever happens. Its filter stands when this returns.
    ///
    /// # Errors
    /// fork(2), pipe(2).
    pub fn new() -> Result<Self> {
        let (reader, writer) = nix::unistd::pipe()?;
        // SAFETY: the child calls prctl, write and pause alone.
        match checked(unsafe { libc::fork() }.into())? {
            0 => {
                // SAFETY: none of these takes a pointer but the filter, which lives for the call.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    allow_everything();
                    libc::write(writer.as_raw_fd(), [1u8].as_ptr().cast(), 1);
                    loop {
                        libc::pause();
                    }
                }
            }
            child => {
                let victim = Self(Pid(child as i32));
                drop(writer);
                let mut byte = [0];
                fs::File::from(reader).read_exact(&mut byte).map_err(|_| Errno::ECHILD)?;
                Ok(victim)
            }
        }
    }

    /// Its process.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.0
    }

    /// Its thread.
    #[must_use]
    pub const fn tid(&self) -> Tid {
        self.0.leader()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = kill(nix::unistd::Pid::from_raw(self.0.0), Signal::SIGKILL);
        reap(self.0);
    }
}

/// Installs `return SECCOMP_RET_ALLOW`; where the kernel has no seccomp the probe will tell.
fn allow_everything() {
    let filter = [libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 }];
    let program = libc::sock_fprog { len: 1, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program and its one instruction live for the call, and the kernel only reads them.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program);
    }
}

/// Features of a userfaultfd for faults of user space alone, which needs no privilege: the bits of `struct uffdio_api.features`.
///
/// # Errors
/// ENOSYS.
pub fn userfaultfd() -> Result<u64> {
    const UFFD_USER_MODE_ONLY: libc::c_int = 1;
    /// `_IOWR(0xAA, 0x3f, struct uffdio_api)`, whose three words are `api`, `features` and `ioctls`.
    const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
    // SAFETY: userfaultfd takes no pointer and returns a descriptor that is ours.
    let fd = unsafe {
        let raw = checked(libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | UFFD_USER_MODE_ONLY))?;
        OwnedFd::from_raw_fd(raw as i32)
    };
    let mut api = [0xaau64, 0, 0];
    // SAFETY: the kernel reads and writes the 24 bytes of `api`.
    checked(unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_API, api.as_mut_ptr()) }.into())?;
    Ok(api[1])
}

/// Makes a child with a pid of our choice, the highest free one; returns it.
///
/// # Errors
/// EPERM without CAP_CHECKPOINT_RESTORE, EINVAL before kernel 5.5.
pub fn set_tid(pid_max: i32) -> Result<u64> {
    for pid in (2..pid_max).rev().take(64) {
        match clone_with(pid) {
            Err(Errno::EEXIST) => {}
            other => return other,
        }
    }
    Err(Errno::EEXIST)
}

fn clone_with(pid: i32) -> Result<u64> {
    let args = super::skeleton::CloneArgs {
        exit_signal: libc::SIGCHLD as u64,
        set_tid: (&raw const pid) as u64,
        set_tid_size: 1,
        ..Default::default()
    };
    // SAFETY: without CLONE_VM this is a fork; the child does nothing but _exit.
    let child = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    match checked(child)? {
        // SAFETY: ends the child.
        0 => unsafe { libc::_exit(0) },
        child => {
            reap(Pid(child as i32));
            Ok(child as u64)
        }
    }
}

/// The size of `struct prctl_mm_map` that this kernel takes.
///
/// # Errors
/// EINVAL without CONFIG_CHECKPOINT_RESTORE.
pub fn mm_map_size() -> Result<u64> {
    const PR_SET_MM_MAP_SIZE: libc::c_int = 15;
    let mut size = 0u32;
    // SAFETY: the kernel writes one u32 to `size`.
    checked(unsafe { libc::prctl(libc::PR_SET_MM, PR_SET_MM_MAP_SIZE, &raw mut size, 0, 0) }.into())?;
    Ok(u64::from(size))
}

/// Asks for another vdso at an address that is in use: EEXIST says that the call is there.
///
/// # Errors
/// EEXIST while a vdso is mapped; EINVAL without CONFIG_CHECKPOINT_RESTORE.
pub fn map_vdso() -> Result<u64> {
    const ARCH_MAP_VDSO_64: libc::c_int = 0x2003;
    // SAFETY: in the worst case it maps a second vdso where nothing else is.
    checked(unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_MAP_VDSO_64, 0x1000_0000_0000u64) })
        .map(|size| size as u64)
}

/// Seals a page of its own.
///
/// # Errors
/// ENOSYS before kernel 6.10.
pub fn mseal() -> Result<u64> {
    const SYS_MSEAL: libc::c_long = 462;
    let page = map(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, PAGE)?;
    // SAFETY: the page is ours; it can never be unmapped again, so this runs in a child.
    checked(unsafe { libc::syscall(SYS_MSEAL, page, PAGE, 0) }).map(|_| 0)
}

/// Makes a guard page in memory of its own.
///
/// # Errors
/// EINVAL before kernel 6.13.
pub fn guard_install() -> Result<u64> {
    const MADV_GUARD_INSTALL: libc::c_int = 102;
    let page = map(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, PAGE)?;
    // SAFETY: the page is ours and nobody reads it.
    checked(unsafe { libc::madvise(page as *mut libc::c_void, PAGE, MADV_GUARD_INSTALL) }.into()).map(|_| 0)
}

/// Maps a huge page; returns its size.
///
/// # Errors
/// ENOMEM where none is reserved, EINVAL without hugetlbfs.
pub fn huge_page() -> Result<u64> {
    const SIZE: usize = 2 << 20;
    map(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB, SIZE).map(|_| SIZE as u64)
}

fn map(flags: libc::c_int, len: usize) -> Result<usize> {
    // SAFETY: the kernel chooses where; nothing that exists is replaced.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if at == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(at as usize) }
}

/// Makes a POSIX timer with an id of our choice; returns the id.
///
/// # Errors
/// EINVAL before kernel 6.16, ERANGE if the kernel gave another id.
pub fn timer_with_id() -> Result<u64> {
    const PR_TIMER_CREATE_RESTORE_IDS: libc::c_int = 77;
    const WANTED: libc::c_int = 4711;
    let mut id = WANTED;
    // SAFETY: all-zero bytes are a valid `sigevent`; the kernel reads it and writes the id. The id is the kernel's own,
    // since this is not the wrapper of libc.
    unsafe {
        checked(libc::prctl(PR_TIMER_CREATE_RESTORE_IDS, 1, 0, 0, 0).into())?;
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_NONE;
        checked(libc::syscall(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, &raw const event, &raw mut id))?;
    }
    if id == WANTED { Ok(id as u64) } else { Err(Errno::ERANGE) }
}

/// What this process has registered with membarrier(2).
///
/// # Errors
/// EINVAL before kernel 6.3, ENOSYS.
pub fn membarrier_registrations() -> Result<u64> {
    const GET_REGISTRATIONS: libc::c_int = 1 << 9;
    // SAFETY: takes no pointer.
    checked(unsafe { libc::syscall(libc::SYS_membarrier, GET_REGISTRATIONS, 0, 0) }).map(|value| value as u64)
}

/// get_mempolicy(2) of this thread; returns the mode.
///
/// # Errors
/// ENOSYS without CONFIG_NUMA.
pub fn memory_policy() -> Result<u64> {
    let mut mode = 0i32;
    // SAFETY: the kernel writes one int to `mode`; there is no mask and no address.
    checked(unsafe { libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, 0usize, 0usize, 0usize, 0usize) })?;
    Ok(mode as u64)
}

/// Enters new namespaces (CLONE_NEW*).
///
/// # Errors
/// EPERM, EINVAL for a kind that the kernel lacks, ENOSPC when there are too many.
pub fn unshare(flags: i32) -> Result<u64> {
    // SAFETY: takes no pointer.
    checked(unsafe { libc::unshare(flags) }.into()).map(|_| 0)
}

/// CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWTIME for [`unshare`].
pub const NEW_USER: i32 = libc::CLONE_NEWUSER;
/// A pid namespace.
pub const NEW_PID: i32 = libc::CLONE_NEWPID;
/// A time namespace.
pub const NEW_TIME: i32 = 0x80;

/// XSAVE components that ARCH_REQ_XCOMP_PERM can be asked for.
///
/// # Errors
/// EINVAL before kernel 5.16.
pub fn xcomp_supported() -> Result<u64> {
    const ARCH_GET_XCOMP_SUPP: libc::c_int = 0x1021;
    let mut features = 0u64;
    // SAFETY: the kernel writes one word.
    checked(unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_GET_XCOMP_SUPP, &raw mut features) })?;
    Ok(features)
}

/// Allocates a memory protection key.
///
/// # Errors
/// ENOSPC or EINVAL where the CPU has none, ENOSYS.
pub fn protection_key() -> Result<u64> {
    // SAFETY: takes no pointer.
    checked(unsafe { libc::syscall(libc::SYS_pkey_alloc, 0, 0) }).map(|key| key as u64)
}

/// PTRACE_SET_SYSCALL_INFO of a stopped tracee with what PTRACE_GET_SYSCALL_INFO said. Outside of a stop for a system call the
/// kernel answers EINVAL, and EIO where it does not know the request at all.
///
/// # Errors
/// EINVAL, EIO before kernel 6.16.
pub fn set_syscall_info(tid: Tid) -> Result<u64> {
    const PTRACE_SET_SYSCALL_INFO: libc::c_uint = 0x4212;
    let info = super::ptrace_info::syscall_info(tid)?;
    // SAFETY: the kernel reads at most the given size from `info`.
    checked(unsafe {
        libc::syscall(
            libc::SYS_ptrace,
            PTRACE_SET_SYSCALL_INFO,
            tid.0,
            size_of::<libc::ptrace_syscall_info>(),
            &raw const info,
        )
    })
    .map(|value| value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_hands_back_value_or_errno() {
        assert_eq!(in_child(|| Ok(77)), Ok(77));
        assert_eq!(in_child(|| Err(Errno::EXDEV)), Err(Errno::EXDEV));
    }

    #[test]
    fn a_victim_is_gone_when_dropped() {
        let victim = Victim::new().expect("a child");
        let pid = nix::unistd::Pid::from_raw(victim.pid().0);
        assert_eq!(kill(pid, None), Ok(()));
        drop(victim);
        assert_eq!(waitpid(pid, None), Err(Errno::ECHILD));
    }
}
