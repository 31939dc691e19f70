//! What TCP has beyond other sockets: its state, and the repair mode in which queues and sequence numbers are read and set (include/uapi/linux/tcp.h).
#![allow(unsafe_code)]

use super::socket::{number, option, set_option};
use crate::image::model::socket::tcp::Agreed;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};

/// Level of the options.
pub const LEVEL: i32 = libc::IPPROTO_TCP;
/// The option that turns repair mode on (1) and off (0, with a window probe, or -1 without). Off, it takes SO_REUSEADDR away (net/ipv4/tcp.c).
pub const REPAIR: i32 = 19;
/// Value of [`REPAIR`] that sends nothing.
pub const OFF_SILENTLY: i32 = -1;
const INFO: i32 = 11;
const REPAIR_QUEUE: i32 = 20;
const QUEUE_SEQ: i32 = 21;
const REPAIR_OPTIONS: i32 = 22;
const TIMESTAMP: i32 = 24;
const REPAIR_WINDOW: i32 = 29;
const MAXSEG: i32 = 2;
const ULP: i32 = 31;
// include/uapi/linux/sockios.h
const SIOCOUTQNSD: libc::c_ulong = 0x894b;

/// States of include/net/tcp_states.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in the header")]
pub enum State {
    Established,
    SynSent,
    SynReceived,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    Other(u8),
}

impl From<u8> for State {
    fn from(state: u8) -> Self {
        match state {
            1 => Self::Established,
            2 => Self::SynSent,
            3 | 12 => Self::SynReceived,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            other => Self::Other(other),
        }
    }
}

/// Of `struct tcp_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its state.
    pub state: State,
    /// Time stamps were agreed on.
    pub timestamps: bool,
    /// Selective acknowledgements were agreed on.
    pub sack: bool,
    /// Window scales of what is sent and of what is received.
    pub scales: Option<(u8, u8)>,
    /// Segments that were not acknowledged; of a listener, connections that were not accepted.
    pub unacked: u32,
    /// Of a listener, how many of these there may be.
    pub backlog: u32,
}

/// TCP_INFO.
///
/// # Errors
/// As getsockopt(2).
pub fn info(fd: BorrowedFd<'_>) -> io::Result<Info> {
    let value = option(fd, LEVEL, INFO)?;
    let byte = |at: usize| value.get(at).copied().unwrap_or(0);
    let word = |at: usize| u32::from_ne_bytes([byte(at), byte(at + 1), byte(at + 2), byte(at + 3)]);
    let (options, scales) = (byte(5), byte(6));
    Ok(Info {
        state: byte(0).into(),
        timestamps: options & 1 != 0,
        sack: options & 2 != 0,
        scales: (options & 4 != 0).then_some((scales & 15, scales >> 4)),
        unacked: word(24),
        backlog: word(28),
    })
}

/// The name of an upper layer (TCP_ULP): `tls`, or empty without one.
///
/// # Errors
/// As getsockopt(2).
pub fn upper_layer(fd: BorrowedFd<'_>) -> io::Result<String> {
    let name = option(fd, LEVEL, ULP)?;
    Ok(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned())
}

/// The clock of its time stamps.
///
/// # Errors
/// As getsockopt(2).
pub fn timestamp(fd: BorrowedFd<'_>) -> io::Result<u32> {
    number(fd, LEVEL, TIMESTAMP).map(i32::cast_unsigned)
}

/// Bytes that were written and not yet sent (SIOCOUTQNSD), the end (FIN) counting as one.
///
/// # Errors
/// As ioctl(2).
pub fn unsent(fd: BorrowedFd<'_>) -> io::Result<u32> {
    count(fd, SIOCOUTQNSD)
}

/// Bytes that were written and not yet acknowledged (SIOCOUTQ), the end (FIN) counting as one.
///
/// # Errors
/// As ioctl(2).
pub fn unacknowledged(fd: BorrowedFd<'_>) -> io::Result<u32> {
    count(fd, libc::TIOCOUTQ)
}

