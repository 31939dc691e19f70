//! How many requests are in flight in Linux AIO contexts: asked by a deputy that fills their rings and brings them back, to the end whether we live or die.

use super::code::{self, Error};
use crate::fault::{self, Point};
use crate::image::model::address::{Addr, PAGE_SIZE, PageRange};
use crate::sys::aio::Request;
use crate::sys::blob::INTERPRETER;
use crate::tracer::{Deputy, RemotePtr};
use nix::errno::Errno;
use protocol::{AIO_BATCH, AioProbe, CPU_SET, Op, Task, check, pseudo};
use std::mem::offset_of;

/// Bytes of the stack.
const STACK: u64 = 8 << 10;
/// Bytes of an event.
const EVENT: u64 = 32;

/// A context to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Its id: the address of its ring.
    pub context: Addr,
    /// Events that the ring has room for.
    pub slots: u32,
    /// Requests that an idle ring of that size takes.
    pub capacity: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Requests in flight; below zero, or more than the ring has slots, if its accounts are not to be understood.
    pub in_flight: i64,
    /// Whether the ring is where it was.
    pub is_back: bool,
}

/// Where everything is.
#[derive(Clone, Copy, Debug)]
struct Places {
    code: PageRange,
    task: Addr,
    request: Addr,
    cpu_set: Addr,
    batch: Addr,
    ops: Addr,
    probes: Addr,
    stack: Addr,
    copy: Addr,
    end: Addr,
}

impl Places {
    fn new(start: Addr, rings: &[Ring]) -> Self {
        let count = rings.len() as u64;
        let code = PageRange::new(start.0, start.add(INTERPRETER.len() as u64).0.next_multiple_of(PAGE_SIZE));
        let task = code.end;
        let request = task.add(64);
        let cpu_set = request.add(64);
        let batch = cpu_set.add(CPU_SET);
        let ops = batch.add(AIO_BATCH * 8);
        let probes = ops.add((count + 2) * size_of::<Op>() as u64);
        let data_end = probes.add(count * size_of::<AioProbe>() as u64);
        let stack = Addr(data_end.0.next_multiple_of(PAGE_SIZE)).add(STACK);
        let longest = rings.iter().map(|ring| u64::from(ring.slots)).max().unwrap_or(0);
        Self { code, task, request, cpu_set, batch, ops, probes, stack, copy: stack, end: stack.add(longest * EVENT) }
    }

    fn probe(self, number: usize) -> Addr {
        self.probes.add((number * size_of::<AioProbe>()) as u64)
    }
}

/// How much memory it takes in the address space.
#[must_use]
pub fn memory_for(rings: &[Ring]) -> u64 {
    Places::new(Addr::NULL, rings).end.0.next_multiple_of(PAGE_SIZE)
}

/// Asks all these contexts of the deputy's address space, in `area`, memory of [`memory_for`] bytes that can be written and holds nothing.
/// `cpus` is the number behind that of the last CPU; `cookie` is what nobody's request is marked with.
///
/// # Errors
/// See [`Error`].
pub fn ask(deputy: &Deputy, area: PageRange, rings: &[Ring], cpus: u64, cookie: u64) -> Result<Vec<Answer>, Error> {
    let places = Places::new(area.start, rings);
    let memory = deputy.memory()?;
    code::map(deputy, &memory, places.code)?;
    // The first descriptor of a table that is empty.
    memory.write(places.request, &Request { data: cookie, fd: 0 }.bytes())?;
    memory.write(places.batch, &places.request.0.to_le_bytes().repeat(AIO_BATCH as usize))?;
    let probes = rings.iter().flat_map(|ring| probe(ring, places, cpus));
    memory.write(places.probes, &probes.collect::<Vec<u8>>())?;
    let call = |nr: i64, check| Op { nr: nr as u32, check, ..Op::default() };
    // A stop of the target's process group is none of ours.
    let mut ops = vec![call(libc::SYS_setsid, check::ANY), call(libc::SYS_eventfd2, check::EQUALS)];
    ops.extend((0..rings.len()).map(|number| {
        let args = [places.probe(number).0, 0, 0, 0, 0, 0];
        Op { nr: pseudo::AIO_PROBE, check: check::EQUALS, args, ..Op::default() }
    }));
    memory.write(places.ops, &ops.iter().flat_map(Op::words).flat_map(u64::to_le_bytes).collect::<Vec<u8>>())?;
    let task = Task { ops: places.ops.0, count: ops.len() as u64, exit: deputy.exit().0, ..Task::default() };
    memory.write(places.task, &code::task(&task))?;
    deputy.run(places.code.start, places.stack, places.task, &|| fault::pass(Point::AioProbing))?;
    match memory.get(RemotePtr::<i64>::new(places.task.add(offset_of!(Task, failure) as u64)))? {
        0 => {}
        error => return Err(Error::Call("filling the ring of an AIO context", Errno::from_raw(-error as i32))),
    }
    (0..rings.len())
        .map(|number| {
            let word = |offset: usize| memory.get(RemotePtr::<u64>::new(places.probe(number).add(offset as u64)));
            let in_flight = word(offset_of!(AioProbe, in_flight))?.cast_signed();
            Ok(Answer { in_flight, is_back: word(offset_of!(AioProbe, done))? == 1 })
        })
        .collect()
}

fn probe(ring: &Ring, places: Places, cpus: u64) -> Vec<u8> {
    let Ring { context, slots, capacity } = *ring;
    let (batch, copy, cpu_set) = (places.batch.0, places.copy.0, places.cpu_set.0);
    [context.0, slots.into(), capacity, cpus, batch, copy, cpu_set, 0, 0].map(u64::to_le_bytes).concat()
}
