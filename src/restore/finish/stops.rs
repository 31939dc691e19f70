//! Moving traced threads from one stop to the next, and system calls in between.

use super::super::plan::{ProcessPlan, RestorePlan};
use super::{FinishError, failed};
use crate::image::model::id::{Pid, Tid};
use crate::image::model::process::Process;
use crate::proc::{TaskDir, stat};
use crate::sys::blob::INTERPRETER;
use crate::sys::ptrace::{self, event};
use crate::sys::regset::{self, UserRegs};
use crate::sys::sched::yield_now;
use crate::sys::task;
use crate::sys::wait::{self, Flags, Status};
use nix::errno::Errno;
use std::io;

/// Group stop, while every signal but SIGSTOP is blocked. All threads enter it, so that its parent is told now.
pub(super) fn stop_group(process: &Process) -> Result<(), FinishError> {
    let pid = process.pid;
    let leader = process.threads[0].tid;
    enter_stop(pid, leader)?;
    for thread in &process.threads[1..] {
        ptrace::cont(thread.tid, 0).map_err(failed(thread.tid, "PTRACE_CONT"))?;
        while !matches!(next_stop(thread.tid)?, Stop::Event(libc::SIGSTOP)) {
            ptrace::cont(thread.tid, 0).map_err(failed(thread.tid, "PTRACE_CONT"))?;
        }
    }
    Ok(())
}

/// Ends a group stop, so that its parent can wait for that. The signal that does it is taken unless one like it waits anyway.
pub(super) fn continue_group(plan: &RestorePlan, planned: &ProcessPlan, process: &Process) -> Result<(), FinishError> {
    stop_group(process)?;
    let first = process.threads[0].tid;
    task::send_signal(process.pid, first, libc::SIGCONT).map_err(failed(first, "tgkill"))?;
    ptrace::cont(first, 0).map_err(failed(first, "PTRACE_CONT"))?;
    wait_stop(first)?;
    if let Some(args) = planned.forget_continued {
        remote_call(plan, first, libc::SYS_rt_sigtimedwait, args, false)?;
    }
    Ok(())
}

/// Ends a main thread by exit(2), while the others stand still. It is traced no more then: a zombie that has a tracer would wait for that one
/// to be reaped.
pub(super) fn end_leader(plan: &RestorePlan, pid: Pid, status: i32) -> Result<(), FinishError> {
    let tid = pid.leader();
    let registers = regset::general(tid).map_err(failed(tid, "reading registers"))?;
    let (rip, code) = (plan.places.code.0 + syscall_offset() as u64, (status >> 8) as u64);
    let call = UserRegs { rax: libc::SYS_exit as u64, orig_rax: u64::MAX, rip, rdi: code, ..registers };
    regset::set_all(tid, &call).map_err(failed(tid, "setting registers"))?;
    ptrace::detach(tid, 0).map_err(failed(tid, "PTRACE_DETACH"))?;
    let mut buffer = Vec::new();
    loop {
        let stat = TaskDir::process(pid).and_then(|dir| stat::read(&dir, &mut buffer));
        let stat = stat.map_err(|error| FinishError { tid, action: "ending it", source: io::Error::other(error) })?;
        if stat.state == b'Z' {
            return Ok(());
        }
        yield_now();
    }
}

fn enter_stop(pid: Pid, leader: Tid) -> Result<(), FinishError> {
    task::send_signal(pid, leader, libc::SIGSTOP).map_err(failed(leader, "tgkill"))?;
    ptrace::cont(leader, 0).map_err(failed(leader, "PTRACE_CONT"))?;
    loop {
        let signal = match next_stop(leader)? {
            Stop::Event(libc::SIGSTOP) => return Ok(()),
            Stop::Signal(signal) => signal,
            Stop::Event(_) | Stop::Syscall | Stop::Other => 0,
        };
        ptrace::cont(leader, signal).map_err(failed(leader, "PTRACE_CONT"))?;
    }
}

/// Interrupts one thread and waits until it stands.
pub(super) fn stop(tid: Tid) -> Result<(), FinishError> {
    ptrace::interrupt(tid).map_err(failed(tid, "PTRACE_INTERRUPT"))?;
    wait_stop(tid)
}

