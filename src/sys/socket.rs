//! socket(2), getsockopt(2), setsockopt(2) with values as plain bytes.
#![allow(unsafe_code)]

use super::checked;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};

/// More than any option's value takes but those that are lists.
pub const VALUE_MAX: usize = 512;

/// A new socket, close-on-exec.
///
/// # Errors
/// As socket(2).
pub fn make(domain: i32, kind: i32, protocol: i32) -> io::Result<File> {
    // SAFETY: socket takes integers.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) };
    // SAFETY: the descriptor is new and nobody else's.
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { File::from_raw_fd(fd) }) }
}

/// The value of an option.
///
/// # Errors
/// As getsockopt(2): ENOPROTOOPT for one that the socket or the kernel does not have.
pub fn option(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<Vec<u8>> {
    let mut value = [0u8; VALUE_MAX];
    option_into(fd, level, name, &mut value).map(<[u8]>::to_vec)
}

/// The value of an option, in a buffer of the caller's.
///
/// # Errors
/// As [`option`].
pub fn option_into<'b>(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &'b mut [u8; VALUE_MAX],
) -> io::Result<&'b [u8]> {
    let mut length = VALUE_MAX as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to the buffer, which has so many.
    let rc = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(&value[..VALUE_MAX.min(length as usize)])
}

/// Asks for an option whose value says what is asked for: the answer takes its place. Gives its length.
///
/// # Errors
/// As getsockopt(2).
pub fn ask(fd: BorrowedFd<'_>, level: i32, name: i32, value: &mut [u8]) -> super::Result<usize> {
    let mut length = value.len() as libc::socklen_t;
    let place = value.as_mut_ptr().cast();
    // SAFETY: the kernel reads and writes at most `length` bytes of the buffer, which has so many.
    checked(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, place, &raw mut length) }.into())?;
    Ok(length as usize)
}

/// The value of an option that is an int.
///
/// # Errors
/// As getsockopt(2); `InvalidData` where it is none.
pub fn number(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<i32> {
    let mut value = [0u8; VALUE_MAX];
    let value = option_into(fd, level, name, &mut value)?;
    let word = value.try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(i32::from_ne_bytes(word))
}

/// Sets an option.
///
/// # Errors
/// As setsockopt(2).
pub fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let length = value.len() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes from the buffer, which has so many.
    let rc = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The address that a call of the kind of getsockname(2) gives, `sa_family` first.
fn address(
    fd: BorrowedFd<'_>,
    call: unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int,
) -> io::Result<Vec<u8>> {
    let mut value = vec![0u8; size_of::<libc::sockaddr_storage>()];
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to the buffer, which has so many.
    let rc = unsafe { call(fd.as_raw_fd(), value.as_mut_ptr().cast(), &raw mut length) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    value.truncate(length as usize);
    Ok(value)
}

/// getsockname(2): the whole `struct sockaddr` of the family.
///
/// # Errors
/// As getsockname(2).
pub fn own_address(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    address(fd, libc::getsockname)
}

/// getpeername(2): the whole `struct sockaddr` of the family.
///
/// # Errors
/// As getpeername(2): ENOTCONN without a peer.
pub fn peer_address(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    address(fd, libc::getpeername)
}

/// getsockopt(2) SO_PEERCRED: process, user and group; `None` for a socket that has no such peer.
///
/// # Errors
/// As getsockopt(2).
pub fn peer_credentials(fd: BorrowedFd<'_>) -> io::Result<Option<[u32; 3]>> {
    let value = option(fd, libc::SOL_SOCKET, libc::SO_PEERCRED)?;
    let (words, _) = value.as_chunks();
    match words.iter().map(|word| u32::from_ne_bytes(*word)).collect::<Vec<_>>()[..] {
        // Nobody has set them (net/core/sock.c, `cred_to_ucred`).
        [0, u32::MAX, u32::MAX] => Ok(None),
        [pid, uid, gid] => Ok(Some([pid, uid, gid])),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// getsockopt(2) SO_PEERGROUPS.
///
/// # Errors
/// As getsockopt(2).
pub fn peer_groups(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    const SO_PEERGROUPS: i32 = 59;
    let mut groups = vec![0u32; 64];
    loop {
        let mut length = size_of_val(groups.as_slice()) as libc::socklen_t;
        let place = groups.as_mut_ptr().cast();
        // SAFETY: the kernel writes at most `length` bytes to the buffer, which has so many.
        let rc = unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, SO_PEERGROUPS, place, &raw mut length) };
        let count = length as usize / size_of::<u32>();
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            _ if rc == 0 => {
                groups.truncate(count);
                return Ok(groups);
            }
            Some(libc::ERANGE) if count > groups.len() => groups.resize(count, 0),
            Some(libc::ENODATA) => return Ok(Vec::new()),
            _ => return Err(error),
        }
    }
}

/// SIOCUNIXFILE: a descriptor of O_PATH for the file that a UNIX socket is bound to.
///
/// # Errors
/// ENOENT without such a file, EPERM without CAP_NET_ADMIN.
pub fn bound_file(fd: BorrowedFd<'_>) -> io::Result<File> {
    const SIOCUNIXFILE: libc::c_ulong = 0x89e0;
    // SAFETY: takes no argument.
    let file = unsafe { libc::ioctl(fd.as_raw_fd(), SIOCUNIXFILE, 0) };
    // SAFETY: the descriptor is new and nobody else's.
    if file < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { File::from_raw_fd(file) }) }
}

