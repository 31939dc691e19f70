//! What this process can say of itself alone: prctl(2) settings that a child inherits, and its limits.
#![allow(unsafe_code)]

use std::io;

/// Resources of getrlimit(2) on Linux.
const RESOURCES: u32 = 16;

/// PR_GET_SECUREBITS.
#[must_use]
pub fn securebits() -> u32 {
    // SAFETY: the option only returns a value.
    unsafe { libc::prctl(libc::PR_GET_SECUREBITS, 0, 0, 0, 0) }.try_into().unwrap_or(0)
}

/// PR_GET_SPECULATION_CTRL for store bypass, indirect branch and L1D flush; 0 where the kernel has none.
#[must_use]
pub fn speculation() -> [u32; 3] {
    [0, 1, 2].map(|kind| super::task::speculation(kind).unwrap_or(0))
}

/// PR_TIMER_CREATE_RESTORE_IDS, since Linux 6.15: whether timers can be made under their old ids.
#[must_use]
pub fn has_timer_ids() -> bool {
    const PR_TIMER_CREATE_RESTORE_IDS: libc::c_int = 77;
    const GET: u64 = 2;
    // SAFETY: the question changes nothing.
    unsafe { libc::prctl(PR_TIMER_CREATE_RESTORE_IDS, GET, 0, 0, 0) >= 0 }
}

/// Soft and hard limits, indexed by RLIMIT_*.
///
/// # Errors
/// As getrlimit(2).
pub fn limits() -> io::Result<Vec<[u64; 2]>> {
    (0..RESOURCES).map(limit).collect()
}

fn limit(resource: u32) -> io::Result<[u64; 2]> {
    let mut value = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `value` is a valid place for the answer.
    match unsafe { libc::getrlimit(resource as _, &raw mut value) } {
        0 => Ok([value.rlim_cur, value.rlim_max]),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the kernel bounds the time for which this process may be real-time without sleeping: it ends one that goes beyond.
#[must_use]
pub fn has_real_time_limit() -> bool {
    limit(libc::RLIMIT_RTTIME).map_or(true, |[soft, _]| soft != libc::RLIM_INFINITY)
}

/// Raises the soft limit of open files to the hard one.
///
/// # Errors
/// As setrlimit(2).
pub fn raise_open_files() -> io::Result<()> {
    let [_, hard] = limit(libc::RLIMIT_NOFILE)?;
    let value = libc::rlimit { rlim_cur: hard, rlim_max: hard };
    // SAFETY: `value` is only read.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const value) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Bytes of the vdso of this kernel, 0 where it has none. Every 64-bit process has the same.
#[must_use]
pub fn vdso_len() -> u64 {
    // SAFETY: getauxval takes an integer.
    let base = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    if base == 0 {
        return 0;
    }
    // SAFETY: the kernel has mapped an ELF file there for the life of this process, which we never unmap.
    let header = unsafe { &*std::ptr::with_exposed_provenance::<libc::Elf64_Ehdr>(base as usize) };
    // The section headers are the last thing in it.
    let end = header.e_shoff + u64::from(header.e_shnum) * u64::from(header.e_shentsize);
    end.next_multiple_of(4096)
}

/// ARCH_GET_XCOMP_PERM: XSAVE components that this process may use; 0 where the kernel has no such permissions.
#[must_use]
pub fn xcomp_permitted() -> u64 {
    const ARCH_GET_XCOMP_PERM: u64 = 0x1022;
    let mut mask = 0_u64;
    // SAFETY: the kernel writes one word to `mask`.
    match unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_GET_XCOMP_PERM, &raw mut mask) } {
        0 => mask,
        _ => 0,
    }
}
