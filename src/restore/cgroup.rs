//! Puts a process back into its cgroups, where they exist and rights allow.

use crate::image::model::id::Pid;
use crate::proc::mountinfo;
use crate::proc::{Error, TaskDir, cgroup};
use std::collections::HashSet;

/// Joins every cgroup of `lines` (as in `/proc/PID/cgroup`) that `pid` is not in; says which it could not join.
///
/// # Errors
/// When /proc does not tell where cgroups are mounted.
pub fn join(pid: Pid, lines: &[String]) -> Result<Vec<String>, Error> {
    let mut buffer = Vec::new();
    let now = cgroup::read(&TaskDir::process(pid)?, &mut buffer)?;
    let now: HashSet<_> = now.into_iter().map(|one| (one.controllers, one.path.raw)).collect();
    let mounts = mountinfo::read(&TaskDir::current()?, &mut buffer)?;
    let wanted = cgroup::parse((lines.join("\n") + "\n").as_bytes()).unwrap_or_default();
    let mut notices = Vec::new();
    for one in wanted {
        let path = one.path.raw.clone();
        if now.contains(&(one.controllers.clone(), path.clone())) {
            continue;
        }
        let place = cgroup::directory(&mounts, &one).map(|(place, _)| place);
        let joined = place.as_ref().map(|place| std::fs::write(place.join("cgroup.procs"), pid.to_string()));
        let reason = match joined {
            Some(Ok(())) => continue,
            Some(Err(error)) => error.to_string(),
            None => "its hierarchy is not mounted".to_owned(),
        };
        let (path, controllers) = (String::from_utf8_lossy(&path), String::from_utf8_lossy(&one.controllers));
        notices.push(format!("pid {pid}: stays in the cgroup of snap instead of {controllers}:{path}: {reason}"));
    }
    Ok(notices)
}