/// socketpair(2), close-on-exec.
///
/// # Errors
/// As socketpair(2).
pub fn pair(kind: i32) -> super::Result<[i32; 2]> {
    let mut pair = [-1; 2];
    // SAFETY: the kernel writes two ints to the pointer.
    checked(unsafe { libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr()) }.into())?;
    Ok(pair)
}

/// A descriptor that [`pair`] has made.
///
/// The caller guarantees that it owns this number.
#[must_use]
pub fn adopt(number: i32) -> File {
    // SAFETY: as the caller promises, it is nobody else's.
    unsafe { File::from_raw_fd(number) }
}

/// listen(2).
///
/// # Errors
/// As listen(2).
pub fn listen(fd: BorrowedFd<'_>, backlog: i32) -> super::Result<()> {
    // SAFETY: takes integers.
    checked(unsafe { libc::listen(fd.as_raw_fd(), backlog) }.into()).map(drop)
}

/// connect(2) to a whole `struct sockaddr`.
///
/// # Errors
/// As connect(2).
pub fn connect(fd: BorrowedFd<'_>, address: &[u8]) -> super::Result<()> {
    let length = address.len() as libc::socklen_t;
    // SAFETY: the kernel reads the length of the buffer from it.
    checked(unsafe { libc::connect(fd.as_raw_fd(), address.as_ptr().cast(), length) }.into()).map(drop)
}

/// accept(2), close-on-exec.
///
/// # Errors
/// As accept(2).
pub fn accept(fd: BorrowedFd<'_>) -> io::Result<File> {
    let (none, flags) = (std::ptr::null_mut(), libc::SOCK_CLOEXEC);
    // SAFETY: without a place for the address the kernel writes none.
    let accepted = unsafe { libc::accept4(fd.as_raw_fd(), none, std::ptr::null_mut(), flags) };
    // SAFETY: the descriptor is new and nobody else's.
    if accepted < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { File::from_raw_fd(accepted) }) }
}

