//! POSIX message queues: mq_open(3) and what belongs to it, as system calls, whose names have no slash.
#![allow(unsafe_code)]

use super::open::owned;
use super::{Result, checked};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

/// `struct mq_attr`, of which the kernel takes and gives eight words.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    flags: i64,
    /// The most messages that it takes.
    pub max_messages: i64,
    /// The most bytes of a message.
    pub message_size: i64,
    /// Messages that are in it.
    pub messages: i64,
    reserved: [i64; 4],
}

const _: () = assert!(size_of::<Attributes>() == 64);

/// mq_open(2) of one that is there; close-on-exec.
///
/// # Errors
/// As mq_open(2).
pub fn open(name: &CStr, flags: u32) -> io::Result<File> {
    let flags = (flags as i32 & !(libc::O_CREAT | libc::O_EXCL)) | libc::O_CLOEXEC;
    // SAFETY: the name is a string, and what is opened is ours.
    owned(unsafe { libc::syscall(libc::SYS_mq_open, name.as_ptr(), flags, 0, ptr::null::<Attributes>()) } as i32)
}

/// mq_open(2) of one that is not there, for nobody else yet; close-on-exec.
///
/// # Errors
/// As mq_open(2) with O_EXCL.
pub fn create(name: &CStr, max_messages: i64, message_size: i64) -> io::Result<File> {
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | libc::O_CLOEXEC;
    let attributes = Attributes { max_messages, message_size, ..Attributes::default() };
    // SAFETY: the name is a string, the kernel reads the attributes, and what is opened is ours.
    owned(unsafe { libc::syscall(libc::SYS_mq_open, name.as_ptr(), flags, 0o600, &raw const attributes) } as i32)
}

/// mq_unlink(2). Makes nothing but a system call.
///
/// # Errors
/// As mq_unlink(2).
pub fn unlink(name: &CStr) -> Result<()> {
    // SAFETY: the name is a string.
    checked(unsafe { libc::syscall(libc::SYS_mq_unlink, name.as_ptr()) }).map(drop)
}

/// mq_timedsend(2) to a queue that has room.
///
/// # Errors
/// As mq_send(3).
pub fn send(queue: &File, text: &[u8], priority: u32) -> Result<()> {
    let (fd, at, len, none) = (queue.as_raw_fd(), text.as_ptr(), text.len(), ptr::null::<libc::timespec>());
    // SAFETY: the kernel reads so many bytes.
    checked(unsafe { libc::syscall(libc::SYS_mq_timedsend, fd, at, len, priority, none) }).map(drop)
}

/// mq_getsetattr(2).
///
/// # Errors
/// EBADF for what is no queue.
pub fn attributes(queue: &File) -> Result<Attributes> {
    let mut attributes = Attributes::default();
    let (fd, none) = (queue.as_raw_fd(), ptr::null::<Attributes>());
    // SAFETY: the kernel writes so many bytes.
    checked(unsafe { libc::syscall(libc::SYS_mq_getsetattr, fd, none, &raw mut attributes) })?;
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    #[test]
    fn a_queue_is_what_it_was_made_as_until_its_name_is_gone() {
        let name = CString::new(format!("snap-test-{}", std::process::id())).unwrap();
        let queue = create(&name, 3, 100).unwrap();
        assert!(create(&name, 3, 100).is_err());
        let made = attributes(&queue).unwrap();
        assert_eq!((made.max_messages, made.message_size, made.messages), (3, 100, 0));
        assert!(open(&name, libc::O_WRONLY as u32).is_ok());
        unlink(&name).unwrap();
        assert_eq!(open(&name, 0).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert!(attributes(&File::open("/dev/null").unwrap()).is_err());
    }
}
