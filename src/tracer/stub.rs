//! The restoring stub: code that a thread runs when we die while it works for us. It undoes what was done, puts the thread's registers
//! and signal mask back, and goes on where the thread was.
//!
//! ```text
//! map:   syscall                  ; the one call that maps memory,
//!        mov rdi, rax             ; and what is to be undone
//!        jmp undo
//! call:  syscall                  ; any other call
//!        mov rdi, [mapping]
//! undo:  mov rsi, [len]; mov eax, SYS_munmap; syscall
//!        mov edi, SIG_SETMASK; lea rsi, [mask]; mov edx, 0; mov r10d, 8; mov eax, SYS_rt_sigprocmask; syscall
//!        lea r11, [data]; mov rax, [r11 + ..]; ... ; mov r11, [r11 + ..]
//!        jmp [rip]
//! fork:  syscall                  ; clone(2): the child ends, the parent waits for that
//!        mov rcx, rax; jrcxz end
//!        mov rsi, rax; mov edi, P_PID; mov r10d, WEXITED | __WALL; mov eax, SYS_waitid; syscall
//!        jmp call + 2
//! child: syscall                  ; any call of a child, which ends afterwards
//! end:   mov eax, SYS_exit; syscall
//! data:  mapping len mask rax rcx rdx rsi rdi r8 r9 r10 r11 rip
//! ```
//!
//! No instruction here changes a flag, touches the stack, or a vector register. A system call changes rax, rcx and r11 alone.

use crate::image::model::address::Addr;
use crate::sys::regset::UserRegs;

/// Bytes of one stub, code and data.
pub(super) const LEN: usize = CODE_LEN + DATA_LEN;

const CODE_LEN: usize = 152;
const DATA_LEN: usize = 13 * 8;
const MAP: u64 = 0;
const CALL: u64 = 7;
const UNDO: u64 = 16;
const UNMAPPED: u64 = 30;
const MASKED: u64 = 60;
const FORK: u64 = 109;
const END: u64 = 144;
const REAPED: u64 = 137;
const CHILD: u64 = 142;

const _: () = assert!(LEN <= 256);

/// A stub that stands at some address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stub {
    at: Addr,
}

impl Stub {
    pub const fn new(at: Addr) -> Self {
        Self { at }
    }

    /// Entry for the call whose result is to be unmapped again.
    pub const fn map_entry(self) -> Addr {
        self.at.add(MAP)
    }

    /// Entry for every other call.
    pub const fn call_entry(self) -> Addr {
        self.at.add(CALL)
    }

    /// Entry for the clone(2) of a child that ends when it is let go, and whose end the parent waits for when it is let go.
    /// The second to the fifth argument must be zero.
    pub const fn fork_entry(self) -> Addr {
        self.at.add(FORK)
    }

    /// Where it goes on behind that call, with the child in rax and the same arguments: it waits for the child's end.
    pub const fn after_forking(self) -> Addr {
        self.at.add(FORK + 2)
    }

    /// Where that wait returns to.
    pub const fn after_reaping(self) -> Addr {
        self.at.add(REAPED)
    }

    /// Entry for calls of a child.
    pub const fn child_entry(self) -> Addr {
        self.at.add(CHILD)
    }

    /// The code that ends a child.
    pub const fn end_entry(self) -> Addr {
        self.at.add(END)
    }

    /// Where the end of a child would return to.
    pub const fn after_end(self) -> Addr {
        self.at.add(END + 7)
    }

    /// Where a call returns to.
    pub const fn after(entry: Addr) -> Addr {
        entry.add(2)
    }

    /// Address of [`Data`].
    pub const fn data(self) -> Addr {
        self.at.add(CODE_LEN as u64)
    }

    /// Address of [`Data::mapping`].
    pub const fn mapping(self) -> Addr {
        self.data()
    }

    /// Address of [`Data::mask`].
    pub const fn mask(self) -> Addr {
        self.data().add(16)
    }

    /// The way out of a thread that has in rdi what is to be unmapped.
    pub const fn undo_entry(self) -> Addr {
        self.at.add(UNDO)
    }

