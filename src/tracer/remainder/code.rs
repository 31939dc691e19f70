//! The code of a remainder: it makes the call for what was left of a transfer, and then is as if the whole had been one call.
//!
//! ```text
//!        syscall                             ; the rest
//!        mov rcx, rax; bswap rcx; movsx rcx, cl; jrcxz add
//!        lea rcx, [rax + 64]; bswap rcx; movsx rcx, cl; jrcxz short; jmp back  ; only where errors are told once
//! short: mov eax, 0
//! add:   lea rax, [rax + rsi]; mov rcx, -buffer; lea rax, [rax + rcx]
//! back:  mov rsi, buffer; mov rdx, count; mov r10, ..; mov r8, ..
//!        mov rcx, rip; jmp rcx
//! note:  pid and tid, stack pointer, mark
//! ```
//!
//! How much was done before is not in the code but in the thread: `rsi` has come so much further than the buffer's start. So the code belongs to
//! the call and not to its progress, and a thread that is cut short again in it goes on by its registers alone. No instruction changes a
//! flag, the stack or memory; behind a system call `rcx` is the address to which that returns.
//!
//! What the transfer has done so far is returned when the rest fails. There is one exception: a TCP connection tells an error (all above 64, but EPIPE) once, and a
//! call that has done something leaves it to the next one. The rest would take it away and the next call would see a proper end; so the error is returned.

use crate::image::model::address::Addr;
use crate::image::model::id::{Pid, Tid};
use crate::sys::regset::UserRegs;

/// Bytes of one, with its note.
pub(crate) const LEN: usize = CODE_LEN + 24;

const CODE_LEN: usize = 104;
/// Length of the `syscall` instruction.
const SYSCALL_LEN: u64 = 2;
const MARK: [u8; 8] = *b"\xccsnaprem";

/// Where the code has its numbers.
const BUFFER_NEGATIVE: usize = 40;
const BUFFER: usize = 54;
const COUNT: usize = 64;
const FLAGS: usize = 74;
const ADDRESS: usize = 84;
const RETURN: usize = 94;
const NUMBERS: [usize; 6] = [BUFFER_NEGATIVE, BUFFER, COUNT, FLAGS, ADDRESS, RETURN];
/// Where errors are told apart.
const ERRORS: std::ops::Range<usize> = 14..29;

const PLAIN: [u8; CODE_LEN] = {
    let mut code = [0x90; CODE_LEN];
    let parts: [(usize, &[u8]); 9] = [
        (0, &[0x0f, 0x05, 0x48, 0x89, 0xc1, 0x48, 0x0f, 0xc9, 0x48, 0x0f, 0xbe, 0xc9, 0xe3, 20]),
        (29, &[0xb8, 0, 0, 0, 0, 0x48, 0x8d, 0x04, 0x30, 0x48, 0xb9]),
        (48, &[0x48, 0x8d, 0x04, 0x08]),
        (52, &[0x48, 0xbe]),
        (62, &[0x48, 0xba]),
        (72, &[0x49, 0xba]),
        (82, &[0x49, 0xb8]),
        (92, &[0x48, 0xb9]),
        (102, &[0xff, 0xe1]),
    ];
    let mut part = 0;
    while part < parts.len() {
        let (at, bytes) = parts[part];
        let mut byte = 0;
        while byte < bytes.len() {
            code[at + byte] = bytes[byte];
            byte += 1;
        }
        part += 1;
    }
    code
};

const TELLS_ERRORS: [u8; 15] = [0x48, 0x8d, 0x48, 64, 0x48, 0x0f, 0xc9, 0x48, 0x0f, 0xbe, 0xc9, 0xe3, 2, 0xeb, 23];

/// A thread, and its process: a child of that has a copy of its remainders, but not the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub pid: Pid,
    pub tid: Tid,
}

/// A remainder that stands in a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remainder {
    at: Addr,
    bytes: [u8; LEN],
}

impl Remainder {
    /// That of the call which has just returned to `regs`, in a thread.
    pub(super) fn of_call(at: Addr, owner: Owner, regs: &UserRegs, tells_errors: bool) -> Self {
        let mut bytes = [0; LEN];
        bytes[..CODE_LEN].copy_from_slice(&PLAIN);
        if tells_errors {
            bytes[ERRORS].copy_from_slice(&TELLS_ERRORS);
        }
        let numbers = [regs.rsi.wrapping_neg(), regs.rsi, regs.rdx, regs.r10, regs.r8, regs.rip];
        for (place, number) in NUMBERS.into_iter().zip(numbers) {
            bytes[place..place + 8].copy_from_slice(&number.to_le_bytes());
        }
        let mut made = Self { at, bytes };
        made.note(owner, regs.rsp);
        made
    }

    /// The one that these bytes are, if they are one.
    #[must_use]
    pub fn decode(at: Addr, bytes: &[u8]) -> Option<Self> {
        if !bytes.ends_with(&MARK) {
            return None;
        }
        let bytes: [u8; LEN] = bytes.try_into().ok()?;
        let mut code = bytes;
        NUMBERS.into_iter().for_each(|place| code[place..place + 8].fill(0x90));
        let is_code = [[0x90; 15], TELLS_ERRORS].into_iter().any(|errors| {
            let mut wanted = PLAIN;
            wanted[ERRORS].copy_from_slice(&errors);
            code[..CODE_LEN] == wanted
        });
        is_code.then_some(Self { at, bytes })
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
        rip >= self.at.0 && rip < self.at.0 + CODE_LEN as u64
    }

    /// Where its call returns to.
    pub(super) fn after(&self) -> Addr {
        self.at.add(SYSCALL_LEN)
    }

