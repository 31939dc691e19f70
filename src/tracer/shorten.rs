//! Calls that are made again with what is left of their timeout: the last thing before a thread is let go.
//!
//! Some calls with a relative timeout have no restart block: the kernel would begin to count anew. They get less in the register that holds
//! the timeout or points to it, if nobody looks at that register afterwards ([`super::unread`]). A `struct timespec` of the caller's is
//! never changed, since he may use it again: the pointer leads to another one, which lies in the padding behind the vdso and stays there,
//! for whoever interrupts the call once more has it made again. The kernel reads it when the call begins.

use super::call;
use super::error::Error;
use super::memory::Memory;
use super::padding;
use super::tree::FrozenTree;
use super::unread::Argument;
use crate::image::model::address::{Addr, PAGE_SIZE};
use crate::image::model::id::{Pid, Tid};
use crate::proc::{TaskDir, auxv};
use crate::sys::regset::{self, UserRegs};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Bytes of a `struct timespec`.
const TIMESPEC: usize = 16;

/// How a call takes its timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As milliseconds, in the register.
    Milliseconds,
    /// As a `struct timespec` that lies here.
    At(Addr),
}

/// A call that is to end at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortened {
    /// Its number.
    pub number: u64,
    /// The register that holds the timeout or points to it.
    pub argument: Argument,
    /// How it takes it.
    pub form: Form,
    /// When it is over.
    pub until: Instant,
}

impl FrozenTree {
    /// Has a thread's call made again with what is left until then when the thread is let go.
    pub fn shorten(&mut self, tid: Tid, call: Shortened) {
        self.shortened.push((tid, call));
    }

    /// Before anybody is let go. A thread for which that fails begins anew.
    pub(super) fn shorten_calls(&mut self) {
        for (tid, call) in std::mem::take(&mut self.shortened) {
            let Ok(regs) = regset::general(tid) else { continue };
            if !is_about_to_make(&regs, call.number) {
                continue;
            }
            let left = call.until.saturating_duration_since(Instant::now());
            let pid = self.thread(tid).map(|thread| thread.pid());
            let value = match call.form {
                Form::Milliseconds => milliseconds(left),
                Form::At(slot) => {
                    let written =
                        pid.is_some_and(|pid| Memory::open(pid).and_then(|memory| put(&memory, slot, left)).is_ok());
                    if !written {
                        continue;
                    }
                    slot.0
                }
            };
            let _ = regset::set_up_to_flags(tid, &call.argument.with(&regs, value));
        }
    }
}

/// Whether the thread makes this call when it goes on: from the stop that interrupted it, or from its `syscall` instruction.
fn is_about_to_make(regs: &UserRegs, number: u64) -> bool {
    let from_stop = call::blocked(regs).is_some_and(|blocked| blocked.number == number);
    from_stop || (regs.orig_rax == u64::MAX && regs.rax == number)
}

/// A timeout in the milliseconds of epoll_wait(2), never less than is left.
#[must_use]
pub fn milliseconds(left: Duration) -> u64 {
    left.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as u64
}

/// Writes a `struct timespec`.
///
/// # Errors
/// [`Error::Memory`].
pub fn put(memory: &Memory, slot: Addr, left: Duration) -> Result<(), Error> {
    let mut bytes = [0; TIMESPEC];
    bytes[..8].copy_from_slice(&left.as_secs().to_le_bytes());
    bytes[8..].copy_from_slice(&u64::from(left.subsec_nanos()).to_le_bytes());
    memory.write(slot, &bytes)
}

/// Places for `struct timespec` in an address space: the end of the padding behind its vdso, where no stub stands.
#[derive(Debug, Default)]
pub struct Slots {
    area: Vec<Addr>,
    free: Vec<Addr>,
}

impl Slots {
    /// Those of a process that are not among `taken`. None where there is no room, or something else stands there.
    #[must_use]
    pub fn of(pid: Pid, memory: &Memory, taken: &HashSet<Addr>) -> Self {
        let area = Self::area(pid, memory).unwrap_or_default();
        let free = area.iter().copied().filter(|slot| !taken.contains(slot)).rev().collect();
        Self { area, free }
    }

    fn area(pid: Pid, memory: &Memory) -> Option<Vec<Addr>> {
        let auxv = auxv::read(&TaskDir::process(pid).ok()?, &mut Vec::new()).ok()?;
        let base = Addr(auxv.get(libc::AT_SYSINFO_EHDR)?);
        let header = memory.read_vec(base, PAGE_SIZE as usize).ok()?;
        let (start, len) = padding::behind_places(base, &header)?;
        let bytes = memory.read_vec(start, len).ok()?;
        let is_ours = |slot: &[u8]| {
            let word = |half: &[u8]| half.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
            word(&slot[..8]) < 1 << 40 && word(&slot[8..]) < 1_000_000_000
        };
        let slots = bytes.chunks_exact(TIMESPEC);
        let all_ours = slots.clone().all(is_ours);
        all_ours.then(|| (0..slots.len()).map(|at| start.add((at * TIMESPEC) as u64)).collect())
    }

    /// Whether this is one of them, free or not.
    #[must_use]
    pub fn contains(&self, at: Addr) -> bool {
        self.area.contains(&at)
    }

    /// The next one.
    pub fn take(&mut self) -> Option<Addr> {
        self.free.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_is_never_rounded_down() {
        assert_eq!(milliseconds(Duration::from_micros(1)), 1);
        assert_eq!(milliseconds(Duration::from_millis(7)), 7);
        assert_eq!(milliseconds(Duration::ZERO), 0);
        assert_eq!(milliseconds(Duration::from_secs(1 << 40)), i32::MAX as u64);
    }

    #[test]
    fn every_process_has_places_that_differ() {
        let pid = Pid(std::process::id() as i32);
        let memory = Memory::open(pid).expect("our own memory");
        let mut slots = Slots::of(pid, &memory, &HashSet::new());
        let Some(first) = slots.take() else { return };
        assert_eq!(first.0 % TIMESPEC as u64, 0);
        let mut others = Slots::of(pid, &memory, &HashSet::from([first]));
        assert_ne!(others.take(), Some(first));
    }
}
