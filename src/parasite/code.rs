//! What everybody needs who has the interpreter run in a deputy: its code there, and its lists as it reads them.

use crate::image::model::address::PageRange;
use crate::sys::blob::INTERPRETER;
use crate::tracer::{self, Deputy, Memory};
use nix::errno::Errno;
use protocol::Task;

/// A call that was not made, or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process in which they work cannot do what it should.
    #[error(transparent)]
    Tracer(#[from] tracer::Error),
    /// A system call made in its name, or by its code, failed.
    #[error("{0}: {1}")]
    Call(&'static str, Errno),
}

/// Makes a call in the name of a deputy that must not fail.
pub(super) fn call(deputy: &Deputy, action: &'static str, number: i64, args: [u64; 6]) -> Result<u64, Error> {
    deputy.syscall(number, args)?.map_err(|errno| Error::Call(action, errno))
}

/// Maps the code of the interpreter over whatever is there and writes it.
pub(super) fn map(deputy: &Deputy, memory: &Memory, place: PageRange) -> Result<(), Error> {
    let protection = (libc::PROT_READ | libc::PROT_EXEC) as u64;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED) as u64;
    let args = [place.start.0, place.len(), protection, flags, u64::MAX, 0];
    call(deputy, "mapping code", libc::SYS_mmap, args)?;
    Ok(memory.write(place.start, INTERPRETER)?)
}

/// A task as it lies in memory.
pub(super) fn task(task: &Task) -> Vec<u8> {
    let Task { ops, count, done, failure, exit } = *task;
    [ops, count, done, failure as u64, exit].map(u64::to_le_bytes).concat()
}