/// Waits until it stands in a PTRACE_EVENT_STOP.
pub(super) fn wait_stop(tid: Tid) -> Result<(), FinishError> {
    loop {
        let signal = match next_stop(tid)? {
            Stop::Event(_) => return Ok(()),
            Stop::Signal(signal) => signal,
            Stop::Syscall | Stop::Other => 0,
        };
        ptrace::cont(tid, signal).map_err(failed(tid, "PTRACE_CONT"))?;
    }
}

/// Waits until it stands at the entry to or exit from a system call. Its signals are all blocked.
fn wait_syscall(tid: Tid) -> Result<(), FinishError> {
    while !matches!(next_stop(tid)?, Stop::Syscall) {
        ptrace::syscall(tid, 0).map_err(failed(tid, "PTRACE_SYSCALL"))?;
    }
    Ok(())
}

/// Why a tracee stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// PTRACE_EVENT_STOP: with SIGTRAP after PTRACE_INTERRUPT, in group stop with the stop signal.
    Event(i32),
    /// At the entry to or exit from a system call (PTRACE_O_TRACESYSGOOD).
    Syscall,
    /// It is about to be given this signal.
    Signal(i32),
    /// Another PTRACE_EVENT_*.
    Other,
}

fn next_stop(tid: Tid) -> Result<Stop, FinishError> {
    match look(tid).map_err(failed(tid, "waitid"))? {
        Status::Stopped { signal, event: event::STOP } => Ok(Stop::Event(signal)),
        Status::Stopped { signal, event: 0 } if signal == libc::SIGTRAP | 0x80 => Ok(Stop::Syscall),
        Status::Stopped { signal, event: 0 } => Ok(Stop::Signal(signal)),
        Status::Stopped { signal: _, event: _ } => Ok(Stop::Other),
        end @ (Status::Exited(_) | Status::Killed(_)) => {
            let source = io::Error::other(format!("it died: {end:?}"));
            Err(FinishError { tid, action: "waiting for its stop", source })
        }
    }
}

/// What becomes of a tracee next.
pub(super) fn look(tid: Tid) -> Result<Status, Errno> {
    loop {
        match wait::wait(tid, Flags::empty()) {
            Ok(Some(status)) => return Ok(status),
            Ok(None) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Makes a system call in a stopped thread by the interpreter's own instruction; leaves it in a PTRACE_EVENT_STOP.
///
/// With `interrupted` the call finds a stop pending and does not wait.
pub(super) fn remote_call(
    plan: &RestorePlan,
    tid: Tid,
    number: i64,
    args: [u64; 6],
    interrupted: bool,
) -> Result<i64, FinishError> {
    let registers = regset::general(tid).map_err(failed(tid, "reading registers"))?;
    let [rdi, rsi, rdx, r10, r8, r9] = args;
    let rip = plan.places.code.0 + syscall_offset() as u64;
    let call = UserRegs { rax: number as u64, orig_rax: u64::MAX, rip, rdi, rsi, rdx, r10, r8, r9, ..registers };
    regset::set_all(tid, &call).map_err(failed(tid, "setting registers"))?;
    ptrace::syscall(tid, 0).map_err(failed(tid, "PTRACE_SYSCALL"))?;
    wait_syscall(tid)?;
    if interrupted {
        ptrace::interrupt(tid).map_err(failed(tid, "PTRACE_INTERRUPT"))?;
    }
    ptrace::syscall(tid, 0).map_err(failed(tid, "PTRACE_SYSCALL"))?;
    wait_syscall(tid)?;
    let result = regset::general(tid).map_err(failed(tid, "reading registers"))?.rax as i64;
    // Every stop takes back a stop that was due (kernel/signal.c, `ptrace_stop`).
    ptrace::interrupt(tid).map_err(failed(tid, "PTRACE_INTERRUPT"))?;
    ptrace::cont(tid, 0).map_err(failed(tid, "PTRACE_CONT"))?;
    wait_stop(tid)?;
    Ok(result)
}

/// Where the interpreter has a `syscall` instruction.
fn syscall_offset() -> usize {
    INTERPRETER.windows(2).position(|bytes| bytes == [0x0f, 0x05]).unwrap_or(0)
}
