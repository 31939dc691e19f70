//! How a thread is scheduled: asked by thread id, without touching it.

use super::CollectError;
use crate::image::model::id::Tid;
use crate::image::model::thread::Scheduling;
use crate::sys::{affinity, sched};

/// Whether threads can have a cookie of core scheduling: not before 5.14, without CONFIG_SCHED_CORE, or without SMT.
#[must_use]
pub fn has_core_cookies() -> bool {
    sched::core_cookie(Tid(0)).is_ok()
}

/// Asks for the scheduling attributes of a thread.
///
/// # Errors
/// The call that failed.
pub fn collect(tid: Tid, timer_slack: u64, has_core_cookies: bool) -> Result<Scheduling, CollectError> {
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
        core_cookie: if has_core_cookies { sched::core_cookie(tid).unwrap_or(0) } else { 0 },
    })
}
