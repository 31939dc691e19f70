//! Pipes: unread bytes are copied with tee(2), never consumed.

use crate::image::model::id::PipeId;
use crate::image::model::pipe::Pipe;
use crate::sys::descriptor::unread;
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, tee};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;

/// Reads a pipe through a read end of it.
///
/// # Errors
/// The system call that failed.
pub fn collect(id: PipeId, read_end: BorrowedFd<'_>, packets: bool) -> io::Result<Pipe> {
    let meta = File::from(read_end.try_clone_to_owned()?).metadata()?;
    let capacity = fcntl(read_end, FcntlArg::F_GETPIPE_SZ)? as u32;
    let unread = peek(read_end, capacity, packets)?;
    Ok(Pipe { id, ino: meta.ino(), capacity, unread, uid: meta.uid(), gid: meta.gid() })
}

/// A pipe that has lost its last reader: what it holds can never be read.
///
/// # Errors
/// The system call that failed.
pub fn collect_unreadable(id: PipeId, write_end: BorrowedFd<'_>) -> io::Result<Pipe> {
    let meta = File::from(write_end.try_clone_to_owned()?).metadata()?;
    let capacity = fcntl(write_end, FcntlArg::F_GETPIPE_SZ)? as u32;
    Ok(Pipe { id, ino: meta.ino(), capacity, unread: Vec::new(), uid: meta.uid(), gid: meta.gid() })
}

/// Copies what waits in a pipe, packet by packet where it is in packet mode.
fn peek(read_end: BorrowedFd<'_>, capacity: u32, packets: bool) -> io::Result<Vec<Vec<u8>>> {
    let waiting = unread(read_end)?;
    if waiting == 0 {
        return Ok(Vec::new());
    }
    let flags = if packets { nix::fcntl::OFlag::O_DIRECT } else { nix::fcntl::OFlag::empty() };
    let (copy_read, copy_write) = nix::unistd::pipe2(flags | nix::fcntl::OFlag::O_CLOEXEC)?;
    // tee(2) duplicates buffers, not bytes: the copy needs as many slots as the original has.
    fcntl(&copy_write, FcntlArg::F_SETPIPE_SZ(capacity as i32))?;
    tee(read_end, &copy_write, capacity as usize, SpliceFFlags::SPLICE_F_NONBLOCK)?;
    drop(copy_write);
    let mut copy = File::from(copy_read);
    let mut chunks = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match copy.read(&mut buffer)? {
            0 => break,
            n if packets => chunks.push(buffer[..n].to_vec()),
            n => match chunks.first_mut() {
                None => chunks.push(buffer[..n].to_vec()),
                Some(first) => first.extend_from_slice(&buffer[..n]),
            },
        }
    }
    let copied: usize = chunks.iter().map(Vec::len).sum();
    if copied != waiting {
        return Err(io::Error::other(format!("{waiting} bytes wait in the pipe, {copied} were copied")));
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn peeking_leaves_the_bytes_in_the_pipe() {
        let (r, w) = nix::unistd::pipe().unwrap();
        let mut w = File::from(w);
        w.write_all(&[7; 100_000][..60_000]).unwrap();
        let pipe = collect(PipeId(0), r.as_fd(), false).unwrap();
        assert_eq!(pipe.unread, vec![vec![7; 60_000]]);
        assert_eq!(unread(r.as_fd()).unwrap(), 60_000);
    }

    #[test]
    fn packets_keep_their_borders() {
        let (r, w) = nix::unistd::pipe2(nix::fcntl::OFlag::O_DIRECT).unwrap();
        let mut w = File::from(w);
        w.write_all(b"one").unwrap();
        w.write_all(b"three").unwrap();
        let pipe = collect(PipeId(0), r.as_fd(), true).unwrap();
        assert_eq!(pipe.unread, vec![b"one".to_vec(), b"three".to_vec()]);
    }
}
