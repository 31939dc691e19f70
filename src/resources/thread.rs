//! Threads: registers, and everything the kernel keeps for each of them.

use super::ask::Asker;
use super::seccomp::SeccompTable;
use super::settings::{self, Known};
use super::syscall_restart::{self, Sample};
use super::{CollectError, Findings, credentials, scheduling, signal};
use crate::image::model::address::Addr;
use crate::image::model::credentials::Credentials;
use crate::image::model::id::{FdTableId, FsId, IoContextId, Pid, Tid, UndoListId};
use crate::image::model::process::EndedLeader;
use crate::image::model::thread::{BlockedSyscall, Cpu, Registers, RobustList, Rseq, SyscallDispatch, Thread};
use crate::proc::TaskDir;
use crate::proc::status::{self, Status};
use crate::proc::{stat, values};
use crate::sys::ptrace_info::Queue;
use crate::sys::task as sys_task;
use crate::tracer;
use crate::tracer::StoppedThread;
use std::time::Instant;

/// What a thread may share with others, collected before.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    /// Table of descriptors.
    pub fd_table: FdTableId,
    /// Working directory, root, umask.
    pub fs: FsId,
    /// List of semaphores to undo.
    pub undo_list: Option<UndoListId>,
    /// I/O context.
    pub io_context: Option<IoContextId>,
}

/// Collects the threads of one frozen process.
pub struct Threads<'a> {
    /// The process in /proc.
    pub process: &'a TaskDir,
    /// When it stood still.
    pub frozen_at: Instant,
    /// Filters, each once.
    pub seccomp: &'a mut SeccompTable,
    /// What PR_GET_SPECULATION_CTRL tells snap itself.
    pub own_speculation: [u32; 3],
    /// Whether a security module labels tasks.
    pub has_labels: bool,
    /// Blockers.
    pub findings: &'a mut Findings,
    /// For files of /proc.
    pub buffer: &'a mut Vec<u8>,
}

impl Threads<'_> {
    /// Collects one stopped thread.
    ///
    /// # Errors
    /// A kernel interface that failed.
    pub fn collect(
        &mut self,
        asker: &mut Asker<'_, '_>,
        tid: Tid,
        shared: Shared,
        sample: Option<Sample>,
    ) -> Result<Thread, CollectError> {
        let thread = asker.thread(tid)?;
        let status = remote(thread, "reading its status", thread.status())?;
        let known = Known { status: &status, own_speculation: self.own_speculation };
        let answers = settings::ask(asker, tid, &known)?;
        let thread = asker.thread(tid)?;
        check(&status, thread, self.findings);
        let scheduling = scheduling::collect(tid, answers.timer_slack)?;
        let sample = sample.map(|sample| sample.compared(status.voluntary_switches));
        let (cpu, blocked) = cpu(asker, thread, sample, self.frozen_at)?;
        let (head, len) = sys_task::robust_list(tid).map_err(CollectError::at(tid, "get_robust_list"))?;
        let label =
            if self.has_labels { values::lsm_label(&self.process.task(tid)?, self.buffer)? } else { Vec::new() };
        Ok(Thread {
            tid,
            comm: status.name.clone(),
            cpu,
            blocked,
            fd_table: shared.fd_table,
            fs: shared.fs,
            undo_list: shared.undo_list,
            undo: Vec::new(),
            io_context: shared.io_context,
            signal_mask: remote(thread, "reading its signal mask", thread.signal_mask())?,
            pending: signal::queued(tid, Queue::Private)?,
            alt_stack: answers.alt_stack,
            clear_child_tid: answers.clear_child_tid,
            robust_list: RobustList { head, len },
            rseq: rseq(thread)?,
            credentials: credentials::collect(&status, answers.securebits, label, String::new()),
            seccomp: self.seccomp.collect(tid, status.seccomp.unwrap_or(0), status.no_new_privs)?,
            scheduling,
            settings: settings::join(&answers, dispatch(thread)?),
        })
    }
}

