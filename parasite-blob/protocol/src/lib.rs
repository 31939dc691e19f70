//! Wire structs shared by `snap` and the interpreter blob that it runs inside other processes.
//!
//! The blob has no policy: it executes one list of [`Op`] for each thread, stops at the first whose result fails its
//! check, and leaves the place and the error in the thread's [`Task`]. Everything here is plain integers, so that any
//! bit pattern is a valid value.
#![cfg_attr(not(test), no_std)]

/// One operation: a system call, or one of the pseudo-operations below.
///
/// `args` are taken as they stand, or, where bit N of [`Op::indirect`] is set, argument N is the address of the `u64`
/// that is the argument, so that an operation can use what an earlier one has stored.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Op {
    /// System call number of x86-64, or a pseudo-operation from [`pseudo`].
    pub nr: u32,
    /// One of [`check`].
    pub check: u16,
    /// Bit N: argument N is an address to load the argument from.
    pub indirect: u16,
    /// What [`check::EQUALS`] compares with.
    pub expect: i64,
    /// Where the result is stored as an `i64`, 0 for nowhere.
    pub store: u64,
    /// Arguments.
    pub args: [u64; 6],
}

/// Which results let a list go on.
pub mod check {
    /// Every one.
    pub const ANY: u16 = 0;
    /// Every one that is not an error.
    pub const NON_NEGATIVE: u16 = 1;
    /// Only [`super::Op::expect`].
    pub const EQUALS: u16 = 2;
}

/// Operations that are not system calls. Their result is 0 unless they say otherwise.
pub mod pseudo {
    /// The first number; no system call has it.
    pub const FIRST: u32 = 0x4000_0000;
    /// `memmove(args[0], args[1], args[2])`.
    pub const COPY: u32 = FIRST;
    /// Adds `args[1]` to the `u32` at `args[0]` and wakes all who wait for it, in other processes too.
    pub const ADD: u32 = FIRST + 1;
    /// Adds 1 to the `u32` at `args[0]`. Whoever makes it `args[1]` sets the `u32` at `args[2]` to 1 and wakes all who wait for that.
    pub const MEET: u32 = FIRST + 5;
    /// 0 if `args[0]` equals `args[1]`, else ESRCH: whoever is looked for is another one.
    pub const SAME: u32 = FIRST + 8;
    /// Waits until the parent is `args[0]` and no longer `args[1]`. ESRCH if it becomes anybody else.
    pub const ADOPTED: u32 = FIRST + 9;
    /// Waits until the `u32` at `args[0]` is at least `args[1]`.
    pub const WAIT: u32 = FIRST + 2;
    /// `clone3(args[0], args[1])`; the child executes the [`super::Task`] at `args[2]`. The result is the new id.
    pub const SPAWN: u32 = FIRST + 3;
    /// Stores `args[1]` in the `u64` at `args[0]`.
    pub const STORE: u32 = FIRST + 4;
    /// Copies pages as the [`super::Board`] at `args[0]` says, together with all who have the same board. The result is 0, or the
    /// error that one of them met.
    pub const COPY_PAGES: u32 = FIRST + 6;
    /// Takes every message out of the queue of the [`super::Mailbox`] at `args[0]`. The result is how many there were.
    pub const TAKE_MESSAGES: u32 = FIRST + 10;
    /// Sends what [`TAKE_MESSAGES`] has taken, in the same order, however long that takes.
    pub const PUT_MESSAGES: u32 = FIRST + 11;
    /// Waits until there is no process `args[0]`, but not for ever.
    pub const GONE: u32 = FIRST + 12;
    /// Finds out how many requests are in flight in the ring of the [`super::AioProbe`] at `args[0]`.
    pub const AIO_PROBE: u32 = FIRST + 13;
    /// Uses an AMX tile and releases all of them, so that the kernel gives this thread room for their content.
    pub const USE_TILE: u32 = FIRST + 14;
    /// Finds out where the kernel stands in the ring of the [`super::SendProbe`] at `args[0]`. The result is an error where that cannot be had.
    pub const SEND_PROBE: u32 = FIRST + 15;
}