fn count(fd: BorrowedFd<'_>, request: libc::c_ulong) -> io::Result<u32> {
    let mut count: libc::c_int = 0;
    // SAFETY: both requests write one int to the pointer, which is valid for it.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut count) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(count.max(0).cast_unsigned()) }
}

/// One of the two queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Neither.
    None,
    /// What was received.
    Received,
    /// What is to be sent.
    Send,
}

/// Chooses which queue other calls mean. In repair mode alone.
///
/// # Errors
/// As setsockopt(2).
pub fn choose(fd: BorrowedFd<'_>, queue: Queue) -> io::Result<()> {
    let queue = match queue {
        Queue::None => 0,
        Queue::Received => 1,
        Queue::Send => 2,
    };
    set(fd, REPAIR_QUEUE, queue)
}

/// The next sequence number of the chosen queue: after the last byte that was received, or written.
///
/// # Errors
/// As getsockopt(2).
pub fn sequence(fd: BorrowedFd<'_>) -> io::Result<u32> {
    number(fd, LEVEL, QUEUE_SEQ).map(i32::cast_unsigned)
}

/// Sets it, of a socket that is not connected.
///
/// # Errors
/// As setsockopt(2).
pub fn set_sequence(fd: BorrowedFd<'_>, sequence: u32) -> io::Result<()> {
    set(fd, QUEUE_SEQ, sequence.cast_signed())
}

/// The largest segment of the other side, in repair mode.
///
/// # Errors
/// As getsockopt(2).
pub fn largest_segment(fd: BorrowedFd<'_>) -> io::Result<u32> {
    number(fd, LEVEL, MAXSEG).map(i32::cast_unsigned)
}

/// `struct tcp_repair_window`: snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup.
///
/// # Errors
/// As getsockopt(2).
pub fn window(fd: BorrowedFd<'_>) -> io::Result<[u32; 5]> {
    let mut window = [0u32; 5];
    // No more room may be offered than it takes.
    let mut length = size_of_val(&window) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to the words, which have so many.
    done(unsafe {
        libc::getsockopt(fd.as_raw_fd(), LEVEL, REPAIR_WINDOW, window.as_mut_ptr().cast(), &raw mut length)
    })?;
    Ok(window)
}

/// Sets it.
///
/// # Errors
/// As setsockopt(2).
pub fn set_window(fd: BorrowedFd<'_>, window: [u32; 5]) -> io::Result<()> {
    set_option(fd, LEVEL, REPAIR_WINDOW, &window.map(u32::to_ne_bytes).concat())
}

/// Sets it, in repair mode, of a connection that has sent nothing.
///
/// # Errors
/// As setsockopt(2).
pub fn agree(fd: BorrowedFd<'_>, agreed: Agreed) -> io::Result<()> {
    /// Kinds of options of a segment (RFC 9293, RFC 7323, RFC 2018).
    const MSS: u32 = 2;
    const WINDOW: u32 = 3;
    const SACK: u32 = 4;
    const STAMP: u32 = 8;
    let Agreed { mss, scales, sack, timestamp } = agreed;
    let mut words = vec![MSS, mss];
    if let Some((sent, received)) = scales {
        words.extend([WINDOW, u32::from(sent) | u32::from(received) << 16]);
    }
    if sack {
        words.extend([SACK, 0]);
    }
    if timestamp.is_some() {
        words.extend([STAMP, 0]);
    }
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    set_option(fd, LEVEL, REPAIR_OPTIONS, &bytes)?;
    timestamp.map_or(Ok(()), |clock| set(fd, TIMESTAMP, clock.cast_signed()))
}

/// Sets an option that is an int.
///
/// # Errors
/// As setsockopt(2).
pub fn set(fd: BorrowedFd<'_>, name: i32, value: i32) -> io::Result<()> {
    set_option(fd, LEVEL, name, &value.to_ne_bytes())
}

