//! Ids that nobody has, neither as a task nor as a session or group.

use crate::proc::{TaskDir, processes, stat};
use std::collections::HashSet;
use std::fs;
use std::io;

/// Below this the kernel gives out none a second time (kernel/pid.c, RESERVED_PIDS).
const RESERVED: i32 = 300;

/// So many ids, of which somebody may take one any moment. They lie behind those that the kernel gives out next, and elsewhere for each `attempt`
/// and each `snap`.
///
/// # Errors
/// When /proc does not tell, or there are not so many.
pub fn find(count: usize, attempt: usize) -> io::Result<Vec<i32>> {
    let used = used();
    let number = |path: &str, at: usize| -> io::Result<i32> {
        let text = fs::read_to_string(path)?;
        text.split_ascii_whitespace()
            .nth(at)
            .and_then(|word| word.parse().ok())
            .ok_or(io::ErrorKind::InvalidData.into())
    };
    let last = number("/proc/loadavg", 4)?;
    let end = number("/proc/sys/kernel/pid_max", 0)?;
    let behind = (RESERVED..last.max(RESERVED)).rev();
    let before = (last.max(RESERVED) + 1..end).rev();
    let free = behind.chain(before).filter(|id| !used.contains(id));
    // Whoever restores beside us looks elsewhere.
    let skipped = (std::process::id() as usize % 32 + attempt) * count;
    let most = (end as usize).saturating_sub(used.len() + RESERVED as usize);
    let ids: Vec<i32> = free.skip(skipped % (most / 2).max(1)).take(count).collect();
    if ids.len() == count { Ok(ids) } else { Err(io::Error::other(format!("{count} ids are not free"))) }
}

/// Every id that something has.
fn used() -> HashSet<i32> {
    let mut used = HashSet::new();
    let mut buffer = Vec::new();
    for pid in processes() {
        used.insert(pid.0);
        let Ok(dir) = TaskDir::process(pid) else { continue };
        if let Ok(stat) = stat::read(&dir, &mut buffer) {
            used.extend([stat.pgrp.0, stat.session.0]);
        }
        used.extend(dir.threads().unwrap_or_default().into_iter().map(|tid| tid.0));
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_differ_and_nobody_has_them() {
        let ids = find(50, 0).expect("free ids");
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 50);
        let own = std::process::id() as i32;
        assert!(!ids.contains(&own) && ids.iter().all(|id| *id >= RESERVED));
    }
}
