//! Zombies: processes of the tree that have ended and that their parent has still to reap.

use super::{CollectError, Findings};
use crate::image::model::id::Pid;
use crate::image::model::process::Zombie;
use crate::proc::{TaskDir, stat, status};
use crate::sys::kcmp::{self, Object};
use crate::sys::task;
use nix::errno::Errno;
use nix::unistd::{SysconfVar, sysconf};

/// What is left of each of them, in ascending order.
///
/// # Errors
/// A kernel interface that failed.
pub fn collect(pids: impl Iterator<Item = Pid>, findings: &mut Findings) -> Result<Vec<Zombie>, CollectError> {
    let mut pids: Vec<Pid> = pids.collect();
    pids.sort();
    let mut buffer = Vec::new();
    pids.into_iter().map(|pid| one(pid, findings, &mut buffer)).collect()
}

fn one(pid: Pid, findings: &mut Findings, buffer: &mut Vec<u8>) -> Result<Zombie, CollectError> {
    let dir = TaskDir::process(pid)?;
    let stat = stat::read(&dir, buffer)?;
    let uid = status::read(&dir, buffer)?.uid[0];
    if !may_be_read(pid) {
        let reason = "its exit status may not be read: it had another user's ids";
        findings.block(format!("pid {pid}"), "zombie", reason, "run as root");
    }
    let nanos = |ticks: u64| ticks.saturating_mul(1_000_000_000) / ticks_per_second();
    Ok(Zombie {
        pid,
        ppid: stat.ppid,
        pgid: stat.pgrp,
        sid: stat.session,
        comm: stat.comm,
        exit_signal: stat.exit_signal,
        status: stat.exit_code,
        uid,
        cpu_time: [
            nanos(stat.utime.saturating_add_signed(stat.cutime)),
            nanos(stat.stime.saturating_add_signed(stat.cstime)),
        ],
    })
}

/// Without the right to look at it, `stat` says that its status is 0 (fs/proc/array.c, `do_task_stat`).
fn may_be_read(pid: Pid) -> bool {
    kcmp::compare(task::own_tid(), pid.leader(), Object::Fs, 0, 0) != Err(Errno::EPERM)
}

fn ticks_per_second() -> u64 {
    sysconf(SysconfVar::CLK_TCK).ok().flatten().map_or(100, i64::cast_unsigned).max(1)
}
