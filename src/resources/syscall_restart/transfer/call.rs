//! Calls that move bytes and go on until all are moved: what one was to move, and what it has left.

use crate::image::model::address::Addr;
use crate::image::model::id::{Pid, Tid};
use crate::sys::process_vm;
use crate::sys::regset::UserRegs;
use crate::tracer::{MESSAGE_LEN, MOST_COUNT, Pieces};

const WAITALL: u64 = libc::MSG_WAITALL as u64;
const NOWAIT: u64 = libc::RWF_NOWAIT as u64;

/// A call that has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transfer {
    pub name: &'static str,
    pub receives: bool,
    /// Flags of send(2) and recv(2).
    pub flags: u64,
    /// What it was to move.
    pub buffer: Buffer,
}

/// Where the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Buffer {
    /// In one piece of so many bytes. With an address of the other side, if it is not null.
    Plain { total: u64, address: u64 },
    /// In one piece, in a call without a descriptor.
    Random { total: u64 },
    /// In pieces: an array of so many `struct iovec`.
    Vector { at: Addr, count: u64 },
    /// In pieces, as a `struct msghdr` says.
    Message(Addr),
    /// In so many messages: an array of `struct mmsghdr`, of which the call has returned how many it has begun.
    Messages { at: Addr, count: u64, begun: u64 },
    /// In a file: so many bytes.
    File { total: u64 },
    /// In a file, for another one: so many bytes.
    Range { total: u64 },
    /// In a pipe, from which they are spliced: at most so many.
    Pipe { total: u64 },
}

/// A message that is begun.
pub(super) struct Begun {
    pub message: Message,
    pieces: Vec<(Addr, u64)>,
    /// Where its length is noted.
    pub noted: Addr,
    /// Bytes of the whole.
    pub total: u64,
    /// And those that are moved.
    pub done: u64,
}

impl Begun {
    /// What is left of its pieces.
    pub(super) fn left(&self) -> Option<Vec<(Addr, u64)>> {
        from(&self.pieces, self.done)
    }
}

/// A `struct msghdr`.
pub(super) struct Message {
    pieces: Addr,
    count: u64,
    /// Where control data is or was, if not null, and its length in bytes.
    pub control: (Addr, u64),
}

impl Transfer {
    /// The call that a thread has just come out of, if it is one that goes on until all is done and that has done something.
    pub(super) fn of(regs: &UserRegs) -> Option<Self> {
        if regs.orig_rax.cast_signed() < 0 || !(1..MOST_COUNT).contains(&regs.rax) {
            return None;
        }
        let plain = |address| Buffer::Plain { total: regs.rdx, address };
        let vector = Buffer::Vector { at: Addr(regs.rsi), count: regs.rdx };
        let message = Buffer::Message(Addr(regs.rsi));
        let (name, receives, flags, buffer) = match regs.orig_rax.cast_signed() {
            libc::SYS_read => ("read", true, 0, plain(0)),
            // Only devices that do not look where it is to begin are cut short.
            libc::SYS_pread64 => ("pread64", true, 0, plain(0)),
            libc::SYS_getrandom => ("getrandom", true, 0, Buffer::Random { total: regs.rsi }),
            libc::SYS_write => ("write", false, 0, plain(0)),
            libc::SYS_readv => ("readv", true, 0, vector),
            libc::SYS_preadv => ("preadv", true, 0, vector),
            libc::SYS_preadv2 if regs.r9 & NOWAIT == 0 => ("preadv2", true, 0, vector),
            libc::SYS_writev => ("writev", false, 0, vector),
            // With an offset of -1 it is a writev(2), and else nothing that waits.
            libc::SYS_pwritev2 if regs.r10 == u64::MAX && regs.r9 & NOWAIT == 0 => ("pwritev2", false, 0, vector),
            libc::SYS_sendto => ("sendto", false, regs.r10, plain(regs.r8)),
            libc::SYS_sendmsg => ("sendmsg", false, regs.rdx, message),
            libc::SYS_sendmmsg => {
                ("sendmmsg", false, regs.r10, Buffer::Messages { at: Addr(regs.rsi), count: regs.rdx, begun: regs.rax })
            }
            libc::SYS_recvmmsg => {
                ("recvmmsg", true, regs.r10, Buffer::Messages { at: Addr(regs.rsi), count: regs.rdx, begun: regs.rax })
            }
            libc::SYS_recvfrom => ("recvfrom", true, regs.r10, plain(regs.r8)),
            libc::SYS_recvmsg => ("recvmsg", true, regs.rdx, message),
            libc::SYS_sendfile => ("sendfile", false, 0, Buffer::File { total: regs.r10.min(MOST_COUNT) }),
            libc::SYS_copy_file_range => {
                ("copy_file_range", false, 0, Buffer::Range { total: regs.r8.min(MOST_COUNT) })
            }
            libc::SYS_splice => ("splice", false, 0, Buffer::Pipe { total: regs.r8.min(MOST_COUNT) }),
            _ => return None,
        };
        let is_short = match buffer {
            Buffer::Plain { total, address: _ }
            | Buffer::Random { total }
            | Buffer::File { total }
            | Buffer::Range { total }
            | Buffer::Pipe { total } => regs.rax < total,
            Buffer::Messages { at: _, count, begun } => begun < count || !receives || flags & WAITALL != 0,
            Buffer::Vector { .. } | Buffer::Message(_) => true,
        };
        is_short.then_some(Self { name, receives, flags, buffer })
    }

