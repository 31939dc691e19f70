//! Contexts of Linux AIO (io_setup(2)). What waits in their rings can be read; whether requests are in flight nothing tells, and is found out by filling them.
//!
//! An idle ring takes so many requests and then no more (EAGAIN); what one takes less than that is in flight. The requests that fill it wait for a
//! descriptor that is ready, so that they are done at once. A process of ours in the address space submits them, on every CPU (each holds back a
//! share of the room), and takes them out again until the ring has gone round once: then it is where it was, to the byte. It does so to the end
//! even if we die meanwhile, and all threads that have the memory, of whatever process, wait for its end in stubs of theirs.

use super::sharing::Sharing;
use super::{CollectError, Findings};
use crate::image::model::address::{Addr, PageRange};
use crate::image::model::aio::{AioEvent, AioRing};
use crate::image::model::id::Pid;
use crate::image::model::memory::Prot;
use crate::parasite::aio::{self as probe, Answer, Ring};
use crate::parasite::code;
use crate::proc::{TaskDir, host, maps};
use crate::sys::aio::capacity;
use crate::tracer::{self, Error, Fate, FrozenTree, Memory, RemoteSession};
use nix::errno::Errno;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};

/// Name of a ring in /proc/PID/maps.
pub const NAME: &[u8] = b"/[aio] (deleted)";
/// `struct aio_ring`: id, nr, head, tail, magic, and three words that no program reads.
const HEADER: usize = 32;
const MAGIC: u32 = 0xa10a_10a1;
/// Most events that may be moved to bring a ring back that is nearly full.
const MOST_MOVES: u64 = 1 << 24;

/// The rings of one address space, or why they cannot be restored.
pub type Rings = HashMap<PageRange, Result<AioRing, String>>;

/// What is known of a mapping that no context of its own stands behind.
pub const FOREIGN: &str = "it is the ring of a Linux AIO context of another process, inherited by fork(2): only that one can have it made again";

/// The header of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    slots: u32,
    head: u32,
    tail: u32,
}

/// Looks into all contexts of the tree, which stands still, before anything else is looked at: a request that is done changes more than its ring.
/// The rings of each address space, under the number by which /proc shows the first process that has it. `outside` are the places of processes
/// whose memory somebody outside of the tree has.
///
/// # Errors
/// A kernel interface that failed. Requests in flight are findings that pass.
pub fn settle(
    tree: &mut FrozenTree,
    sharing: &Sharing,
    outside: &HashSet<usize>,
    findings: &mut Findings,
) -> Result<HashMap<Pid, Rings>, CollectError> {
    let mut all = HashMap::new();
    // Of a kernel without contexts there is no such number.
    if host::sysctl_number("fs/aio-nr", &mut Vec::new()).unwrap_or(0) == 0 {
        return Ok(all);
    }
    for at in 0..tree.processes().len() {
        if sharing.memory(at) != at || outside.contains(&at) {
            continue;
        }
        let process = &tree.processes()[at];
        let (pid, shown_as) = (process.pid(), process.shown_as());
        let mappings = maps::read(&TaskDir::process(shown_as)?, &mut Vec::new())?;
        let is_ring = |mapping: &&maps::Mapping| mapping.name.raw == NAME && mapping.shared;
        let found: Vec<_> = mappings.iter().filter(is_ring).map(|mapping| (mapping.range, mapping.prot)).collect();
        if found.is_empty() {
            continue;
        }
        let sharers = (0..tree.processes().len()).filter(|other| *other != at && sharing.memory(*other) == at);
        let others: Vec<Pid> = sharers.map(|other| tree.processes()[other].pid()).collect();
        // A predecessor that was killed may have left a process of ours at its work.
        for pid in [pid].iter().chain(&others) {
            tracer::let_out(tree, *pid).map_err(remote(*pid, "letting threads out"))?;
        }
        let space = Space { tree, pid, shown_as, others };
        all.insert(shown_as, space.settle(&found, findings)?);
    }
    Ok(all)
}

