//! Puts a process back into its cgroups, where they exist and rights allow.

use crate::image::model::id::Pid;
use crate::proc::mountinfo::{self, Mount};
use crate::proc::{Error, TaskDir, cgroup};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

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
        let place = directory(&mounts, &one.controllers, &path);
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

/// Where a cgroup is: version 2 has no controllers in its line, version 1 names them in the options of its mount.
fn directory(mounts: &[Mount], controllers: &[u8], path: &[u8]) -> Option<PathBuf> {
    let options =
        |mount: &Mount| mount.super_options.split(|byte| *byte == b',').map(<[u8]>::to_vec).collect::<HashSet<_>>();
    let mount = mounts.iter().find(|mount| match (controllers.is_empty(), mount.fs_type.as_slice()) {
        (true, b"cgroup2") => true,
        (false, b"cgroup") => controllers.split(|byte| *byte == b',').all(|name| options(mount).contains(name)),
        _ => false,
    })?;
    let inside = path.strip_prefix(mount.root.as_slice()).unwrap_or(path);
    let inside = inside.strip_prefix(b"/").unwrap_or(inside);
    Some(Path::new(OsStr::from_bytes(&mount.mount_point)).join(OsStr::from_bytes(inside)))
}
