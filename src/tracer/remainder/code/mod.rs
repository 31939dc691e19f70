//! The code of a remainder: it makes the call for what was left of a transfer, and then is as if the whole had been one call.
//!
//! ```text
//! code   (see [`super::assembly`])
//! data   of a vector that is sent, also as a message: a `struct msghdr`, and what is left of it
//! note:  pid and tid, stack pointer, mark
//! ```
//!
//! How much was done before is not in the code but in the thread's registers. So the code belongs to the call and not to its progress, and a thread that is cut short again
//! in it goes on by its registers alone, but for what is left of a vector that is sent, and of a message: that is data of this one thread. Behind a system call `rcx` is the address to which that returns.
//!
//! What the transfer has done so far is returned when the rest fails. There is one exception: a TCP connection tells an error (all above 64, but EPIPE) once, and a
//! call that has done something leaves it to the next one. The rest would take it away and the next call would see a proper end; so the error is returned.

use super::assembly::{self, Assembly, Shape};
use super::{Pieces, Rest, Stream, StreamPart, StreamPlace, Vector, Way};
use crate::image::model::address::Addr;
use crate::image::model::id::{Pid, Tid};
use crate::sys::regset::UserRegs;

/// Bytes of the smallest one, with its note. Others have a multiple of it.
pub(crate) const LEN: usize = 128;
/// Bytes of the largest.
pub(crate) const MOST_LEN: usize = super::MOST * LEN;

/// Where data begins, before the note: a `struct msghdr`, and the vector.
const DATA: usize = 80;
/// The same of messages on a stream.
const STREAM_DATA: usize = 232;
/// Bytes of a `struct msghdr`.
const HEADER: usize = 7 * 8;
/// Bytes of a `struct iovec`.
const PIECE: usize = 16;
/// Pieces for which there is room in the largest.
pub const MOST_PIECES: usize = (MOST_LEN - NOTE_LEN - DATA - HEADER) / PIECE;
/// Where the numbers of a stream stand among those of its code.
const STREAM_TOTAL: usize = 6;

/// Bytes of a `struct mmsghdr`.
pub const MESSAGE_LEN: u64 = 64;
/// How many messages one call sends at most (UIO_MAXIOV).
const MOST_SENT: u64 = libc::UIO_MAXIOV as u64;
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
    tells_errors: bool,
    bytes: Vec<u8>,
}

/// Bytes that one of a shape has at least.
const fn len(shape: Shape) -> usize {
    match shape {
        Shape::Bytes | Shape::First | Shape::Count | Shape::Length | Shape::Messages => LEN,
        Shape::Vector | Shape::Pieces | Shape::Stream => 2 * LEN,
    }
}

