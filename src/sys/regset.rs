//! Registers of a stopped task: PTRACE_GETREGSET, PTRACE_SETREGSET and the debug registers.
#![allow(unsafe_code)]

use super::Result;
use super::ptrace::request;
use crate::image::model::id::Tid;
use crate::image::model::thread::Registers;
use std::mem::{MaybeUninit, offset_of};

/// `struct user_regs_struct`: NT_PRSTATUS of a 64-bit task.
pub use libc::user_regs_struct as UserRegs;

const NT_PRSTATUS: usize = 1;
const NT_X86_XSTATE: usize = 0x202;
/// Larger than any XSAVE area (AMX makes 11008 bytes).
const XSTATE_CAPACITY: usize = 32 << 10;
/// Bytes of [`UserRegs`] from `r15` up to and with `eflags`.
const UP_TO_FLAGS: usize = 19 * 8;

const _: () = assert!(size_of::<UserRegs>() == 27 * 8);
const _: () = assert!(offset_of!(UserRegs, orig_rax) == 15 * 8);
const _: () = assert!(offset_of!(UserRegs, eflags) == 18 * 8);
const _: () = assert!(offset_of!(UserRegs, fs_base) == 21 * 8);

/// General registers.
///
/// # Errors
/// ESRCH when the task is gone or not stopped; EIO for a 32-bit task, whose set is shorter.
pub fn general(tid: Tid) -> Result<UserRegs> {
    let mut regs = zeroed();
    let mut iov = libc::iovec { iov_base: (&raw mut regs).cast(), iov_len: size_of::<UserRegs>() };
    // SAFETY: the kernel writes at most `iov_len` bytes to `regs` and the length to `iov`.
    unsafe { request(libc::PTRACE_GETREGSET as _, tid, NT_PRSTATUS, (&raw mut iov) as usize) }?;
    if iov.iov_len == size_of::<UserRegs>() { Ok(regs) } else { Err(nix::errno::Errno::EIO) }
}

/// Writes the registers up to and with `eflags`; stack pointer, data segments and bases stay as they are.
///
/// A stop on the way back from a page fault finds the resume flag set, which a system call clears: so flags are put back too.
///
/// # Errors
/// ESRCH when the task is gone or not stopped.
pub fn set_up_to_flags(tid: Tid, regs: &UserRegs) -> Result<()> {
    set_general(tid, regs, UP_TO_FLAGS)
}

/// Writes all general registers.
///
/// # Errors
/// ESRCH when the task is gone or not stopped, EIO for values that the kernel refuses.
pub fn set_all(tid: Tid, regs: &UserRegs) -> Result<()> {
    set_general(tid, regs, size_of::<UserRegs>())
}

fn set_general(tid: Tid, regs: &UserRegs, len: usize) -> Result<()> {
    let mut iov = libc::iovec { iov_base: std::ptr::from_ref(regs).cast_mut().cast(), iov_len: len };
    // SAFETY: the kernel reads `iov_len` bytes of `regs`, which is that long, and writes none.
    unsafe { request(libc::PTRACE_SETREGSET as _, tid, NT_PRSTATUS, (&raw mut iov) as usize) }.map(drop)
}

/// Whether ioperm(2) has given the task I/O ports: NT_386_IOPERM is empty without.
#[must_use]
pub fn has_io_permissions(tid: Tid) -> bool {
    const NT_386_IOPERM: usize = 0x201;
    // The kernel makes room for as much as it is asked for: a word of the bitmap is enough.
    let mut word = 0u64;
    let mut iov = libc::iovec { iov_base: (&raw mut word).cast(), iov_len: size_of::<u64>() };
    // SAFETY: the kernel writes at most `iov_len` bytes to `word` and the length to `iov`.
    let asked = unsafe { request(libc::PTRACE_GETREGSET as _, tid, NT_386_IOPERM, (&raw mut iov) as usize) };
    asked.is_ok() && iov.iov_len > 0
}