    /// Whether it is a receive that ends with what is there.
    pub(super) fn is_read(self) -> bool {
        self.receives && self.flags & WAITALL == 0
    }

    /// Whether it moves what another descriptor has.
    pub(super) fn is_file(self) -> bool {
        matches!(self.buffer, Buffer::File { .. } | Buffer::Range { .. } | Buffer::Pipe { .. })
    }

    /// Whether it is made of several messages.
    pub(super) fn is_of_messages(self) -> bool {
        matches!(self.buffer, Buffer::Messages { .. })
    }

    /// Whether it was to receive messages of whatever length.
    pub(super) fn counts_messages(self) -> bool {
        self.is_of_messages() && self.is_read()
    }

    /// Bytes, or messages that it receives, that it was to move, and has moved, of which it has returned `done`.
    pub(super) fn progress(self, tid: Tid, done: u64) -> Option<(u64, u64)> {
        match self.buffer {
            Buffer::Plain { total, address: _ }
            | Buffer::Random { total }
            | Buffer::File { total }
            | Buffer::Range { total }
            | Buffer::Pipe { total } => Some((total, done)),
            Buffer::Vector { .. } | Buffer::Message(_) => Some((length(&self.pieces(tid)?), done)),
            Buffer::Messages { at: _, count, begun } if self.counts_messages() => Some((count, begun)),
            Buffer::Messages { at, count, begun } => progress_of_messages(tid, at, self.most(count), begun),
        }
    }

    /// How many of so many messages it takes at once.
    pub(super) fn most(self, count: u64) -> u64 {
        if self.receives { count } else { count.min(MOST_MESSAGES) }
    }

    /// Whether it has begun the last one of several messages.
    pub(super) fn is_at_last(self) -> bool {
        matches!(self.buffer, Buffer::Messages { at: _, count, begun } if begun >= self.most(count))
    }

    /// The last one of several messages that are begun.
    pub(super) fn last(self, tid: Tid) -> Option<Begun> {
        let Buffer::Messages { at, count: _, begun } = self.buffer else { return None };
        let at = at.add(begun.checked_sub(1)? * MESSAGE_LEN);
        let message = Message::at(tid, at)?;
        let pieces = pieces(tid, message.pieces, message.count)?;
        let (total, done) = (length(&pieces), moved(tid, at)?);
        Some(Begun { message, pieces, noted: at.add(NOTED), total, done })
    }

    /// Most pieces that one of its messages has, from the last one on that is begun.
    pub(super) fn most_pieces(self, tid: Tid) -> Option<u64> {
        let Buffer::Messages { at, count, begun } = self.buffer else { return None };
        let from = begun.checked_sub(1)?;
        let counts = (from..self.most(count)).map(|index| Message::at(tid, at.add(index * MESSAGE_LEN)));
        counts.map(|message| message.map(|message| message.count)).try_fold(0, |most, count| Some(count?.max(most)))
    }

    /// Its pieces, each with its length in bytes, if it has several.
    fn pieces(self, tid: Tid) -> Option<Vec<(Addr, u64)>> {
        let (at, count) = self.vector(tid)?;
        pieces(tid, at, count)
    }

    /// Its vector, and how many pieces that has.
    fn vector(self, tid: Tid) -> Option<(Addr, u64)> {
        match self.buffer {
            Buffer::Vector { at, count } => Some((at, count)),
            Buffer::Message(at) => Message::at(tid, at).map(|message| (message.pieces, message.count)),
            Buffer::Plain { .. }
            | Buffer::Messages { .. }
            | Buffer::File { .. }
            | Buffer::Range { .. }
            | Buffer::Pipe { .. }
            | Buffer::Random { .. } => None,
        }
    }

    /// What is left of its vector when so much is done: to be filled.
    pub(super) fn left(self, tid: Tid, done: u64) -> Option<Pieces> {
        let (at, count) = self.vector(tid)?;
        left(at.add(count * 16), &self.pieces(tid)?, done)
    }

