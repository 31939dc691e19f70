//! Sleepers as they are before they are interrupted: which call, and since when.
//!
//! The kernel keeps the end of a sleep to itself. What can be seen from outside is the scheduler's account of when the
//! thread last left its CPU (`se.exec_start` of /proc/TID/sched), which is when it fell asleep, by the clock of that CPU.

use super::timeout::Timeout;
use crate::image::model::id::{Pid, Tid};
use crate::proc::syscall::{self, Activity};
use crate::proc::{TaskDir, ThreadName, many, sched, stat, values};
use crate::sys::affinity;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A thread that sleeps in a call whose relative timeout the kernel does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The call's number, also of one that was restarted before.
    pub number: u64,
    /// When it fell asleep, if the kernel tells.
    pub since: Option<Instant>,
    /// How often it had given up the CPU until then.
    pub switches: Option<u64>,
    /// Whether it has been awake since it was looked at.
    pub woke: bool,
    /// What is left of the timeout of a call without a restart block, if it has one.
    pub left: Option<Left>,
}

/// What is left of a relative timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nanoseconds, which the call can be given.
    Known(u64),
    /// It begins anew.
    Unknown,
}

impl Sample {
    /// Of a thread that did not sleep when it was looked at: it can have slept for no longer than the freeze took.
    #[must_use]
    pub const fn awake(frozen_at: Instant) -> Self {
        Self {
            number: libc::SYS_restart_syscall as u64,
            since: Some(frozen_at),
            switches: None,
            woke: false,
            left: None,
        }
    }

    /// The sample beside what the stopped thread says: its stop alone has switched it once more.
    #[must_use]
    pub fn compared(self, switches: Option<u64>) -> Self {
        let woke = self.switches.zip(switches).is_some_and(|(then, now)| now != then + 1);
        Self { woke, ..self }
    }
}

/// Sleepers by thread.
pub type Samples = HashMap<Tid, Sample>;

/// Looks at every thread of processes that run. One that cannot be looked at is left out.
#[must_use]
pub fn sleepers(pids: &[Pid]) -> Samples {
    let threads = many::map(pids, |&pid, _| TaskDir::process(pid).and_then(|dir| dir.threads()).unwrap_or_default());
    let threads: Vec<(Pid, Tid)> =
        pids.iter().zip(threads).flat_map(|(&pid, tids)| tids.into_iter().map(move |tid| (pid, tid))).collect();
    let hidden =
        many::map(&threads, |&(pid, tid), buffer| match syscall::read(&ThreadName::new(pid, tid), buffer).ok()? {
            Activity::InSyscall { number, args, .. } if hides_its_end(number, &args) => Some((pid, tid, number)),
            _ => None,
        });
    let hidden: Vec<_> = hidden.into_iter().flatten().collect();
    let looks = many::map(&hidden, |&(pid, tid, number), buffer| Look::at(pid, tid, number, buffer));
    let mut clocks = SchedulerClocks::new();
    let samples = looks.into_iter().flatten().map(|look| {
        let since = look.exec_start.zip(look.cpu).and_then(|(start, cpu)| clocks.instant(cpu, start));
        (look.tid, Sample { number: look.number, since, switches: look.switches, woke: false, left: None })
    });
    samples.collect()
}

/// What a sleeper shows, by the clock of its CPU.
struct Look {
    tid: Tid,
    number: u64,
    exec_start: Option<u64>,
    cpu: Option<u32>,
    switches: Option<u64>,
}

impl Look {
    fn at(pid: Pid, tid: Tid, number: u64, buffer: &mut Vec<u8>) -> Option<Self> {
        let thread = ThreadName::new(pid, tid);
        let account = sched::read(&thread, buffer).unwrap_or_default();
        let resumed = number == libc::SYS_restart_syscall as u64;
        let number = if resumed { behind_restart(&thread, buffer).unwrap_or(number) } else { number };
        let cpu = stat::read(&thread, buffer).ok().map(|stat| stat.processor);
        Some(Self { tid, number, exec_start: account.exec_start, cpu, switches: account.voluntary_switches })
    }
}

