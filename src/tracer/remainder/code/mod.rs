//! The code of a remainder: it makes the call for what was left of a transfer, and then is as if the whole had been one call.
//!
//! ```text
//! code   (see [`super::assembly`])
//! data   of a vector: a `struct msghdr`, and what is left of it
//! note:  pid and tid, stack pointer, mark
//! ```
//!
//! How much was done before is not in the code but in the thread's registers. So the code belongs to the call and not to its progress, and a thread that is cut short again
//! in it goes on by its registers alone, but for what is left of a vector that is sent: that is read by the kernel, so it is data of this one thread. Behind a system call `rcx` is the address to which that returns.
//!
//! What the transfer has done so far is returned when the rest fails. There is one exception: a TCP connection tells an error (all above 64, but EPIPE) once, and a
//! call that has done something leaves it to the next one. The rest would take it away and the next call would see a proper end; so the error is returned.

use super::assembly::{Assembly, Shape};
use super::{Pieces, Rest, Vector, Way};
use crate::image::model::address::Addr;
use crate::image::model::id::{Pid, Tid};
use crate::sys::regset::UserRegs;

/// Bytes of the smallest one, with its note. Others have a multiple of it.
pub(crate) const LEN: usize = 128;
/// Bytes of the largest.
pub(crate) const MOST_LEN: usize = super::MOST * LEN;

/// Where data begins, before the note: a `struct msghdr` of seven words, and the vector.
const DATA: usize = 80;
const VECTOR: usize = DATA + 7 * 8;
/// Bytes of a `struct iovec`.
const PIECE: usize = 16;
/// Pieces for which there is room in the largest.
pub const MOST_PIECES: usize = (MOST_LEN - NOTE_LEN - VECTOR) / PIECE;

/// Bytes of a `struct mmsghdr`.
pub const MESSAGE_LEN: u64 = 64;
/// What one call transfers at most (MAX_RW_COUNT).
pub const MOST_COUNT: u64 = 0x7fff_f000;
/// Length of the `syscall` instruction.
const SYSCALL_LEN: u64 = 2;
const MARK: [u8; 8] = *b"\xccsnaprem";
const NOTE_LEN: usize = 24;

/// A thread, and its process: a child of that has a copy of its remainders, but not the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub pid: Pid,
    pub tid: Tid,
}

/// A remainder that stands in a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remainder {
    at: Addr,
    shape: Shape,
    bytes: Vec<u8>,
}

/// Bytes that one of a shape has at least.
const fn len(shape: Shape) -> usize {
    match shape {
        Shape::Bytes | Shape::First | Shape::Count | Shape::Length | Shape::Messages => LEN,
        Shape::Vector | Shape::Pieces => 2 * LEN,
    }
}

impl Remainder {
    /// That of the call which has just returned to `regs`, in a thread.
    pub(super) fn of_call(at: Addr, owner: Owner, regs: &UserRegs, rest: &Rest) -> Self {
        let (shape, numbers) = match &rest.way {
            Way::Bytes { .. } => {
                (Shape::Bytes, vec![regs.rsi.wrapping_neg(), regs.rsi, regs.rdx, regs.r10, regs.r8, regs.rip])
            }
            Way::First => (Shape::First, vec![regs.rdi.wrapping_neg(), regs.rdi, regs.rsi, regs.rip]),
            Way::Vector(_) => (Shape::Vector, vec![regs.rsi, regs.rdx, regs.r9, regs.rip]),
            Way::Pieces(pieces) => {
                let own = [pieces.end.0, rest.number];
                let back = [regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9, regs.rip];
                (Shape::Pieces, own.into_iter().chain(back).collect())
            }
            Way::Count => (Shape::Count, vec![regs.r10.min(MOST_COUNT) + 1, regs.r10, regs.rip]),
            Way::Length => (Shape::Length, vec![regs.r8.min(MOST_COUNT) + 1, regs.r8, regs.r9, regs.rip]),
            Way::Messages => (Shape::Messages, vec![regs.rsi, regs.rdx, regs.r9, regs.rip]),
        };
        let mut bytes = Assembly::of(shape, rest.tells_errors).with(&numbers);
        bytes.resize(len(shape), 0);
        let mut made = Self { at, shape, bytes };
        if let Way::Vector(vector) = &rest.way {
            let len = VECTOR + vector.pieces.len() * PIECE + NOTE_LEN;
            made.bytes.resize(len.next_multiple_of(LEN).max(2 * LEN), 0);
            made.put_vector(vector);
        }
        made.note(owner, regs.rsp);
        made
    }

