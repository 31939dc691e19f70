//! The code that leads a thread from the interpreter back to its stub, with the registers that the stub does not restore.
//!
//! ```text
//! mov rax, word; mov dword [rax], 1           ; all is done
//! mov rdi, rax; mov esi, FUTEX_WAKE; mov edx, INT_MAX; mov eax, SYS_futex; syscall
//! mov rbx, ..; mov rbp, ..; mov r12, ..; mov r13, ..; mov r14, ..; mov r15, ..
//! mov rsp, flags; popfq; mov rsp, ..
//! mov edx, 0; mov r8d, 0; mov eax, child      ; for the stub's wait for a child
//! jmp [rip]
//! ```

use crate::image::model::address::Addr;
use crate::image::model::id::Tid;
use crate::sys::regset::UserRegs;

/// Bytes that it takes at most, with what is missing to 16 before it.
pub(super) const ROOM: u64 = 256;

/// The code. `word` is set and its waiters are woken, the flags are taken from `flags`, and it ends at `target`.
pub(super) fn code(regs: &UserRegs, word: Addr, flags: Addr, target: Addr, child: Option<Tid>) -> Vec<u8> {
    let mut code = Vec::new();
    let load = |code: &mut Vec<u8>, opcode: [u8; 2], value: u64| {
        code.extend(opcode);
        code.extend(value.to_le_bytes());
    };
    const RSP: [u8; 2] = [0x48, 0xbc];
    load(&mut code, [0x48, 0xb8], word.0);
    code.extend([0xc7, 0x00, 1, 0, 0, 0]);
    code.extend([0x48, 0x89, 0xc7]);
    code.extend([0xbe, libc::FUTEX_WAKE as u8, 0, 0, 0]);
    code.extend([0xba, 0xff, 0xff, 0xff, 0x7f]);
    code.extend([0xb8, libc::SYS_futex as u8, 0, 0, 0, 0x0f, 0x05]);
    let kept = [
        ([0x48, 0xbb], regs.rbx),
        ([0x48, 0xbd], regs.rbp),
        ([0x49, 0xbc], regs.r12),
        ([0x49, 0xbd], regs.r13),
        ([0x49, 0xbe], regs.r14),
        ([0x49, 0xbf], regs.r15),
        (RSP, flags.0),
    ];
    for (opcode, value) in kept {
        load(&mut code, opcode, value);
    }
    code.push(0x9d);
    load(&mut code, RSP, regs.rsp);
    if let Some(child) = child {
        code.extend([0xba, 0, 0, 0, 0, 0x41, 0xb8, 0, 0, 0, 0, 0xb8]);
        code.extend(child.0.to_le_bytes());
    }
    code.extend([0xff, 0x25, 0, 0, 0, 0]);
    code.extend(target.0.to_le_bytes());
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::regset;
    use iced_x86::{Decoder, DecoderOptions, Mnemonic, Register};

    #[test]
    fn every_register_that_a_stub_leaves_alone_is_put_back() {
        let regs = UserRegs { rbx: 1, rbp: 2, r12: 3, r13: 4, r14: 5, r15: 6, rsp: 7, ..regset::zeroed() };
        let code = code(&regs, Addr(0x1000), Addr(0x2000), Addr(0x3000), Some(Tid(99)));
        assert!(code.len() as u64 + 16 <= ROOM);
        let all: Vec<_> = Decoder::with_ip(64, &code[..code.len() - 8], 0, DecoderOptions::NONE).iter().collect();
        let last = |register| {
            let set = |i: &&iced_x86::Instruction| i.mnemonic() == Mnemonic::Mov && i.op0_register() == register;
            all.iter().rev().find(set).map(|i| i.immediate(1))
        };
        use Register::{EAX, R12, R13, R14, R15, RBP, RBX, RSP};
        for (register, value) in [(RBX, 1), (RBP, 2), (R12, 3), (R13, 4), (R14, 5), (R15, 6), (RSP, 7), (EAX, 99)] {
            assert_eq!(last(register), Some(value), "{register:?}");
        }
        // The flags are those of the thread from there on.
        let popped = all.iter().position(|i| i.mnemonic() == Mnemonic::Popfq).expect("popfq");
        assert!(all[popped + 1..].iter().all(|i| matches!(i.mnemonic(), Mnemonic::Mov | Mnemonic::Jmp)));
        assert_eq!(all.last().map(|i| i.ip_rel_memory_address()), Some(code.len() as u64 - 8));
    }
}