/// What is left of a main thread that has ended before the others, and the signal that tells its parent of the end of all. What a task that has
/// ended does not tell of its credentials is as `others` have it.
///
/// # Errors
/// A file of /proc that cannot be read.
pub fn ended_leader(pid: Pid, others: &Credentials, buffer: &mut Vec<u8>) -> Result<(EndedLeader, i32), CollectError> {
    let dir = TaskDir::process(pid)?;
    let stat = stat::read(&dir, buffer)?;
    let status = status::read(&dir, buffer)?;
    let credentials = credentials::collect(&status, others.securebits, others.lsm_label.clone(), String::new());
    Ok((EndedLeader { comm: status.name.clone(), status: stat.exit_code, credentials }, stat.exit_signal))
}

/// Registers as user space would see them, and the call that goes on after a restore.
fn cpu(
    asker: &Asker<'_, '_>,
    thread: &StoppedThread,
    sample: Option<Sample>,
    frozen_at: Instant,
) -> Result<(Cpu, Option<BlockedSyscall>), CollectError> {
    let mut regs = Registers::from(thread.regs());
    let mut timespec = |at: Addr| {
        let mut bytes = [0; 16];
        let is_read = asker.peek(at, &mut bytes);
        let (seconds, nanos) = bytes.split_at(8);
        let word = |half: &[u8]| half.try_into().map(i64::from_le_bytes).ok();
        is_read.then_some((word(seconds)?, word(nanos)?))
    };
    let blocked = syscall_restart::rewind(&mut regs, sample, frozen_at, &mut timespec);
    if blocked.is_none() {
        regs.orig_rax = u64::MAX;
    }
    let xsave = remote(thread, "PTRACE_GETREGSET NT_X86_XSTATE", thread.xstate())?;
    let debug = remote(thread, "reading debug registers", thread.debug_registers())?;
    Ok((Cpu { regs, xsave, debug }, blocked))
}

/// Registers the abort handler for a thread inside a critical section: the kernel would send it there on any preemption.
fn rseq(thread: &StoppedThread) -> Result<Option<Rseq>, CollectError> {
    let configuration = remote(thread, "PTRACE_GET_RSEQ_CONFIGURATION", thread.rseq())?;
    Ok(configuration.map(|rseq| Rseq {
        address: Addr(rseq.pointer),
        size: rseq.size,
        signature: rseq.signature,
        flags: rseq.flags,
    }))
}

fn dispatch(thread: &StoppedThread) -> Result<Option<SyscallDispatch>, CollectError> {
    let configuration = remote(thread, "PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG", thread.syscall_user_dispatch())?;
    Ok(configuration.map(|dispatch| SyscallDispatch {
        mode: dispatch.mode,
        selector: Addr(dispatch.selector),
        offset: Addr(dispatch.offset),
        len: dispatch.len,
    }))
}

/// State that no interface gives back.
fn check(status: &Status, thread: &StoppedThread, findings: &mut Findings) {
    if thread.regs().cs == 0x23 {
        refuse(thread.tid(), "32-bit code", "tasks that run 32-bit code are not supported", findings);
    }
    if crate::sys::regset::has_io_permissions(thread.tid()) {
        refuse(thread.tid(), "I/O permissions", "ioperm(2) is not supported", findings);
    }
    check_status(thread.tid(), status, findings);
}

/// The part of it that shows without a stop.
pub fn check_status(tid: Tid, status: &Status, findings: &mut Findings) {
    if status.thread_features.iter().any(|feature| feature == "shstk" || feature == "wrss") {
        refuse(tid, "shadow stack", "shadow stacks are not supported", findings);
    }
    if status.untag_mask.is_some_and(|mask| mask != u64::MAX) {
        refuse(tid, "LAM", "linear address masking is not supported", findings);
    }
    if status.seccomp == Some(1) {
        refuse(tid, "seccomp strict mode", "no system call can be made in its place", findings);
    }
}

fn refuse(tid: Tid, object: &str, reason: &str, findings: &mut Findings) {
    findings.block(format!("tid {tid}"), object, reason, "run it on a kernel or with settings that do not use this");
}

fn remote<T>(
    thread: &StoppedThread,
    action: &'static str,
    result: Result<T, tracer::Error>,
) -> Result<T, CollectError> {
    result.map_err(|source| CollectError::Remote { tid: thread.tid(), action, source })
}
