//! Threads and seccomp filters.

use super::{XSAVE_MIN, ensure, memory};
use crate::image::error::Error;
use crate::image::model::Snapshot;
use crate::image::model::credentials::Credentials;
use crate::image::model::inventory::XsaveLayout;
use crate::image::model::thread::{SeccompFilter, Thread};
use crate::image::validate::process::queued_is_sane;

/// TASK_COMM_LEN without its NUL.
const COMM_MAX: usize = 15;

/// NGROUPS_MAX.
const GROUPS_MAX: usize = 65_536;

/// Words of the largest CPU mask (NR_CPUS is at most 8192).
const CPU_WORDS_MAX: usize = 128;

/// BPF_MAXINSNS.
const PROGRAM_MAX: usize = 4096;

/// Where XSTATE_BV stands in an XSAVE area.
const XSTATE_BV: usize = 512;

pub fn thread(thread: &Thread, snapshot: &Snapshot) -> Result<(), Error> {
    let object = || format!("thread {}", thread.tid);
    ensure(is_name(&thread.comm), object, "has an impossible name")?;
    xsave(&thread.cpu.xsave, &snapshot.inventory.host.xsave, object)?;
    let table = (thread.fd_table.0 as usize) < snapshot.fd_tables.len();
    ensure(table, object, "refers to an fd table that is not in the image")?;
    let fs = (thread.fs.0 as usize) < snapshot.fs_contexts.len();
    ensure(fs, object, "refers to an fs context that is not in the image")?;
    ensure(thread.pending.iter().all(queued_is_sane), object, "has a malformed pending signal")?;
    ensure(is_possible(&thread.credentials), object, "is in too many groups")?;
    ensure(thread.seccomp.mode <= 2, object, "has an impossible seccomp mode")?;
    let filters = thread.seccomp.filters.iter().all(|id| (id.0 as usize) < snapshot.seccomp_filters.len());
    ensure(filters, object, "refers to a seccomp filter that is not in the image")?;
    ensure((-20..=19).contains(&thread.scheduling.nice), object, "has an impossible nice value")?;
    ensure(thread.scheduling.affinity.len() <= CPU_WORDS_MAX, object, "has an impossible affinity")?;
    let policy = thread.settings.memory_policy.as_ref().is_none_or(memory::policy_is_sane);
    ensure(policy, object, "has an impossible NUMA policy")
}

/// Whether a task can have this name.
pub fn is_name(comm: &[u8]) -> bool {
    comm.len() <= COMM_MAX && !comm.contains(&0)
}

/// Whether a task can have these credentials.
pub fn is_possible(credentials: &Credentials) -> bool {
    credentials.groups.len() <= GROUPS_MAX
}

/// Whether the area holds every component that it says is in use.
fn xsave(area: &[u8], layout: &XsaveLayout, object: impl Fn() -> String) -> Result<(), Error> {
    let sane = area.len() >= XSAVE_MIN as usize && area.len() <= layout.size as usize;
    ensure(sane, &object, "has an XSAVE area of impossible length")?;
    let in_use = area.get(XSTATE_BV..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes));
    ensure(in_use & !layout.features == 0, &object, "uses a CPU component that was not enabled")?;
    let held = layout.components.iter().filter(|component| in_use & 1 << component.bit != 0);
    let fits = |end: u64| end <= area.len() as u64;
    let whole = held.map(|c| u64::from(c.offset) + u64::from(c.size)).all(fits);
    ensure(whole, &object, "has an XSAVE area without a component that is in use")
}

pub fn seccomp_filter(filter: &SeccompFilter) -> Result<(), Error> {
    let sane = (1..=PROGRAM_MAX).contains(&filter.program.len());
    ensure(sane, || format!("seccomp filter {}", filter.id), "has an impossible length")
}
