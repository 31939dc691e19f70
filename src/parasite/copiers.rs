//! Copiers: threads in a target's address space, or in a copy of it, that copy its pages into a file which we have mapped.
//!
//! They share a [`Board`] with their jobs, which we write before they begin and read when they have ended. Each says one byte through a socket when
//! it has nothing more to do.

use super::code;
use crate::image::model::address::{Addr, PAGE_SIZE, PageRange};
use crate::image::model::id::Fd;
use crate::sys::blob::INTERPRETER;
use crate::sys::pidfd;
use crate::sys::userfaultfd::CopyWindow;
use crate::tracer::{self, Deputy, Memory, RemotePtr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
use protocol::{Board, Job, Op, Run, Task, check, pseudo};
use std::io::{self, IoSlice};
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Most copiers that are worth their while: they meet at the locks of the file's pages.
const MOST: usize = 4;
/// Bytes of a stack.
const STACK: u64 = 8 << 10;
/// How often copiers are looked at that say nothing.
const GLANCE: u8 = 20;

/// Why nothing was copied. Nothing of the target has changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Whoever was told how far it is wants no more.
    #[error(transparent)]
    Stopped(io::Error),
    /// The process in which they work cannot do what it should.
    #[error(transparent)]
    Tracer(#[from] tracer::Error),
    /// A system call made in its name, or by them, failed.
    #[error("{0}: {1}")]
    Call(&'static str, Errno),
}

impl From<code::Error> for Error {
    fn from(error: code::Error) -> Self {
        match error {
            code::Error::Tracer(error) => Self::Tracer(error),
            code::Error::Call(action, errno) => Self::Call(action, errno),
        }
    }
}

/// Where blocks go in the file.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Offset of the first one.
    pub start: u64,
    /// Bytes before the content of each.
    pub head: u64,
    /// Bytes more for each run of pages.
    pub head_run: u64,
}

/// Where everything is in the memory that the copiers use.
#[derive(Clone, Copy, Debug)]
struct Places {
    code: PageRange,
    board: Addr,
    ops: Addr,
    tasks: Addr,
    /// For messages between us and the kernel.
    letters: Addr,
    stacks: Addr,
    jobs: Addr,
    runs: Addr,
    end: Addr,
}

impl Places {
    fn new(start: Addr, jobs: usize, runs: usize) -> Self {
        let code = PageRange::new(start.0, start.add(INTERPRETER.len() as u64).0.next_multiple_of(PAGE_SIZE));
        let board = code.end;
        let ops = board.add(256);
        let tasks = ops.add(256);
        let letters = tasks.add(1024);
        let stacks = board.add(PAGE_SIZE);
        let jobs_at = stacks.add(MOST as u64 * STACK);
        let runs_at = jobs_at.add((jobs * size_of::<Job>()) as u64);
        let end = runs_at.add((runs * size_of::<Run>()) as u64);
        Self { code, board, ops, tasks, letters, stacks, jobs: jobs_at, runs: runs_at, end }
    }
}

/// How much memory they use in the address space.
#[must_use]
pub fn memory_for(jobs: &[Vec<PageRange>]) -> u64 {
    let runs = jobs.iter().map(Vec::len).sum();
    Places::new(Addr::NULL, jobs.len(), runs).end.0.next_multiple_of(PAGE_SIZE)
}

/// Whether this machine has what they need.
#[must_use]
pub fn are_possible() -> bool {
    std::is_x86_feature_detected!("sse4.2")
}

/// Copiers at work. The process in which they are must be ended afterwards.
#[derive(Debug)]
pub struct Copiers<'d> {
    deputy: &'d Deputy,
    memory: Memory,
    places: Places,
    socket: OwnedFd,
    jobs: usize,
    silent: usize,
}