/// An address space with rings.
struct Space<'a> {
    tree: &'a mut FrozenTree,
    pid: Pid,
    shown_as: Pid,
    /// Other processes that have it.
    others: Vec<Pid>,
}

impl Space<'_> {
    fn settle(self, found: &[(PageRange, Prot)], findings: &mut Findings) -> Result<Rings, CollectError> {
        let pid = self.pid;
        let memory = Memory::open(self.shown_as).map_err(remote(pid, "opening its memory"))?;
        let mut rings = Rings::new();
        let mut candidates = Vec::new();
        for &(range, prot) in found {
            match candidate(&memory, range, prot) {
                Ok(ring) => candidates.push((range, ring)),
                Err(reason) => drop(rings.insert(range, Err(reason))),
            }
        }
        let answers = match self.ask(candidates) {
            Ok(answers) => answers,
            Err(Failure::Refused(reason)) => {
                let reason = format!("whether requests are in flight in it cannot be asked: {reason}");
                rings.extend(found.iter().map(|(range, _)| (*range, Err(reason.clone()))));
                return Ok(rings);
            }
            Err(Failure::Collect(error)) => return Err(error),
        };
        for (range, answer) in answers {
            let ring = match answer {
                None => Err(FOREIGN.to_owned()),
                Some(Answer { in_flight, is_back: true }) if (0..i64::from(u32::MAX)).contains(&in_flight) => {
                    if in_flight > 0 {
                        in_flight_in(pid, range, in_flight, findings);
                    }
                    read(&memory, range)
                }
                Some(answer) => Err(format!("the accounts of this AIO context are not to be understood: {answer:?}")),
            };
            rings.insert(range, ring);
        }
        Ok(rings)
    }

    /// Asks those of these contexts that are of this address space.
    fn ask(self, candidates: Vec<(PageRange, Ring)>) -> Result<Vec<(PageRange, Option<Answer>)>, Failure> {
        let pid = self.pid;
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let size = probe::memory_for(&candidates.iter().map(|(_, ring)| *ring).collect::<Vec<_>>()) + tracer::WORDS;
        let failed = |error| refused_or(pid, "entering the target", error);
        let mut session = RemoteSession::open_with(self.tree, pid, size).map_err(failed)?;
        let (mut own, mut answers) = (Vec::new(), Vec::new());
        for (range, ring) in candidates {
            let host = session.host();
            // To submit nothing does nothing, and tells whether the context is there.
            match session.syscall(host, libc::SYS_io_submit, [ring.context.0, 0, 0, 0, 0, 0]).map_err(failed)? {
                Ok(_) => own.push((range, ring)),
                Err(Errno::EINVAL) => answers.push((range, None)),
                Err(errno) => return Err(Failure::Refused(format!("io_submit: {errno}"))),
            }
        }
        let mut child = session.child(Fate::RunsOn, &self.others).map_err(|error| match error {
            Error::Kernel { action, source, .. } => Failure::Refused(format!("{action}: {source}")),
            Error::NoRoom { what, .. } => Failure::Refused(format!("there is no {what}, where they wait meanwhile")),
            error => failed(error),
        })?;
        let area = child.scratch();
        let rings: Vec<Ring> = own.iter().map(|(_, ring)| *ring).collect();
        let deputy = child.deputy().map_err(failed)?;
        let (_, cpus) = host::possible_cpus().map_err(CollectError::from)?;
        let cookie = RandomState::new().build_hasher().finish();
        let asked = probe::ask(deputy, area, &rings, cpus, cookie);
        let ended = child.end().and_then(|()| session.close());
        let found = asked.map_err(|failure| match failure {
            code::Error::Tracer(error) => failed(error),
            code::Error::Call(action, errno) => Failure::Refused(format!("{action}: {errno}")),
        });
        let found = found?;
        ended.map_err(failed)?;
        answers.extend(own.iter().zip(found).map(|((range, _), answer)| (*range, Some(answer))));
        Ok(answers)
    }
}

