//! Calls that are made again with what is left of their timeout, which has no restart block (`resources::syscall_restart::timeout`).

use super::FinishError;
use crate::image::model::address::Addr;
use crate::image::model::id::Tid;
use crate::image::model::process::Process;
use crate::image::model::thread::{Resume, Thread};
use crate::resources::syscall_restart::timeout;
use crate::tracer::{self, Argument, Memory, Slots};
use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

/// The registers that are others than in the image, by thread.
pub(super) type Timeouts = HashMap<Tid, (Argument, u64)>;

/// Those of a process whose memory is what it was. `taken` is what others, who may have the same memory, were given.
pub(super) fn shortened(process: &Process, taken: &mut HashSet<Addr>) -> Result<Timeouts, FinishError> {
    let left = |thread: &Thread| {
        let call = thread.blocked.as_ref()?;
        match call.resume {
            Resume::Shortened { nanos } => Some((thread.tid, call.clone(), Duration::from_nanos(nanos))),
            Resume::Again | Resume::Remaining { nanos: _, exact: _ } | Resume::Anew => None,
        }
    };
    let calls: Vec<_> = process.threads.iter().filter_map(left).collect();
    let mut timeouts = HashMap::new();
    let Some((first, ..)) = calls.first() else { return Ok(timeouts) };
    let failed = |tid: Tid| {
        move |error: tracer::Error| FinishError {
            tid,
            action: "giving it the rest of its timeout",
            source: io::Error::other(error),
        }
    };
    let memory = Memory::open(process.pid).map_err(failed(*first))?;
    let mut slots = Slots::of(process.pid, &memory, taken);
    for (tid, call, left) in &calls {
        match timeout::give((call.number, &call.args), *left, &memory, &mut slots).map_err(failed(*tid))? {
            Some((argument, value)) => {
                taken.insert(Addr(value));
                timeouts.insert(*tid, (argument, value));
            }
            None => tracing::warn!("tid {tid}: no room for the rest of its timeout: it waits for all of it"),
        }
    }
    Ok(timeouts)
}
