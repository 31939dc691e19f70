//! sendmsg(2), and recvmsg(2) with MSG_PEEK, with what goes along with the bytes.
#![allow(unsafe_code)]

use super::checked;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};
use std::ptr;

/// SCM_MAX_FD of include/net/scm.h.
const FILES_MAX: usize = 253;
/// Room for as many descriptors as a message can have, credentials, and what else options let come along.
const CONTROL: usize = 4096;

/// What recvmsg(2) saw.
#[derive(Debug)]
pub struct Seen {
    /// Bytes that are in the buffer.
    pub len: usize,
    /// Whether the message is longer than the buffer.
    pub truncated: bool,
    /// The sender's `struct sockaddr`.
    pub sender: Vec<u8>,
    /// SCM_RIGHTS: duplicates of what it carries.
    pub files: Vec<File>,
    /// SCM_CREDENTIALS: process, user and group. They come whenever there is a message and SO_PASSCRED is set.
    pub credentials: Option<[u32; 3]>,
}

/// Looks at what waits in a socket; does not wait.
///
/// # Errors
/// As recvmsg(2): EAGAIN when nothing is there. An error that waits in the socket is taken away by being told.
pub fn peek(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Seen> {
    let mut sender = [0u8; size_of::<libc::sockaddr_storage>()];
    // `struct cmsghdr` is aligned to words.
    let mut control = [0u64; CONTROL / 8];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut head = libc::msghdr {
        msg_name: sender.as_mut_ptr().cast(),
        msg_namelen: sender.len() as libc::socklen_t,
        msg_iov: &raw mut part,
        msg_iovlen: 1,
        msg_control: control.as_mut_ptr().cast(),
        msg_controllen: CONTROL,
        msg_flags: 0,
    };
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: every pointer in the head is to a buffer of the length that stands beside it.
    let len = checked(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut head, flags) } as libc::c_long)?;
    let mut seen = Seen {
        len,
        truncated: head.msg_flags & libc::MSG_TRUNC != 0,
        sender: sender[..(head.msg_namelen as usize).min(sender.len())].to_vec(),
        files: Vec::new(),
        credentials: None,
    };
    // SAFETY: the head and its control buffer are as the kernel has left them.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(&raw const head) };
    while !at.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give a header whose data lies inside the buffer.
        let (message, data) = unsafe { (&*at, libc::CMSG_DATA(at)) };
        let len = message.cmsg_len - (data as usize - at as usize);
        let word = |index: usize| {
            // SAFETY: the caller stays below `len`.
            unsafe { ptr::read_unaligned(data.cast::<u32>().add(index)) }
        };
        match (message.cmsg_level, message.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                // SAFETY: the descriptors are new and nobody else's.
                let file = |index| unsafe { File::from_raw_fd(word(index).cast_signed()) };
                seen.files.extend((0..len / 4).map(file));
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if len >= 12 => {
                seen.credentials = Some([word(0), word(1), word(2)]);
            }
            _ => {}
        }
        // SAFETY: as CMSG_FIRSTHDR.
        at = unsafe { libc::CMSG_NXTHDR(&raw const head, at) };
    }
    if head.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(io::Error::other("not all that comes along with a message could be seen"));
    }
    Ok(seen)
}

/// Memory that ends where nobody may write.
#[derive(Debug)]
pub struct Fence {
    start: *mut u8,
    /// Bytes before the end.
    len: usize,
}

impl Fence {
    const PAGE: usize = 4096;