/// Where its data begins, if it has any.
const fn data(shape: Shape) -> Option<usize> {
    match shape {
        Shape::Vector => Some(DATA),
        Shape::Stream => Some(STREAM_DATA),
        Shape::Bytes | Shape::First | Shape::Count | Shape::Length | Shape::Messages | Shape::Pieces => None,
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
            Way::Stream(_) => {
                let back = [regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9, regs.rip];
                // The others follow from its progress.
                (Shape::Stream, back.into_iter().chain([0, 0, 0, 0, regs.r10, regs.r8, rest.number]).collect())
            }
        };
        let mut bytes = Assembly::of(shape, rest.tells_errors).with(&numbers);
        bytes.resize(len(shape), 0);
        let mut made = Self { at, shape, tells_errors: rest.tells_errors, bytes };
        let pieces = match &rest.way {
            Way::Vector(vector) => vector.pieces.len(),
            Way::Stream(stream) => stream.most,
            Way::Bytes { .. } | Way::First | Way::Pieces(_) | Way::Count | Way::Length | Way::Messages => 0,
        };
        // What is received has no data.
        if let Some(start) = data(shape).filter(|_| pieces > 0) {
            let wanted = (start + HEADER + pieces * PIECE + NOTE_LEN).next_multiple_of(LEN);
            made.bytes.resize(wanted.clamp(len(shape), MOST_LEN), 0);
        }
        if let Way::Vector(vector) = &rest.way {
            made.put_vector(vector);
        }
        made.note(owner, regs.rsp);
        made
    }

    /// The one with which these bytes begin, if they do.
    #[must_use]
    pub fn decode(at: Addr, bytes: &[u8]) -> Option<Self> {
        Shape::ALL.into_iter().find_map(|shape| {
            let most = if data(shape).is_some() { MOST_LEN } else { len(shape) };
            let mut lengths = (len(shape)..=most).step_by(LEN);
            let len = lengths.find(|len| bytes.get(..*len).is_some_and(|bytes| bytes.ends_with(&MARK)))?;
            let bytes = bytes.get(..len)?;
            let is_code = |tells_errors: &bool| {
                let wanted = Assembly::of(shape, *tells_errors);
                let end = data(shape).unwrap_or(bytes.len() - NOTE_LEN);
                let mut code = bytes[..end].to_vec();
                wanted.numbers.iter().for_each(|place| assembly::put(&mut code, *place, 0));
                let (code, behind) = code.split_at(wanted.code.len());
                code == wanted.code && behind.iter().all(|byte| *byte == 0)
            };
            let tells_errors = [false, true].into_iter().find(is_code)?;
            Some(Self { at, shape, tells_errors, bytes: bytes.to_vec() })
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

    /// The registers with which its call is made when the one in `regs` has done a part, and is to be restarted; `rest` is what is left of that call. What is left of
    /// a vector is set to fit. Of messages, one may have more pieces than there is room for: that is the error.
    pub(super) fn next(&mut self, regs: &UserRegs, rest: &Rest) -> Result<UserRegs, String> {
        if self.shape == Shape::Stream { self.next_of_stream(regs, rest) } else { Ok(self.further(regs)) }
    }

    fn further(&mut self, regs: &UserRegs) -> UserRegs {
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
            // Those on a stream that are not begun.
            Shape::Messages | Shape::Stream => UserRegs {
                rsi: regs.rsi.wrapping_add(done.wrapping_mul(MESSAGE_LEN)),
                rdx: regs.rdx.wrapping_sub(done),
                r9: regs.r9.wrapping_add(done),
                ..*regs
            },
        }
    }

    /// What is left of a message has its bytes in the upper half of `r9`, less than nothing.
    fn next_of_stream(&mut self, regs: &UserRegs, rest: &Rest) -> Result<UserRegs, String> {
        let done = regs.rax;
        if regs.r9 >> 32 == 0 {
            return match &rest.way {
                Way::Stream(stream) => {
                    self.stream(&UserRegs { r9: regs.r9.wrapping_add(done), ..*regs }, stream, rest.number)
                }
                _ => Err("it is not known what is left of its messages".to_owned()),
            };
        }
        let further = UserRegs { r9: regs.r9.wrapping_add(done << 32), ..*regs };
        if is_message(regs.orig_rax) {
            let left = self.vector().without(done);
            self.put_vector(&left);
            return Ok(further);
        }
        Ok(UserRegs { rsi: regs.rsi.wrapping_add(done), rdx: regs.rdx.wrapping_sub(done), ..further })
    }

    /// The registers for what is left of messages, of which `r9` is how many are begun. `number` is their call.
    fn stream(&mut self, regs: &UserRegs, stream: &Stream, number: u64) -> Result<UserRegs, String> {
        let Stream { part, behind: (at, count), most: _ } = stream;
        let Some(StreamPart { noted, total, left, place, flags }) = part else {
            return Ok(UserRegs { rsi: at.0, rdx: *count, orig_rax: number, ..*regs });
        };
        let places = Assembly::of(Shape::Stream, self.tells_errors).numbers;
        for (place, number) in places[STREAM_TOTAL..].iter().zip([*total, noted.0, *count, at.0]) {
            assembly::put(&mut self.bytes, *place, number);
        }
        let regs = UserRegs { r9: (left << 32).wrapping_neg() | regs.r9, ..*regs };
        match place {
            StreamPlace::Sent(vector) if vector.pieces.len() > self.room() => {
                Err("more pieces of a message are left than there is room for".to_owned())
            }
            StreamPlace::Sent(vector) => {
                self.put_vector(vector);
                let number = libc::SYS_sendmsg as u64;
                Ok(UserRegs { rsi: self.at.add(STREAM_DATA as u64).0, rdx: *flags, orig_rax: number, ..regs })
            }
            StreamPlace::Filled(at) => {
                let number = libc::SYS_recvfrom as u64;
                Ok(UserRegs { rsi: at.0, rdx: *left, r10: *flags, r8: 0, orig_rax: number, ..regs })
            }
        }
    }

    /// Pieces for which there is room in its data.
    fn room(&self) -> usize {
        data(self.shape).map_or(0, |start| self.code().len().saturating_sub(start + HEADER) / PIECE)
    }

    /// The registers of another call that it may make after the first one, as a filter would see it.
    pub(super) fn later(&self, first: &UserRegs, rest: &Rest) -> UserRegs {
        let message = self.at.add(STREAM_DATA as u64).0;
        let is_part = first.orig_rax != rest.number;
        match &rest.way {
            Way::Stream(Stream { part: _, behind: (at, count), most: _ }) if is_part => {
                UserRegs { rsi: at.0, rdx: *count, orig_rax: rest.number, ..*first }
            }
            Way::Stream(_) if rest.number == libc::SYS_sendmmsg as u64 => {
                UserRegs { rsi: message, rdx: rest.flags, orig_rax: libc::SYS_sendmsg as u64, ..*first }
            }
            Way::Stream(_) => UserRegs { r8: 0, orig_rax: libc::SYS_recvfrom as u64, ..*first },
            _ => *first,
        }
    }

    /// The registers of its first call: that in `regs` has done a part.
    pub(super) fn first(&mut self, regs: &UserRegs, rest: &Rest) -> Result<UserRegs, String> {
        let made = UserRegs { rip: self.after().0, orig_rax: rest.number, ..*regs };
        let base = self.at;
        let at = |place: usize| base.add(place as u64).0;
        let start = data(self.shape).unwrap_or(0);
        Ok(match &rest.way {
            Way::Bytes { end } => {
                UserRegs { r10: rest.flags, r8: rest.address, ..self.further(&UserRegs { rdx: *end, ..made }) }
            }
            Way::First => self.further(&made),
            Way::Vector(_) if is_message(rest.number) => {
                UserRegs { rsi: at(start), rdx: rest.flags, r9: regs.rax, ..made }
            }
            Way::Vector(vector) => UserRegs { rsi: at(start + HEADER), rdx: vector.count(), r9: regs.rax, ..made },
            Way::Pieces(Pieces { end: _, at, len, behind }) => UserRegs {
                rsi: at.0,
                rdx: *len,
                r10: rest.flags,
                r8: rest.address,
                r9: u64::from(behind.wrapping_neg()) << 32 | regs.rax,
                ..made
            },
            Way::Count => self.further(&UserRegs { r10: regs.r10.min(MOST_COUNT), ..made }),
            Way::Length => {
                UserRegs { r9: rest.flags, ..self.further(&UserRegs { r8: regs.r8.min(MOST_COUNT), ..made }) }
            }
            Way::Messages if rest.number == libc::SYS_sendmmsg as u64 => {
                self.further(&UserRegs { r9: 0, rdx: regs.rdx.min(MOST_SENT), ..made })
            }
            Way::Messages => self.further(&UserRegs { r9: 0, ..made }),
            Way::Stream(stream) => self.stream(&UserRegs { r9: regs.rax, ..made }, stream, rest.number)?,
        })
    }

    /// Whether another thread may be in it too.
    pub(super) fn can_be_shared(&self) -> bool {
        data(self.shape).is_none()
    }

    fn vector(&self) -> Vector {
        let start = data(self.shape).unwrap_or(DATA);
        let pieces = self.bytes[start + HEADER..self.bytes.len() - NOTE_LEN].chunks_exact(PIECE);
        let pieces = pieces.map(|piece| (Addr(number(piece)), number(&piece[8..])));
        let word = |index: usize| number(&self.bytes[start + index * 8..]);
        Vector { pieces: pieces.filter(|(_, len)| *len > 0).collect(), control: (Addr(word(4)), word(5)) }
    }

    /// Pieces, and a message that has nothing else but control data of the caller's.
    fn put_vector(&mut self, vector: &Vector) {
        let (start, end) = (data(self.shape).unwrap_or(DATA), self.bytes.len() - NOTE_LEN);
        self.bytes[start..end].fill(0);
        let (control, control_len) = vector.control;
        let message = [0, 0, self.at.add((start + HEADER) as u64).0, vector.count(), control.0, control_len, 0];
        let pieces = vector.pieces.iter().flat_map(|(at, len)| [at.0, *len]);
        for (index, word) in message.into_iter().chain(pieces).enumerate() {
            self.bytes[start + index * 8..][..8].copy_from_slice(&word.to_le_bytes());
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