/// Why contexts were not asked.
enum Failure {
    Refused(String),
    Collect(CollectError),
}

impl From<CollectError> for Failure {
    fn from(error: CollectError) -> Self {
        Self::Collect(error)
    }
}

fn remote(pid: Pid, action: &'static str) -> impl Fn(Error) -> CollectError {
    move |source| CollectError::Remote { tid: pid.leader(), action, source }
}

fn refused_or(pid: Pid, action: &'static str, error: Error) -> Failure {
    match error {
        Error::Refused { reason, .. } => Failure::Refused(reason),
        error => Failure::Collect(remote(pid, action)(error)),
    }
}

fn in_flight_in(pid: Pid, range: PageRange, count: i64, findings: &mut Findings) {
    let requests = if count == 1 { "1 request is".to_owned() } else { format!("{count} requests are") };
    findings.pass(
        format!("pid {pid}"),
        format!("AIO context {}", range.start),
        format!("{requests} in flight, or were done on a CPU that it may not run on"),
        "wait until they are done (dump --timeout gives the time for that); one with IOCB_CMD_POLL may wait for ever",
    );
}

/// A mapping that may be a ring and can be asked.
fn candidate(memory: &Memory, range: PageRange, prot: Prot) -> Result<Ring, String> {
    if prot != Prot::READ | Prot::WRITE {
        return Err("the protection of the ring of an AIO context was changed".into());
    }
    let Header { slots, head, tail } = header(memory, range)?;
    let capacity = capacity(slots).map_err(|errno| match errno {
        Errno::EAGAIN => "to tell how many requests it takes, one of the same size is made, and the system may have no more (sysctl fs.aio-max-nr)".into(),
        errno => format!("no AIO context of this size can be made to compare it with: {errno}"),
    })?;
    let waiting = between(head, tail, slots);
    if waiting * u64::from(slots) / capacity.saturating_sub(waiting).max(1) > MOST_MOVES && waiting < capacity {
        return Err(format!("{waiting} events wait in this AIO context, too many to be kept in order"));
    }
    Ok(Ring { context: range.start, slots, capacity })
}

fn header(memory: &Memory, range: PageRange) -> Result<Header, String> {
    let bytes = memory.read_vec(range.start, HEADER).map_err(|error| format!("its ring cannot be read: {error}"))?;
    let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| bytes[at * 4 + byte]));
    let (slots, head, tail) = (word(1), word(2), word(3));
    if word(4) != MAGIC || slots != AioRing::slots(range.len()) {
        return Err("only a part of the ring of an AIO context is mapped there, or it was written over".into());
    }
    if head >= slots || tail >= slots {
        return Err("the program has written to the ring of its AIO context what no kernel does".into());
    }
    Ok(Header { slots, head, tail })
}

/// What waits in a ring.
fn read(memory: &Memory, range: PageRange) -> Result<AioRing, String> {
    let Header { slots, head, tail } = header(memory, range)?;
    let unreadable = |error| format!("its ring cannot be read: {error}");
    let count = between(head, tail, slots) as usize;
    let place = |slot: u32| Addr(range.start.0 + HEADER as u64 * (u64::from(slot) + 1));
    let first = count.min((slots - head) as usize);
    let mut bytes = memory.read_vec(place(head), first * HEADER).map_err(unreadable)?;
    bytes.extend(memory.read_vec(place(0), (count - first) * HEADER).map_err(unreadable)?);
    Ok(AioRing { head, events: AioEvent::all(&bytes).collect() })
}

/// Events from one slot on to another.
fn between(head: u32, tail: u32, slots: u32) -> u64 {
    u64::from(if head <= tail { tail - head } else { tail + slots - head })
}