/// shutdown(2): bit 0 for receiving, bit 1 for sending.
///
/// # Errors
/// As shutdown(2).
pub fn shutdown(fd: BorrowedFd<'_>, bits: u8) -> io::Result<()> {
    let how = match bits {
        1 => libc::SHUT_RD,
        2 => libc::SHUT_WR,
        3 => libc::SHUT_RDWR,
        _ => return Ok(()),
    };
    // SAFETY: takes integers.
    let rc = unsafe { libc::shutdown(fd.as_raw_fd(), how) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// bind(2) to a whole `struct sockaddr`.
///
/// # Errors
/// As bind(2).
pub fn bind(fd: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads the length of the buffer from it.
    let rc = unsafe { libc::bind(fd.as_raw_fd(), address.as_ptr().cast(), address.len() as libc::socklen_t) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The classic BPF program of a socket, as `struct sock_filter` one after the other: empty without one.
///
/// # Errors
/// As getsockopt(2): EACCES for a program of eBPF.
pub fn filter(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    /// BPF_MAXINSNS.
    const MOST: usize = 4096;
    // For this option alone the length counts instructions, both ways, and with no room only that is told (net/core/filter.c, sk_get_filter).
    let count = instructions(fd, &mut [])?;
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut program = vec![0u8; MOST * INSTRUCTION];
    let count = instructions(fd, &mut program)?;
    program.truncate(count * INSTRUCTION);
    Ok(program)
}

/// Copies the program of a socket and gives the number of its instructions, or that alone where there is no room.
fn instructions(fd: BorrowedFd<'_>, program: &mut [u8]) -> io::Result<usize> {
    let mut length = (program.len() / INSTRUCTION) as libc::socklen_t;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
    // SAFETY: the kernel writes at most `length` instructions to the buffer, which has room for so many.
    let rc = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, program.as_mut_ptr().cast(), &raw mut length) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(length as usize) }
}

/// Bytes of `struct sock_filter`.
const INSTRUCTION: usize = size_of::<libc::sock_filter>();

/// Attaches a classic BPF program, in whose place another may stand; an empty one takes that away.
///
/// # Errors
/// As setsockopt(2).
pub fn attach_filter(fd: BorrowedFd<'_>, program: &[u8]) -> io::Result<()> {
    if program.is_empty() {
        return set_option(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &0i32.to_ne_bytes());
    }
    let field = |at: &[u8]| u16::from_ne_bytes([at[0], at[1]]);
    let code: Vec<libc::sock_filter> = program
        .chunks_exact(INSTRUCTION)
        .map(|at| libc::sock_filter {
            code: field(at),
            jt: at[2],
            jf: at[3],
            k: u32::from_ne_bytes([at[4], at[5], at[6], at[7]]),
        })
        .collect();
    let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_ptr().cast_mut() };
    let (level, name, length) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, size_of::<libc::sock_fprog>());
    // SAFETY: the kernel reads a sock_fprog, and through it `len` instructions, which `code` has until the end of the call.
    let rc = unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const program).cast(), length as libc::socklen_t)
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// SO_MEMINFO: bytes of memory of what it is to send, or of what it has sent and a device still holds.
///
/// # Errors
/// As getsockopt(2).
pub fn unsent(fd: BorrowedFd<'_>) -> io::Result<u32> {
    const SO_MEMINFO: i32 = 55;
    const SK_MEMINFO_WMEM_ALLOC: usize = 2;
    let value = option(fd, libc::SOL_SOCKET, SO_MEMINFO)?;
    let (words, _) = value.as_chunks();
    words
        .get(SK_MEMINFO_WMEM_ALLOC)
        .map(|word| u32::from_ne_bytes(*word))
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// SIOCATMARK: whether urgent data come next.
///
/// # Errors
/// As ioctl(2).
pub fn is_at_mark(fd: BorrowedFd<'_>) -> io::Result<bool> {
    const SIOCATMARK: libc::c_ulong = 0x8905;
    let mut mark: libc::c_int = 0;
    // SAFETY: SIOCATMARK writes one int to the pointer, which is valid for it.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), SIOCATMARK, &raw mut mark) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(mark != 0) }
}

/// What poll(2) says of a socket now, as POLLIN and its like; it takes nothing away, an error neither.
///
/// # Errors
/// As poll(2).
pub fn waiting(fd: BorrowedFd<'_>) -> io::Result<i16> {
    let events = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP;
    let mut polled = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: the kernel reads and writes one pollfd.
    let rc = unsafe { libc::poll(&raw mut polled, 1, 0) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(polled.revents) }
}
