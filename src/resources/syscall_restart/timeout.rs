//! Relative timeouts of calls that have no restart block: the kernel ends them with EINTR when it is stopped, and they are made again.
//!
//! How much is left is known from the time asleep. It is given to the repeated call in the register of the timeout, if the program does not
//! look at that register any more (`tracer::is_unread`); else the call begins anew, which the dump says.

use super::sample::{Left, Sample, Samples};
use crate::image::model::address::Addr;
use crate::image::model::id::Pid;
use crate::proc::TaskDir;
use crate::sys::regset::UserRegs;
use crate::tracer::{self, Argument, Form, FrozenTree, Memory, RemotePtr, Shortened, Slots, StoppedThread};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// Not declared by libc for x86-64.
const SYS_IO_PGETEVENTS: i64 = 333;

/// The timeout of a call without a restart block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// In milliseconds, in a register.
    Milliseconds(Argument, u32),
    /// A `struct timespec` to which a register points.
    Timespec(Argument, Addr),
}

impl Timeout {
    /// What a call has; `None` without a timeout, or with one that the kernel keeps itself.
    #[must_use]
    pub fn of(number: i64, args: &[u64; 6]) -> Option<Self> {
        let timespec = |argument, at: u64| (at != 0).then_some(Self::Timespec(argument, Addr(at)));
        match number {
            libc::SYS_epoll_wait | libc::SYS_epoll_pwait => {
                let timeout = u32::try_from(args[3] as i32).ok()?;
                (timeout > 0).then_some(Self::Milliseconds(Argument::Fourth, timeout))
            }
            libc::SYS_epoll_pwait2 | libc::SYS_semtimedop => timespec(Argument::Fourth, args[3]),
            libc::SYS_rt_sigtimedwait => timespec(Argument::Third, args[2]),
            libc::SYS_io_getevents | SYS_IO_PGETEVENTS => timespec(Argument::Fifth, args[4]),
            _ => None,
        }
    }

    const fn argument(self) -> Argument {
        match self {
            Self::Milliseconds(argument, _) | Self::Timespec(argument, _) => argument,
        }
    }

    /// All of it.
    fn full(self, memory: &Memory) -> Option<Duration> {
        match self {
            Self::Milliseconds(_, timeout) => Some(Duration::from_millis(u64::from(timeout))),
            Self::Timespec(_, at) => {
                let seconds = memory.get(RemotePtr::<i64>::new(at)).ok()?;
                let nanos = memory.get(RemotePtr::<i64>::new(at.add(8))).ok()?;
                let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
                Some(Duration::new(u64::try_from(seconds).ok()?, nanos))
            }
        }
    }
}

/// Finds what is left for the threads of a frozen tree, notes it in their samples, and has the tree give it to them when it lets them go.
pub fn measure(tree: &mut FrozenTree, samples: &mut Samples, frozen_at: Instant) {
    let mut provers = HashMap::new();
    let mut taken = HashSet::new();
    let mut shortened = Vec::new();
    for thread in tree.threads() {
        let Some(call) = thread.blocked() else { continue };
        let Some(timeout) = Timeout::of(call.number as i64, &call.args) else {
            if begins_anew(thread, call.number as i64, &call.args) {
                let anew = Sample { left: Some(Left::Unknown), ..Sample::awake(frozen_at) };
                samples.insert(thread.tid(), anew);
            }
            continue;
        };
        let prover = provers.entry(thread.pid()).or_insert_with(|| Prover::of(tree, thread.pid()));
        let Some(prover) = prover else { continue };
        let slept = samples.get(&thread.tid()).filter(|sample| slept_on(sample, thread));
        let since = match slept {
            Some(sample) => sample.since,
            // What an earlier dump has put there is not in a restored process.
            None if prover.has_lent(timeout) => Some(frozen_at),
            // One that was awake a moment ago has all of its time.
            None => continue,
        };
        let until = prover.look(thread, timeout, &mut taken).and_then(|found| {
            let until = since?.checked_add(found.full)?;
            Some((until, found.form))
        });
        let left = until.map_or(Left::Unknown, |(until, _)| {
            Left::Known(until.saturating_duration_since(frozen_at).as_nanos() as u64)
        });
        samples.entry(thread.tid()).or_insert_with(|| Sample::awake(frozen_at)).left = Some(left);
        let Some((until, form)) = until else { continue };
        let call = Shortened { number: call.number, argument: timeout.argument(), form, until };
        shortened.push((thread.tid(), call));
    }
    for (tid, call) in shortened {
        tree.shorten(tid, call);
    }
}

/// Whether it has slept in the same call since it was looked at: its stop alone has switched it once more.
fn slept_on(sample: &Sample, thread: &StoppedThread) -> bool {
    let switches = || thread.status().ok()?.voluntary_switches;
    let same = thread.blocked().is_some_and(|call| call.number == sample.number);
    same && sample.switches.is_some_and(|then| switches() == Some(then + 1))
}

