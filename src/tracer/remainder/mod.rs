//! Transfers that a stop has cut short: the thread goes on with the rest of its call, and returns the count of the whole.
//!
//! A stop ends a blocked write(2) of which a part is done with the count of that part. Nobody but the thread itself can make the rest, and what it returns
//! is not what the whole returns. So it is sent through a few instructions of ours ([`code`]) in padding, which stay there for as long as the call lasts,
//! and longer: a signal handler that interrupts it returns to them. They are taken away by a later stop, when nobody can come back to them.
//!
//! Before the thread's registers are set, it returns the short count, as from any stop; from then on the full one. Nothing is to be undone.

mod code;

pub(super) use code::LEN;
use code::Owner;
pub use code::Remainder;

use super::error::Error;
use super::memory::Memory;
use super::padding;
use super::seccomp::{Call, Policy};
use super::session::{read_maps, write_verified};
use super::thread::StoppedThread;
use super::tree::FrozenTree;
use crate::fault;
use crate::image::model::address::{Addr, PageRange};
use crate::image::model::id::{Pid, Tid};
use crate::proc::maps::Mapping;
use crate::sys::regset::{self, UserRegs};

/// Most of them in one address space.
pub(super) const MOST: usize = 8;
/// Bytes at the end of a mapping in which they may stand: the vdso has something else behind them.
const TAIL: usize = MOST * LEN + 512;
/// Threads from which on a batch is worth more than remainders.
const MANY: usize = 64;
/// Where one stands, its address is a multiple of this.
const STEP: usize = 16;
/// -ERESTARTNOHAND: the call is made, unless a handler runs first: then it ends with EINTR, and the transfer with what it has done.
const ERESTARTNOHAND: u64 = -514i64 as u64;

/// How the rest of a transfer is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// Number of the system call. The descriptor, the buffer and the count are in the first three arguments.
    pub number: u64,
    /// Its fourth argument.
    pub flags: u64,
    /// Its fifth argument.
    pub address: u64,
    /// Whether an error that it takes away would not be seen by the next call.
    pub tells_errors: bool,
}

impl FrozenTree {
    /// Has a thread whose call has returned after a part of its count go on with the rest when it is let go. What kept it from being done is the inner error:
    /// then it returns the part.
    ///
    /// # Errors
    /// [`Error`] of the target's memory and registers.
    pub fn go_on(&mut self, tid: Tid, rest: Rest) -> Result<Result<(), String>, Error> {
        let Some(&index) = self.index.get(&tid) else { return Err(Error::Vanished(Pid(tid.0))) };
        let thread = &self.threads[index];
        let memory = Memory::open(Pid(tid.0))?;
        let own = match standing_in(thread.regs.rip, &memory) {
            Some(own) => own,
            None => match prepare(thread, rest, self.threads_of(thread.pid), &memory)? {
                Ok(made) => made,
                Err(why) => return Ok(Err(why)),
            },
        };
        let done = thread.regs.rax;
        let regs = UserRegs {
            rip: own.after().0,
            rax: ERESTARTNOHAND,
            orig_rax: rest.number,
            rsi: thread.regs.rsi.wrapping_add(done),
            rdx: thread.regs.rdx.wrapping_sub(done),
            r10: rest.flags,
            r8: rest.address,
            ..thread.regs
        };
        regset::set_up_to_flags(tid, &regs).map_err(Error::of(tid, "setting registers"))?;
        self.threads[index].regs = regs;
        fault::pass(fault::Point::RemainderEntered)?;
        Ok(Ok(()))
    }
}

/// The remainder whose call has just returned to this address.
fn standing_in(rip: u64, memory: &Memory) -> Option<Remainder> {
    let at = Addr(rip.wrapping_sub(2));
    Remainder::decode(at, &memory.read_vec(at, LEN).ok()?)
}

/// Whether an address in a mapping is in a remainder.
pub(super) fn is_inside(tid: Tid, mapping: PageRange, rip: u64) -> bool {
    let len = LEN as u64;
    let start = rip.saturating_sub(len).next_multiple_of(STEP as u64).max(mapping.start.0);
    let end = (start + 2 * len).min(mapping.end.0);
    let bytes =
        Memory::open(Pid(tid.0)).and_then(|memory| memory.read_vec(Addr(start), end.saturating_sub(start) as usize));
    bytes.is_ok_and(|bytes| all_in(Addr(start), &bytes).any(|remainder| remainder.contains(rip)))
}

/// Those among bytes that lie at `start`, a multiple of [`STEP`].
fn all_in(start: Addr, bytes: &[u8]) -> impl Iterator<Item = Remainder> {
    let places = (0..=bytes.len().saturating_sub(LEN)).step_by(STEP);
    places.filter_map(move |at| Remainder::decode(start.add(at as u64), bytes.get(at..at + LEN)?))
}

