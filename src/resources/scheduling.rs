//! How a thread is scheduled: asked by thread id, without touching it.

use super::CollectError;
use crate::image::model::id::Tid;
use crate::image::model::thread::Scheduling;
use crate::sys::{affinity, sched};

/// Asks for the scheduling attributes of a thread, all but its core scheduling group ([`super::core_scheduling`]).
///
/// # Errors
/// The call that failed.
pub fn collect(tid: Tid, timer_slack: u64) -> Result<Scheduling, CollectError> {
    let attributes = sched::attributes(tid).map_err(CollectError::at(tid, "sched_getattr"))?;
    Ok(Scheduling {
        policy: attributes.policy,
        flags: attributes.flags,
        nice: sched::nice(tid).map_err(CollectError::at(tid, "getpriority"))?,
        priority: attributes.priority,
        deadline: [attributes.runtime, attributes.deadline, attributes.period],
        uclamp: [attributes.util_min, attributes.util_max],
        affinity: affinity::get(tid).map_err(CollectError::at(tid, "sched_getaffinity"))?,
        io_priority: sched::io_priority(tid).map_err(CollectError::at(tid, "ioprio_get"))?,
        timer_slack,
        core_group: 0,
    })
}