    /// The same, to be sent.
    pub(super) fn left_to_send(self, tid: Tid, done: u64) -> Option<Vec<(Addr, u64)>> {
        from(&self.pieces(tid)?, done)
    }
}

impl Message {
    pub(super) fn at(tid: Tid, at: Addr) -> Option<Self> {
        let [pieces, count] = words(tid, at.add(16))?;
        let [control, length] = words(tid, at.add(32))?;
        Some(Self { pieces: Addr(pieces), count, control: (Addr(control), length) })
    }

    /// What goes with its bytes. `None` if it cannot be read.
    pub(super) fn carried(&self, tid: Tid) -> Option<Carried> {
        /// More than the kernel takes by default (net.core.optmem_max).
        const MOST: u64 = 1 << 20;
        const RIGHTS: u64 = (libc::SCM_RIGHTS as u64) << 32 | libc::SOL_SOCKET as u64;
        const CREDENTIALS: u64 = (libc::SCM_CREDENTIALS as u64) << 32 | libc::SOL_SOCKET as u64;
        let (mut at, mut left) = self.control;
        let mut carried = Carried::Descriptors;
        if at.0 == 0 || left > MOST {
            return Some(if at.0 == 0 { carried } else { Carried::More });
        }
        // A `struct cmsghdr`: its length, level and type.
        while left >= 16 {
            let [length, kind] = words(tid, at)?;
            carried = match (kind, carried) {
                (RIGHTS, carried) if length >= 16 => carried,
                (CREDENTIALS, Carried::Descriptors) if length >= 16 => Carried::Credentials(at, length),
                _ => return Some(Carried::More),
            };
            let next = length.min(left).next_multiple_of(8);
            (at, left) = (at.add(next), left.saturating_sub(next));
        }
        Some(carried)
    }
}

/// What goes with the bytes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    /// Descriptors or nothing: they go with the first byte.
    Descriptors,
    /// Besides these, the sender's credentials, which go with every one: where the kernel reads them, and the length of that in bytes.
    Credentials(Addr, u64),
    /// Something else.
    More,
}

/// How many messages one call sends.
const MOST_MESSAGES: u64 = libc::UIO_MAXIOV as u64;

fn progress_of_messages(tid: Tid, at: Addr, count: u64, begun: u64) -> Option<(u64, u64)> {
    let (mut total, mut done) = (0u64, 0u64);
    for index in 0..count {
        let at = at.add(index * MESSAGE_LEN);
        let message = Message::at(tid, at)?;
        total = total.saturating_add(length(&pieces(tid, message.pieces, message.count)?));
        if index < begun {
            done += moved(tid, at)?;
        }
    }
    Some((total, done))
}

/// Where it is noted in a `struct mmsghdr` how much of it is moved: behind its `struct msghdr`.
const NOTED: u64 = 56;

fn moved(tid: Tid, at: Addr) -> Option<u64> {
    Some(words(tid, at.add(NOTED - 8))?[1] & u64::from(u32::MAX))
}

fn length(pieces: &[(Addr, u64)]) -> u64 {
    pieces.iter().fold(0, |sum, (_, len)| sum.saturating_add(*len))
}

fn pieces(tid: Tid, at: Addr, count: u64) -> Option<Vec<(Addr, u64)>> {
    let count = (count <= libc::UIO_MAXIOV as u64).then_some(count)?;
    (0..count).map(|index| words(tid, at.add(index * 16)).map(|[at, len]| (Addr(at), len))).collect()
}

fn left(end: Addr, pieces: &[(Addr, u64)], done: u64) -> Option<Pieces> {
    let mut before = 0;
    for (number, (at, len)) in pieces.iter().enumerate() {
        let inside = done - before;
        if inside < *len {
            let behind = u32::try_from(pieces.len() - number - 1).ok()?;
            return Some(Pieces { end, at: at.add(inside), len: len - inside, behind });
        }
        before += len;
    }
    None
}

/// The pieces that are left when so much is done.
fn from(pieces: &[(Addr, u64)], done: u64) -> Option<Vec<(Addr, u64)>> {
    let Pieces { end: _, at, len, behind } = left(Addr::NULL, pieces, done)?;
    let mut pieces = pieces[pieces.len() - 1 - behind as usize..].to_vec();
    pieces[0] = (at, len);
    Some(pieces)
}

