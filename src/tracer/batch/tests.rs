//! Batches as a decoder of instructions reads them.

use super::*;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

const AT: u64 = 0x7000_0000_0000;

const PARTS: [Part; 4] = [
    Part::Questions,
    Part::Dispositions(Addr(0x7fff_1234_6000)),
    Part::Mapping(PageRange::new(0x4000_0000_0000, 0x4000_0001_0000)),
    Part::Unmapping,
];

fn sample(part: Part) -> (Batch, [u8; LEN]) {
    let out = Question { number: libc::SYS_prctl, args: [37, 0x7fff_1234_5000, 0], returns: false };
    let back = Question { number: libc::SYS_prctl, args: [27, 0, 0], returns: true };
    let stub = Stub::new(Addr(AT));
    let questions = [out, back, back, out, back, back, back, back];
    Batch::new(stub.batch(), stub, &questions, part, libc::SIGURG).unwrap()
}

fn decoded(part: Part) -> (Batch, Vec<Instruction>) {
    let (batch, bytes) = sample(part);
    let from = (batch.entry().0 - batch.at.0) as usize;
    let mut decoder = Decoder::with_ip(64, &bytes[from..], batch.entry().0, DecoderOptions::NONE);
    let mut code: Vec<Instruction> = Vec::new();
    while code.last().is_none_or(|last| last.mnemonic() != Mnemonic::Jmp) {
        code.push(decoder.decode());
    }
    (batch, code)
}

#[test]
fn no_flag_no_stack_no_store() {
    for instruction in PARTS.into_iter().flat_map(|part| decoded(part).1) {
        assert!(
            matches!(
                instruction.mnemonic(),
                Mnemonic::Mov | Mnemonic::Syscall | Mnemonic::Jmp | Mnemonic::Lea | Mnemonic::Loop
            ),
            "{instruction:?}"
        );
        assert_ne!(instruction.op0_kind(), OpKind::Memory, "{instruction:?}");
        assert!(instruction.op0_register() != Register::RSP, "{instruction:?}");
    }
}

#[test]
fn it_leaves_by_the_way_out_of_the_stub() {
    let stub = Stub::new(Addr(AT));
    let undoing = Stub::after(stub.call_entry());
    for (part, way_out) in PARTS.into_iter().zip([undoing, undoing, stub.undo_entry(), stub.after_unmapping()]) {
        let (batch, code) = decoded(part);
        assert_eq!(code.last().unwrap().near_branch_target(), way_out.0, "{part:?}");
        let last_call = code.iter().rfind(|i| i.mnemonic() == Mnemonic::Syscall).unwrap();
        assert_eq!(last_call.next_ip(), batch.end().0);
    }
}

#[test]
fn what_was_mapped_is_known_from_the_call_on() {
    let part = Part::Mapping(PageRange::new(0x4000_0000_0000, 0x4000_0001_0000));
    let (batch, code) = decoded(part);
    let call = code.iter().position(|i| i.mnemonic() == Mnemonic::Syscall).unwrap();
    assert_eq!((code[call + 1].op0_register(), code[call + 1].op1_register()), (Register::R9, Register::RAX));
    let regs = crate::sys::regset::zeroed();
    assert_eq!(batch.mapping(&UserRegs { rip: batch.entry().0, rax: 9, ..regs }), None);
    assert_eq!(batch.mapping(&UserRegs { rip: code[call].ip(), rax: 9, ..regs }), None);
    assert_eq!(
        batch.mapping(&UserRegs { rip: code[call + 1].ip(), rax: 0x4000_0000_0000, ..regs }),
        Some(0x4000_0000_0000)
    );
    assert_eq!(batch.mapping(&UserRegs { rip: batch.end().0, r9: 0x4000_0000_0000, ..regs }), Some(0x4000_0000_0000));
    let written: Vec<&Instruction> = code.iter().filter(|i| i.op0_register().full_register() == Register::R9).collect();
    assert_eq!(written.len(), 1, "something else takes the register that holds the mapping");
    let back = code.iter().position(|i| i.op1_register() == Register::R9).unwrap();
    assert_eq!((code[back].op0_register(), code[back].ip()), (Register::RDI, batch.end().0));
    let others = code[call + 1..].iter().find(|i| i.mnemonic() == Mnemonic::Syscall).unwrap();
    for register in [Register::R10, Register::R8] {
        let cleared = code.iter().rfind(|i| i.op0_register().full_register() == register).unwrap();
        assert!(cleared.immediate(1) == 0 && cleared.ip() < others.ip(), "{register:?}");
    }
}

#[test]
fn every_kept_register_is_put_back() {
    let (batch, code) = decoded(Part::Dispositions(Addr(0x7fff_1234_6000)));
    let kept: Vec<Register> = code
        .iter()
        .filter(|i| i.op1_register() == Register::RAX && !matches!(i.op0_register(), Register::RDI | Register::RSI))
        .map(Instruction::op0_register)
        .collect();
    let order = [Register::RBX, Register::RBP, Register::R12, Register::R13, Register::R14, Register::R15];
    assert_eq!(kept, order);
    let put_back: Vec<(Register, u64)> = code
        .iter()
        .filter(|i| i.is_ip_rel_memory_operand())
        .map(|i| (i.op0_register(), (i.ip_rel_memory_address() - batch.at.0) / 8))
        .collect();
    let written = code.iter().filter(|i| order.contains(&i.op0_register().full_register())).count();
    assert_eq!(written, 2 * ANSWERS, "something else takes a register in which an answer is kept");
    assert_eq!(put_back, order.into_iter().zip(0..).collect::<Vec<_>>());
}

#[test]
fn more_answers_than_registers_do_not_fit() {
    let back = Question { number: libc::SYS_getpid, args: [0; 3], returns: true };
    let stub = Stub::new(Addr(AT));
    let fits =
        |questions: &[Question]| Batch::new(stub.batch(), stub, questions, Part::Questions, libc::SIGURG).is_some();
    assert!(fits(&[back; ANSWERS]) && !fits(&[back; ANSWERS + 1]));
    let out = Question { number: libc::SYS_getpid, args: [u64::MAX; 3], returns: false };
    assert!(!fits(&[out; 20]));
}

#[test]
fn dispositions_are_asked_from_the_last_to_the_first() {
    let (_, code) = decoded(Part::Dispositions(Addr(0x7fff_1234_6000)));
    let end = code.iter().position(|i| i.mnemonic() == Mnemonic::Loop).unwrap();
    let start = code.iter().position(|i| i.ip() == code[end].near_branch_target()).unwrap();
    assert_eq!((code[start - 1].op0_register(), code[start - 1].immediate(1)), (Register::R9D, 64));
    assert_eq!(code[start].immediate(1), 0x7fff_1234_6000 - ACTION_LEN);
    let scales: Vec<(Register, Register, u32, u64)> = code[start..end]
        .iter()
        .filter(|i| i.mnemonic() == Mnemonic::Lea)
        .map(|i| (i.memory_base(), i.memory_index(), i.memory_index_scale(), i.memory_displacement64()))
        .collect();
    let expected = [
        (Register::None, Register::R9, 8, 0),
        (Register::RDX, Register::R8, 4, 0),
        (Register::R9, Register::None, 1, u64::MAX),
        (Register::R9, Register::None, 1, 1),
    ];
    assert_eq!(scales, expected);
}

#[test]
fn one_that_was_left_behind_is_known() {
    assert!(is_stale(&sample(Part::Questions).1));
    assert!(!is_stale(&[0; LEN]));
}
