//! A batch: questions that a thread answers one after the other without a stop in between.
//!
//! ```text
//! data:  rbx rbp r12 r13 r14 r15       ; what the thread had in them
//! entry: mov eax, ..; mov rdi, ..; mov rsi, ..; mov rdx, ..; syscall; mov rbx, rax
//!        ...                           ; for each question
//!        mov r9d, 64
//! loop:  mov eax, SYS_rt_sigaction; mov edi, r9d; ..; lea rdx, [rdx + r9 * 32]; syscall
//!        lea r9, [r9 - 1]; lea rcx, [r9 + 1]; loop loop
//!        tgkill(getpid(), gettid(), ..); the stop that tells us
//!        mov rbx, [..]; ...            ; all six
//!        jmp call + 2                  ; the way out of the thread's stub
//! mark
//! ```
//!
//! One that begins with the scratch mapping has `mmap(..); mov r9, rax` before the first question, and `mov rdi, r9; .. jmp undo` at its end, so that the
//! thread unmaps what it has mapped, if it has; one that unmaps it, and so comes last, leaves the stub's unmapping out.
//!
//! The signal at the end is one that the program ignores and that no thread blocks: a tracer is told of it, and without one the
//! kernel drops it. So a thread whose tracer dies runs on through its questions and its stub, and nothing has happened. Answers go where the
//! kernel writes them, or stay in a register: code that stores would fault once the host has unmapped the scratch mapping.

use super::stub::Stub;
use crate::image::model::address::{Addr, PageRange};
use crate::sys::regset::UserRegs;

/// Bytes of a batch. It stands behind the stubs.
pub(super) const LEN: usize = 512;

const DATA_LEN: usize = ANSWERS * 8;
/// At the end of every batch, to know one that a killed predecessor has left.
const MARK: [u8; 8] = *b"\xccsnapbat";

/// Most questions whose answer is what the call returns.
pub const ANSWERS: usize = 6;

/// Signals with a disposition.
const SIGNALS: u32 = 64;

/// Bytes of the kernel's `struct sigaction`.
const ACTION_LEN: u64 = 32;

/// One question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Number of the system call.
    pub number: i64,
    /// Its first three arguments; the others are zero.
    pub args: [u64; 3],
    /// Whether what it returns is the answer. Else it writes the answer through one of its arguments.
    pub returns: bool,
}

/// A batch that stands in the target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    /// The signal that ends it.
    pub signal: i32,
    at: Addr,
    mapped: u64,
    end: u64,
}

/// What a batch does beside its questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Nothing.
    Questions,
    /// It has the `struct sigaction` of each signal written to this address.
    Dispositions(Addr),
    /// It makes the scratch mapping first.
    Mapping(PageRange),
    /// One of its questions unmaps that.
    Unmapping,
}

impl Batch {
    /// Makes the bytes of a batch that stands at `at`, for a thread whose stub is `stub`. `None` when it does not fit.
    pub fn new(at: Addr, stub: Stub, questions: &[Question], part: Part, signal: i32) -> Option<(Self, [u8; LEN])> {
        if questions.iter().filter(|question| question.returns).count() > ANSWERS {
            return None;
        }
        let mut code = vec![0; DATA_LEN];
        if let Part::Mapping(range) = part {
            map(&mut code, range);
        }
        let mapped = code.len() as u64;
        let mut keep = KEEP.iter();
        for question in questions {
            call(&mut code, question.number);
            for (value, (short, long)) in question.args.into_iter().zip(ARGUMENTS) {
                load(&mut code, value, short, long);
            }
            code.extend(SYSCALL);
            code.extend(if question.returns { keep.next()? } else { [].as_slice() });
        }
        if let Part::Dispositions(into) = part {
            ask_dispositions(&mut code, into);
        }
        for (number, into) in [(libc::SYS_getpid, [0x48, 0x89, 0xc7]), (libc::SYS_gettid, [0x48, 0x89, 0xc6])] {
            call(&mut code, number);
            code.extend(SYSCALL);
            code.extend(into); // mov rdi, rax; mov rsi, rax
        }
        load(&mut code, signal as u64, ARGUMENTS[2].0, ARGUMENTS[2].1);
        call(&mut code, libc::SYS_tgkill);
        code.extend(SYSCALL);
        let end = code.len() as u64;
        if matches!(part, Part::Mapping(_)) {
            code.extend([0x4c, 0x89, 0xcf]); // mov rdi, r9
        }
        for (word, opcode) in RELOAD.iter().enumerate() {
            code.extend(opcode);
            let distance = (word * 8) as i32 - (code.len() + 4) as i32;
            code.extend(distance.to_le_bytes());
        }
        code.push(0xe9); // jmp rel32
        let way_out = match part {
            Part::Questions | Part::Dispositions(_) => Stub::after(stub.call_entry()),
            Part::Mapping(_) => stub.undo_entry(),
            Part::Unmapping => stub.after_unmapping(),
        };
        let distance = way_out.0.wrapping_sub(at.0 + code.len() as u64 + 4);
        code.extend((distance as i32).to_le_bytes());
        if code.len() > LEN - MARK.len() {
            return None;
        }
        let mut bytes = [0; LEN];
        bytes[..code.len()].copy_from_slice(&code);
        bytes[LEN - MARK.len()..].copy_from_slice(&MARK);
        Some((Self { signal, at, mapped, end }, bytes))
    }

    /// Where the questions begin.
    pub fn entry(self) -> Addr {
        self.at.add(DATA_LEN as u64)
    }