    /// Room for `len` bytes.
    ///
    /// # Errors
    /// As mmap(2).
    pub fn new(len: usize) -> io::Result<Self> {
        let len = len.next_multiple_of(Self::PAGE);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping takes nobody's memory.
        let start = unsafe { libc::mmap(ptr::null_mut(), len + Self::PAGE, libc::PROT_NONE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let fence = Self { start: start.cast(), len };
        // SAFETY: the range is the beginning of that mapping.
        match unsafe { libc::mprotect(start, len, libc::PROT_READ | libc::PROT_WRITE) } {
            0 => Ok(fence),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Looks at a stream, with room for `room` bytes and a wish for one more: what was sent in one piece is seen whole or not at all. Gives the
    /// bytes that were seen.
    ///
    /// # Errors
    /// As recvmsg(2).
    pub fn peek(&self, fd: BorrowedFd<'_>, room: usize) -> io::Result<usize> {
        if room > self.len {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (from, flags) = (self.start.wrapping_add(self.len - room), libc::MSG_PEEK | libc::MSG_DONTWAIT);
        // SAFETY: `room` bytes are ours, and where they end the kernel cannot write.
        let seen = unsafe { libc::recv(fd.as_raw_fd(), from.cast(), room + 1, flags) };
        match checked(seen as libc::c_long) {
            Err(nix::errno::Errno::EFAULT) => Ok(0),
            seen => Ok(seen?),
        }
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it exists.
        unsafe { libc::munmap(self.start.cast(), self.len + Self::PAGE) };
    }
}

/// Sends a message to `to`, or to the peer; does not wait.
///
/// # Errors
/// As sendmsg(2): EAGAIN when there is no room.
pub fn send(
    fd: BorrowedFd<'_>,
    bytes: &[u8],
    to: Option<&[u8]>,
    files: &[i32],
    credentials: Option<[u32; 3]>,
) -> super::Result<usize> {
    send_as(fd, bytes, to, (files, credentials), 0)
}

/// Sends a byte of urgent data (MSG_OOB).
///
/// # Errors
/// As sendmsg(2): EOPNOTSUPP where a kernel has none in the UNIX domain (CONFIG_AF_UNIX_OOB).
pub fn send_urgent(fd: BorrowedFd<'_>, byte: u8, files: &[i32], credentials: Option<[u32; 3]>) -> super::Result<usize> {
    send_as(fd, &[byte], None, (files, credentials), libc::MSG_OOB)
}

/// Takes the byte of urgent data that waits.
///
/// # Errors
/// As recv(2): EINVAL when there is none.
pub fn take_urgent(fd: BorrowedFd<'_>) -> super::Result<()> {
    let mut byte = 0u8;
    let flags = libc::MSG_OOB | libc::MSG_DONTWAIT;
    // SAFETY: the kernel writes at most one byte to the pointer, which is valid for it.
    checked(unsafe { libc::recv(fd.as_raw_fd(), (&raw mut byte).cast(), 1, flags) } as libc::c_long).map(drop)
}

fn send_as(
    fd: BorrowedFd<'_>,
    bytes: &[u8],
    to: Option<&[u8]>,
    (files, credentials): (&[i32], Option<[u32; 3]>),
    more: libc::c_int,
) -> super::Result<usize> {
    if files.len() > FILES_MAX {
        return Err(nix::errno::Errno::EINVAL);
    }
    let mut control = [0u64; CONTROL / 8];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut length = 0;
    let place = control.as_mut_ptr().cast::<u8>();
    let mut put = |kind: i32, words: &[u32]| {
        // SAFETY: takes numbers.
        let (head, space) =
            unsafe { (libc::CMSG_LEN(words.len() as u32 * 4), libc::CMSG_SPACE(words.len() as u32 * 4)) };
        // SAFETY: both kinds at their longest fit into the buffer.
        unsafe {
            let at = place.add(length).cast::<libc::cmsghdr>();
            (*at).cmsg_len = head as usize;
            (*at).cmsg_level = libc::SOL_SOCKET;
            (*at).cmsg_type = kind;
            ptr::copy_nonoverlapping(words.as_ptr().cast::<u8>(), libc::CMSG_DATA(at), size_of_val(words));
        }
        length += space as usize;
    };
    let mut numbers = [0; FILES_MAX];
    for (number, file) in numbers.iter_mut().zip(files) {
        *number = file.cast_unsigned();
    }
    if !files.is_empty() {
        put(libc::SCM_RIGHTS, &numbers[..files.len()]);
    }
    if let Some(credentials) = credentials {
        put(libc::SCM_CREDENTIALS, &credentials);
    }
    let head = libc::msghdr {
        msg_name: to.map_or(ptr::null_mut(), |to| to.as_ptr().cast_mut().cast()),
        msg_namelen: to.map_or(0, |to| to.len() as libc::socklen_t),
        msg_iov: &raw mut part,
        msg_iovlen: 1,
        msg_control: if length > 0 { place.cast() } else { ptr::null_mut() },
        msg_controllen: length,
        msg_flags: 0,
    };
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | more;
    // SAFETY: every pointer in the head is to a buffer of the length that stands beside it; the kernel only reads them.
    checked(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const head, flags) } as libc::c_long)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_goes_along_is_seen_and_stays() {
        let (one, other) = UnixStream::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        assert_eq!(send(one.as_fd(), b"abc", None, &[file.as_raw_fd()], None), Ok(3));
        for _ in 0..2 {
            let mut buffer = [0; 8];
            let seen = peek(other.as_fd(), &mut buffer).unwrap();
            assert_eq!((&buffer[..seen.len], seen.files.len(), seen.credentials), (&b"abc"[..], 1, None));
        }
    }
}
