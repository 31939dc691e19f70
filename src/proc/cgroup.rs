//! `/proc/PID/cgroup`: membership in each hierarchy (cgroups(7)).

use super::error::{Error, ParseError};
use super::path::PathText;
use super::scan;
use super::task_dir::TaskDir;

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
