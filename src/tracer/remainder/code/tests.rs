//! What a remainder does to registers and memory, by its instructions.

use super::*;
use crate::sys::regset;
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

const AT: u64 = 0x7000_0000_0100;
const OWNER: Owner = Owner { pid: Pid(5), tid: Tid(7) };
const PIECES: Pieces = Pieces { end: Addr(0x6080), at: Addr(0x5010), len: 0x90, behind: 3 };

const BYTES: Way = Way::Bytes { end: 1 << 20 };

fn vector() -> Vector {
    let pieces = [(Addr(0x5010), 0x10), (Addr(0x6000), 0), (Addr(0x7000), 0x20)];
    Vector::new(&pieces, (Addr(0x8000), 0x20)).expect("few pieces")
}

fn long_vector(count: usize) -> Vector {
    Vector::new(&vec![(Addr(0x5000), 9); count], (Addr::NULL, 0)).expect("not too many")
}

fn part(place: StreamPlace) -> StreamPart {
    StreamPart { noted: Addr(0x9078), total: 0x50, left: 0x30, place, flags: 0x4040 }
}

/// Three messages behind the one that is sent in part, if there is one.
fn stream(part: Option<StreamPart>) -> Way {
    Way::Stream(Stream { part, behind: (Addr(0x9080), 3), most: 3 })
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
    let ways = || {
        let sent = [vector(), long_vector(7), long_vector(MOST_PIECES)].map(Way::Vector);
        let small = [BYTES, Way::First, Way::Count, Way::Length, Way::Messages, Way::Pieces(PIECES)];
        let sent_part = Some(part(StreamPlace::Sent(vector())));
        let streams = [None, sent_part, Some(part(StreamPlace::Filled(Addr(0x5010))))].map(stream);
        small.into_iter().chain(sent).chain(streams)
    };
    [false, true].into_iter().flat_map(move |told| ways().map(move |way| rest(way, told)))
}

fn made(rest: &Rest) -> Remainder {
    Remainder::of_call(Addr(AT), OWNER, &regs(), rest)
}

fn decoded(rest: &Rest) -> Vec<Instruction> {
    let made = made(rest);
    let code = &made.code()[..Assembly::of(made.shape, rest.tells_errors).code.len()];
    Decoder::with_ip(64, code, AT, DecoderOptions::NONE).iter().collect()
}

#[test]
fn no_flag_no_stack_and_one_store() {
    for (rest, instruction) in every().flat_map(|rest| decoded(&rest).into_iter().map(move |i| (rest.clone(), i))) {
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
        // The length of a message is stored.
        let stores = instruction.op0_kind() == OpKind::Memory;
        let is_length = instruction.memory_base() == Register::RDX && instruction.op1_register() == Register::EAX;
        assert!(!stores || is_length && matches!(rest.way, Way::Stream(_)), "{instruction:?}");
        assert_ne!(instruction.op0_register(), Register::RSP, "{instruction:?}");
    }
}

