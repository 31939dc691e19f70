//! The audit subsystem of the kernel: to whom it sends what it has to tell.
#![allow(unsafe_code)]

use super::checked;
use super::sock_diag::{HEADER, NLMSG_ERROR, errno, split};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::FromRawFd;

// include/uapi/linux/netlink.h, audit.h
/// The protocol of netlink.
pub const NETLINK_AUDIT: i32 = 9;
const NLM_F_REQUEST: u16 = 1;
const AUDIT_GET: u16 = 1000;
/// Where `pid` stands in `struct audit_status`.
const PID: usize = 12;

/// The audit daemon, if one has said that it is this.
///
/// # Errors
/// As netlink(7); EPERM without CAP_AUDIT_CONTROL.
pub fn daemon() -> io::Result<Option<u32>> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes integers.
    let fd = checked(unsafe { libc::socket(libc::AF_NETLINK, kind, NETLINK_AUDIT) }.into())?;
    // SAFETY: the descriptor is new and nobody else's.
    let mut netlink = unsafe { File::from_raw_fd(fd as i32) };
    let mut request = Vec::with_capacity(HEADER);
    request.extend_from_slice(&(HEADER as u32).to_ne_bytes());
    request.extend_from_slice(&AUDIT_GET.to_ne_bytes());
    request.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    netlink.write_all(&request)?;
    let mut buffer = [0; 1024];
    loop {
        let count = netlink.read(&mut buffer)?;
        match split(&buffer[..count]) {
            Some((NLMSG_ERROR, body, _)) => return Err(errno(body)),
            Some((AUDIT_GET, body, _)) => {
                let pid = body.get(PID..).and_then(|rest| rest.first_chunk()).ok_or(io::ErrorKind::InvalidData)?;
                return Ok(Some(u32::from_ne_bytes(*pid)).filter(|pid| *pid != 0));
            }
            _ => {}
        }
    }
}