impl<'d> Copiers<'d> {
    /// Starts them in `area`, memory of the deputy, as large as [`memory_for`] says, that can be written and holds nothing.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn start(
        deputy: &'d mut Deputy,
        area: PageRange,
        jobs: &[Vec<PageRange>],
        layout: Layout,
        window: &CopyWindow,
    ) -> Result<Self, Error> {
        let places = Places::new(area.start, jobs.len(), jobs.iter().map(Vec::len).sum());
        let memory = deputy.memory()?;
        code::map(deputy, &memory, places.code)?;
        deputy.schedule_as_own()?;
        let (socket, far_end) = socket(deputy, &memory, places)?;
        let descriptor = hand_over(deputy, &memory, places, (&socket, far_end), window.descriptor())?;
        let board = Board {
            end: layout.start,
            count: jobs.len() as u64,
            jobs: places.jobs.0,
            file: window.address(),
            descriptor,
            head: layout.head,
            head_run: layout.head_run,
            ..Board::default()
        };
        memory.write(places.board, &words(&board))?;
        write_jobs(&memory, places, jobs)?;
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(MOST).min(jobs.len());
        write_tasks(&memory, places, far_end, deputy.exit())?;
        for number in 0..count as u64 {
            let stack = places.stacks.add((number + 1) * STACK);
            let task = places.tasks.add(number * size_of::<Task>() as u64);
            if let Err(error) = deputy.start(places.code.start, stack, task) {
                deputy.halt()?;
                return Err(error.into());
            }
        }
        Ok(Self { deputy, memory, places, socket, jobs: jobs.len(), silent: count })
    }

    /// Waits until all is copied, and returns what became of each job. `progress` is told the bytes that are done.
    ///
    /// # Errors
    /// See [`Error`]. No copier runs on.
    pub fn finish(mut self, progress: &dyn Fn(u64) -> io::Result<()>) -> Result<Vec<Job>, Error> {
        let result = self.wait(progress);
        if result.is_err() {
            self.deputy.halt()?;
        }
        result?;
        match self.memory.get(RemotePtr::<i64>::new(self.places.board.add(offset_of!(Board, failure) as u64)))? {
            0 => self.read_jobs(),
            error => Err(Error::Call("copying pages", Errno::from_raw(-error as i32))),
        }
    }

    fn wait(&mut self, progress: &dyn Fn(u64) -> io::Result<()>) -> Result<(), Error> {
        let done = RemotePtr::<u64>::new(self.places.board.add(offset_of!(Board, done) as u64));
        while self.silent > 0 {
            let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut polled, PollTimeout::from(GLANCE)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::Call("waiting for copiers", errno)),
            }
            let running = self.deputy.running()?;
            let mut bytes = [0; MOST];
            match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(said) => self.silent = self.silent.saturating_sub(said),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(Error::Call("listening to copiers", errno)),
            }
            // One that is killed says nothing.
            if running < self.silent {
                return Err(Error::Call("a copier's end", Errno::ESRCH));
            }
            progress(self.memory.get(done)?).map_err(Error::Stopped)?;
        }
        Ok(())
    }

    fn read_jobs(&self) -> Result<Vec<Job>, Error> {
        let bytes = self.memory.read_vec(self.places.jobs, self.jobs * size_of::<Job>())?;
        Ok(bytes.chunks_exact(size_of::<Job>()).map(job).collect())
    }
}

/// A pair of sockets: our end, and the number of the deputy's.
fn socket(deputy: &Deputy, memory: &Memory, places: Places) -> Result<(OwnedFd, i32), Error> {
    let kind = libc::SOCK_STREAM as u64;
    let args = [libc::AF_UNIX as u64, kind, 0, places.letters.0, 0, 0];
    code::call(deputy, "making a pair of sockets", libc::SYS_socketpair, args)?;
    let pair = RemotePtr::<i32>::new(places.letters);
    let (far, near) = (memory.get(pair)?, memory.get(pair.offset(1))?);
    let socket = pidfd::get_fd(deputy.pidfd(), Fd(near)).map_err(|errno| Error::Call("getting a socket", errno))?;
    Ok((socket, far))
}