impl Op {
    /// As it lies in memory.
    #[must_use]
    pub const fn words(&self) -> [u64; 9] {
        let first = self.nr as u64 | (self.check as u64) << 32 | (self.indirect as u64) << 48;
        let [a, b, c, d, e, f] = self.args;
        [first, self.expect as u64, self.store, a, b, c, d, e, f]
    }
}

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// Most pages of one [`Job`].
pub const JOB_PAGES: u64 = 256;

/// What those share who copy pages of their own address space to a file that somebody else has mapped.
///
/// Whoever is free takes the next job, leaves out pages that are zero, takes the checksum of the others while it brings them into
/// the cache, gives them the next place in the file, and has the kernel copy them there (UFFDIO_COPY).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Board {
    /// Number of the next job, taken atomically.
    pub next: u64,
    /// Offset in the file behind all that has a place, moved atomically.
    pub end: u64,
    /// Bytes of the jobs that are done, added atomically.
    pub done: u64,
    /// The first error, 0 for none: everybody stops then.
    pub failure: i64,
    /// How many jobs there are.
    pub count: u64,
    /// Address of the first [`Job`].
    pub jobs: u64,
    /// Where the file is mapped: an address of the one who has made the descriptor.
    pub file: u64,
    /// A descriptor of userfaultfd(2).
    pub descriptor: u64,
    /// Bytes before the content of a job: these, [`Board::head_run`] for each run, and what is missing to a whole page of the file.
    pub head: u64,
    /// See [`Board::head`].
    pub head_run: u64,
}

/// Pages to be copied, and what became of them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// Address of the first [`Run`].
    pub runs: u64,
    /// How many there are; together they have up to [`JOB_PAGES`] pages.
    pub count: u64,
    /// Result: bit N of word N/64 for page N, counted through all runs, that is not zero and was copied.
    pub kept: [u64; 4],
    /// Result: offset of these pages in the file.
    pub content: u64,
    /// Result: their CRC-32C.
    pub crc: u32,
    /// Result: 1 when the job is done.
    pub done: u32,
}

/// Consecutive pages.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Their address.
    pub start: u64,
    /// How many bytes.
    pub len: u64,
}

/// A POSIX message queue whose messages are taken out and put back.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mailbox {
    /// A descriptor for receiving.
    pub receive: u64,
    /// A descriptor for sending.
    pub send: u64,
    /// The most bytes of a message.
    pub message_size: u64,
    /// Address of the first [`MessageHead`].
    pub heads: u64,
    /// How many there is room for.
    pub room: u64,
    /// Where the texts go, one behind the other.
    pub texts: u64,
    /// Bytes of room for them.
    pub size: u64,
    /// Result: how many messages were taken.
    pub count: u64,
    /// Result: the error that has ended the taking.
    pub end: i64,
}

/// A message that was taken.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageHead {
    /// Its bytes.
    pub len: u64,
    /// Its priority, of which the kernel writes four bytes.
    pub priority: u64,
}

/// The ring of a Linux AIO context (io_setup(2)) that is to be filled with requests which are done at once, and brought back.
///
/// What an idle ring takes and this one does not is in flight. The ring goes round once, so that it is in the end where it was; events of
/// others that wait in it are kept at the end of what it holds at every moment.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AioProbe {
    /// The context: address of its ring.
    pub context: u64,
    /// Events that the ring has room for.
    pub slots: u64,
    /// Requests that an idle ring takes.
    pub capacity: u64,
    /// CPUs to be tried: each may hold back a share of the room.
    pub cpus: u64,
    /// Address of [`AIO_BATCH`] pointers, all to one request (`struct iocb`) that is done at once.
    pub batch: u64,
    /// Address of 32 bytes for each slot.
    pub copy: u64,
    /// Address of a set of CPUs, of [`CPU_SET`] bytes, all zero.
    pub cpu_set: u64,
    /// Result: requests in flight.
    pub in_flight: u64,
    /// Result: 1 when the ring is where it was.
    pub done: u64,
}

