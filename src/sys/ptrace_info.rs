//! What else ptrace(2) tells of a stopped task: signals, rseq, system call, syscall user dispatch, seccomp filters.
#![allow(unsafe_code)]

use super::Result;
use super::ptrace::request;
use crate::image::model::id::Tid;

const PTRACE_SECCOMP_GET_FILTER: u32 = 0x420c;
const PTRACE_SECCOMP_GET_METADATA: u32 = 0x420d;
const PTRACE_GET_RSEQ_CONFIGURATION: u32 = 0x420f;

/// A `siginfo_t` as the kernel lays it out.
pub type RawSiginfo = [u8; 128];

const _: () = assert!(size_of::<libc::siginfo_t>() == size_of::<RawSiginfo>());

/// PTRACE_GETSIGMASK: the mask, bit N-1 for signal N. In a call such as ppoll(2) it is the mask to return to.
///
/// # Errors
/// ESRCH when the task is gone or not stopped.
pub fn signal_mask(tid: Tid) -> Result<u64> {
    let mut mask = 0u64;
    // SAFETY: the kernel writes 8 bytes to `mask`.
    unsafe { request(libc::PTRACE_GETSIGMASK, tid, 8, (&raw mut mask) as usize) }?;
    Ok(mask)
}

/// PTRACE_SETSIGMASK. The mask that a call such as ppoll(2) would return to is forgotten (kernel/ptrace.c).
///
/// # Errors
/// ESRCH when the task is gone or not stopped.
pub fn set_signal_mask(tid: Tid, mask: u64) -> Result<()> {
    // SAFETY: the kernel reads 8 bytes of `mask`.
    unsafe { request(libc::PTRACE_SETSIGMASK, tid, 8, (&raw const mask) as usize) }.map(drop)
}

/// PTRACE_GETSIGINFO: why the task stopped.
///
/// # Errors
/// EINVAL in a group stop, ESRCH.
pub fn siginfo(tid: Tid) -> Result<RawSiginfo> {
    let mut info = [0; 128];
    // SAFETY: the kernel writes 128 bytes to `info`.
    unsafe { request(libc::PTRACE_GETSIGINFO as _, tid, 0, info.as_mut_ptr() as usize) }?;
    Ok(info)
}

/// Which queue of pending signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// The thread's own.
    Private,
    /// That of its thread group.
    Shared,
}

/// `struct ptrace_peeksiginfo_args`.
#[repr(C)]
struct PeekArgs {
    offset: u64,
    flags: u32,
    count: i32,
}

const _: () = assert!(size_of::<PeekArgs>() == 16);

/// PTRACE_PEEKSIGINFO: all pending signals in order; none is taken away.
///
/// # Errors
/// ESRCH when the task is gone or not stopped.
pub fn pending(tid: Tid, queue: Queue) -> Result<Vec<RawSiginfo>> {
    const AT_ONCE: usize = 32;
    let mut all = Vec::new();
    loop {
        let args = PeekArgs {
            offset: all.len() as u64,
            flags: match queue {
                Queue::Private => 0,
                Queue::Shared => 1,
            },
            count: AT_ONCE as i32,
        };
        let mut batch = [[0u8; 128]; AT_ONCE];
        // SAFETY: the kernel reads `args` and writes at most `count` siginfo to `batch`, which has room for them.
        let got =
            unsafe { request(libc::PTRACE_PEEKSIGINFO, tid, (&raw const args) as usize, batch.as_mut_ptr() as usize) }?;
        all.extend_from_slice(&batch[..got]);
        if got < AT_ONCE {
            return Ok(all);
        }
    }
}

/// `struct ptrace_rseq_configuration`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RseqConfiguration {
    /// `struct rseq` in the target, 0 when none is registered.
    pub pointer: u64,
    /// Its length.
    pub size: u32,
    /// The signature before abort handlers.
    pub signature: u32,
    /// Registration flags.
    pub flags: u32,
    /// Zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<RseqConfiguration>() == 24);

/// PTRACE_GET_RSEQ_CONFIGURATION, `None` when nothing is registered.
///
/// # Errors
/// EIO on a kernel without it (before 5.13), ESRCH.
pub fn rseq(tid: Tid) -> Result<Option<RseqConfiguration>> {
    let mut config = RseqConfiguration::default();
    // SAFETY: the kernel writes at most 24 bytes to `config`.
    unsafe { request(PTRACE_GET_RSEQ_CONFIGURATION, tid, 24, (&raw mut config) as usize) }?;
    Ok((config.pointer != 0).then_some(config))
}

