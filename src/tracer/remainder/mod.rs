//! Transfers that a stop has cut short: the thread goes on with the rest of its call, and returns the count of the whole.
//!
//! A stop ends a blocked write(2) of which a part is done with the count of that part. Nobody but the thread itself can make the rest, and what it returns
//! is not what the whole returns. So it is sent through a few instructions of ours ([`code`]) in padding, which stay there for as long as the call lasts,
//! and longer: a signal handler that interrupts it returns to them. They are taken away by a later stop, when nobody can come back to them.
//!
//! Before the thread's registers are set, it returns the short count, as from any stop; from then on the full one. Nothing is to be undone.

mod assembly;
mod code;

pub(super) use code::LEN;
pub use code::{MESSAGE_LEN, MOST_COUNT, Remainder};
use code::{MOST_LEN, MOST_PIECES, Owner};

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

/// Most of them in one address space, if they are of the smallest size.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    /// Number of the system call.
    pub number: u64,
    /// Its fourth argument, unless that is a count; of [`Way::Length`] the sixth.
    pub flags: u64,
    /// Its fifth argument.
    pub address: u64,
    /// Whether an error that it takes away would not be seen by the next call.
    pub tells_errors: bool,
    /// What there is to transfer.
    pub way: Way,
}

/// Where the rest of a transfer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// In one piece, as the whole: buffer and count are in the second and third argument. It is done with so many bytes in all.
    Bytes {
        /// At most the third argument of the whole.
        end: u64,
    },
    /// The same in the first and second argument.
    First,
    /// In pieces that are sent by writev(2) or sendmsg(2).
    Vector(Vector),
    /// In pieces, each of which is moved by a call that has its buffer and count in the second and third argument, and none in the sixth.
    Pieces(Pieces),
    /// Behind what a descriptor stands at: the count is in the fourth argument.
    Count,
    /// The same with the count in the fifth argument.
    Length,
    /// In an array of `struct mmsghdr`: this and their number are the second and third argument, and there is no sixth.
    Messages,
    /// The same on a stream, where a part of one may be done.
    Stream(Stream),
}

/// What is left of messages that are sent to a stream, or received from one until each is full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Of the one that was begun last.
    pub part: Option<StreamPart>,
    /// Behind that one: the first `struct mmsghdr`, and how many there are.
    pub behind: (Addr, u64),
    /// Most pieces that any of them has, if each is to be sent.
    pub most: usize,
}

/// What is left of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPart {
    /// Where its length is noted.
    pub noted: Addr,
    /// Bytes of the whole.
    pub total: u64,
    /// And what is left of them.
    pub left: u64,
    /// Where they are.
    pub place: StreamPlace,
    /// Flags of the call for them.
    pub flags: u64,
}

/// Where the rest of a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamPlace {
    /// In pieces that are sent by sendmsg(2).
    Sent(Vector),
    /// In one piece that recvfrom(2) fills.
    Filled(Addr),
}

/// What is left of a vector that is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vector {
    /// Pieces with their length in bytes, none of which is empty.
    pieces: Vec<(Addr, u64)>,
    /// Control data that goes with each part of a message: where it stands and its length in bytes.
    control: (Addr, u64),
}

impl Vector {
    /// `None` if they are more than there is ever room for.
    #[must_use]
    pub fn new(pieces: &[(Addr, u64)], control: (Addr, u64)) -> Option<Self> {
        let pieces: Vec<(Addr, u64)> = pieces.iter().copied().filter(|(_, len)| *len > 0).collect();
        (pieces.len() <= MOST_PIECES).then_some(Self { pieces, control })
    }

    /// Whether there is control data.
    #[must_use]
    pub fn carries(&self) -> bool {
        self.control.1 != 0
    }

    /// What is left of it when so much is done.
    fn without(mut self, mut done: u64) -> Self {
        for (at, len) in &mut self.pieces {
            let here = done.min(*len);
            (*at, *len, done) = (at.add(here), *len - here, done - here);
        }
        self.pieces.retain(|(_, len)| *len > 0);
        self
    }

    fn count(&self) -> u64 {
        self.pieces.len() as u64
    }
}

/// What is left of a vector that is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// Behind its last `struct iovec`.
    pub end: Addr,
    /// The rest of the first piece that is not done.
    pub at: Addr,
    /// Its length in bytes.
    pub len: u64,
    /// Pieces behind that one.
    pub behind: u32,
}

impl FrozenTree {
    /// Has a thread whose call has returned after a part of its count go on with the rest when it is let go. What kept it from being done is the inner error:
    /// then it returns the part.
    ///
    /// # Errors
    /// [`Error`] of the target's memory and registers.
    pub fn go_on(&mut self, tid: Tid, rest: &Rest) -> Result<Result<(), String>, Error> {
        let Some(&index) = self.index.get(&tid) else { return Err(Error::Vanished(Pid(tid.0))) };
        let thread = &self.threads[index];
        let memory = Memory::open(Pid(tid.0))?;
        let next = match standing_in(thread.regs.rip, &memory) {
            Some(mut own) => {
                let next = match own.next(&thread.regs, rest) {
                    Ok(next) => next,
                    Err(why) => return Ok(Err(why)),
                };
                if !own.can_be_shared() {
                    // The kernel has read it, and does so again only with the registers that are set below.
                    write_verified(own.at(), own.bytes(), &memory)?;
                }
                next
            }
            None => match prepare(thread, rest, self.threads_of(thread.pid), &memory)? {
                Ok(mut made) => match made.first(&thread.regs, rest) {
                    Ok(first) => first,
                    Err(why) => return Ok(Err(why)),
                },
                Err(why) => return Ok(Err(why)),
            },
        };
        let regs = UserRegs { rax: ERESTARTNOHAND, ..next };
        regset::set_up_to_flags(tid, &regs).map_err(Error::of(tid, "setting registers"))?;
        self.threads[index].regs = regs;
        fault::pass(fault::Point::RemainderEntered)?;
        Ok(Ok(()))
    }
}