/// Copies the bytes of a queue from its first on: of what was received, or in repair mode of the chosen one. Nothing is taken away.
///
/// # Errors
/// As recv(2).
pub fn peek(fd: BorrowedFd<'_>, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0u8; length];
    if length == 0 {
        return Ok(bytes);
    }
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the kernel writes at most `length` bytes to the buffer, which has so many.
    let count = unsafe { libc::recv(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), length, flags) };
    match usize::try_from(count) {
        Ok(count) => {
            bytes.truncate(count);
            Ok(bytes)
        }
        Err(_) => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(Vec::new()),
            error => Err(error),
        },
    }
}

/// Whether the next byte to be read is, or was, an urgent one (SIOCATMARK).
///
/// # Errors
/// As ioctl(2).
pub fn at_mark(fd: BorrowedFd<'_>) -> io::Result<bool> {
    const SIOCATMARK: libc::c_ulong = 0x8905;
    count(fd, SIOCATMARK).map(|at| at != 0)
}

/// Appends to the chosen queue in repair mode, else sends, without waiting; gives how many bytes were taken.
///
/// # Errors
/// As send(2).
pub fn append(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads at most the length of the buffer from it.
    let count = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// What poll(2) says of it, which takes nothing away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polled {
    /// Nothing more can be read beyond what is there (POLLRDHUP).
    pub shut: bool,
    /// There is an error that SO_ERROR would tell and take away (POLLERR).
    pub failed: bool,
    /// A byte of urgent data (MSG_OOB) waits to be read, in its place (SO_OOBINLINE) or beside the others (POLLPRI).
    pub urgent: bool,
}

/// See [`Polled`].
///
/// # Errors
/// As poll(2).
pub fn polled(fd: BorrowedFd<'_>) -> io::Result<Polled> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLRDHUP | libc::POLLPRI, revents: 0 };
    // SAFETY: the kernel reads and writes the one entry.
    done(unsafe { libc::poll(&raw mut entry, 1, 0) })?;
    let has = |event: libc::c_short| entry.revents & event != 0;
    Ok(Polled { shut: has(libc::POLLRDHUP), failed: has(libc::POLLERR), urgent: has(libc::POLLPRI) })
}

/// sendto(2) of one packet.
///
/// # Errors
/// As sendto(2).
pub fn send_to(fd: BorrowedFd<'_>, packet: &[u8], to: &[u8]) -> io::Result<()> {
    let length = to.len() as libc::socklen_t;
    // SAFETY: the kernel reads both buffers, as long as they are.
    let count =
        unsafe { libc::sendto(fd.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0, to.as_ptr().cast(), length) };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// connect(2) to a whole `struct sockaddr`.
///
/// # Errors
/// As connect(2).
pub fn connect(fd: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads the length of the buffer from it.
    done(unsafe { libc::connect(fd.as_raw_fd(), address.as_ptr().cast(), address.len() as libc::socklen_t) })
}

/// listen(2).
///
/// # Errors
/// As listen(2).
pub fn listen(fd: BorrowedFd<'_>, backlog: u32) -> io::Result<()> {
    // SAFETY: listen takes integers.
    done(unsafe { libc::listen(fd.as_raw_fd(), i32::try_from(backlog).unwrap_or(i32::MAX)) })
}

/// accept4(2), close-on-exec.
///
/// # Errors
/// As accept(2).
pub fn accept(fd: BorrowedFd<'_>) -> io::Result<File> {
    // SAFETY: no address is asked for.
    let fd = unsafe { libc::accept4(fd.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC) };
    // SAFETY: the descriptor is new and nobody else's.
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { File::from_raw_fd(fd) }) }
}

/// shutdown(2) with SHUT_RD or SHUT_WR.
///
/// # Errors
/// As shutdown(2).
pub fn shut(fd: BorrowedFd<'_>, how: libc::c_int) -> io::Result<()> {
    // SAFETY: shutdown takes integers.
    done(unsafe { libc::shutdown(fd.as_raw_fd(), how) })
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
