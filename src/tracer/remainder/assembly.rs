//! The instructions of a remainder, for each shape of a call, and where its numbers stand among them.
//!
//! ```text
//! again: syscall                             ; the rest
//!        mov rcx, rax; bswap rcx; movsx rcx, cl; jrcxz add
//!        lea rcx, [rax + 64]; bswap rcx; movsx rcx, cl; jrcxz done; jmp back  ; only where errors are told once
//! done:  ..                                  ; nothing more has been done
//! add:   ..                                  ; rax: what the whole has done
//! back:  mov rsi, buffer; mov rdx, count; mov r10, ..; mov r8, ..
//!        mov rcx, rip; jmp rcx
//! ```
//!
//! None changes a flag or the stack, and only that of messages on a stream memory. The highest byte of an error is not 0, and jrcxz is the only jump that asks no flag.

use Part::{Code, Jump, JumpFar, JumpIfZero, Label, Load, LoadHalf, OnlyIfErrorsAreTold};
use Target::{Add, Again, Back, Count, Done, End, Next, Partly, Stop, Whole};

/// What tells how much of a call is done, and how the rest is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One buffer: `rsi` has come so much further than its start, and `rdx` is the rest of its length.
    Bytes,
    /// The same with buffer and length in `rdi` and `rsi`.
    First,
    /// Several that are sent: what is left of the vector stands behind the code. `r9` is what was done before the call, which has three arguments.
    Vector,
    /// Several that are filled, each by a call of its own. The lower half of `r9` is what was done before the call, the upper half minus the number of
    /// pieces behind the one that is in `rsi` and `rdx`. No such call looks at a sixth argument.
    Pieces,
    /// A count in `r10`, of which so much is left.
    Count,
    /// The same in `r8`.
    Length,
    /// Messages on a stream, of which one may be done in part. The lower half of `r9` is how many are begun, the upper half minus the bytes that are left of that one: if it is not 0
    /// the call is for these, else for the messages behind, of which `rsi` is the first and `rdx` the number. Neither call has a sixth argument.
    Stream,
    /// Messages: `rsi` stands at the first that is left of them, `rdx` is how many these are. `r9` is how many were done before the call, which has no sixth argument.
    Messages,
}