/// The XSAVE area in standard format; its length is what this CPU and the task's permissions make it.
///
/// # Errors
/// ESRCH when the task is gone or not stopped; ENODEV on a CPU without XSAVE.
pub fn xstate(tid: Tid) -> Result<Vec<u8>> {
    let mut area = [const { MaybeUninit::<u8>::uninit() }; XSTATE_CAPACITY];
    let mut iov = libc::iovec { iov_base: area.as_mut_ptr().cast(), iov_len: area.len() };
    // SAFETY: the kernel writes at most `iov_len` bytes to `area` and how many to `iov`.
    unsafe { request(libc::PTRACE_GETREGSET as _, tid, NT_X86_XSTATE, (&raw mut iov) as usize) }?;
    let written = &area[..iov.iov_len];
    // SAFETY: the kernel has written these bytes, and any byte is a value of u8.
    let written = unsafe { std::slice::from_raw_parts(written.as_ptr().cast::<u8>(), written.len()) };
    Ok(written.to_vec())
}

/// Writes the XSAVE area.
///
/// # Errors
/// EFAULT for a wrong length, EINVAL for components that the task has no permission for, ESRCH.
pub fn set_xstate(tid: Tid, area: &[u8]) -> Result<()> {
    let mut iov = libc::iovec { iov_base: area.as_ptr().cast_mut().cast(), iov_len: area.len() };
    // SAFETY: the kernel reads `iov_len` bytes of `area` and writes none.
    unsafe { request(libc::PTRACE_SETREGSET as _, tid, NT_X86_XSTATE, (&raw mut iov) as usize) }.map(drop)
}

/// Debug registers 0 to 3, 6 and 7.
///
/// # Errors
/// ESRCH when the task is gone or not stopped.
pub fn debug(tid: Tid) -> Result<Option<[u64; 6]>> {
    const ENABLED: u64 = 0xff;
    if peek_user(tid, offset_of!(libc::user, u_debugreg) + 7 * 8)? & ENABLED == 0 {
        return Ok(None);
    }
    let mut values = [0; 6];
    for (value, number) in values.iter_mut().zip([0, 1, 2, 3, 6, 7]) {
        *value = peek_user(tid, offset_of!(libc::user, u_debugreg) + number * 8)?;
    }
    Ok(Some(values))
}

fn peek_user(tid: Tid, offset: usize) -> Result<u64> {
    let mut value = 0u64;
    // SAFETY: the raw system call writes one word to `value` (libc's wrapper returns it instead).
    unsafe { request(libc::PTRACE_PEEKUSER as _, tid, offset, (&raw mut value) as usize) }?;
    Ok(value)
}

/// Writes debug registers 0 to 3, 6 and 7.
///
/// # Errors
/// EINVAL for addresses outside of user space, EBUSY or ENOSPC when there is no breakpoint slot, ESRCH.
pub fn set_debug(tid: Tid, values: &[u64; 6]) -> Result<()> {
    for (value, number) in values.iter().zip([0, 1, 2, 3, 6, 7]) {
        let offset = offset_of!(libc::user, u_debugreg) + number * 8;
        // SAFETY: PTRACE_POKEUSER takes no pointer.
        unsafe { request(libc::PTRACE_POKEUSER as _, tid, offset, *value as usize) }?;
    }
    Ok(())
}

/// The same registers in the kernel's order and in the model's.
macro_rules! convert {
    ($from:ty => $to:ty: $($register:ident)*) => {
        impl From<&$from> for $to {
            fn from(from: &$from) -> Self {
                Self { $($register: from.$register),* }
            }
        }
    };
}

macro_rules! convert_both {
    ($($register:ident)*) => {
        convert! { UserRegs => Registers: $($register)* }
        convert! { Registers => UserRegs: $($register)* }
    };
}

convert_both! {
    r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs
}

/// Registers that are all zero.
#[must_use]
pub fn zeroed() -> UserRegs {
    // SAFETY: all-zero bytes are a valid `user_regs_struct`.
    unsafe { std::mem::zeroed() }
}