    /// What a thread with these registers, which has begun a batch that makes the scratch mapping, has been told by mmap(2), if it has.
    pub fn mapping(self, regs: &UserRegs) -> Option<u64> {
        // Behind the call, with the answer not moved to where it stays.
        let is_behind = regs.rip + MOVED == self.at.0 + self.mapped;
        if is_behind { Some(regs.rax) } else { Some(regs.r9).filter(|answer| *answer != 0) }
    }

    /// Where a thread stands when it has answered.
    pub fn end(self) -> Addr {
        self.at.add(self.end)
    }
}

/// Whether these bytes are a batch that was left behind.
pub(super) fn is_stale(bytes: &[u8]) -> bool {
    bytes.len() == LEN && bytes.ends_with(&MARK)
}

/// What a batch puts back beside what the stub does.
pub(super) fn data(regs: &UserRegs) -> [u8; DATA_LEN] {
    let mut bytes = [0; DATA_LEN];
    for (into, word) in bytes.chunks_exact_mut(8).zip(answers(regs)) {
        into.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// The registers in which answers are kept.
pub(super) const fn answers(regs: &UserRegs) -> [u64; ANSWERS] {
    [regs.rbx, regs.rbp, regs.r12, regs.r13, regs.r14, regs.r15]
}

const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// `mov r32, imm32` and `mov r64, imm64` for rdi, rsi, rdx.
const ARGUMENTS: [(&[u8], &[u8]); 3] = [(&[0xbf], &[0x48, 0xbf]), (&[0xbe], &[0x48, 0xbe]), (&[0xba], &[0x48, 0xba])];
/// `mov REGISTER, rax` for rbx rbp r12 r13 r14 r15.
const KEEP: [&[u8]; ANSWERS] = [
    &[0x48, 0x89, 0xc3],
    &[0x48, 0x89, 0xc5],
    &[0x49, 0x89, 0xc4],
    &[0x49, 0x89, 0xc5],
    &[0x49, 0x89, 0xc6],
    &[0x49, 0x89, 0xc7],
];
/// `mov REGISTER, [rip + rel32]`, without the distance.
const RELOAD: [[u8; 3]; ANSWERS] = [
    [0x48, 0x8b, 0x1d],
    [0x48, 0x8b, 0x2d],
    [0x4c, 0x8b, 0x25],
    [0x4c, 0x8b, 0x2d],
    [0x4c, 0x8b, 0x35],
    [0x4c, 0x8b, 0x3d],
];

/// `mov eax, number`.
fn call(code: &mut Vec<u8>, number: i64) {
    code.push(0xb8);
    code.extend((number as u32).to_le_bytes());
}

/// The arguments of mmap(2) for a scratch mapping.
pub(super) fn mapping(range: PageRange) -> [u64; 6] {
    let prot = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE) as u64;
    [range.start.0, range.len(), prot, flags, u64::MAX, 0]
}

/// Bytes from the end of mmap(2) to the first question.
const MOVED: u64 = 15;

/// mmap(2), whose answer stays in r9, which no other call takes for an argument. It must be zero before.
fn map(code: &mut Vec<u8>, range: PageRange) {
    let [first, second, third] = ARGUMENTS;
    let [start, len, prot, flags, fd, _] = mapping(range);
    call(code, libc::SYS_mmap);
    load(code, start, first.0, first.1);
    load(code, len, second.0, second.1);
    load(code, prot, third.0, third.1);
    code.extend([0x41, 0xba]); // mov r10d, ..
    code.extend((flags as u32).to_le_bytes());
    code.extend([0x49, 0xc7, 0xc0]); // mov r8, ..
    code.extend((fd as i32).to_le_bytes());
    code.extend(SYSCALL);
    code.extend([0x49, 0x89, 0xc1]); // mov r9, rax
    code.extend([0x41, 0xba, 0, 0, 0, 0]); // mov r10d, 0
    code.extend([0x41, 0xb8, 0, 0, 0, 0]); // mov r8d, 0
}

/// rt_sigaction(2) for each signal, from the last to the first.
fn ask_dispositions(code: &mut Vec<u8>, into: Addr) {
    let [_, second, third] = ARGUMENTS;
    code.extend([0x41, 0xb9]); // mov r9d, ..
    code.extend(SIGNALS.to_le_bytes());
    let start = code.len();
    load(code, into.0.wrapping_sub(ACTION_LEN), third.0, third.1);
    code.extend([0x4e, 0x8d, 0x04, 0xcd, 0, 0, 0, 0]); // lea r8, [r9 * 8]
    code.extend([0x4a, 0x8d, 0x14, 0x82]); // lea rdx, [rdx + r8 * 4]
    call(code, libc::SYS_rt_sigaction);
    code.extend([0x44, 0x89, 0xcf]); // mov edi, r9d
    load(code, 0, second.0, second.1);
    code.extend([0x41, 0xba, 8, 0, 0, 0]); // mov r10d, 8
    code.extend(SYSCALL);
    code.extend([0x4d, 0x8d, 0x49, 0xff]); // lea r9, [r9 - 1]
    code.extend([0x49, 0x8d, 0x49, 0x01]); // lea rcx, [r9 + 1]
    // Counts rcx down and jumps unless it is zero, without a flag.
    let back = start as i64 - (code.len() as i64 + 2);
    code.extend([0xe2, back as i8 as u8]);
}

fn load(code: &mut Vec<u8>, value: u64, short: &[u8], long: &[u8]) {
    match u32::try_from(value) {
        Ok(value) => {
            code.extend(short);
            code.extend(value.to_le_bytes());
        }
        Err(_) => {
            code.extend(long);
            code.extend(value.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
