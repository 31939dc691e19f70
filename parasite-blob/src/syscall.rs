//! System calls and the few instructions that Rust cannot say.

use core::arch::asm;
use protocol::Task;

/// Makes a system call; the result is negative for an error.
///
/// # Safety
/// The call must be sound for this process.
#[inline(always)]
pub unsafe fn syscall(nr: u32, args: [u64; 6]) -> i64 {
    let result: i64;
    // SAFETY: the kernel clobbers rcx and r11 alone.
    unsafe {
        asm!("syscall", inlateout("rax") u64::from(nr) => result, in("rdi") args[0], in("rsi") args[1],
             in("rdx") args[2], in("r10") args[3], in("r8") args[4], in("r9") args[5],
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// Sleeps for 100 us, in a thread of a target: nanosleep(2) would forget which of its calls is to go on with what is left of its time (kernel/time/hrtimer.c),
/// ppoll(2) does not.
///
/// # Safety
/// The thread may wait.
pub unsafe fn pause() {
    const SYS_PPOLL: u32 = 271;
    static MOMENT: [u64; 2] = [0, 100_000];
    // SAFETY: without descriptors the kernel reads the time alone; it cannot write what is left of it.
    unsafe { syscall(SYS_PPOLL, [0, 0, (&raw const MOMENT) as u64, 0, 0, 0]) };
}

/// Uses an AMX tile, which the kernel answers with a larger area for the registers of this thread, and releases all tiles.
///
/// # Safety
/// The CPU has tiles, the process is permitted to use them, and this thread has none in use.
pub unsafe fn use_tile() -> i64 {
    /// Palette 1; tile 0 has one row of 64 bytes.
    static CONFIGURATION: [u64; 8] = [1, 0, 64, 0, 0, 0, 1, 0];
    // SAFETY: the instructions read the configuration and change tiles alone.
    unsafe {
        asm!("ldtilecfg [{configuration}]", "tilezero tmm0", "tilerelease",
             configuration = in(reg) &raw const CONFIGURATION, options(nostack));
    }
    0
}

/// clone3(2) whose child, on the stack that its arguments name, executes `task`.
///
/// # Safety
/// The arguments give the child a stack of its own, and `task` is valid for `execute`.
#[inline(never)]
pub unsafe fn clone_into(clone_args: u64, size: u64, task: u64) -> i64 {
    let result: i64;
    // SAFETY: the parent sees an ordinary call; the child never comes back here.
    unsafe {
        asm!("syscall",
             "test rax, rax",
             "jnz 2f",
             "xor ebp, ebp",
             "call {enter}",
             "ud2",
             "2:",
             enter = sym enter,
             inlateout("rax") 435_u64 => result, inlateout("rdi") clone_args => _, in("rsi") size, in("r12") task,
             lateout("rcx") _, lateout("r11") _);
    }
    result
}

/// First instructions of a new thread: the task is in r12.
#[unsafe(naked)]
unsafe extern "C" fn enter() {
    core::arch::naked_asm!("mov rdi, r12", "jmp {start}", start = sym start)
}

/// Executes the task in rdi, then jumps to where it says, with the stack as it was and the task in rdi.
///
/// # Safety
/// As for `execute`.
#[unsafe(naked)]
pub unsafe extern "C" fn start(task: *mut Task) -> ! {
    core::arch::naked_asm!(
        "mov r12, rsp",
        "mov r13, rdi",
        "and rsp, -16",
        "call {execute}",
        "mov rsp, r12",
        "mov rdi, r13",
        "jmp rax",
        execute = sym crate::execute
    )
}

/// memmove(3).
///
/// # Safety
/// Both ranges are valid for `len` bytes.
pub unsafe fn move_bytes(to: *mut u8, from: *const u8, len: usize) {
    if (to as usize).wrapping_sub(from as usize) >= len {
        // SAFETY: the direction flag is clear by the ABI.
        unsafe {
            asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
                 options(nostack, preserves_flags));
        }
    } else {
        // SAFETY: the ranges overlap with the target above, so bytes are moved from the end; the flag is cleared again.
        unsafe {
            asm!("std", "rep movsb", "cld", inout("rcx") len => _, inout("rdi") to.wrapping_add(len).wrapping_sub(1) => _,
                 inout("rsi") from.wrapping_add(len).wrapping_sub(1) => _, options(nostack));
        }
    }
}