/// A ring for sending of a packet socket (PACKET_TX_RING), of which is to be found out which frame the kernel looks at next.
///
/// All frames are written over with ones that cannot be sent, and are put back.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendProbe {
    /// A descriptor of the socket.
    pub fd: u64,
    /// Bytes of all its rings: what can be mapped is the whole.
    pub len: u64,
    /// Offset of the ring for sending in that.
    pub start: u64,
    /// Bytes of a block.
    pub block: u64,
    /// Frames in a block.
    pub in_block: u64,
    /// Bytes of a frame.
    pub frame: u64,
    /// How many frames there are.
    pub frames: u64,
    /// Offset of the status in the header of a frame, an `u32`.
    pub status: u64,
    /// Offsets of two `u32` in that header and what makes a frame one that cannot be sent: offset, value, offset, value.
    pub marks: [u64; 4],
    /// Whether the kernel passes over frames that cannot be sent (PACKET_LOSS).
    pub passes: u64,
    /// Address of addresses (`struct sockaddr_ll`) of [`SEND_ADDRESS`] bytes, each of another device.
    pub devices: u64,
    /// How many there are.
    pub count: u64,
    /// Address of [`SEND_HEADER`] bytes for each frame.
    pub saved: u64,
    /// Result: the frame.
    pub next: u64,
}

/// Bytes of a `struct sockaddr_ll` with room for the longest hardware address.
pub const SEND_ADDRESS: u64 = 48;

/// Bytes of the header of a frame, whatever its version, in which its status and what is checked of it stand.
pub const SEND_HEADER: u64 = 24;

/// Requests that are submitted together.
pub const AIO_BATCH: u64 = 256;

/// Bytes of a set with every CPU that Linux can have.
pub const CPU_SET: u64 = 1024;

/// A thread's list and how far it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Address of the first [`Op`].
    pub ops: u64,
    /// How many there are.
    pub count: u64,
    /// How many were executed with success.
    pub done: u64,
    /// Result of the operation that failed; 0 while none has.
    pub failure: i64,
    /// Where to jump when the list has ended or failed, with the stack as it was at the entry and the address of this
    /// struct in rdi; 0 for `exit_group(127)`.
    pub exit: u64,
}

const _: () = {
    assert!(size_of::<Op>() == 72);
    assert!(core::mem::offset_of!(Op, check) == 4);
    assert!(core::mem::offset_of!(Op, indirect) == 6);
    assert!(core::mem::offset_of!(Op, expect) == 8);
    assert!(core::mem::offset_of!(Op, store) == 16);
    assert!(core::mem::offset_of!(Op, args) == 24);
    assert!(size_of::<Board>() == 80);
    assert!(core::mem::offset_of!(Board, count) == 32);
    assert!(core::mem::offset_of!(Board, head_run) == 72);
    assert!(size_of::<Job>() == 64);
    assert!(core::mem::offset_of!(Job, kept) == 16);
    assert!(core::mem::offset_of!(Job, crc) == 56);
    assert!(size_of::<Run>() == 16);
    assert!(size_of::<Mailbox>() == 72);
    assert!(core::mem::offset_of!(Mailbox, count) == 56);
    assert!(core::mem::offset_of!(Mailbox, end) == 64);
    assert!(size_of::<MessageHead>() == 16);
    assert!(size_of::<AioProbe>() == 72);
    assert!(core::mem::offset_of!(AioProbe, in_flight) == 56);
    assert!(core::mem::offset_of!(AioProbe, done) == 64);
    assert!(size_of::<SendProbe>() == 136);
    assert!(core::mem::offset_of!(SendProbe, next) == 128);
    assert!(size_of::<Task>() == 40);
    assert!(core::mem::offset_of!(Task, count) == 8);
    assert!(core::mem::offset_of!(Task, done) == 16);
    assert!(core::mem::offset_of!(Task, failure) == 24);
    assert!(core::mem::offset_of!(Task, exit) == 32);
};