/// Calls whose remaining time is written nowhere.
fn hides_its_end(number: u64, args: &[u64; 6]) -> bool {
    const TIMER_ABSTIME: u64 = 1;
    const FUTEX_WAIT: u64 = 0;
    match number as i64 {
        libc::SYS_nanosleep => args[1] == 0,
        libc::SYS_clock_nanosleep => args[1] & TIMER_ABSTIME == 0 && args[3] == 0,
        libc::SYS_futex => args[1] & 0x7f == FUTEX_WAIT && args[3] != 0,
        libc::SYS_poll => (args[2] as i32) > 0,
        _ if Timeout::of(number as i64, args).is_some() => true,
        number => number == libc::SYS_restart_syscall,
    }
}

/// The call that restart_syscall(2) goes on with, by the kernel function that sleeps. Sleeps with and without a clock look alike.
fn behind_restart(thread: &ThreadName, buffer: &mut Vec<u8>) -> Option<u64> {
    let function = values::wchan(thread, buffer).ok()?;
    let has = |part: &[u8]| function.windows(part.len()).any(|window| window == part);
    if has(b"futex") {
        Some(libc::SYS_futex as u64)
    } else if has(b"poll") {
        Some(libc::SYS_poll as u64)
    } else {
        None
    }
}

/// The scheduler's clocks beside ours.
///
/// Each CPU has its own, which leaves out the time that a hypervisor has taken from it (kernel/sched/core.c,
/// `update_rq_clock_task`), so that they stand seconds apart after some hours.
struct SchedulerClocks {
    /// The CPUs that we may use, to which we return in the end.
    own: Vec<u64>,
    read: HashMap<u32, Option<Reading>>,
}

/// One clock of the scheduler at one instant.
#[derive(Clone, Copy)]
struct Reading {
    nanos: u64,
    at: Instant,
}

impl SchedulerClocks {
    fn new() -> Self {
        Self { own: affinity::get(Tid(0)).unwrap_or_default(), read: HashMap::new() }
    }

    /// When the clock of `cpu` stood at `exec_start`; `None` where we may not run on that CPU.
    fn instant(&mut self, cpu: u32, exec_start: u64) -> Option<Instant> {
        let reading = (*self.read.entry(cpu).or_insert_with(|| Reading::on(cpu)))?;
        reading.at.checked_sub(Duration::from_nanos(reading.nanos.saturating_sub(exec_start)))
    }
}

impl Drop for SchedulerClocks {
    fn drop(&mut self) {
        // These CPUs were ours before.
        let _ = affinity::set(Tid(0), &self.own);
    }
}

impl Reading {
    /// Goes to `cpu` and reads what our own account was brought up to date with when we began to run there.
    fn on(cpu: u32) -> Option<Self> {
        let mut words = vec![0; cpu as usize / 64 + 1];
        words[cpu as usize / 64] = 1 << (cpu % 64);
        affinity::set(Tid(0), &words).ok()?;
        // Where we have run all along, it is brought up to date when we give up the CPU.
        crate::sys::sched::yield_now();
        let own = TaskDir::current().and_then(|dir| sched::read(&dir, &mut Vec::new())).ok()?;
        // Not before: a sleep may seem shorter than it was, so that it ends late, but never longer.
        Some(Self { nanos: own.exec_start?, at: Instant::now() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeper_is_seen_with_its_time() {
        let begun = Instant::now();
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let sleeper = std::thread::spawn(move || {
            tell.send(crate::sys::task::own_tid()).ok();
            // A futex wait with a relative timeout.
            let _ = stopped.recv_timeout(Duration::from_secs(60));
        });
        let tid: Tid = told.recv().unwrap();
        let pid = Pid(std::process::id() as i32);
        let asleep = || {
            let thread = TaskDir::thread(pid, tid).unwrap();
            matches!(syscall::read(&thread, &mut Vec::new()), Ok(Activity::InSyscall { .. }))
        };
        while !asleep() {
            std::thread::yield_now();
        }
        let samples = sleepers(&[pid]);
        drop(stop);
        sleeper.join().unwrap();
        if let Some(sample) = samples.get(&tid) {
            assert_eq!(sample.number, libc::SYS_futex as u64);
            assert!(sample.since.unwrap() + Duration::from_millis(20) >= begun);
        }
    }
}
