//! Whether a program reads a register of a system call's arguments after that call: its code is decoded from there until the register has been
//! overwritten on every path.
//!
//! The kernel keeps these registers, so that a compiler may count on what it has put into one (and the C library does: its
//! cancellation points carry a value in r8). Only what is proved here to be overwritten before anybody looks may be changed.

use super::memory::Memory;
use crate::image::model::address::Addr;
use crate::sys::regset::UserRegs;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpAccess, Register};
use std::collections::HashSet;

/// Instructions after which nothing is proved.
const LIMIT: usize = 600;
/// Calls into one another that are followed.
const DEPTH: usize = 4;
/// The longest instruction.
const LONGEST: usize = 15;

/// The register of an argument that may hold a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Argument {
    /// rdx, the third.
    Third,
    /// r10, the fourth.
    Fourth,
    /// r8, the fifth.
    Fifth,
}

impl Argument {
    const fn register(self) -> Register {
        match self {
            Self::Third => Register::RDX,
            Self::Fourth => Register::R10,
            Self::Fifth => Register::R8,
        }
    }

    /// The register among those of a thread.
    pub const fn of(self, regs: &UserRegs) -> u64 {
        match self {
            Self::Third => regs.rdx,
            Self::Fourth => regs.r10,
            Self::Fifth => regs.r8,
        }
    }

    /// The same registers with another value in this one.
    #[must_use]
    pub const fn with(self, regs: &UserRegs, value: u64) -> UserRegs {
        match self {
            Self::Third => UserRegs { rdx: value, ..*regs },
            Self::Fourth => UserRegs { r10: value, ..*regs },
            Self::Fifth => UserRegs { r8: value, ..*regs },
        }
    }
}

/// Whether the code behind a call that returns to `regs.rip` overwrites the register before it reads it, whatever it does meanwhile.
///
/// By the calling convention nobody finds anything in r10 across a call or a return: it is no argument, so that the function that makes the system
/// call has put it there itself. rdx and r8 may be arguments of a function and what its caller counts on to be left alone, so that returns are followed
/// through the stack, up to a call that leads out of the program or library.
#[must_use]
pub fn is_unread(memory: &Memory, regs: &UserRegs, argument: Argument) -> bool {
    let read = |at: u64, into: &mut [u8]| memory.read(Addr(at), into).is_ok();
    walk(&read, regs.rip, regs.rsp, argument)
}

/// A place in the code.
#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    ip: u64,
    /// Stack pointer; `None` once it cannot be told.
    rsp: Option<u64>,
    /// Where the calls that were followed return to.
    returns: Vec<u64>,
    /// How many functions were left.
    left: usize,
}

/// What an instruction means for the register.
enum Use {
    Reads,
    Overwrites,
    Nothing,
}

fn walk(read: &dyn Fn(u64, &mut [u8]) -> bool, ip: u64, rsp: u64, argument: Argument) -> bool {
    let mut factory = InstructionInfoFactory::new();
    let mut open = vec![State { ip, rsp: Some(rsp), returns: Vec::new(), left: 0 }];
    let mut seen = HashSet::new();
    while let Some(state) = open.pop() {
        if !seen.insert(state.clone()) {
            continue;
        }
        if seen.len() > LIMIT {
            return false;
        }
        let Some(instruction) = decode(read, state.ip) else { return false };
        match use_of(&mut factory, &instruction, argument.register()) {
            Use::Reads => return false,
            Use::Overwrites => {}
            Use::Nothing => match successors(read, &state, &instruction, argument) {
                Some(next) => open.extend(next),
                None => return false,
            },
        }
    }
    true
}

fn decode(read: &dyn Fn(u64, &mut [u8]) -> bool, ip: u64) -> Option<Instruction> {
    let mut bytes = [0; LONGEST];
    // The mapping may end behind a shorter one.
    let up_to_page = (0x1000 - (ip as usize & 0xfff)).min(LONGEST);
    let len = if read(ip, &mut bytes) {
        LONGEST
    } else if read(ip, &mut bytes[..up_to_page]) {
        up_to_page
    } else {
        return None;
    };
    let instruction = Decoder::with_ip(64, &bytes[..len], ip, DecoderOptions::NONE).decode();
    (!instruction.is_invalid()).then_some(instruction)
}

fn use_of(factory: &mut InstructionInfoFactory, instruction: &Instruction, register: Register) -> Use {
    let info = factory.info(instruction);
    let mut overwrites = false;
    for used in info.used_registers() {
        let part = used.register();
        if part.full_register() != register {
            continue;
        }
        match used.access() {
            // Writing 32 bits clears the others.
            OpAccess::Write => overwrites |= part.size() >= 4,
            OpAccess::CondWrite | OpAccess::NoMemAccess | OpAccess::None => {}
            OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite => return Use::Reads,
        }
    }
    if overwrites { Use::Overwrites } else { Use::Nothing }
}