/// A part of the code.
enum Part {
    Code(&'static [u8]),
    /// `mov register, number`, by its opcode.
    Load([u8; 2]),
    /// The same with a number of four bytes, the upper half being 0.
    LoadHalf(&'static [u8]),
    Jump(Target),
    /// The same over any distance.
    JumpFar(Target),
    /// When `rcx` is.
    JumpIfZero(Target),
    Label(Target),
    OnlyIfErrorsAreTold(&'static [Part]),
}

/// Where a jump leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Again,
    Add,
    Next,
    Done,
    Back,
    Whole,
    Partly,
    Count,
    End,
    Stop,
}

const RAX: [u8; 2] = [0x48, 0xb8];
const RCX: [u8; 2] = [0x48, 0xb9];
const RDX: [u8; 2] = [0x48, 0xba];
const RSI: [u8; 2] = [0x48, 0xbe];
const RDI: [u8; 2] = [0x48, 0xbf];
const R8: [u8; 2] = [0x49, 0xb8];
const R9: [u8; 2] = [0x49, 0xb9];
const R10: [u8; 2] = [0x49, 0xba];
const EAX: Part = LoadHalf(&[0xb8]);
const EDX: Part = LoadHalf(&[0xba]);
const R10D: Part = LoadHalf(&[0x41, 0xba]);

const SYSCALL: Part = Code(&[0x0f, 0x05]);
const JMP_RCX: Part = Code(&[0xff, 0xe1]);
const MOV_RCX_RAX: Part = Code(&[0x48, 0x89, 0xc1]);
/// `lea rax, [rax + rcx]`.
const ADD_RCX: Part = Code(&[0x48, 0x8d, 0x04, 0x08]);
/// `bswap rcx; movsx rcx, cl`: 0 if its highest byte was.
const HIGHEST_BYTE: Part = Code(&[0x48, 0x0f, 0xc9, 0x48, 0x0f, 0xbe, 0xc9]);
/// `mov eax, 0`.
const NOTHING: Part = Code(&[0xb8, 0, 0, 0, 0]);
/// `mov rcx, r9; bswap rcx; bswap ecx; movsxd rcx, ecx`: the upper half.
const UPPER_HALF: Part = Code(&[0x4c, 0x89, 0xc9, 0x48, 0x0f, 0xc9, 0x0f, 0xc9, 0x48, 0x63, 0xc9]);
/// `lea r9, [r9 + rax]`
const COUNT_RAX: Part = Code(&[0x4d, 0x8d, 0x0c, 0x01]);
/// With `lea rcx, [rax + 64]`: errors above 64 are returned.
const TOLD: Part = OnlyIfErrorsAreTold(&[Code(&[0x48, 0x8d, 0x48, 64]), HIGHEST_BYTE, JumpIfZero(Done), Jump(Back)]);

/// Numbers: minus the buffer; buffer, count, fourth and fifth argument, where the call was made.
const BYTES: &[Part] = &[
    SYSCALL,
    MOV_RCX_RAX,
    HIGHEST_BYTE,
    JumpIfZero(Add),
    TOLD,
    Label(Done),
    NOTHING,
    Label(Add),
    // lea rax, [rax + rsi]
    Code(&[0x48, 0x8d, 0x04, 0x30]),
    Load(RCX),
    ADD_RCX,
    Label(Back),
    Load(RSI),
    Load(RDX),
    Load(R10),
    Load(R8),
    Load(RCX),
    JMP_RCX,
];

/// Numbers: minus the buffer; buffer, length, where the call was made.
const FIRST: &[Part] = &[
    SYSCALL,
    MOV_RCX_RAX,
    HIGHEST_BYTE,
    JumpIfZero(Add),
    TOLD,
    Label(Done),
    NOTHING,
    Label(Add),
    // lea rax, [rax + rdi]
    Code(&[0x48, 0x8d, 0x04, 0x38]),
    Load(RCX),
    ADD_RCX,
    Label(Back),
    Load(RDI),
    Load(RSI),
    Load(RCX),
    JMP_RCX,
];

/// Numbers: second, third and sixth argument, where the call was made. Also of messages.
const VECTOR: &[Part] = &[
    SYSCALL,
    MOV_RCX_RAX,
    HIGHEST_BYTE,
    JumpIfZero(Add),
    TOLD,
    Label(Done),
    NOTHING,
    Label(Add),
    // lea rax, [rax + r9]
    Code(&[0x4a, 0x8d, 0x04, 0x08]),
    Label(Back),
    Load(RSI),
    Load(RDX),
    Load(R9),
    Load(RCX),
    JMP_RCX,
];

/// Numbers: the end of the vector, the call for a piece; second to sixth argument, where the call was made.
const PIECES: &[Part] = &[
    Label(Again),
    SYSCALL,
    MOV_RCX_RAX,
    HIGHEST_BYTE,
    JumpIfZero(Add),
    TOLD,
    Jump(Done),
    Label(Add),
    COUNT_RAX,
    // not rax; lea rcx, [rdx + rax + 1]: what is left of this piece.
    Code(&[0x48, 0xf7, 0xd0, 0x48, 0x8d, 0x4c, 0x02, 1]),
    JumpIfZero(Next),
    Jump(Done),
    Label(Next),
    UPPER_HALF,
    JumpIfZero(Done),
    Load(RSI),
    // lea rcx, [rcx + rcx]; lea rcx, [rsi + rcx * 8]
    Code(&[0x48, 0x8d, 0x0c, 0x09, 0x48, 0x8d, 0x0c, 0xce]),
    // mov rsi, [rcx]; mov rdx, [rcx + 8]
    Code(&[0x48, 0x8b, 0x31, 0x48, 0x8b, 0x51, 8]),
    // mov rcx, 1 << 32; lea r9, [r9 + rcx]
    Code(&[0x48, 0xb9, 0, 0, 0, 0, 1, 0, 0, 0, 0x4d, 0x8d, 0x0c, 0x09]),
    // mov rcx, rdx: the kernel passes over empty pieces.
    Code(&[0x48, 0x89, 0xd1]),
    JumpIfZero(Next),
    Load(RAX),
    Jump(Again),
    Label(Done),
    // mov eax, r9d
    Code(&[0x44, 0x89, 0xc8]),
    Label(Back),
    Load(RSI),
    Load(RDX),
    Load(R10),
    Load(R8),
    Load(R9),
    Load(RCX),
    JMP_RCX,
];

/// Numbers: second to sixth argument, where the call was made; bytes of the message that is done in part, where its length is noted; how many messages are behind
/// that and where, their flags and timeout, their call. It is the one code that stores: what the kernel has noted of a message it notes for good when that is done.
const STREAM: &[Part] = &[
    Label(Again),
    SYSCALL,
    UPPER_HALF,
    JumpIfZero(Whole),
    JumpFar(Partly),
    Label(Whole),
    MOV_RCX_RAX,
    HIGHEST_BYTE,
    JumpIfZero(Count),
    Jump(End),
    Label(Count),
    COUNT_RAX,
    Label(End),
    // mov eax, r9d
    Code(&[0x44, 0x89, 0xc8]),
    Label(Back),
    Load(RSI),
    Load(RDX),
    Load(R10),
    Load(R8),
    Load(R9),
    Load(RCX),
    JMP_RCX,
    Label(Partly),
    MOV_RCX_RAX,
    HIGHEST_BYTE,
    JumpIfZero(Add),
    TOLD,
    Label(Done),
    NOTHING,
    Label(Add),
    // bswap eax; bswap rax: from the lower half into the upper one.
    Code(&[0x0f, 0xc8, 0x48, 0x0f, 0xc8]),
    COUNT_RAX,
    UPPER_HALF,
    EAX,
    ADD_RCX,
    Load(RDX),
    // mov [rdx], eax
    Code(&[0x89, 0x02]),
    JumpIfZero(Next),
    Label(Stop),
    JumpFar(End),
    Label(Next),
    EDX,
    // mov rcx, rdx
    Code(&[0x48, 0x89, 0xd1]),
    JumpIfZero(Stop),
    Load(RSI),
    R10D,
    Load(R8),
    EAX,
    JumpFar(Again),
];

/// Numbers: the count and one more; the count, where the call was made.
const COUNT: &[Part] = &[
    SYSCALL,
    MOV_RCX_RAX,
    HIGHEST_BYTE,
    JumpIfZero(Add),
    TOLD,
    Label(Done),
    NOTHING,
    Label(Add),
    // not r10; lea rax, [rax + r10]
    Code(&[0x49, 0xf7, 0xd2, 0x4a, 0x8d, 0x04, 0x10]),
    Load(RCX),
    ADD_RCX,
    Label(Back),
    Load(R10),
    Load(RCX),
    JMP_RCX,
];

/// Numbers: the count and one more; the count, the sixth argument, where the call was made.
const LENGTH: &[Part] = &[
    SYSCALL,
    MOV_RCX_RAX,
    HIGHEST_BYTE,
    JumpIfZero(Add),
    TOLD,
    Label(Done),
    NOTHING,
    Label(Add),
    // not r8; lea rax, [rax + r8]
    Code(&[0x49, 0xf7, 0xd0, 0x4a, 0x8d, 0x04, 0x00]),
    Load(RCX),
    ADD_RCX,
    Label(Back),
    Load(R8),
    Load(R9),
    Load(RCX),
    JMP_RCX,
];

impl Shape {
    /// All, the small ones first: the code of messages is that of a vector, which has data where they have the mark.
    pub(super) const ALL: [Self; 8] =
        [Self::Bytes, Self::First, Self::Count, Self::Length, Self::Messages, Self::Vector, Self::Pieces, Self::Stream];

    fn parts(self) -> &'static [Part] {
        match self {
            Self::Bytes => BYTES,
            Self::First => FIRST,
            Self::Vector | Self::Messages => VECTOR,
            Self::Pieces => PIECES,
            Self::Stream => STREAM,
            Self::Count => COUNT,
            Self::Length => LENGTH,
        }
    }
}

/// Code whose numbers are 0.
#[derive(Default)]
pub(super) struct Assembly {
    pub code: Vec<u8>,
    /// Where each number begins, and its length in bytes.
    pub numbers: Vec<(usize, usize)>,
    labels: Vec<(Target, usize)>,
    /// Where the distance of a jump stands, counted from behind it, and its length in bytes.
    jumps: Vec<(usize, usize, Target)>,
}

impl Assembly {
    pub(super) fn of(shape: Shape, tells_errors: bool) -> Self {
        let mut made = Self::default();
        made.append(shape.parts(), tells_errors);
        for (at, len, to) in std::mem::take(&mut made.jumps) {
            let target = made.labels.iter().find(|(label, _)| *label == to).map_or(0, |(_, at)| *at);
            let distance = target as i64 - (at + len) as i64;
            made.code[at..at + len].copy_from_slice(&distance.to_le_bytes()[..len]);
        }
        made
    }

