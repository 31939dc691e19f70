//! ioctl(2) of /dev/net/tun (Documentation/networking/tuntap.rst, include/uapi/linux/if_tun.h).
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNGETIFF: libc::c_ulong = 0x8004_54d2;
const TUNGETSNDBUF: libc::c_ulong = 0x8004_54d3;
const TUNSETSNDBUF: libc::c_ulong = 0x4004_54d4;
const TUNGETVNETHDRSZ: libc::c_ulong = 0x8004_54d7;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
const TUNGETDEVNETNS: libc::c_ulong = 0x54e3;

/// IFF_PERSIST: the interface outlives its descriptors.
pub const PERSIST: u16 = 0x0800;

/// `struct ifreq` as far as it is used here.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<Request>() == 40);

/// TUNGETIFF: name and flags of the interface; `None` when the descriptor is attached to none.
///
/// # Errors
/// As ioctl(2).
pub fn interface(tun: &File) -> io::Result<Option<(String, u16)>> {
    let mut request = Request { name: [0; 16], flags: 0, rest: [0; 22] };
    // SAFETY: the kernel writes one ifreq to the pointer, which is valid for it.
    if unsafe { libc::ioctl(tun.as_raw_fd(), TUNGETIFF, &raw mut request) } < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::EBADFD) { Ok(None) } else { Err(error) };
    }
    let length = request.name.iter().position(|byte| *byte == 0).unwrap_or(request.name.len());
    Ok(Some((String::from_utf8_lossy(&request.name[..length]).into_owned(), request.flags)))
}

/// TUNSETIFF: attaches to an interface.
///
/// # Errors
/// As ioctl(2): EBUSY when somebody else is attached.
pub fn attach(tun: &File, name: &str, flags: u16) -> io::Result<()> {
    let mut request = Request { name: [0; 16], flags, rest: [0; 22] };
    let bytes = name.as_bytes();
    let place = request.name[..15].get_mut(..bytes.len()).ok_or(io::ErrorKind::InvalidInput)?;
    place.copy_from_slice(bytes);
    // SAFETY: the kernel reads and writes one ifreq at the pointer, which is valid for it.
    done(unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETIFF, &raw mut request) })
}

/// Whether this network namespace has an interface of this name.
#[must_use]
pub fn exists(name: &str) -> bool {
    // SAFETY: the name is a string.
    CString::new(name).is_ok_and(|name| unsafe { libc::if_nametoindex(name.as_ptr()) } != 0)
}

/// TUNGETVNETHDRSZ and TUNGETSNDBUF.
///
/// # Errors
/// As ioctl(2).
pub fn sizes(tun: &File) -> io::Result<[i32; 2]> {
    let mut sizes = [0; 2];
    for (request, size) in [TUNGETVNETHDRSZ, TUNGETSNDBUF].into_iter().zip(&mut sizes) {
        // SAFETY: the kernel writes one int to the pointer, which is valid for it.
        done(unsafe { libc::ioctl(tun.as_raw_fd(), request, &raw mut *size) })?;
    }
    Ok(sizes)
}

/// TUNSETVNETHDRSZ and TUNSETSNDBUF.
///
/// # Errors
/// As ioctl(2).
pub fn set_sizes(tun: &File, sizes: [i32; 2]) -> io::Result<()> {
    for (request, size) in [TUNSETVNETHDRSZ, TUNSETSNDBUF].into_iter().zip(&sizes) {
        // SAFETY: the kernel reads one int from the pointer, which is valid for it.
        done(unsafe { libc::ioctl(tun.as_raw_fd(), request, &raw const *size) })?;
    }
    Ok(())
}

/// TUNGETDEVNETNS: the network namespace of the interface.
///
/// # Errors
/// As ioctl(2): EPERM without CAP_NET_ADMIN there.
pub fn namespace(tun: &File) -> io::Result<File> {
    // SAFETY: takes no argument and returns a new descriptor.
    let fd = unsafe { libc::ioctl(tun.as_raw_fd(), TUNGETDEVNETNS) };
    done(fd)?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { File::from_raw_fd(fd) })
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
