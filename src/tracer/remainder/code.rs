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
pub(crate) const MOST_LEN: usize = 2 * LEN;

/// Where data begins, before the note: a `struct msghdr` of seven words, and the vector.
const DATA: usize = 80;
const VECTOR: usize = DATA + 7 * 8;
/// Pieces for which there is room.
pub const MOST_PIECES: usize = (2 * LEN - NOTE_LEN - VECTOR) / 16;

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

/// Bytes that one of a shape has.
const fn len(shape: Shape) -> usize {
    match shape {
        Shape::Bytes | Shape::First | Shape::Count => LEN,
        Shape::Vector | Shape::Pieces => 2 * LEN,
    }
}

impl Remainder {
    /// That of the call which has just returned to `regs`, in a thread.
    pub(super) fn of_call(at: Addr, owner: Owner, regs: &UserRegs, rest: &Rest) -> Self {
        let (shape, numbers) = match rest.way {
            Way::Bytes => {
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
        };
        let mut bytes = Assembly::of(shape, rest.tells_errors).with(&numbers);
        bytes.resize(len(shape), 0);
        let mut made = Self { at, shape, bytes };
        if let Way::Vector(vector) = rest.way {
            made.put_vector(vector);
        }
        made.note(owner, regs.rsp);
        made
    }

    /// The one with which these bytes begin, if they do.
    #[must_use]
    pub fn decode(at: Addr, bytes: &[u8]) -> Option<Self> {
        Shape::ALL.into_iter().find_map(|shape| {
            let bytes = bytes.get(..len(shape)).filter(|bytes| bytes.ends_with(&MARK))?;
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
                self.put_vector(left);
                let rdx = if is_message(regs.orig_rax) { regs.rdx } else { left.count() };
                UserRegs { rdx, r9: regs.r9.wrapping_add(done), ..*regs }
            }
            Shape::Pieces => UserRegs { r9: regs.r9.wrapping_add(done), ..further },
            Shape::Count => UserRegs { r10: regs.r10.wrapping_sub(done), ..*regs },
        }
    }

    /// The registers of its first call: that in `regs` has done a part.
    pub(super) fn first(&mut self, regs: &UserRegs, rest: &Rest) -> UserRegs {
        let made = UserRegs { rip: self.after().0, orig_rax: rest.number, ..*regs };
        let data = |at: usize| self.at.add(at as u64).0;
        match rest.way {
            Way::Bytes => UserRegs { r10: rest.flags, r8: rest.address, ..self.next(&made) },
            Way::First => self.next(&made),
            Way::Vector(_) if is_message(rest.number) => {
                UserRegs { rsi: data(DATA), rdx: rest.flags, r9: regs.rax, ..made }
            }
            Way::Vector(vector) => UserRegs { rsi: data(VECTOR), rdx: vector.count(), r9: regs.rax, ..made },
            Way::Pieces(Pieces { end: _, at, len, behind }) => UserRegs {
                rsi: at.0,
                rdx: len,
                r10: rest.flags,
                r8: rest.address,
                r9: u64::from(behind.wrapping_neg()) << 32 | regs.rax,
                ..made
            },
            Way::Count => self.next(&UserRegs { r10: regs.r10.min(MOST_COUNT), ..made }),
        }
    }

    /// Whether another thread may be in it too.
    pub(super) fn can_be_shared(&self) -> bool {
        self.shape != Shape::Vector
    }

    fn vector(&self) -> Vector {
        let word = |index: usize| number(&self.bytes[VECTOR + index * 8..]);
        let mut pieces = [(Addr::NULL, 0); MOST_PIECES];
        pieces.iter_mut().enumerate().for_each(|(index, piece)| {
            *piece = (Addr(word(2 * index)), word(2 * index + 1));
        });
        Vector(pieces)
    }

    /// Pieces, and a message that has nothing else.
    fn put_vector(&mut self, vector: Vector) {
        let message = [0, 0, self.at.add(VECTOR as u64).0, vector.count(), 0, 0, 0];
        let pieces = vector.0.into_iter().flat_map(|(at, len)| [at.0, len]);
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
mod tests {
    use super::*;
    use crate::sys::regset;
    use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

    const AT: u64 = 0x7000_0000_0100;
    const OWNER: Owner = Owner { pid: Pid(5), tid: Tid(7) };
    const PIECES: Pieces = Pieces { end: Addr(0x6080), at: Addr(0x5010), len: 0x90, behind: 3 };

    fn vector() -> Vector {
        Vector::new(&[(Addr(0x5010), 0x10), (Addr(0x6000), 0), (Addr(0x7000), 0x20)]).expect("few pieces")
    }

    fn regs() -> UserRegs {
        UserRegs {
            rdi: 0x1000,
            rsi: 0x5000,
            rdx: 1 << 20,
            r10: 3,
            r8: 4,
            r9: 5,
            rax: 0x10,
            rip: 0x7fff_0000_1234,
            rsp: 0x7ffe_0000,
            ..regset::zeroed()
        }
    }

    fn rest(way: Way, tells_errors: bool) -> Rest {
        Rest { number: 44, flags: 0x4000, address: 0, tells_errors, way }
    }

    fn every() -> impl Iterator<Item = Rest> {
        let ways = || [Way::Bytes, Way::First, Way::Vector(vector()), Way::Pieces(PIECES), Way::Count];
        [false, true].into_iter().flat_map(move |told| ways().map(|way| rest(way, told)))
    }

    fn made(rest: &Rest) -> Remainder {
        Remainder::of_call(Addr(AT), OWNER, &regs(), rest)
    }

    fn decoded(rest: &Rest) -> Vec<Instruction> {
        let made = made(rest);
        let mut code: Vec<Instruction> = Decoder::with_ip(64, made.code(), AT, DecoderOptions::NONE).iter().collect();
        let end = code.iter().rposition(|i| i.code() == Code::Jmp_rm64).expect("a jump back");
        code.truncate(end + 1);
        code
    }

    #[test]
    fn no_flag_no_stack_no_store() {
        for instruction in every().flat_map(|rest| decoded(&rest)) {
            let harmless = matches!(
                instruction.mnemonic(),
                Mnemonic::Mov
                    | Mnemonic::Lea
                    | Mnemonic::Bswap
                    | Mnemonic::Movsx
                    | Mnemonic::Movsxd
                    | Mnemonic::Not
                    | Mnemonic::Jrcxz
                    | Mnemonic::Jmp
                    | Mnemonic::Syscall
            );
            assert!(harmless, "{instruction:?}");
            let changed = if instruction.code() == Code::Syscall { 0 } else { instruction.rflags_modified() };
            assert_eq!(changed, 0, "{instruction:?}");
            assert_ne!(instruction.op0_kind(), OpKind::Memory, "{instruction:?}");
            assert_ne!(instruction.op0_register(), Register::RSP, "{instruction:?}");
        }
    }

    #[test]
    fn every_jump_leads_to_an_instruction_and_one_is_the_last() {
        for rest in every() {
            let code = decoded(&rest);
            for jump in code.iter().filter(|i| i.op0_kind() == OpKind::NearBranch64) {
                let target = jump.near_branch_target();
                assert!(code.iter().any(|i| i.ip() == target), "{rest:?}: {jump:?}");
            }
            let last = code.last().map(|i| (i.mnemonic(), i.op0_register()));
            assert_eq!(last, Some((Mnemonic::Jmp, Register::RCX)));
            let calls = code.iter().filter(|i| i.mnemonic() == Mnemonic::Syscall).map(Instruction::ip);
            assert_eq!(calls.collect::<Vec<_>>(), [AT], "the one call stands at its beginning");
        }
    }

    fn loads(rest: &Rest) -> Vec<(Register, u64)> {
        let code = decoded(rest);
        let loads = code.iter().filter(|i| i.mnemonic() == Mnemonic::Mov && i.op1_kind() == OpKind::Immediate64);
        loads.map(|i| (i.op0_register(), i.immediate64())).collect()
    }

    #[test]
    fn registers_are_those_of_the_call() {
        let back = (Register::RCX, 0x7fff_0000_1234);
        let wanted = [(Register::RSI, 0x5000), (Register::RDX, 1 << 20), (Register::R10, 3), (Register::R8, 4)];
        let bytes = loads(&rest(Way::Bytes, false));
        assert_eq!(bytes[0], (Register::RCX, 0x5000u64.wrapping_neg()));
        assert_eq!((&bytes[1..5], bytes[5]), (&wanted[..], back));
        let pieces = loads(&rest(Way::Pieces(PIECES), false));
        assert_eq!(pieces[..3], [(Register::RSI, 0x6080), (Register::RCX, 1 << 32), (Register::RAX, 44)]);
        assert_eq!((&pieces[3..7], &pieces[7..]), (&wanted[..], &[(Register::R9, 5), back][..]));
        let first = loads(&rest(Way::First, false));
        let own = [(Register::RCX, 0x1000u64.wrapping_neg()), (Register::RDI, 0x1000)];
        assert_eq!((&first[..2], &first[2..]), (&own[..], &[wanted[0], back][..]));
        let vector = loads(&rest(Way::Vector(vector()), false));
        assert_eq!((&vector[..2], &vector[2..]), (&wanted[..2], &[(Register::R9, 5), back][..]));
        let count = loads(&rest(Way::Count, false));
        assert_eq!(count, [(Register::RCX, 4), (Register::R10, 3), back]);
    }

    #[test]
    fn progress_is_in_the_registers() {
        let told = |way| {
            let rest = rest(way, false);
            let mut made = made(&rest);
            let first = made.first(&regs(), &rest);
            let next = made.next(&UserRegs { rax: 8, ..first });
            [first, next].map(|regs| (regs.rsi, regs.rdx, regs.r10, regs.r9))
        };
        let of = |done: u64| (0x5000 + done, (1 << 20) - done, 0x4000, 5);
        assert_eq!(told(Way::Bytes), [of(0x10), of(0x18)]);
        let pieces = 0xffff_fffd_0000_0000;
        let of = |done: u64| (0x5000 + done, 0xa0 - done, 0x4000, pieces | done);
        assert_eq!(told(Way::Pieces(PIECES)), [of(0x10), of(0x18)]);
        let of = |done: u64| (0x5000, 1 << 20, 3u64.wrapping_sub(done), 5);
        assert_eq!(told(Way::Count), [of(0x10), of(0x18)]);
    }

    #[test]
    fn what_is_left_of_a_vector_stands_behind_the_code() {
        for number in [libc::SYS_writev, libc::SYS_sendmsg] {
            let rest = Rest { number: number as u64, ..rest(Way::Vector(vector()), true) };
            let mut made = made(&rest);
            let first = made.first(&regs(), &rest);
            let is_message = number == libc::SYS_sendmsg;
            let wanted = if is_message { (AT + 80, 0x4000, 0x10) } else { (AT + 136, 2, 0x10) };
            assert_eq!((first.rsi, first.rdx, first.r9), wanted);
            let next = made.next(&UserRegs { rax: 0x14, ..first });
            assert_eq!((next.rsi, next.rdx, next.r9), (wanted.0, if is_message { 0x4000 } else { 1 }, 0x24));
            let word = |at: usize| super::number(&made.bytes[at..]);
            assert_eq!([80 + 16, 80 + 24, 136, 144, 152].map(word), [AT + 136, 1, 0x7004, 0x1c, 0]);
            assert_eq!(Remainder::decode(Addr(AT), &made.bytes), Some(made));
        }
    }

    #[test]
    fn one_is_known_by_its_bytes() {
        for rest in every() {
            let made = made(&rest);
            assert!(made.bytes.len() <= MOST_LEN && made.bytes.len().is_multiple_of(LEN));
            assert_eq!(Remainder::decode(Addr(AT), &made.bytes).as_ref(), Some(&made));
            assert_eq!((made.owner(), made.stack(), made.after().0), (OWNER, 0x7ffe_0000, AT + 2));
            let mut other = made.bytes;
            other[3] ^= 1;
            assert_eq!(Remainder::decode(Addr(AT), &other), None);
        }
        assert_eq!(Remainder::decode(Addr(AT), &[0; MOST_LEN]), None);
    }

    #[test]
    fn two_threads_in_one_have_no_owner() {
        let rest = rest(Way::Bytes, false);
        let mut first = made(&rest);
        let second = Remainder::of_call(Addr(AT), Owner { tid: Tid(8), ..OWNER }, &regs(), &rest);
        assert!(first.is_same(&second));
        first.share(&second);
        assert_eq!(first.owner().tid, Tid(0));
    }
}