    /// Where the unmapping of the way out returns to.
    pub const fn after_unmapping(self) -> Addr {
        self.at.add(UNMAPPED)
    }

    /// Where the restoring of the mask returns to.
    pub const fn after_masking(self) -> Addr {
        self.at.add(MASKED)
    }

    pub const fn at(self) -> Addr {
        self.at
    }

    /// Where a batch for its thread stands, if there is room.
    pub const fn batch(self) -> Addr {
        self.at.add(LEN as u64)
    }
}

/// What a stub puts back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Data {
    /// What to unmap; null for nothing.
    pub mapping: Addr,
    /// Its length; munmap(2) of length 0 fails and does nothing.
    pub len: u64,
    /// The signal mask.
    pub mask: u64,
    /// rax rcx rdx rsi rdi r8 r9 r10 r11 rip.
    pub registers: [u64; 10],
}

impl Data {
    /// Data that put a thread back to `regs`, which must not be within a system call.
    pub const fn of(regs: &UserRegs, mask: u64) -> Self {
        let registers =
            [regs.rax, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.r8, regs.r9, regs.r10, regs.r11, regs.rip];
        Self { mapping: Addr::NULL, len: 0, mask, registers }
    }

    /// As it lies behind the code.
    pub fn bytes(&self) -> [u8; DATA_LEN] {
        let words = [self.mapping.0, self.len, self.mask].into_iter().chain(self.registers);
        let mut bytes = [0; DATA_LEN];
        for (into, word) in bytes.chunks_exact_mut(8).zip(words) {
            into.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// The code, the same at every address.
pub(super) fn code() -> [u8; CODE_LEN] {
    let mut code = Writer { bytes: [0; CODE_LEN], at: 0 };
    code.put(&SYSCALL);
    code.put(&[0x48, 0x89, 0xc7]); // mov rdi, rax
    code.put(&[0xeb, (UNDO - CALL) as u8]);
    code.put(&SYSCALL);
    code.load(&[0x48, 0x8b, 0x3d], 0); // mov rdi, [mapping]
    code.load(&[0x48, 0x8b, 0x35], 1); // mov rsi, [len]
    code.put(&[0xb8, libc::SYS_munmap as u8, 0, 0, 0]);
    code.put(&SYSCALL);
    code.put(&[0xbf, libc::SIG_SETMASK as u8, 0, 0, 0]);
    code.load(&[0x48, 0x8d, 0x35], 2); // lea rsi, [mask]
    code.put(&[0xba, 0, 0, 0, 0]); // mov edx, 0
    code.put(&[0x41, 0xba, 8, 0, 0, 0]); // mov r10d, 8
    code.put(&[0xb8, libc::SYS_rt_sigprocmask as u8, 0, 0, 0]);
    code.put(&SYSCALL);
    code.load(&[0x4c, 0x8d, 0x1d], 0); // lea r11, [data]
    for (word, opcode) in RESTORE.iter().enumerate() {
        code.put(opcode);
        code.put(&[(3 + word as u8) * 8]);
    }
    code.load(&[0xff, 0x25], 12); // jmp [rip]
    code.put(&SYSCALL);
    code.put(&[0x48, 0x89, 0xc1]); // mov rcx, rax
    code.put(&[0xe3, (END - FORK - 7) as u8]); // jrcxz end
    code.put(&[0x48, 0x89, 0xc6]); // mov rsi, rax
    code.put(&[0xbf, libc::P_PID as u8, 0, 0, 0]); // mov edi, P_PID
    code.put(&[0x41, 0xba]); // mov r10d, ..
    code.put(&WAIT_OPTIONS.to_le_bytes());
    code.put(&[0xb8, libc::SYS_waitid as u8, 0, 0, 0]);
    code.put(&SYSCALL);
    code.put(&[0xe9]); // jmp call + 2
    code.put(&(CALL as i32 + 2 - CHILD as i32).to_le_bytes());
    code.put(&SYSCALL);
    code.put(&[0xb8, libc::SYS_exit as u8, 0, 0, 0]);
    code.put(&SYSCALL);
    code.bytes
}

const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// How the stub waits for a child: whatever signal it ends with, 0 included.
pub(super) const WAIT_OPTIONS: u32 = (libc::WEXITED | libc::__WALL) as u32;

/// `mov REGISTER, [r11 + ..]` for rax rcx rdx rsi rdi r8 r9 r10 r11, without the last byte.
const RESTORE: [[u8; 3]; 9] = [
    [0x49, 0x8b, 0x43],
    [0x49, 0x8b, 0x4b],
    [0x49, 0x8b, 0x53],
    [0x49, 0x8b, 0x73],
    [0x49, 0x8b, 0x7b],
    [0x4d, 0x8b, 0x43],
    [0x4d, 0x8b, 0x4b],
    [0x4d, 0x8b, 0x53],
    [0x4d, 0x8b, 0x5b],
];

struct Writer {
    bytes: [u8; CODE_LEN],
    at: usize,
}

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    /// An instruction with a rip-relative operand: word number `word` of the data.
    fn load(&mut self, opcode: &[u8], word: usize) {
        self.put(opcode);
        let distance = (CODE_LEN + word * 8 - (self.at + 4)) as u32;
        self.put(&distance.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, Register};

    const BASE: u64 = 0x1000;

    fn decoded() -> Vec<Instruction> {
        let code = code();
        let all: Vec<Instruction> = Decoder::with_ip(64, &code, BASE, DecoderOptions::NONE).iter().collect();
        let end = all.iter().position(|i| i.next_ip() == BASE + END + 7).expect("end");
        all[..=end].to_vec()
    }

    #[test]
    fn the_entries_are_where_they_are_said_to_be() {
        let code = decoded();
        let syscalls: Vec<u64> =
            code.iter().filter(|i| i.mnemonic() == Mnemonic::Syscall).map(|i| i.ip() - BASE).collect();
        assert_eq!(syscalls, [MAP, CALL, UNMAPPED - 2, MASKED - 2, FORK, REAPED - 2, CHILD, END + 5]);
        let jumps: Vec<(u64, u64)> = code
            .iter()
            .filter(|i| matches!(i.flow_control(), FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch))
            .map(|i| (i.ip() - BASE, i.near_branch_target() - BASE))
            .collect();
        assert_eq!(jumps, [(5, UNDO), (FORK + 5, END), (REAPED, CALL + 2)]);
        for target in [UNDO, END, CALL + 2] {
            assert!(code.iter().any(|i| i.ip() == BASE + target));
        }
    }

    #[test]
    fn no_flag_no_stack_no_store() {
        for instruction in decoded() {
            let (mnemonic, to) = (instruction.mnemonic(), instruction.op0_register());
            let allowed =
                matches!(mnemonic, Mnemonic::Mov | Mnemonic::Lea | Mnemonic::Syscall | Mnemonic::Jmp | Mnemonic::Jrcxz);
            assert!(allowed, "{instruction:?}");
            assert!(mnemonic != Mnemonic::Mov || to != Register::None, "{instruction:?}");
        }
    }

    #[test]
    fn every_operand_is_its_word() {
        let words: Vec<u64> = decoded()
            .iter()
            .filter(|i| i.is_ip_rel_memory_operand())
            .map(|i| (i.ip_rel_memory_address() - BASE - CODE_LEN as u64) / 8)
            .collect();
        assert_eq!(words, [0, 1, 2, 0, 12]);
        let restored: Vec<(String, u64)> = decoded()
            .iter()
            .filter(|i| i.memory_base() == Register::R11)
            .map(|i| (format!("{:?}", i.op0_register()), i.memory_displacement64() / 8))
            .collect();
        let order = ["RAX", "RCX", "RDX", "RSI", "RDI", "R8", "R9", "R10", "R11"];
        assert_eq!(restored, order.into_iter().map(str::to_owned).zip(3..12).collect::<Vec<_>>());
    }

    #[test]
    fn the_code_fits() {
        assert!(END as usize + 7 <= CODE_LEN && CODE_LEN.is_multiple_of(8));
    }
}
