//! Pipes and FIFOs: unread bytes are copied with tee(2), never consumed.

use crate::image::model::id::{FileId, PipeId};
use crate::image::model::pipe::{Pipe, Unread};
use crate::sys::descriptor::unread;
use crate::sys::open;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice, tee};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

/// Reads a pipe through a read end of it.
///
/// # Errors
/// The system call that failed.
pub fn collect(id: PipeId, fifo: Option<FileId>, read_end: BorrowedFd<'_>) -> io::Result<Pipe> {
    let pipe = collect_unreadable(id, fifo, read_end)?;
    Ok(Pipe { unread: peek(read_end, pipe.capacity)?, ..pipe })
}

/// Reads a pipe that nobody has open for reading, by opening it for that moment through an end of it for writing. Whoever waits in open(2) for somebody to read
/// from a FIFO goes on then, and the owner of an end (O_ASYNC) and epoll instances that watch it are told when we close it (fs/pipe.c, `fifo_open`,
/// `pipe_release`).
///
/// # Errors
/// The system call that failed.
pub fn collect_abandoned(id: PipeId, fifo: Option<FileId>, write_end: BorrowedFd<'_>) -> io::Result<Pipe> {
    let path = format!("/proc/self/fd/{}", write_end.as_raw_fd());
    let reader = open::path(path.as_ref(), (libc::O_RDONLY | libc::O_NONBLOCK) as u32)?;
    collect(id, fifo, reader.as_fd())
}

/// A pipe that has lost its last reader, without what it holds.
///
/// # Errors
/// The system call that failed.
pub fn collect_unreadable(id: PipeId, fifo: Option<FileId>, end: BorrowedFd<'_>) -> io::Result<Pipe> {
    let meta = File::from(end.try_clone_to_owned()?).metadata()?;
    let capacity = fcntl(end, FcntlArg::F_GETPIPE_SZ)? as u32;
    Ok(Pipe { id, ino: meta.ino(), fifo, capacity, unread: Vec::new(), uid: meta.uid(), gid: meta.gid() })
}

/// Whether somebody has it open for writing; `None` where bytes that wait in it hide that.
///
/// poll(2) does not tell of a FIFO: one that was opened while nobody wrote is silent about writers that are not there. tee(2) finds
/// nothing, and either says so or expects more (fs/splice.c, `ipipe_prep`).
///
/// # Errors
/// The system call that failed.
pub fn has_writer(read_end: BorrowedFd<'_>) -> io::Result<Option<bool>> {
    let (_reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    match tee(read_end, &writer, 1, SpliceFFlags::SPLICE_F_NONBLOCK) {
        Ok(0) => Ok(Some(false)),
        Err(Errno::EAGAIN) => Ok(Some(true)),
        Ok(_) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Copies what waits in a pipe, part by part.
fn peek(read_end: BorrowedFd<'_>, capacity: u32) -> io::Result<Vec<Unread>> {
    let waiting = unread(read_end)?;
    if waiting == 0 {
        return Ok(Vec::new());
    }
    let (copy_read, copy_write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    // tee(2) duplicates buffers, not bytes: the copy needs as many slots as the original has.
    fcntl(&copy_write, FcntlArg::F_SETPIPE_SZ(capacity as i32))?;
    tee(read_end, &copy_write, capacity as usize, SpliceFFlags::SPLICE_F_NONBLOCK)?;
    drop(copy_write);
    let parts = take_apart(copy_read.as_fd(), capacity as usize)?;
    let copied: usize = parts.iter().map(|part| part.bytes.len()).sum();
    if copied != waiting {
        return Err(io::Error::other(format!("{waiting} bytes wait in the pipe, {copied} were copied")));
    }
    Ok(parts)
}

/// Reads a pipe that nobody writes to any more, buffer by buffer: only so can it be seen which of them are packets.
fn take_apart(pipe: BorrowedFd<'_>, capacity: usize) -> io::Result<Vec<Unread>> {
    const SENTINEL: u8 = 0;
    // Room for one buffer, and room for it and another.
    let (one_read, one_write) = sized_pipe(1)?;
    let (two_read, two_write) = sized_pipe(2)?;
    let (mut reader, mut writer) = (File::from(two_read), File::from(two_write));
    let (mut parts, mut bytes) = (Vec::<Unread>::new(), vec![0; capacity + 1]);
    while splice(pipe, None, &one_write, None, capacity, SpliceFFlags::SPLICE_F_NONBLOCK)? > 0 {
        let len = splice(&one_read, None, &writer, None, capacity, SpliceFFlags::SPLICE_F_NONBLOCK)?;
        writer.write_all(&[SENTINEL])?;
        // A read ends with a packet (pipe(7)), and goes on behind any other buffer.
        let packet = reader.read(&mut bytes)? == len;
        if packet {
            reader.read_exact(&mut [SENTINEL])?;
        }
        match parts.last_mut().filter(|last| !packet && !last.packet) {
            Some(last) => last.bytes.extend_from_slice(&bytes[..len]),
            None => parts.push(Unread { packet, bytes: bytes[..len].to_vec() }),
        }
    }
    Ok(parts)
}

fn sized_pipe(buffers: i32) -> io::Result<(std::os::fd::OwnedFd, std::os::fd::OwnedFd)> {
    const PAGE: i32 = 4096;
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(buffers * PAGE))?;
    Ok((reader, writer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(bytes: Vec<u8>) -> Unread {
        Unread { packet: false, bytes }
    }

    fn packet(bytes: &[u8]) -> Unread {
        Unread { packet: true, bytes: bytes.to_vec() }
    }

    #[test]
    fn peeking_leaves_the_bytes_in_the_pipe() {
        let (r, w) = nix::unistd::pipe().unwrap();
        let mut w = File::from(w);
        w.write_all(&[7; 100_000][..60_000]).unwrap();
        let pipe = collect(PipeId(0), None, r.as_fd()).unwrap();
        assert_eq!(pipe.unread, vec![plain(vec![7; 60_000])]);
        assert_eq!(unread(r.as_fd()).unwrap(), 60_000);
    }

    #[test]
    fn packets_keep_their_borders_among_other_bytes_and_when_their_writer_is_gone() {
        let (r, w) = nix::unistd::pipe().unwrap();
        let mut w = File::from(w);
        let mut write = |mode: OFlag, bytes: &[u8]| {
            fcntl(&w, FcntlArg::F_SETFL(mode)).unwrap();
            w.write_all(bytes).unwrap();
        };
        write(OFlag::O_DIRECT, b"one");
        write(OFlag::O_DIRECT, b"3");
        write(OFlag::empty(), b"ab");
        write(OFlag::empty(), &[b'c'; 5000]);
        write(OFlag::O_DIRECT, b"last");
        drop(w);
        let mut bytes = b"ab".to_vec();
        bytes.resize(5002, b'c');
        let pipe = collect(PipeId(0), None, r.as_fd()).unwrap();
        assert_eq!(pipe.unread, vec![packet(b"one"), packet(b"3"), plain(bytes), packet(b"last")]);
    }

    #[test]
    fn writers_are_seen_unless_bytes_hide_them() {
        let (r, w) = nix::unistd::pipe().unwrap();
        assert_eq!(has_writer(r.as_fd()).unwrap(), Some(true));
        let copy = w.try_clone().unwrap();
        drop(w);
        File::from(copy).write_all(b"x").unwrap();
        assert_eq!(has_writer(r.as_fd()).unwrap(), None);
        File::from(r.try_clone().unwrap()).read_exact(&mut [0]).unwrap();
        assert_eq!(has_writer(r.as_fd()).unwrap(), Some(false));
    }
}