fn words(tid: Tid, at: Addr) -> Option<[u64; 2]> {
    let mut bytes = [0; 16];
    let read = process_vm::read(Pid(tid.0), at, &mut bytes).ok()?;
    let word = |from: usize| bytes[from..from + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    (read == bytes.len()).then(|| [word(0), word(8)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::regset;

    fn returned(number: i64, result: i64, count: u64) -> UserRegs {
        let (orig_rax, rax) = (number as u64, result as u64);
        UserRegs { orig_rax, rax, rdx: count, ..regset::zeroed() }
    }

    #[test]
    fn only_a_call_that_has_done_a_part_is_a_cut_transfer() {
        let name = |number, result, count| Transfer::of(&returned(number, result, count)).map(|cut| cut.name);
        assert_eq!(name(libc::SYS_write, 5, 10), Some("write"));
        assert_eq!(name(libc::SYS_write, 10, 10), None);
        assert_eq!(name(libc::SYS_write, 0, 10), None);
        assert_eq!(name(libc::SYS_write, -512, 10), None);
        assert_eq!(name(libc::SYS_pwrite64, 5, 10), None);
        assert_eq!(name(-1, 5, 10), None);
    }

    #[test]
    fn a_receive_is_a_read_without_waitall() {
        let mut regs = returned(libc::SYS_recvfrom, 5, 10);
        assert_eq!(Transfer::of(&regs).map(Transfer::is_read), Some(true));
        regs.r10 = libc::MSG_WAITALL as u64;
        let cut = Transfer::of(&regs).expect("a transfer");
        assert_eq!((cut.is_read(), cut.buffer), (false, Buffer::Plain { total: 10, address: 0 }));
    }

    #[test]
    fn messages_that_are_begun_say_how_much_of_them_is_sent() {
        let own = Tid(std::process::id().cast_signed());
        let vectors = [[0x1000, 100, 0x2000, 50], [0x3000, 70, 0x4000, 0]];
        let message = |vector: &[u64; 4], sent| [0, 0, vector.as_ptr() as u64, 2, 0, 0, 0, sent];
        let messages = [message(&vectors[0], 150), message(&vectors[1], 7), message(&vectors[1], 0xdead)];
        let regs = UserRegs { rsi: messages.as_ptr() as u64, ..returned(libc::SYS_sendmmsg, 2, 3) };
        let cut = Transfer::of(&regs).expect("a transfer");
        assert_eq!(cut.progress(own, 2), Some((290, 157)));
        let last = [1, 2].map(|begun| {
            let cut = Transfer::of(&UserRegs { rax: begun, ..regs }).expect("a transfer");
            cut.last(own).map(|last| (last.total, last.done, last.left()))
        });
        let left = vec![(Addr(0x3007), 63), (Addr(0x4000), 0)];
        assert_eq!(last, [Some((150, 150, None)), Some((70, 7, Some(left)))]);
        assert_eq!(cut.most_pieces(own), Some(2));
    }

    #[test]
    fn only_descriptors_go_with_the_first_byte_alone() {
        let own = Tid(std::process::id().cast_signed());
        let only = |control: &[u64], len| {
            let control = (Addr(control.as_ptr() as u64), len);
            Message { pieces: Addr::NULL, count: 0, control }.carried(own)
        };
        let header = |kind: i32| (kind as u64) << 32 | libc::SOL_SOCKET as u64;
        let rights = [20, header(libc::SCM_RIGHTS), 5];
        let credentials = [28, header(libc::SCM_CREDENTIALS), 1, 2];
        assert_eq!(only(&rights, 24), Some(Carried::Descriptors));
        assert_eq!(only(&[], 0), Some(Carried::Descriptors));
        let both = [&rights[..], &credentials].concat();
        let at = Addr(both[3..].as_ptr() as u64);
        assert_eq!(only(&both, 56), Some(Carried::Credentials(at, 28)));
        assert_eq!(only(&[&both[..], &credentials].concat(), 88), Some(Carried::More));
        assert_eq!(only(&[20, header(libc::SO_TIMESTAMPING), 5], 24), Some(Carried::More));
    }

    #[test]
    fn the_rest_of_a_vector_begins_in_the_piece_that_is_not_done() {
        let pieces = [0x1000, 0x2000, 0x3000, 0x4000].map(Addr).into_iter().zip([10, 0, 20, 5]);
        let pieces: Vec<(Addr, u64)> = pieces.collect();
        let of = |done| left(Addr(0x9040), &pieces, done).map(|left| (left.at.0, left.len, left.behind));
        assert_eq!(of(3), Some((0x1003, 7, 3)));
        assert_eq!(of(10), Some((0x3000, 20, 1)));
        assert_eq!(of(29), Some((0x3013, 1, 1)));
        assert_eq!(of(30), Some((0x4000, 5, 0)));
        assert_eq!(of(35), None);
    }
}
