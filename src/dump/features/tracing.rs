//! Features that stop a task and read it: tried on a child that is made for them.

use super::State;
use super::{Feature, Need, describe, feature, nothing};
use crate::image::model::address::Addr;
use crate::image::model::id::{Fd, Pid, Tid};
use crate::proc::{TaskDir, sched};
use crate::sys::probe::{self, Victim};
use crate::sys::{self, kcmp, pidfd, process_vm, ptrace, ptrace_info, wait};
use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd};

/// Tries them.
pub fn probe() -> Vec<Feature> {
    match Victim::new() {
        Ok(victim) => on(&victim),
        Err(errno) => vec![Feature {
            name: "PTRACE_SEIZE",
            state: State::Missing,
            detail: format!("no child could be made to try it on: {}", describe(errno)),
            need: Need::Always,
            used_for: "freezing",
        }],
    }
}

fn on(victim: &Victim) -> Vec<Feature> {
    let tid = victim.tid();
    let stopped = stop(victim);
    let when_stopped = |probe: &dyn Fn() -> sys::Result<u64>| stopped.and_then(|_| probe());
    vec![
        feature("PTRACE_SEIZE", Need::Always, "freezing without a trace", stopped, nothing),
        feature(
            "PTRACE_GET_SYSCALL_INFO",
            Need::Always,
            "telling the system call a thread is blocked in",
            when_stopped(&|| ptrace_info::syscall_info(tid).map(|_| 0)),
            nothing,
        ),
        feature(
            "PTRACE_SET_SYSCALL_INFO",
            Need::Informative,
            "changing a system call at its entry",
            when_stopped(&|| known(probe::set_syscall_info(tid))),
            nothing,
        ),
        feature(
            "PTRACE_GET_RSEQ_CONFIGURATION",
            Need::Always,
            "restartable sequences (every program on glibc 2.35 or newer)",
            when_stopped(&|| ptrace_info::rseq(tid).map(|_| 0)),
            nothing,
        ),
        feature(
            "PTRACE_PEEKSIGINFO",
            Need::Always,
            "pending signals, in order and with what they carry",
            when_stopped(&|| ptrace_info::pending(tid, ptrace_info::Queue::Shared).map(|queue| queue.len() as u64)),
            nothing,
        ),
        feature(
            "PTRACE_SECCOMP_GET_FILTER",
            Need::Sometimes,
            "programs under a seccomp filter",
            when_stopped(&|| ptrace_info::seccomp_filter(tid, 0).map(|_| 0)),
            nothing,
        ),
        feature(
            "PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG",
            Need::Sometimes,
            "programs that dispatch system calls themselves (Wine); before Linux 6.4 nobody can see which do",
            when_stopped(&|| ptrace_info::syscall_user_dispatch(tid).map(|_| 0)),
            nothing,
        ),
        feature(
            "/proc/PID/task/TID/sched",
            Need::Sometimes,
            "what is left of a timeout that the kernel does not tell (futex, poll, epoll_wait); else they begin anew",
            sleep_account(tid),
            nothing,
        ),
        feature("process_vm_readv", Need::Sometimes, "reading memory fast", read_memory(victim), nothing),
        feature(
            "PIDFD_THREAD",
            Need::Sometimes,
            "threads with a table of descriptors of their own (Linux 6.9)",
            pidfd::open_thread(tid).map(|_| 0),
            nothing,
        ),
        feature(
            "eventfd-semaphore in /proc/PID/fdinfo",
            Need::Sometimes,
            "telling whether an eventfd is a semaphore; without it (before Linux 6.5): --plain-eventfds",
            tells_of_semaphores(),
            nothing,
        ),
        feature("pidfd_open", Need::Always, "naming a process safely while pids are reused", open(victim), nothing),
        feature("pidfd_getfd", Need::Always, "open files, without help of the target", steal(victim), nothing),
        feature(
            "kcmp",
            Need::Always,
            "telling what descriptors and tasks share",
            kcmp::compare(sys::task::own_tid(), tid, kcmp::Object::File, 2, 2).map(|_| 0),
            nothing,
        ),
    ]
}

fn sleep_account(tid: Tid) -> sys::Result<u64> {
    let account = TaskDir::thread(Pid(tid.0), tid).and_then(|dir| sched::read(&dir, &mut Vec::new()));
    account.ok().and_then(|account| account.exec_start).ok_or(Errno::ENOENT)
}

/// Looks at an eventfd of our own.
fn tells_of_semaphores() -> sys::Result<u64> {
    let eventfd = nix::sys::eventfd::EventFd::new()?;
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", eventfd.as_fd().as_raw_fd()));
    text.is_ok_and(|text| text.contains("eventfd-semaphore")).then_some(0).ok_or(Errno::ENODATA)
}

fn stop(victim: &Victim) -> sys::Result<u64> {
    ptrace::seize(victim.tid(), ptrace::Options::empty())?;
    ptrace::interrupt(victim.tid())?;
    wait::wait(victim.tid(), wait::Flags::empty()).map(|_| 0)
}

/// EINVAL comes from a kernel that knows the request and looked at its arguments.
fn known(answer: sys::Result<u64>) -> sys::Result<u64> {
    if answer == Err(Errno::EINVAL) { Ok(0) } else { answer }
}

/// The child is a copy of this process: this variable lies there at the same address.
fn read_memory(victim: &Victim) -> sys::Result<u64> {
    static KNOWN: u64 = 0x736e_6170;
    let mut bytes = [0; 8];
    process_vm::read(victim.pid(), Addr((&raw const KNOWN) as u64), &mut bytes)?;
    if u64::from_ne_bytes(bytes) == KNOWN { Ok(0) } else { Err(Errno::EIO) }
}

fn open(victim: &Victim) -> sys::Result<u64> {
    pidfd::open(victim.pid()).map(|_| 0)
}

fn steal(victim: &Victim) -> sys::Result<u64> {
    let pidfd = pidfd::open(victim.pid())?;
    match pidfd::get_fd(pidfd.as_fd(), Fd(0)) {
        // Nothing was open there to be had.
        Err(Errno::EBADF) => Ok(0),
        other => other.map(|_| 0),
    }
}