    /// The one with which these bytes begin, if they do.
    #[must_use]
    pub fn decode(at: Addr, bytes: &[u8]) -> Option<Self> {
        Shape::ALL.into_iter().find_map(|shape| {
            let most = if shape == Shape::Vector { MOST_LEN } else { len(shape) };
            let mut lengths = (len(shape)..=most).step_by(LEN);
            let len = lengths.find(|len| bytes.get(..*len).is_some_and(|bytes| bytes.ends_with(&MARK)))?;
            let bytes = bytes.get(..len)?;
            let is_code = [false, true].into_iter().any(|tells_errors| {
                let wanted = Assembly::of(shape, tells_errors);
                let end = if shape == Shape::Vector { DATA } else { bytes.len() - NOTE_LEN };
                let mut code = bytes[..end].to_vec();
                wanted.numbers.iter().for_each(|place| code[*place..place + 8].fill(0));
                let (code, behind) = code.split_at(wanted.code.len());
                code == wanted.code && behind.iter().all(|byte| *byte == 0)
            });
            is_code.then(|| Self { at, shape, bytes: bytes.to_vec() })
        })
    }

    /// Where it stands.
    #[must_use]
    pub fn at(&self) -> Addr {
        self.at
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether a thread is in it.
    #[must_use]
    pub fn contains(&self, rip: u64) -> bool {
        rip >= self.at.0 && rip < self.at.0 + self.code().len() as u64
    }

    /// Whether it reaches into so many bytes from there.
    pub(super) fn overlaps(&self, start: Addr, len: usize) -> bool {
        self.at.0 < start.0 + len as u64 && start.0 < self.at.0 + self.bytes.len() as u64
    }

    /// Where its call returns to.
    pub(super) fn after(&self) -> Addr {
        self.at.add(SYSCALL_LEN)
    }

    /// The registers with which its call is made when the one in `regs` has done a part, and is to be restarted. What is left of a vector is set to fit.
    pub(super) fn next(&mut self, regs: &UserRegs) -> UserRegs {
        let done = regs.rax;
        let further = UserRegs { rsi: regs.rsi.wrapping_add(done), rdx: regs.rdx.wrapping_sub(done), ..*regs };
        match self.shape {
            Shape::Bytes => further,
            Shape::First => UserRegs { rdi: regs.rdi.wrapping_add(done), rsi: regs.rsi.wrapping_sub(done), ..*regs },
            Shape::Vector => {
                let left = self.vector().without(done);
                self.put_vector(&left);
                let rdx = if is_message(regs.orig_rax) { regs.rdx } else { left.count() };
                UserRegs { rdx, r9: regs.r9.wrapping_add(done), ..*regs }
            }
            Shape::Pieces => UserRegs { r9: regs.r9.wrapping_add(done), ..further },
            Shape::Count => UserRegs { r10: regs.r10.wrapping_sub(done), ..*regs },
            Shape::Length => UserRegs { r8: regs.r8.wrapping_sub(done), ..*regs },
            Shape::Messages => UserRegs {
                rsi: regs.rsi.wrapping_add(done.wrapping_mul(MESSAGE_LEN)),
                rdx: regs.rdx.wrapping_sub(done),
                r9: regs.r9.wrapping_add(done),
                ..*regs
            },
        }
    }

    /// The registers of its first call: that in `regs` has done a part.
    pub(super) fn first(&mut self, regs: &UserRegs, rest: &Rest) -> UserRegs {
        let made = UserRegs { rip: self.after().0, orig_rax: rest.number, ..*regs };
        let data = |at: usize| self.at.add(at as u64).0;
        match &rest.way {
            Way::Bytes { end } => {
                UserRegs { r10: rest.flags, r8: rest.address, ..self.next(&UserRegs { rdx: *end, ..made }) }
            }
            Way::First => self.next(&made),
            Way::Vector(_) if is_message(rest.number) => {
                UserRegs { rsi: data(DATA), rdx: rest.flags, r9: regs.rax, ..made }
            }
            Way::Vector(vector) => UserRegs { rsi: data(VECTOR), rdx: vector.count(), r9: regs.rax, ..made },
            Way::Pieces(Pieces { end: _, at, len, behind }) => UserRegs {
                rsi: at.0,
                rdx: *len,
                r10: rest.flags,
                r8: rest.address,
                r9: u64::from(behind.wrapping_neg()) << 32 | regs.rax,
                ..made
            },
            Way::Count => self.next(&UserRegs { r10: regs.r10.min(MOST_COUNT), ..made }),
            Way::Length => UserRegs { r9: rest.flags, ..self.next(&UserRegs { r8: regs.r8.min(MOST_COUNT), ..made }) },
            Way::Messages => self.next(&UserRegs { r9: 0, ..made }),
        }
    }

    /// Whether another thread may be in it too.
    pub(super) fn can_be_shared(&self) -> bool {
        self.shape != Shape::Vector
    }

    fn vector(&self) -> Vector {
        let pieces = self.bytes[VECTOR..self.bytes.len() - NOTE_LEN].chunks_exact(PIECE);
        let pieces = pieces.map(|piece| (Addr(number(piece)), number(&piece[8..])));
        let word = |index: usize| number(&self.bytes[DATA + index * 8..]);
        Vector { pieces: pieces.filter(|(_, len)| *len > 0).collect(), control: (Addr(word(4)), word(5)) }
    }

    /// Pieces, and a message that has nothing else but control data of the caller's.
    fn put_vector(&mut self, vector: &Vector) {
        let end = self.bytes.len() - NOTE_LEN;
        self.bytes[DATA..end].fill(0);
        let (control, control_len) = vector.control;
        let message = [0, 0, self.at.add(VECTOR as u64).0, vector.count(), control.0, control_len, 0];
        let pieces = vector.pieces.iter().flat_map(|(at, len)| [at.0, *len]);
        for (index, word) in message.into_iter().chain(pieces).enumerate() {
            self.bytes[DATA + index * 8..][..8].copy_from_slice(&word.to_le_bytes());
        }
    }

    /// Whether it is for the same call.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.code() == other.code()
    }

