//! The frame around the interpreter that makes it a program of its own: entry point and panic handler.
//!
//! Compiled by the build script of `snap-cr` alone.
#![no_std]
#![no_main]

/// Byte 0 of the blob: rdi is the address of a `Task`, rsp any stack with 1 KiB left.
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.entry")]
pub unsafe extern "C" fn _start() {
    core::arch::naked_asm!("jmp {start}", start = sym parasite_blob::syscall::start)
}

/// Never linked in: the build script refuses a blob that holds it.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        fn snap_blob_must_not_panic() -> !;
    }
    // SAFETY: there is no such function, so that a blob that could panic does not link.
    unsafe { snap_blob_must_not_panic() }
}
