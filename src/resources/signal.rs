//! Signals: dispositions come from rt_sigaction(2) in the target's place, queues from PTRACE_PEEKSIGINFO.

use super::CollectError;
use crate::image::model::address::Addr;
use crate::image::model::id::Tid;
use crate::image::model::signal::{QueuedSignal, SignalAction};
use crate::sys::ptrace_info::{Queue, pending};

/// Signals with a disposition.
pub const SIGNALS: usize = 64;

/// Bytes of the kernel's `struct sigaction`.
pub const ACTION_SIZE: usize = 32;

/// Decodes the `struct sigaction` of the kernel: handler, flags, restorer, mask.
#[must_use]
pub fn decode_action(bytes: &[u8; ACTION_SIZE]) -> SignalAction {
    let word = |index: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[index * 8..index * 8 + 8]);
        u64::from_le_bytes(word)
    };
    SignalAction { handler: Addr(word(0)), flags: word(1), restorer: Addr(word(2)), mask: word(3) }
}

/// The signals that wait in a queue, in order. They stay there.
///
/// # Errors
/// As PTRACE_PEEKSIGINFO.
pub fn queued(tid: Tid, queue: Queue) -> Result<Vec<QueuedSignal>, CollectError> {
    let signals = pending(tid, queue).map_err(CollectError::at(tid, "PTRACE_PEEKSIGINFO"))?;
    Ok(signals.into_iter().map(|info| QueuedSignal { info: info.to_vec() }).collect())
}