/// PTRACE_GET_SYSCALL_INFO: in which kind of stop a task is (`op`), and the call's arguments or result.
///
/// # Errors
/// EIO on a kernel without it (before 5.3), ESRCH.
pub fn syscall_info(tid: Tid) -> Result<libc::ptrace_syscall_info> {
    // SAFETY: all-zero bytes are a valid `ptrace_syscall_info`.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::ptrace_syscall_info>();
    // SAFETY: the kernel writes at most `size` bytes to `info`.
    unsafe { request(libc::PTRACE_GET_SYSCALL_INFO, tid, size, (&raw mut info) as usize) }?;
    Ok(info)
}

/// `struct ptrace_sud_config`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyscallUserDispatch {
    /// PR_SYS_DISPATCH_*: 0 off.
    pub mode: u64,
    /// Address of the selector byte.
    pub selector: u64,
    /// Start of the range from which calls are always allowed.
    pub offset: u64,
    /// Bytes of that range.
    pub len: u64,
}

const _: () = assert!(size_of::<SyscallUserDispatch>() == 32);

/// PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, `None` when it is off.
///
/// # Errors
/// EIO on a kernel without it (before 6.4), ESRCH.
pub fn syscall_user_dispatch(tid: Tid) -> Result<Option<SyscallUserDispatch>> {
    let mut config = SyscallUserDispatch::default();
    let size = size_of::<SyscallUserDispatch>();
    // SAFETY: the kernel writes `size` bytes to `config`.
    unsafe { request(libc::PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, tid, size, (&raw mut config) as usize) }?;
    Ok((config.mode != 0).then_some(config))
}

/// PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG.
///
/// # Errors
/// EIO on a kernel without it (before 6.4), EINVAL for a mode or range that the kernel refuses, ESRCH.
pub fn set_syscall_user_dispatch(tid: Tid, config: &SyscallUserDispatch) -> Result<()> {
    let size = size_of::<SyscallUserDispatch>();
    let from = std::ptr::from_ref(config) as usize;
    // SAFETY: the kernel reads `size` bytes of `config`.
    unsafe { request(libc::PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG, tid, size, from) }.map(drop)
}

/// `struct sock_filter`: one instruction of classic BPF.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SockFilter {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when true.
    pub jt: u8,
    /// Instructions to skip when false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

const _: () = assert!(size_of::<SockFilter>() == 8);

/// PTRACE_SECCOMP_GET_FILTER: the filter number `index`, 0 being the newest; `None` behind the oldest.
///
/// # Errors
/// EACCES without CAP_SYS_ADMIN or from within a seccomp sandbox, EINVAL for a task that is not in filter mode,
/// EMEDIUMTYPE for a filter that was not made of classic BPF, ESRCH.
pub fn seccomp_filter(tid: Tid, index: usize) -> Result<Option<Vec<SockFilter>>> {
    // SAFETY: with a null pointer the kernel returns the number of instructions and writes nothing.
    let len = match unsafe { request(PTRACE_SECCOMP_GET_FILTER, tid, index, 0) } {
        Err(nix::errno::Errno::ENOENT) => return Ok(None),
        other => other?,
    };
    let mut program = vec![SockFilter::default(); len];
    // SAFETY: the kernel writes `len` instructions to `program`; the filter cannot change while the task is stopped.
    unsafe { request(PTRACE_SECCOMP_GET_FILTER, tid, index, program.as_mut_ptr() as usize) }?;
    Ok(Some(program))
}

/// PTRACE_SECCOMP_GET_METADATA: SECCOMP_FILTER_FLAG_* of the filter number `index`.
///
/// # Errors
/// As [`seccomp_filter`]; ENOENT behind the oldest.
pub fn seccomp_flags(tid: Tid, index: usize) -> Result<u64> {
    let mut metadata = [index as u64, 0];
    // SAFETY: the kernel reads the first word and writes the second of `struct seccomp_metadata`, 16 bytes.
    unsafe { request(PTRACE_SECCOMP_GET_METADATA, tid, 16, metadata.as_mut_ptr() as usize) }?;
    Ok(metadata[1])
}