/// The remainder whose call has just returned to this address.
fn standing_in(rip: u64, memory: &Memory) -> Option<Remainder> {
    at(Addr(rip.wrapping_sub(2)), memory)
}

/// The remainder that stands at an address.
fn at(at: Addr, memory: &Memory) -> Option<Remainder> {
    // Most places hold nothing, and are read once.
    memory.read_vec(at, LEN).ok().filter(|bytes| bytes.iter().any(|byte| *byte != 0))?;
    // Behind a small one there may be nothing more.
    let mut lengths = (LEN..=MOST_LEN).step_by(LEN);
    lengths.find_map(|len| Remainder::decode(at, &memory.read_vec(at, len).ok()?))
}

/// Whether an address in a mapping is in a remainder.
pub(super) fn is_inside(tid: Tid, mapping: PageRange, rip: u64) -> bool {
    let len = MOST_LEN as u64;
    let start = rip.saturating_sub(len).next_multiple_of(STEP as u64).max(mapping.start.0);
    let end = (start + 2 * len).min(mapping.end.0);
    let bytes =
        Memory::open(Pid(tid.0)).and_then(|memory| memory.read_vec(Addr(start), end.saturating_sub(start) as usize));
    bytes.is_ok_and(|bytes| all_in(Addr(start), &bytes).any(|remainder| remainder.contains(rip)))
}

/// Those among bytes that lie at `start`, a multiple of [`STEP`].
fn all_in(start: Addr, bytes: &[u8]) -> impl Iterator<Item = Remainder> {
    let places = (0..=bytes.len().saturating_sub(LEN)).step_by(STEP);
    places.filter_map(move |at| Remainder::decode(start.add(at as u64), bytes.get(at..)?))
}

/// Writes a remainder for the call that has returned, unless there is one for the same call. No thread is changed.
fn prepare(
    thread: &StoppedThread,
    rest: &Rest,
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
    let owner = Owner { pid: thread.pid, tid: thread.tid };
    let made = |at| Remainder::of_call(at, owner, regs, rest);
    let mut room = match room_for(thread.pid, &made(Addr(0)), threads, memory)? {
        Room::There(mut same) => {
            same.share(&made(same.at()));
            write_verified(same.at(), same.bytes(), memory)?;
            return Ok(Ok(same));
        }
        Room::At(at) => made(at),
        Room::None => return Ok(Err("there is no room left for code of ours behind that of the program".to_owned())),
    };
    let first = match room.first(regs, rest) {
        Ok(first) => first,
        Err(why) => return Ok(Err(why)),
    };
    let policy = Policy::of(thread)?;
    for regs in [first, room.later(&first, rest)] {
        let args = [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9];
        if let Some(why) = policy.refusal(&Call { number: regs.orig_rax, args, ip: room.after() }) {
            return Ok(Err(format!("the rest would meet {why}")));
        }
    }
    write_verified(room.at(), room.bytes(), memory)?;
    fault::pass(fault::Point::RemainderWritten)?;
    Ok(Ok(room))
}

/// Where a remainder can stand.
enum Room {
    /// One for the same call is there.
    There(Remainder),
    At(Addr),
    None,
}

/// Finds room for a remainder in a process, whose `threads` are these. Those whose thread has ended are taken away, and those of the same thread at the same place of its stack:
/// it makes another call from there, so it is not in a handler that would return to them.
fn room_for(pid: Pid, wanted: &Remainder, threads: &[StoppedThread], memory: &Memory) -> Result<Room, Error> {
    let has_ended = |remainder: &Remainder| {
        let owner = remainder.owner();
        owner.pid == pid && !threads.iter().any(|thread| thread.tid == owner.tid || remainder.contains(thread.regs.rip))
    };
    let is_over = |old: &Remainder| old.owner() == wanted.owner() && old.stack() == wanted.stack();
    let len = wanted.bytes().len();
    let (mut free, mut taken) = (None, 0);
    for (start, end) in padding::tails(&read_maps(memory.pid())?, threads.len() >= MANY, memory)? {
        let mut there = Vec::new();
        for old in positions(start, end).filter_map(|place| at(place, memory)) {
            if old.can_be_shared() && old.is_same(wanted) {
                return Ok(Room::There(old));
            } else if has_ended(&old) || is_over(&old) {
                write_verified(old.at(), &vec![0; old.bytes().len()], memory)?;
            } else {
                taken += old.bytes().len() / LEN;
                there.push(old);
            }
        }
        for place in positions(start, end).filter(|place| place.0 + len as u64 <= end.0) {
            let is_free = !there.iter().any(|other| other.overlaps(place, len))
                && memory.read_vec(place, len)?.iter().all(|byte| *byte == 0);
            free = free.or(is_free.then_some(place));
        }
    }
    Ok(free.filter(|_| taken + len / LEN <= MOST).map_or(Room::None, Room::At))
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
    for mapping in padding::lasting(maps, memory) {
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
    for mapping in padding::lasting(maps, memory) {
        for remainder in at_end_of(mapping, memory)? {
            if is_left(&remainder, pid, maps, threads) {
                write_verified(remainder.at(), &vec![0; remainder.bytes().len()], memory)?;
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
