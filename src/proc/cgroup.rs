//! `/proc/PID/cgroup`: membership in each hierarchy (cgroups(7)).

use super::error::{Error, ParseError};
use super::files::Files;
use super::mountinfo::{self, Mount};
use super::path::PathText;
use super::scan;
use super::task_dir::TaskDir;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const KIND: &str = "cgroup";

/// Membership in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Hierarchy, 0 for version 2.
    pub hierarchy: u32,
    /// Controllers of version 1 between commas, or `name=...`; empty for version 2.
    pub controllers: Vec<u8>,
    /// Path below the root of our cgroup namespace, `/..` above it; ` (deleted)` once the cgroup is removed.
    pub path: PathText,
}

/// Reads the cgroups of a thread.
///
/// # Errors
/// See [`Error`].
pub fn read(task: &TaskDir, buffer: &mut Vec<u8>) -> Result<Vec<Membership>, Error> {
    task.parse("cgroup", buffer, parse)
}

/// Parses the whole file. A path may hold colons, never a newline.
///
/// # Errors
/// Names the line.
pub fn parse(text: &[u8]) -> Result<Vec<Membership>, ParseError> {
    scan::lines(text)
        .map(|(number, line)| {
            membership(line).ok_or_else(|| ParseError::new(KIND, number, "id:controllers:path", line))
        })
        .collect()
}

/// Where a cgroup is, and where its hierarchy is mounted: version 2 has no controllers in its line, version 1 names them in the options of its mount.
#[must_use]
pub fn directory(mounts: &[Mount], membership: &Membership) -> Option<(PathBuf, PathBuf)> {
    let (controllers, path) = (&membership.controllers, &membership.path.raw);
    let options =
        |mount: &Mount| mount.super_options.split(|byte| *byte == b',').map(<[u8]>::to_vec).collect::<HashSet<_>>();
    let mount = mounts.iter().find(|mount| match (controllers.is_empty(), mount.fs_type.as_slice()) {
        (true, b"cgroup2") => true,
        (false, b"cgroup") => controllers.split(|byte| *byte == b',').all(|name| options(mount).contains(name)),
        _ => false,
    })?;
    let inside = path.strip_prefix(mount.root.as_slice()).unwrap_or(path);
    let inside = inside.strip_prefix(b"/").unwrap_or(inside);
    let top = Path::new(OsStr::from_bytes(&mount.mount_point)).to_path_buf();
    Some((top.join(OsStr::from_bytes(inside)), top))
}

/// Bytes of memory that a task can still have before one of its cgroups reaches its limit; what files have in memory counts for half free, as the
/// kernel may drop it. `None` without a limit that can be seen.
#[must_use]
pub fn memory_left(task: &TaskDir, buffer: &mut Vec<u8>) -> Option<u64> {
    let memberships = read(task, buffer).ok()?;
    let mounts = mountinfo::read(&TaskDir::current().ok()?, buffer).ok()?;
    let counts = |one: &&Membership| {
        one.controllers.is_empty() || one.controllers.split(|byte| *byte == b',').any(|name| name == b"memory")
    };
    let places = memberships.iter().filter(counts).filter_map(|one| directory(&mounts, one));
    let left = places.flat_map(|(place, top)| {
        let above: Vec<PathBuf> =
            place.ancestors().take_while(|place| place.starts_with(&top)).map(Path::to_path_buf).collect();
        above.into_iter().filter_map(|place| left_in(&place))
    });
    left.min()
}

/// What one cgroup leaves: by the files of version 2, or those of version 1.
fn left_in(place: &Path) -> Option<u64> {
    let number = |name: &str| fs::read(place.join(name)).ok().and_then(|text| scan::decimal::<u64>(scan::trim(&text)));
    // Without a limit `memory.max` is no number, and that of version 1 beyond all memory.
    let (limit, used) = match (number("memory.max"), number("memory.limit_in_bytes")) {
        (Some(limit), _) => (limit, number("memory.current")?),
        (None, Some(limit)) if limit < 1 << 60 => (limit, number("memory.usage_in_bytes")?),
        (None, _) => return None,
    };
    let stat = fs::read(place.join("memory.stat")).unwrap_or_default();
    let inactive = scan::lines(&stat).find_map(|(_, line)| line.strip_prefix(b"inactive_file "));
    let files: u64 = inactive.and_then(scan::decimal).unwrap_or(0);
    Some(limit.saturating_sub(used) + files / 2)
}

fn membership(line: &[u8]) -> Option<Membership> {
    let (hierarchy, rest) = scan::split_once(line, b':')?;
    let (controllers, path) = scan::split_once(rest, b':')?;
    Some(Membership {
        hierarchy: scan::decimal(hierarchy)?,
        controllers: controllers.to_vec(),
        path: PathText { raw: path.to_vec() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_host_with_both_versions() {
        let all = parse(include_bytes!("../../fixtures/proc/fds/cgroup")).unwrap();
        assert_eq!(all.len(), 10);
        assert_eq!((all[0].hierarchy, all[0].controllers.as_slice()), (9, b"name=systemd".as_slice()));
        assert_eq!(
            (all[5].controllers.as_slice(), all[5].path.raw.as_slice()),
            (b"memory".as_slice(), b"/job/a:b".as_slice())
        );
        assert_eq!((all[9].hierarchy, all[9].path.raw.as_slice()), (0, b"/".as_slice()));
        assert!(all[9].controllers.is_empty());
    }

    #[test]
    fn errors_name_the_line() {
        assert_eq!(parse(b"0::/\nx:y\n").unwrap_err().line, 2);
    }
}