    fn code(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - NOTE_LEN]
    }

    fn note(&mut self, owner: Owner, stack: u64) {
        let ids = u64::from(owner.pid.0.cast_unsigned()) << 32 | u64::from(owner.tid.0.cast_unsigned());
        let start = self.code().len();
        let note = &mut self.bytes[start..];
        note[..8].copy_from_slice(&ids.to_le_bytes());
        note[8..16].copy_from_slice(&stack.to_le_bytes());
        note[16..].copy_from_slice(&MARK);
    }

    /// Notes that another thread is in it too, or the same in another place of its stack: then nobody can tell any more when it is of no use.
    pub(super) fn share(&mut self, other: &Self) {
        if self.bytes != other.bytes {
            self.note(Owner { pid: Pid(0), tid: Tid(0) }, u64::MAX);
        }
    }

    /// The thread for which it was made; 0 when there are several.
    pub(super) fn owner(&self) -> Owner {
        let ids = self.noted(0);
        Owner { pid: Pid((ids >> 32) as i32), tid: Tid(ids as i32) }
    }

    /// The stack pointer of its call: all that may come back to it lies below.
    pub(super) fn stack(&self) -> u64 {
        self.noted(8)
    }

    fn noted(&self, at: usize) -> u64 {
        number(&self.bytes[self.code().len() + at..])
    }
}

/// Whether a call takes a `struct msghdr`.
fn is_message(number: u64) -> bool {
    number == libc::SYS_sendmsg as u64
}

fn number(bytes: &[u8]) -> u64 {
    bytes[..8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests;
