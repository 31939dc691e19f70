//! membarrier(2): what this kernel offers.
#![allow(unsafe_code)]

/// The commands that it knows, a bit MEMBARRIER_CMD_* each; none where there is no such call.
#[must_use]
pub fn commands() -> u32 {
    // SAFETY: takes no pointer.
    let commands = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_QUERY, 0, 0) };
    u32::try_from(commands).unwrap_or(0)
}
