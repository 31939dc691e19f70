//! Restartable sequences: a thread that was stopped inside of one must go on at its abort handler.
//!
//! The kernel sees to that when the thread returns to user space. When it first returns into our stub, the kernel finds `rip` outside of the
//! sequence, forgets it, and the abort would be lost (kernel/rseq.c, `rseq_ip_fixup`).

use super::error::Error;
use super::memory::{Memory, RemotePtr};
use super::thread::StoppedThread;
use crate::image::model::address::Addr;

/// Offset of `rseq_cs` in `struct rseq`.
const CRITICAL_SECTION: u64 = 8;

/// Where a thread has to go on that was stopped inside of a critical section; `None` for one that was not.
///
/// # Errors
/// [`Error::Kernel`], [`Error::Memory`].
pub(super) fn abort_address(thread: &StoppedThread, memory: &Memory) -> Result<Option<Addr>, Error> {
    let Some(rseq) = thread.rseq()? else { return Ok(None) };
    let section = memory.get(RemotePtr::<u64>::new(Addr(rseq.pointer + CRITICAL_SECTION)))?;
    if section == 0 {
        return Ok(None);
    }
    // struct rseq_cs: version, flags, start_ip, post_commit_offset, abort_ip
    let section = Addr(section);
    let start = memory.get(RemotePtr::<u64>::new(section.add(8)))?;
    let len = memory.get(RemotePtr::<u64>::new(section.add(16)))?;
    let abort = memory.get(RemotePtr::<u64>::new(section.add(24)))?;
    Ok((thread.regs().rip.wrapping_sub(start) < len).then_some(Addr(abort)))
}
