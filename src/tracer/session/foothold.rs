//! What must be true of a process before it works for us, and what is written into it for that.

use crate::image::model::address::Addr;
use crate::image::model::id::Pid;
use crate::proc::{TaskDir, maps};
use crate::tracer::error::Error;
use crate::tracer::memory::{Memory, RemotePtr};
use crate::tracer::padding::{self, Content, Place};
use crate::tracer::thread::StoppedThread;
use crate::tracer::tree::FrozenTree;
use crate::tracer::{inject, rseq, stub};

pub(in crate::tracer) fn read_maps(pid: Pid) -> Result<Vec<maps::Mapping>, Error> {
    let failed = |error: crate::proc::Error| Error::Proc {
        path: format!("/proc/{pid}/maps"),
        source: std::io::Error::other(error),
    };
    maps::read(&TaskDir::process(pid).map_err(failed)?, &mut Vec::new()).map_err(failed)
}

/// Finds a place for the stubs, after every thread that a killed predecessor left in one has come out of it.
pub(super) fn free_place(
    tree: &mut FrozenTree,
    pid: Pid,
    maps: &[maps::Mapping],
    memory: &Memory,
) -> Result<Place, Error> {
    let places = padding::places(maps, memory)?;
    let stale: Vec<Place> =
        places.iter().filter(|(_, content)| *content == Content::Stale).map(|(place, _)| *place).collect();
    run_out(tree, pid, &stale)?;
    let place = places.iter().map(|(place, _)| *place).next();
    place.ok_or(Error::NoRoom { pid, what: "512 zero bytes at the end of any executable file mapping" })
}

/// Lets threads run out of what a killed predecessor has left anywhere in their address space.
///
/// # Errors
/// [`Error::Leaving`] for one that waits for somebody who stands still.
pub fn let_out(tree: &mut FrozenTree, pid: Pid) -> Result<(), Error> {
    let first = tree.threads_of(pid).first().ok_or(Error::Vanished(pid))?;
    let memory = Memory::open(Pid(first.tid.0))?;
    let places = padding::all_places(&read_maps(memory.pid())?, &memory)?;
    let stale = places.into_iter().filter(|(_, content)| *content == Content::Stale).map(|(place, _)| place);
    run_out(tree, pid, &stale.collect::<Vec<_>>())
}

/// Lets threads run out of what a killed predecessor has left.
pub(in crate::tracer) fn run_out(tree: &mut FrozenTree, pid: Pid, stale: &[Place]) -> Result<(), Error> {
    let inside = |rip: u64| stale.iter().any(|place| place.contains(rip));
    tree.threads_of_mut(pid).iter_mut().try_for_each(|thread| inject::run_out(thread, &inside))
}

/// Writes both stubs, with data that restore nothing, and reads them back.
pub(in crate::tracer) fn write_code(place: Place, memory: &Memory) -> Result<(), Error> {
    let mut bytes = [0; 2 * stub::LEN];
    for half in bytes.chunks_exact_mut(stub::LEN) {
        let code = stub::code();
        half[..code.len()].copy_from_slice(&code);
    }
    write_verified(place.start(), &bytes, memory)
}

pub(in crate::tracer) fn erase(place: Place, memory: &Memory) -> Result<(), Error> {
    write_verified(place.start(), &vec![0; place.len()], memory)
}

/// Erases what stands at places that everybody has left, or has died in: their memory may be that of others too, who live, or be gone.
pub(in crate::tracer) fn erase_after(
    left: Result<(), Error>,
    places: impl IntoIterator<Item = Place>,
    memory: &Memory,
) -> Result<(), Error> {
    if left.as_ref().is_err_and(|error| !error.is_death()) {
        return left;
    }
    let erased = places.into_iter().map(|place| erase(place, memory)).fold(Ok(()), Result::and);
    left.and(erased)
}

pub(in crate::tracer) fn write_verified(at: Addr, bytes: &[u8], memory: &Memory) -> Result<(), Error> {
    memory.write(at, bytes)?;
    if memory.read_vec(at, bytes.len())? == bytes {
        Ok(())
    } else {
        Err(Error::Memory {
            pid: memory.pid(),
            action: "verifying",
            at,
            len: bytes.len(),
            source: std::io::Error::other("it does not hold what was written"),
        })
    }
}

/// Gives a thread the registers from which it has to go on: out of a critical section by its abort handler.
pub(in crate::tracer) fn prepare_registers(thread: &mut StoppedThread, memory: &Memory) -> Result<(), Error> {
    const USER_CS: u64 = 0x33;
    const TRAP_FLAG: u64 = 1 << 8;
    let refused = |reason: &str| Error::Refused { tid: thread.tid, reason: reason.to_owned(), remedy: "" };
    if thread.regs.cs != USER_CS {
        return Err(refused("it runs 32-bit code"));
    }
    if thread.regs.eflags & TRAP_FLAG != 0 {
        return Err(refused("it steps through its own code (trap flag)"));
    }
    if let Some(dispatch) = thread.syscall_user_dispatch()?
        && memory.get(RemotePtr::<u8>::new(Addr(dispatch.selector)))? != 0
    {
        return Err(refused("syscall user dispatch blocks its calls"));
    }
    if let Some(abort) = rseq::abort_address(thread, memory)? {
        thread.regs.rip = abort.0;
    }
    Ok(())
}