/// Where the program may be next; none where it ends or nobody counts on the register any more. `None` when that is not known.
fn successors(
    read: &dyn Fn(u64, &mut [u8]) -> bool,
    state: &State,
    instruction: &Instruction,
    argument: Argument,
) -> Option<Vec<State>> {
    let rsp = stack_pointer(state.rsp, instruction);
    let at = |ip: u64| State { ip, rsp, ..state.clone() };
    match instruction.flow_control() {
        // The arguments of another system call are read by the kernel.
        FlowControl::Next if instruction.mnemonic() == iced_x86::Mnemonic::Syscall => None,
        FlowControl::Next => Some(vec![at(instruction.next_ip())]),
        FlowControl::UnconditionalBranch => Some(vec![at(instruction.near_branch_target())]),
        FlowControl::ConditionalBranch => Some(vec![at(instruction.next_ip()), at(instruction.near_branch_target())]),
        FlowControl::Call => {
            let target = instruction.near_branch_target();
            // `call 1f; 1: pop` and the like are no calls.
            if target == 0 || target == instruction.next_ip() || state.returns.len() >= DEPTH {
                return None;
            }
            let mut callee = at(target);
            callee.returns.push(instruction.next_ip());
            Some(vec![callee])
        }
        FlowControl::Return => returned(read, state, rsp, argument),
        // Of a function that the compiler does not know it assumes that it leaves no register alone but those of the convention.
        FlowControl::IndirectCall => lost_in_calls(state, argument),
        // An import: `jmp [rip + ..]`. Others may be the branches of a `switch`.
        FlowControl::IndirectBranch if instruction.is_ip_rel_memory_operand() => lost_in_calls(state, argument),
        FlowControl::Exception => Some(Vec::new()),
        FlowControl::IndirectBranch | FlowControl::Interrupt | FlowControl::XbeginXabortXend => None,
    }
}

/// An argument may be handed on, but not once the function to which it was given has returned.
fn lost_in_calls(state: &State, argument: Argument) -> Option<Vec<State>> {
    (argument == Argument::Fourth || state.left > 0).then(Vec::new)
}

fn returned(
    read: &dyn Fn(u64, &mut [u8]) -> bool,
    state: &State,
    rsp: Option<u64>,
    argument: Argument,
) -> Option<Vec<State>> {
    let mut caller = State { rsp, ..state.clone() };
    if let Some(ip) = caller.returns.pop() {
        caller.ip = ip;
        return Some(vec![caller]);
    }
    if argument == Argument::Fourth {
        return Some(Vec::new());
    }
    let mut address = [0; 8];
    if state.left >= DEPTH || !read(state.rsp?, &mut address) {
        return None;
    }
    (caller.ip, caller.left) = (u64::from_le_bytes(address), state.left + 1);
    Some(vec![caller])
}