    fn append(&mut self, parts: &[Part], tells_errors: bool) {
        for part in parts {
            match part {
                Code(bytes) => self.code.extend_from_slice(bytes),
                Load(opcode) => self.load(opcode, 8),
                LoadHalf(opcode) => self.load(opcode, 4),
                Jump(to) => self.jump(0xeb, 1, *to),
                JumpFar(to) => self.jump(0xe9, 4, *to),
                JumpIfZero(to) => self.jump(0xe3, 1, *to),
                Label(label) => self.labels.push((*label, self.code.len())),
                OnlyIfErrorsAreTold(parts) if tells_errors => self.append(parts, true),
                OnlyIfErrorsAreTold(_) => {}
            }
        }
    }

    fn load(&mut self, opcode: &[u8], len: usize) {
        self.code.extend_from_slice(opcode);
        self.numbers.push((self.code.len(), len));
        self.code.resize(self.code.len() + len, 0);
    }

    fn jump(&mut self, opcode: u8, len: usize, to: Target) {
        self.code.push(opcode);
        self.jumps.push((self.code.len(), len, to));
        self.code.resize(self.code.len() + len, 0);
    }

    /// With these numbers.
    pub(super) fn with(mut self, numbers: &[u64]) -> Vec<u8> {
        self.numbers.iter().zip(numbers).for_each(|(place, number)| put(&mut self.code, *place, *number));
        self.code
    }
}

/// Writes a number of the code to its place.
pub(super) fn put(code: &mut [u8], (at, len): (usize, usize), number: u64) {
    code[at..at + len].copy_from_slice(&number.to_le_bytes()[..len]);
}