#[test]
fn every_jump_leads_to_an_instruction_and_one_leads_back() {
    for rest in every() {
        let code = decoded(&rest);
        for jump in code.iter().filter(|i| i.op0_kind() == OpKind::NearBranch64) {
            let target = jump.near_branch_target();
            assert!(code.iter().any(|i| i.ip() == target), "{rest:?}: {jump:?}");
        }
        assert!(code.last().is_some_and(|i| i.mnemonic() == Mnemonic::Jmp), "{rest:?}");
        assert_eq!(code.iter().filter(|i| i.code() == Code::Jmp_rm64 && i.op0_register() == Register::RCX).count(), 1);
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
    let bytes = loads(&rest(BYTES, false));
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
    let length = loads(&rest(Way::Length, false));
    assert_eq!(length, [(Register::RCX, 5), (Register::R8, 4), (Register::R9, 5), back]);
    let messages = loads(&rest(Way::Messages, false));
    assert_eq!((&messages[..2], &messages[2..]), (&wanted[..2], &[(Register::R9, 5), back][..]));
}

#[test]
fn progress_is_in_the_registers() {
    let told = |way| {
        let rest = rest(way, false);
        let mut made = made(&rest);
        let first = made.first(&regs(), &rest).expect("room");
        let next = made.next(&UserRegs { rax: 8, ..first }, &rest).expect("room");
        [first, next].map(|regs| (regs.rsi, regs.rdx, regs.r10, regs.r9))
    };
    let of = |done: u64| (0x5000 + done, (1 << 20) - done, 0x4000, 5);
    assert_eq!(told(BYTES), [of(0x10), of(0x18)]);
    let pieces = 0xffff_fffd_0000_0000;
    let of = |done: u64| (0x5000 + done, 0xa0 - done, 0x4000, pieces | done);
    assert_eq!(told(Way::Pieces(PIECES)), [of(0x10), of(0x18)]);
    let of = |done: u64| (0x5000, 1 << 20, 3u64.wrapping_sub(done), 5);
    assert_eq!(told(Way::Count), [of(0x10), of(0x18)]);
    let of = |done: u64| (0x5000 + done * 64, (1 << 20) - done, 3, done);
    assert_eq!(told(Way::Messages), [of(0x10), of(0x18)]);
    let rest = Rest { flags: 7, ..rest(Way::Length, false) };
    let mut made = made(&rest);
    let first = made.first(&UserRegs { r8: u64::MAX, ..regs() }, &rest).expect("room");
    let next = made.next(&UserRegs { rax: 8, ..first }, &rest).expect("room");
    assert_eq!([first, next].map(|regs| (regs.r8, regs.r9)), [(MOST_COUNT - 0x10, 7), (MOST_COUNT - 0x18, 7)]);
}

#[test]
fn what_is_to_be_done_at_least_may_be_less_than_the_whole() {
    let rest = rest(Way::Bytes { end: 0x30 }, false);
    let mut made = made(&rest);
    let first = made.first(&regs(), &rest).expect("room");
    assert_eq!((first.rsi, first.rdx), (0x5010, 0x20));
    assert!(loads(&rest).contains(&(Register::RDX, 1 << 20)));
}

#[test]
fn what_is_left_of_a_vector_stands_behind_the_code() {
    for number in [libc::SYS_writev, libc::SYS_sendmsg] {
        let rest = Rest { number: number as u64, ..rest(Way::Vector(vector()), true) };
        let mut made = made(&rest);
        let first = made.first(&regs(), &rest).expect("room");
        let is_message = number == libc::SYS_sendmsg;
        let wanted = if is_message { (AT + 80, 0x4000, 0x10) } else { (AT + 136, 2, 0x10) };
        assert_eq!((first.rsi, first.rdx, first.r9), wanted);
        let next = made.next(&UserRegs { rax: 0x14, ..first }, &rest).expect("room");
        assert_eq!((next.rsi, next.rdx, next.r9), (wanted.0, if is_message { 0x4000 } else { 1 }, 0x24));
        let word = |at: usize| super::number(&made.bytes[at..]);
        assert_eq!([80 + 16, 80 + 24, 136, 144, 152].map(word), [AT + 136, 1, 0x7004, 0x1c, 0]);
        assert_eq!([80 + 32, 80 + 40].map(word), [0x8000, 0x20], "control data");
        assert_eq!(Remainder::decode(Addr(AT), &made.bytes), Some(made));
    }
}

#[test]
fn messages_on_a_stream_are_done_one_part_after_another() {
    const MINUS_0X30: u64 = 0xffff_ffd0_0000_0000;
    let told = |way, number: i64| {
        let rest = Rest { number: number as u64, flags: 3, ..rest(way, true) };
        let mut made = made(&rest);
        let first = made.first(&UserRegs { rax: 2, ..regs() }, &rest).expect("room");
        let done = if first.r9 >> 32 == 0 { 1 } else { 0x14 };
        let next = made.next(&UserRegs { rax: done, ..first }, &Rest { way: stream(None), ..rest }).expect("room");
        (made, [first, next].map(|regs| (regs.orig_rax.cast_signed(), regs.rsi, regs.rdx, regs.r8, regs.r9)))
    };
    let (sent, calls) = told(stream(Some(part(StreamPlace::Sent(vector())))), libc::SYS_sendmmsg);
    let place = (AT + 232, 0x4040, 4);
    let of = |left| (libc::SYS_sendmsg, place.0, place.1, place.2, left | 2);
    assert_eq!(calls, [of(MINUS_0X30), of(MINUS_0X30 + (0x14 << 32))]);
    let word = |at: usize| number(&sent.bytes[at..]);
    assert_eq!([232 + 16, 232 + 24, 288, 296].map(word), [AT + 288, 1, 0x7004, 0x1c]);
    let (_, calls) = told(stream(Some(part(StreamPlace::Filled(Addr(0x5010))))), libc::SYS_recvmmsg);
    let of = |done: u64| (libc::SYS_recvfrom, 0x5010 + done, 0x30 - done, 0, (MINUS_0X30 + (done << 32)) | 2);
    assert_eq!(calls, [of(0), of(0x14)]);
    let (_, calls) = told(stream(None), libc::SYS_sendmmsg);
    assert_eq!(calls, [2, 3].map(|begun| (libc::SYS_sendmmsg, 0x9080, 3, 4, begun)));
    let rest = rest(stream(Some(part(StreamPlace::Sent(long_vector(4))))), false);
    assert_eq!(made(&rest).first(&regs(), &rest).map(drop), Ok(()), "there is room for four");
    let rest = Rest { way: stream(Some(part(StreamPlace::Sent(long_vector(5))))), ..rest };
    assert!(made(&rest).first(&regs(), &rest).is_err());
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
    let rest = rest(BYTES, false);
    let mut first = made(&rest);
    let second = Remainder::of_call(Addr(AT), Owner { tid: Tid(8), ..OWNER }, &regs(), &rest);
    assert!(first.is_same(&second));
    first.share(&second);
    assert_eq!(first.owner().tid, Tid(0));
}

#[test]
fn a_vector_takes_the_room_that_it_needs() {
    let len = |count| made(&rest(Way::Vector(long_vector(count)), false)).bytes.len();
    assert_eq!([1, 6, 7, 14, 15, MOST_PIECES].map(len), [256, 256, 384, 384, 512, MOST_LEN]);
    assert_eq!(Vector::new(&vec![(Addr(1), 1); MOST_PIECES + 1], (Addr::NULL, 0)), None);
}