    /// Whether it is for the same call.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.bytes[..CODE_LEN] == other.bytes[..CODE_LEN]
    }

    fn note(&mut self, owner: Owner, stack: u64) {
        let ids = u64::from(owner.pid.0.cast_unsigned()) << 32 | u64::from(owner.tid.0.cast_unsigned());
        self.bytes[CODE_LEN..CODE_LEN + 8].copy_from_slice(&ids.to_le_bytes());
        self.bytes[CODE_LEN + 8..CODE_LEN + 16].copy_from_slice(&stack.to_le_bytes());
        self.bytes[CODE_LEN + 16..].copy_from_slice(&MARK);
    }

    /// Notes that another thread is in it too, or the same in another place of its stack: then nobody can tell any more when it is of no use.
    pub(super) fn share(&mut self, other: &Self) {
        if self.bytes != other.bytes {
            self.note(Owner { pid: Pid(0), tid: Tid(0) }, u64::MAX);
        }
    }

    /// The thread for which it was made; 0 when there are several.
    pub(super) fn owner(&self) -> Owner {
        let ids = self.number(CODE_LEN);
        Owner { pid: Pid((ids >> 32) as i32), tid: Tid(ids as i32) }
    }

    /// The stack pointer of its call: all that may come back to it lies below.
    pub(super) fn stack(&self) -> u64 {
        self.number(CODE_LEN + 8)
    }

    fn number(&self, at: usize) -> u64 {
        self.bytes[at..at + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::regset;
    use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

    const AT: u64 = 0x7000_0000_0100;
    const OWNER: Owner = Owner { pid: Pid(5), tid: Tid(7) };

    fn regs() -> UserRegs {
        UserRegs {
            rsi: 0x5000,
            rdx: 1 << 20,
            r10: 3,
            r8: 4,
            rip: 0x7fff_0000_1234,
            rsp: 0x7ffe_0000,
            ..regset::zeroed()
        }
    }

    fn decoded(tells_errors: bool) -> Vec<Instruction> {
        let made = Remainder::of_call(Addr(AT), OWNER, &regs(), tells_errors);
        Decoder::with_ip(64, &made.bytes[..CODE_LEN], AT, DecoderOptions::NONE).iter().collect()
    }

    #[test]
    fn no_flag_no_stack_no_store() {
        for instruction in decoded(true).iter().chain(&decoded(false)) {
            let harmless = matches!(
                instruction.mnemonic(),
                Mnemonic::Mov
                    | Mnemonic::Lea
                    | Mnemonic::Bswap
                    | Mnemonic::Movsx
                    | Mnemonic::Jrcxz
                    | Mnemonic::Jmp
                    | Mnemonic::Nop
                    | Mnemonic::Syscall
            );
            assert!(harmless, "{instruction:?}");
            assert_ne!(instruction.op0_kind(), OpKind::Memory, "{instruction:?}");
            assert_ne!(instruction.op0_register(), Register::RSP, "{instruction:?}");
        }
    }

    #[test]
    fn jumps_lead_to_instructions() {
        for tells_errors in [false, true] {
            let code = decoded(tells_errors);
            let target = |nth: usize| {
                let jumps = code.iter().filter(|i| i.op0_kind() == OpKind::NearBranch64);
                let target = jumps.map(Instruction::near_branch_target).nth(nth)?;
                code.iter().find(|i| i.ip() == target).map(|i| (i.mnemonic(), i.op0_register()))
            };
            assert_eq!(target(0), Some((Mnemonic::Lea, Register::RAX)));
            let told = tells_errors.then_some(());
            assert_eq!(target(1), told.map(|()| (Mnemonic::Mov, Register::EAX)));
            assert_eq!(target(2), told.map(|()| (Mnemonic::Mov, Register::RSI)));
        }
    }

    #[test]
    fn registers_are_those_of_the_call() {
        let code = decoded(false);
        let loads: Vec<(Register, u64)> = code
            .iter()
            .filter(|i| i.mnemonic() == Mnemonic::Mov && i.op1_kind() == OpKind::Immediate64)
            .map(|i| (i.op0_register(), i.immediate64()))
            .collect();
        let wanted = [
            (Register::RCX, 0x5000u64.wrapping_neg()),
            (Register::RSI, 0x5000),
            (Register::RDX, 1 << 20),
            (Register::R10, 3),
            (Register::R8, 4),
            (Register::RCX, 0x7fff_0000_1234),
        ];
        assert_eq!(loads, wanted);
        let last = code.last().map(|i| (i.mnemonic(), i.op0_register()));
        assert_eq!(last, Some((Mnemonic::Jmp, Register::RCX)));
    }

    #[test]
    fn one_is_known_by_its_bytes() {
        for tells_errors in [false, true] {
            let made = Remainder::of_call(Addr(AT), OWNER, &regs(), tells_errors);
            assert_eq!(Remainder::decode(Addr(AT), &made.bytes), Some(made));
            assert_eq!((made.owner(), made.stack(), made.after().0), (OWNER, 0x7ffe_0000, AT + 2));
            let mut other = made.bytes;
            other[3] ^= 1;
            assert_eq!(Remainder::decode(Addr(AT), &other), None);
        }
        assert_eq!(Remainder::decode(Addr(AT), &[0; LEN]), None);
    }

    #[test]
    fn two_threads_in_one_have_no_owner() {
        let mut first = Remainder::of_call(Addr(AT), OWNER, &regs(), false);
        let second = Remainder::of_call(Addr(AT), Owner { tid: Tid(8), ..OWNER }, &regs(), false);
        assert!(first.is_same(&second));
        first.share(&second);
        assert_eq!(first.owner().tid, Tid(0));
    }
}
