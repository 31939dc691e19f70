//! A child with a chosen pid that runs nothing but the interpreter.
#![allow(unsafe_code)]

use crate::image::model::address::Addr;
use crate::image::model::id::Pid;
use std::arch::asm;
use std::io;

/// `struct clone_args` of linux/sched.h, up to `set_tid_size`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the kernel's own names")]
pub struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
}

const _: () = assert!(size_of::<CloneArgs>() == 80);

/// Where a skeleton starts: the interpreter, a task for it, and a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Entry of the interpreter.
    pub code: Addr,
    /// The task.
    pub task: Addr,
    /// Lowest address of the stack.
    pub stack: Addr,
    /// Bytes of the stack.
    pub stack_size: u64,
}

/// clone3(2): a copy of this process with this pid, of which nothing of ours runs but the interpreter.
///
/// The caller guarantees that `start` names an interpreter blob, a task and a stack in memory that the child inherits.
///
/// # Errors
/// As clone3(2): EEXIST when the pid is taken, EPERM without CAP_CHECKPOINT_RESTORE, EINVAL beyond pid_max.
pub fn clone_with_pid(pid: Option<Pid>, flags: u64, start: Start) -> io::Result<Pid> {
    let wanted = pid.map_or(0, |pid| pid.0);
    let args = CloneArgs {
        flags,
        exit_signal: libc::SIGCHLD as u64,
        stack: start.stack.0,
        stack_size: start.stack_size,
        set_tid: if pid.is_some() { (&raw const wanted) as u64 } else { 0 },
        set_tid_size: u64::from(pid.is_some()),
        ..CloneArgs::default()
    };
    let result: i64;
    // SAFETY: the parent sees an ordinary system call. The child has a copy of our memory and a stack of its own; it
    // jumps into the interpreter at once and never comes back.
    unsafe {
        asm!("syscall",
             "test rax, rax",
             "jnz 2f",
             "xor ebp, ebp",
             "mov rdi, r12",
             "jmp r13",
             "2:",
             inlateout("rax") libc::SYS_clone3 => result,
             in("rdi") &raw const args, in("rsi") size_of::<CloneArgs>(),
             in("r12") start.task.0, in("r13") start.code.0,
             lateout("rcx") _, lateout("r11") _);
    }
    match result {
        error @ -4095..0 => Err(io::Error::from_raw_os_error(-error as i32)),
        pid => Ok(Pid(pid as i32)),
    }
}

/// Blocks every signal of this thread and gives back the mask it had.
#[must_use]
pub fn block_signals() -> u64 {
    swap_mask(!0)
}

/// Sets the signal mask of this thread.
pub fn restore_signals(mask: u64) {
    let _ = swap_mask(mask);
}

fn swap_mask(mask: u64) -> u64 {
    let mut old = 0_u64;
    // SAFETY: both masks are 8 bytes; libc's wrapper would spare its own two signals.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, &raw mut old, 8);
    }
    old
}