/// Whether a call counts a timeout anew that no register holds: of a socket (SO_RCVTIMEO, SO_SNDTIMEO), or one that the kernel could not write back.
fn begins_anew(thread: &StoppedThread, number: i64, args: &[u64; 6]) -> bool {
    match number {
        libc::SYS_ppoll | libc::SYS_select | libc::SYS_pselect6 => thread.is_undone(),
        libc::SYS_recvmmsg => thread.is_undone() || args[4] != 0,
        libc::SYS_accept
        | libc::SYS_accept4
        | libc::SYS_connect
        | libc::SYS_recvfrom
        | libc::SYS_recvmsg
        | libc::SYS_sendto
        | libc::SYS_sendmsg
        | libc::SYS_sendmmsg
        | libc::SYS_preadv2
        | libc::SYS_pwritev2
        | libc::SYS_sendfile
        | libc::SYS_splice => thread.is_undone(),
        // inotify(7) ends read(2) likewise, and has no timeout.
        libc::SYS_read | libc::SYS_readv | libc::SYS_write | libc::SYS_writev => {
            let link =
                TaskDir::thread(thread.pid(), thread.tid()).and_then(|dir| dir.read_link(&format!("fd/{}", args[0])));
            thread.is_undone() && link.is_ok_and(|link| link.starts_with(b"socket:"))
        }
        _ => false,
    }
}

/// What a call can be given.
struct Found {
    full: Duration,
    form: Form,
}

/// Looks at the code and the memory of one process.
struct Prover {
    pid: Pid,
    memory: Memory,
    /// What is known of r10 behind a call: nothing there depends on the stack.
    unread: HashMap<u64, bool>,
    /// Where registers of its threads point to: a `struct timespec` of an earlier dump may be among them.
    in_use: HashSet<Addr>,
    slots: Option<Slots>,
}

impl Prover {
    fn of(tree: &FrozenTree, pid: Pid) -> Option<Self> {
        let pointers = |thread: &StoppedThread| {
            let regs = thread.regs();
            [regs.rdx, regs.r10, regs.r8].map(Addr)
        };
        let in_use = tree.threads().iter().flat_map(pointers).collect();
        Some(Self { pid, memory: Memory::open(pid).ok()?, unread: HashMap::new(), in_use, slots: None })
    }

    /// Whether the timeout lies where an earlier dump has put it.
    fn has_lent(&mut self, timeout: Timeout) -> bool {
        match timeout {
            Timeout::Milliseconds(..) => false,
            Timeout::Timespec(_, at) => self.slots().contains(at),
        }
    }

    fn slots(&mut self) -> &mut Slots {
        self.slots.get_or_insert_with(|| Slots::of(self.pid, &self.memory, &self.in_use))
    }

    fn look(&mut self, thread: &StoppedThread, timeout: Timeout, taken: &mut HashSet<Addr>) -> Option<Found> {
        let full = timeout.full(&self.memory)?;
        if !self.is_unread(thread.regs(), timeout.argument()) {
            return None;
        }
        let form = match timeout {
            Timeout::Milliseconds(..) => Form::Milliseconds,
            Timeout::Timespec(..) => Form::At(self.slot(taken)?),
        };
        Some(Found { full, form })
    }

    /// The code behind the call, which the stopped thread has just come back from.
    fn is_unread(&mut self, regs: &UserRegs, argument: Argument) -> bool {
        if argument != Argument::Fourth {
            return tracer::is_unread(&self.memory, regs, argument);
        }
        *self.unread.entry(regs.rip).or_insert_with(|| tracer::is_unread(&self.memory, regs, argument))
    }

    /// A place that no thread points to, and that none of another process has been given, which may share this memory.
    fn slot(&mut self, taken: &mut HashSet<Addr>) -> Option<Addr> {
        let slots = self.slots();
        std::iter::from_fn(|| slots.take()).find(|slot| taken.insert(*slot))
    }
}

/// Gives a call what is left of its timeout: the register in question and its value. A `struct timespec` goes into a slot of that memory.
///
/// # Errors
/// Memory that cannot be written, or has no room.
pub fn give(
    call: (u64, &[u64; 6]),
    left: Duration,
    memory: &Memory,
    slots: &mut Slots,
) -> Result<Option<(Argument, u64)>, tracer::Error> {
    match Timeout::of(call.0 as i64, call.1) {
        None => Ok(None),
        Some(Timeout::Milliseconds(argument, _)) => Ok(Some((argument, tracer::milliseconds(left)))),
        Some(Timeout::Timespec(argument, _)) => match slots.take() {
            None => Ok(None),
            Some(slot) => tracer::put(memory, slot, left).map(|()| Some((argument, slot.0))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_relative_timeouts_that_end_are_looked_at() {
        let of = |number: i64, args: [u64; 6]| Timeout::of(number, &args);
        let epoll = |timeout: i32| of(libc::SYS_epoll_wait, [3, 0x1000, 8, u64::from(timeout as u32), 0, 0]);
        assert_eq!(epoll(250), Some(Timeout::Milliseconds(Argument::Fourth, 250)));
        assert_eq!((epoll(0), epoll(-1)), (None, None));
        assert_eq!(of(libc::SYS_rt_sigtimedwait, [1, 0, 0, 8, 0, 0]), None);
        let expected = Some(Timeout::Timespec(Argument::Third, Addr(0x2000)));
        assert_eq!(of(libc::SYS_rt_sigtimedwait, [1, 0, 0x2000, 8, 0, 0]), expected);
        assert_eq!(of(libc::SYS_read, [1, 2, 3, 4, 5, 6]), None);
    }
}
