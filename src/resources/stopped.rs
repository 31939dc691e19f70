//! Group stops and their ends as parents see them: what wait(2) can still tell of them.

use super::CollectError;
use super::ask::Asker;
use crate::image::model::id::{Pid, Tid};
use crate::image::model::process::ProcessState;
use crate::tracer;
use std::collections::HashMap;

const P_ALL: u64 = 0;
const P_PID: u64 = 1;
/// Children that tell of their end by another signal than SIGCHLD are waited for too.
const WALL: u64 = 0x4000_0000;
/// Where a `siginfo_t` of 128 bytes is written in the scratch mapping, and where in it the id of the child stands.
const OUT: u64 = 0;
const SI_PID: u64 = 16;

/// Asks a process, in its own name and without taking anything from it, what it can wait for of its children. Given are those that are
/// in the tree, and by which signal each is stopped.
///
/// # Errors
/// The question that could not be asked.
pub fn of_children(
    asker: &mut Asker<'_, '_>,
    tid: Tid,
    children: &[(Pid, Option<i32>)],
) -> Result<HashMap<Pid, ProcessState>, CollectError> {
    let mut states = HashMap::new();
    let running = || children.iter().filter(|(_, signal)| signal.is_none()).map(|(pid, _)| *pid);
    if running().next().is_some() && waits(asker, tid, P_ALL, 0, libc::WCONTINUED)? == Some(true) {
        for pid in running() {
            if waits(asker, tid, P_PID, pid.0 as u64, libc::WCONTINUED)? == Some(true) {
                states.insert(pid, ProcessState::Continued);
            }
        }
    }
    for &(pid, signal) in children {
        let Some(signal) = signal else { continue };
        let waited = waits(asker, tid, P_PID, pid.0 as u64, libc::WSTOPPED)? == Some(false);
        states.insert(pid, ProcessState::Stopped { signal, waited });
    }
    Ok(states)
}

/// Whether there is a child of which this could be waited for; `None` where a seccomp filter does not let it be asked.
fn waits(asker: &mut Asker<'_, '_>, tid: Tid, kind: u64, id: u64, what: i32) -> Result<Option<bool>, CollectError> {
    asker.fill(OUT, &[0; 128])?;
    let options = (what | libc::WNOHANG | libc::WNOWAIT) as u64 | WALL;
    let out = asker.scratch(OUT).0;
    match asker.call(tid, "waitid", libc::SYS_waitid, [kind, id, out, options, 0, 0]) {
        Ok(Ok(_)) => {}
        Ok(Err(_)) => return Ok(Some(false)),
        Err(CollectError::Remote { source: tracer::Error::Refused { .. }, .. }) => return Ok(None),
        Err(error) => return Err(error),
    }
    let [word] = asker.words::<1>(OUT + SI_PID)?;
    Ok(Some(word as u32 != 0))
}