/// Gives the deputy a descriptor of ours; its number there.
fn hand_over(
    deputy: &Deputy,
    memory: &Memory,
    places: Places,
    (socket, far): (&OwnedFd, i32),
    descriptor: BorrowedFd<'_>,
) -> Result<u64, Error> {
    let rights = [descriptor.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&rights)];
    let body = [IoSlice::new(b"x")];
    sendmsg::<()>(socket.as_raw_fd(), &body, &message, MsgFlags::empty(), None)
        .map_err(|errno| Error::Call("handing over a descriptor", errno))?;
    // struct iovec, struct msghdr, the byte, the control message.
    let (vector, header) = (places.letters, places.letters.add(16));
    let (byte, control) = (places.letters.add(80), places.letters.add(96));
    const CONTROL: u64 = 24;
    let letter = [byte.0, 1, 0, 0, vector.0, 1, control.0, CONTROL, 0];
    memory.write(vector, &letter.map(u64::to_le_bytes).concat())?;
    code::call(deputy, "receiving a descriptor", libc::SYS_recvmsg, [far as u64, header.0, 0, 0, 0, 0])?;
    // struct cmsghdr: length, level, type; then the descriptors.
    let got = memory.get(RemotePtr::<u64>::new(control))?;
    let kind = memory.get(RemotePtr::<u64>::new(control.add(8)))?;
    if (got, kind) != (20, (libc::SCM_RIGHTS as u64) << 32 | libc::SOL_SOCKET as u64) {
        return Err(Error::Call("receiving a descriptor", Errno::EBADMSG));
    }
    Ok(memory.get(RemotePtr::<i32>::new(control.add(16)))? as u64)
}

fn write_jobs(memory: &Memory, places: Places, jobs: &[Vec<PageRange>]) -> Result<(), Error> {
    let mut table = Vec::with_capacity(jobs.len() * size_of::<Job>());
    let mut all = Vec::new();
    for runs in jobs {
        let first = places.runs.add(all.len() as u64);
        table.extend_from_slice(&first.0.to_le_bytes());
        table.extend_from_slice(&(runs.len() as u64).to_le_bytes());
        table.resize(table.len() + size_of::<Job>() - 16, 0);
        all.extend(runs.iter().flat_map(|run| [run.start.0.to_le_bytes(), run.len().to_le_bytes()].concat()));
    }
    memory.write(places.jobs, &table)?;
    Ok(memory.write(places.runs, &all)?)
}

/// Each has the same operations: to copy, and to say when there is nothing more to copy.
fn write_tasks(memory: &Memory, places: Places, socket: i32, exit: Addr) -> Result<(), Error> {
    let board = places.board.0;
    let copy = Op { nr: pseudo::COPY_PAGES, check: check::ANY, args: [board, 0, 0, 0, 0, 0], ..Op::default() };
    let say = Op { nr: libc::SYS_write as u32, args: [socket as u64, board, 1, 0, 0, 0], ..copy };
    let ops: Vec<u8> = [copy, say].iter().flat_map(Op::words).flat_map(u64::to_le_bytes).collect();
    memory.write(places.ops, &ops)?;
    let task = Task { ops: places.ops.0, count: 2, exit: exit.0, ..Task::default() };
    Ok(memory.write(places.tasks, &code::task(&task).repeat(MOST))?)
}

fn words(board: &Board) -> Vec<u8> {
    let Board { next, end, done, failure, count, jobs, file, descriptor, head, head_run } = *board;
    [next, end, done, failure as u64, count, jobs, file, descriptor, head, head_run].map(u64::to_le_bytes).concat()
}

fn job(bytes: &[u8]) -> Job {
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at * 8 + byte]));
    Job {
        runs: word(0),
        count: word(1),
        kept: [word(2), word(3), word(4), word(5)],
        content: word(6),
        crc: word(7) as u32,
        done: (word(7) >> 32) as u32,
    }
}