/// The stack pointer after an instruction that is no jump into the unknown.
fn stack_pointer(before: Option<u64>, instruction: &Instruction) -> Option<u64> {
    use iced_x86::{Mnemonic, OpKind};
    let before = before?;
    let moved = match instruction.mnemonic() {
        Mnemonic::Sub | Mnemonic::Add if instruction.op0_register() == Register::RSP => {
            if !matches!(instruction.op1_kind(), OpKind::Immediate8to64 | OpKind::Immediate32to64) {
                return None;
            }
            let by = instruction.immediate(1);
            if instruction.mnemonic() == Mnemonic::Sub { before.wrapping_sub(by) } else { before.wrapping_add(by) }
        }
        Mnemonic::Lea if instruction.op0_register() == Register::RSP => {
            if instruction.memory_base() != Register::RSP || instruction.memory_index() != Register::None {
                return None;
            }
            before.wrapping_add(instruction.memory_displacement64())
        }
        Mnemonic::Leave | Mnemonic::Enter => return None,
        // A write to it that is neither push, pop, call nor return.
        _ if instruction.op_count() > 0
            && instruction.op0_register() == Register::RSP
            && !matches!(instruction.mnemonic(), Mnemonic::Push | Mnemonic::Cmp | Mnemonic::Test) =>
        {
            return None;
        }
        _ => before.wrapping_add_signed(i64::from(instruction.stack_pointer_increment())),
    };
    Some(moved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::code_asm::*;

    const BASE: u64 = 0x10000;
    const STACK: u64 = 0x20000;
    const CALLER: u64 = 0x10800;

    /// Whether the register is unread in code behind a system call, called from code that stands at [`CALLER`].
    fn unread(argument: Argument, code: fn(&mut CodeAssembler), caller: fn(&mut CodeAssembler)) -> bool {
        let assembled = |at: u64, build: fn(&mut CodeAssembler)| {
            let mut assembler = CodeAssembler::new(64).expect("64 bits");
            build(&mut assembler);
            assembler.assemble(at).expect("code")
        };
        let mut bytes = vec![0xcc; 0x1000];
        let (code, caller) = (assembled(BASE, code), assembled(CALLER, caller));
        bytes[..code.len()].copy_from_slice(&code);
        bytes[0x800..0x800 + caller.len()].copy_from_slice(&caller);
        let read = |at: u64, into: &mut [u8]| match at {
            STACK => {
                into.copy_from_slice(&CALLER.to_le_bytes());
                true
            }
            _ => {
                let start = at.wrapping_sub(BASE) as usize;
                let found = bytes.get(start..start + into.len());
                found.inspect(|found| into.copy_from_slice(found)).is_some()
            }
        };
        walk(&read, BASE, STACK, argument)
    }

    fn nothing(_: &mut CodeAssembler) {}

    /// `cmp rax, -4096; ja error; ret; error: neg eax; mov r10d, eax; ret`.
    fn wrapper(code: &mut CodeAssembler) {
        let mut error = code.create_label();
        code.cmp(rax, -4096).unwrap();
        code.ja(error).unwrap();
        code.ret().unwrap();
        code.set_label(&mut error).unwrap();
        code.neg(eax).unwrap();
        code.mov(r10d, eax).unwrap();
        code.ret().unwrap();
    }

    #[test]
    fn the_wrapper_of_a_library_leaves_r10_to_nobody() {
        assert!(unread(Argument::Fourth, wrapper, nothing));
    }

    #[test]
    fn a_loop_around_the_call_reads_it_again() {
        let again = |code: &mut CodeAssembler| {
            let mut top = code.create_label();
            code.set_label(&mut top).unwrap();
            code.test(rax, rax).unwrap();
            code.mov(eax, 232).unwrap();
            code.syscall().unwrap();
            code.jmp(top).unwrap();
        };
        assert!(!unread(Argument::Fourth, again, nothing));
        let spilled = |code: &mut CodeAssembler| code.mov(ptr(rsp), r10).unwrap();
        assert!(!unread(Argument::Fourth, spilled, nothing));
        let half = |code: &mut CodeAssembler| {
            code.mov(r10w, 1).unwrap();
            code.push(r10).unwrap();
        };
        assert!(!unread(Argument::Fourth, half, nothing));
    }

    #[test]
    fn what_a_caller_may_count_on_is_looked_for_there() {
        let returns = |code: &mut CodeAssembler| code.ret().unwrap();
        let reloads = |code: &mut CodeAssembler| code.lea(rdx, ptr(rsp + 8)).unwrap();
        let reads = |code: &mut CodeAssembler| code.mov(rbx, rdx).unwrap();
        assert!(unread(Argument::Third, returns, reloads));
        assert!(!unread(Argument::Third, returns, reads));
        assert!(!unread(Argument::Third, returns, nothing));
        let framed = |code: &mut CodeAssembler| {
            code.sub(rsp, 24).unwrap();
            code.push(rbx).unwrap();
            code.pop(rbx).unwrap();
            code.add(rsp, 24).unwrap();
            code.ret().unwrap();
        };
        assert!(unread(Argument::Third, framed, reloads));
        let unknown = |code: &mut CodeAssembler| {
            code.mov(rsp, rbp).unwrap();
            code.ret().unwrap();
        };
        assert!(!unread(Argument::Third, unknown, reloads));
    }

    #[test]
    fn a_function_that_is_called_is_looked_into() {
        let calls = |code: &mut CodeAssembler| {
            let mut function = code.create_label();
            code.mov(edi, r8d).unwrap();
            code.call(function).unwrap();
            code.xor(edx, edx).unwrap();
            code.ret().unwrap();
            code.set_label(&mut function).unwrap();
            code.cmp(edi, 1).unwrap();
            code.ret().unwrap();
        };
        assert!(unread(Argument::Third, calls, nothing));
        assert!(!unread(Argument::Fifth, calls, nothing));
        let outside = |code: &mut CodeAssembler| code.call(rax).unwrap();
        assert!(unread(Argument::Fourth, outside, nothing));
        assert!(!unread(Argument::Third, outside, nothing));
        let returns = |code: &mut CodeAssembler| code.ret().unwrap();
        assert!(unread(Argument::Third, returns, outside));
    }
}
