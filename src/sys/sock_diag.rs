//! sock_diag(7): what the kernel tells of all sockets of a family in this network namespace in one go; and of UNIX sockets, what that is.
#![allow(unsafe_code)]

use super::checked;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::FromRawFd;

// include/uapi/linux/netlink.h, sock_diag.h, unix_diag.h
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
pub(super) const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SHOW: u32 = 1 | 2 | 4 | 8 | 0x10;
const NAME: u16 = 0;
const VFS: u16 = 1;
const PEER: u16 = 2;
const ICONS: u16 = 3;
const RQLEN: u16 = 4;
const SHUTDOWN: u16 = 6;
/// Bytes of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// Bytes of `struct unix_diag_msg`.
const MESSAGE: usize = 16;

/// A UNIX socket that listens (`TCP_LISTEN`).
pub const LISTENING: u8 = 10;

/// A UNIX socket that somebody has open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixSocket {
    /// Its inode.
    pub ino: u64,
    /// SOCK_STREAM and the like.
    pub kind: i32,
    /// [`LISTENING`], or something else.
    pub state: u8,
    /// `sun_path`, with a leading zero for an abstract name.
    pub name: Vec<u8>,
    /// Device and inode of the file of its name.
    pub file: Option<(u64, u64)>,
    /// The inode of its peer if it has one; 0 for one that nobody has open: it was closed, or was not accepted yet.
    pub peer: Option<u64>,
    /// For a listener, the inodes of those who wait to be accepted, oldest first; 0 for one that was closed.
    pub pending: Vec<u64>,
    /// For a listener, how many wait and how many may.
    pub queue: [u32; 2],
    /// RCV_SHUTDOWN 1, SEND_SHUTDOWN 2.
    pub shutdown: u8,
}

/// All of them. Those that come or go meanwhile may be missing or stand there twice.
///
/// # Errors
/// As netlink(7); ENOENT where the kernel has no `unix_diag`.
pub fn unix() -> io::Result<Vec<UnixSocket>> {
    // `struct unix_diag_req`
    let mut request = vec![libc::AF_UNIX as u8, 0, 0, 0];
    for word in [u32::MAX, 0, SHOW, 0, 0] {
        request.extend_from_slice(&word.to_ne_bytes());
    }
    let mut sockets = Vec::new();
    ask(&request, |body| sockets.extend(socket(body)))?;
    Ok(sockets)
}

/// Asks for all sockets of a family, as the request of that family says, and gives each answer to `each`.
pub(super) fn ask(request: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes integers.
    let fd = checked(unsafe { libc::socket(libc::AF_NETLINK, kind, NETLINK_SOCK_DIAG) }.into())?;
    // SAFETY: the descriptor is new and nobody else's.
    let mut netlink = unsafe { File::from_raw_fd(fd as i32) };
    netlink.write_all(&message(request))?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = netlink.read(&mut buffer)?;
        let mut rest = &buffer[..count];
        while let Some((kind, body, after)) = split(rest) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => return Err(errno(body)),
                _ => each(body),
            }
            rest = after;
        }
    }
}

/// A request with its `struct nlmsghdr`.
fn message(request: &[u8]) -> Vec<u8> {
    let mut message = ((HEADER + request.len()) as u32).to_ne_bytes().to_vec();
    message.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(request);
    message
}

/// What a message of [`NLMSG_ERROR`] says.
pub(super) fn errno(body: &[u8]) -> io::Error {
    io::Error::from_raw_os_error(body.first_chunk().map_or(libc::EIO, |word| -i32::from_ne_bytes(*word)))
}

/// The first message: its type, its body, and what comes after it.
pub(super) fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let body = bytes.get(HEADER..len)?;
    Some((kind, body, bytes.get(len.next_multiple_of(4)..).unwrap_or_default()))
}

/// One attribute (`struct rtattr`): its type, its value, and what comes after it.
pub(super) fn attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
    let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
    let value = bytes.get(4..len)?;
    Some((kind, value, bytes.get(len.next_multiple_of(4)..).unwrap_or_default()))
}

fn socket(body: &[u8]) -> Option<UnixSocket> {
    let head: &[u8; MESSAGE] = body.first_chunk()?;
    let [_, kind, state, _, ino @ ..] = *head;
    let words = |value: &[u8]| -> Vec<u32> {
        let (words, _) = value.as_chunks();
        words.iter().map(|word| u32::from_ne_bytes(*word)).collect()
    };
    let mut socket = UnixSocket { ino: words(&ino)[0].into(), kind: kind.into(), state, ..UnixSocket::default() };
    let mut rest = &body[MESSAGE..];
    while let Some((kind, value, after)) = attribute(rest) {
        match kind {
            NAME => socket.name = value.to_vec(),
            VFS => {
                if let [ino, dev] = words(value)[..] {
                    // The kernel's own `dev_t` (include/linux/kdev_t.h).
                    socket.file = Some((libc::makedev(dev >> 20, dev & 0xf_ffff), ino.into()));
                }
            }
            PEER => socket.peer = words(value).first().map(|ino| (*ino).into()),
            ICONS => socket.pending = words(value).into_iter().map(u64::from).collect(),
            RQLEN => {
                if let [waiting, most] = words(value)[..] {
                    socket.queue = [waiting, most];
                }
            }
            SHUTDOWN => socket.shutdown = value.first().copied().unwrap_or(0),
            _ => {}
        }
        rest = after;
    }
    Some(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    fn ino(socket: &impl AsFd) -> u64 {
        File::from(socket.as_fd().try_clone_to_owned().unwrap()).metadata().unwrap().ino()
    }

    #[test]
    fn peers_and_those_who_wait_are_named() {
        let name = format!("snap-diag-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let waiting = UnixStream::connect_addr(&address).unwrap();
        drop(UnixStream::connect_addr(&address).unwrap());
        let (one, other) = UnixStream::pair().unwrap();
        one.shutdown(std::net::Shutdown::Write).unwrap();
        let all = unix().unwrap();
        let find = |wanted| all.iter().find(|socket| socket.ino == wanted).unwrap();
        let found = find(ino(&listener));
        assert_eq!((found.state, &found.pending, found.queue[0]), (LISTENING, &vec![ino(&waiting), 0], 2));
        assert_eq!(found.name, format!("\0{name}").into_bytes());
        assert_eq!((find(ino(&one)).peer, find(ino(&one)).shutdown), (Some(ino(&other)), 2));
        assert_eq!((find(ino(&other)).peer, find(ino(&other)).shutdown), (Some(ino(&one)), 1));
        assert_eq!(find(ino(&waiting)).peer, Some(0));
    }
}