/// Writes a remainder for the call that has returned, unless there is one for the same call. No thread is changed.
fn prepare(
    thread: &StoppedThread,
    rest: Rest,
    threads: &[StoppedThread],
    memory: &Memory,
) -> Result<Result<Remainder, String>, Error> {
    const SYSCALL: [u8; 2] = [0x0f, 0x05];
    const USER_CS: u64 = 0x33;
    const TRAP_FLAG: u64 = 1 << 8;
    let regs = &thread.regs;
    let instruction = memory.read_vec(Addr(regs.rip.wrapping_sub(2)), SYSCALL.len());
    if regs.cs != USER_CS || !instruction.is_ok_and(|bytes| bytes == SYSCALL) {
        return Ok(Err("it was not made by 64-bit code".to_owned()));
    }
    if regs.eflags & TRAP_FLAG != 0 || thread.syscall_user_dispatch()?.is_some() {
        return Ok(Err("the thread watches its own instructions".to_owned()));
    }
    let maps = read_maps(Pid(thread.tid.0))?;
    let (mut free, mut there) = (None, 0);
    let has_ended = |remainder: &Remainder| {
        let Owner { pid, tid } = remainder.owner();
        pid == thread.pid && !threads.iter().any(|thread| thread.tid == tid || remainder.contains(thread.regs.rip))
    };
    for at in
        padding::tails(&maps, threads.len() >= MANY, memory)?.into_iter().flat_map(|(start, end)| positions(start, end))
    {
        let bytes = memory.read_vec(at, LEN)?;
        let owner = Owner { pid: thread.pid, tid: thread.tid };
        let made = Remainder::of_call(at, owner, regs, rest.tells_errors);
        match Remainder::decode(at, &bytes) {
            Some(mut same) if same.is_same(&made) => {
                same.share(&made);
                write_verified(at, same.bytes(), memory)?;
                return Ok(Ok(same));
            }
            Some(old) if has_ended(&old) => free = free.or(Some(made)),
            Some(_) => there += 1,
            None if free.is_none() && bytes.iter().all(|byte| *byte == 0) => free = Some(made),
            None => {}
        }
    }
    let Some(made) = free.filter(|_| there < MOST) else {
        return Ok(Err("there is no room left for code of ours behind that of the program".to_owned()));
    };
    let args = [regs.rdi, regs.rsi, regs.rdx, rest.flags, rest.address, regs.r9];
    let call = Call { number: rest.number, args, ip: made.after() };
    if let Some(why) = Policy::of(thread)?.refusal(&call) {
        return Ok(Err(format!("the rest would meet {why}")));
    }
    write_verified(made.at(), made.bytes(), memory)?;
    fault::pass(fault::Point::RemainderWritten)?;
    Ok(Ok(made))
}

/// Places from the end of padding backwards.
fn positions(start: Addr, end: Addr) -> impl Iterator<Item = Addr> {
    let count = (end.0.saturating_sub(start.0) as usize / LEN).min(MOST);
    (1..=count).map(move |number| Addr(end.0 - (number * LEN) as u64))
}

/// Those that stand at the end of a mapping.
fn at_end_of(mapping: &Mapping, memory: &Memory) -> Result<Vec<Remainder>, Error> {
    let end = mapping.range.end;
    let start = Addr(end.0 - (TAIL as u64).min(mapping.range.len()));
    let bytes = memory.read_vec(start, (end.0 - start.0) as usize)?;
    Ok(all_in(start, &bytes).collect())
}

/// Whether there are any.
pub(super) fn are_there(maps: &[Mapping], memory: &Memory) -> Result<bool, Error> {
    for mapping in padding::lasting(maps) {
        if !at_end_of(mapping, memory)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes away those to which nobody can come back. Gives those that are left in the vdso.
///
/// `threads` are all of the process `pid`, with their alternate signal stacks.
pub(super) fn sweep(
    pid: Pid,
    maps: &[Mapping],
    memory: &Memory,
    threads: &[(&StoppedThread, PageRange)],
) -> Result<Vec<Remainder>, Error> {
    let mut left = Vec::new();
    for mapping in padding::lasting(maps) {
        for remainder in at_end_of(mapping, memory)? {
            if is_left(&remainder, pid, maps, threads) {
                write_verified(remainder.at(), &[0; LEN], memory)?;
            } else if padding::is_vdso(mapping) {
                left.push(remainder);
            }
        }
    }
    Ok(left)
}

/// Whether its thread has certainly come out of it, or has ended. Handlers that have interrupted it lie below the stack pointer of its call, so the thread has left
/// them when it stands above, on the same stack.
fn is_left(remainder: &Remainder, pid: Pid, maps: &[Mapping], threads: &[(&StoppedThread, PageRange)]) -> bool {
    let stack = maps.iter().find(|mapping| mapping.range.contains(Addr(remainder.stack())));
    let Owner { pid: process, tid } = remainder.owner();
    if process != pid || threads.iter().any(|(thread, _)| remainder.contains(thread.regs.rip)) {
        return false;
    }
    let Some((owner, alternate)) = threads.iter().find(|(thread, _)| thread.tid == tid) else { return true };
    let now = Addr(owner.regs.rsp);
    stack.is_some_and(|stack| stack.range.contains(now)) && !alternate.contains(now) && now.0 >= remainder.stack()
}
