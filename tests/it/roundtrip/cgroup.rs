//! Cgroups: rejoined where they exist, named where they do not.

use crate::support::{facts, isolated, require, require_root};
use std::fs;
use std::path::{Path, PathBuf};

/// A cgroup of this test in each of these hierarchies, removed when it ends.
pub struct Group(Vec<PathBuf>);

impl Group {
    /// In version 2 and in every hierarchy of version 1 that is mounted and lets us.
    pub fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let places = mounts.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (place, kind) = (words.nth(1)?, words.next()?);
            kind.starts_with("cgroup").then(|| Path::new(place).join(format!("snap-test-{name}-{}", unique())))
        });
        Self(places.filter(|place| fs::create_dir(place).is_ok()).collect())
    }

    /// Their directories.
    pub fn places(&self) -> &[PathBuf] {
        &self.0
    }

    /// Moves a process there; a hierarchy that does not take it is given up.
    fn take(&mut self, pid: i32) {
        self.0.retain(|place| {
            let taken = fs::write(place.join("cgroup.procs"), pid.to_string()).is_ok();
            if !taken {
                let _ = fs::remove_dir(place);
            }
            taken
        });
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for place in &self.0 {
            // What is still in it goes back to where the test is.
            for pid in fs::read_to_string(place.join("cgroup.procs")).unwrap_or_default().lines() {
                let _ = place.parent().map(|parent| fs::write(parent.join("cgroup.procs"), pid));
            }
            let _ = fs::remove_dir(place);
        }
    }
}

/// Pid 1 of this test has another number outside.
fn unique() -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata("/proc/self/ns/pid").expect("the pid namespace"))
}

/// The lines of a process that name a cgroup of this test.
fn own_groups(pid: i32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroup");
    text.lines().filter(|line| line.contains("snap-test-")).map(str::to_owned).collect()
}

#[test]
fn are_rejoined_by_every_thread() {
    isolated(|room| {
        require_root!("to make cgroups");
        let mut group = Group::new("rejoined");
        let victim = room.victim("threads", &["4"]);
        group.take(victim.pid());
        require!(!group.0.is_empty(), "no cgroup takes a process");
        let (pid, groups) = (victim.pid(), own_groups(victim.pid()));
        assert_eq!(groups.len(), group.0.len(), "{groups:?}");
        // The facts hold the cgroups of the process.
        victim.check();
        let mut victim = victim;
        let first = room.dump(pid, "first.snap", &[]);
        assert_eq!(own_groups(pid), groups);
        let second = room.dump(pid, "second.snap", &["--kill"]);
        for image in [second, first] {
            victim.killed();
            room.restore(&image, &[]);
            for tid in facts::threads(pid) {
                assert_eq!(own_groups(tid), groups, "tid {tid}");
            }
            victim.check();
            victim.end();
        }
    });
}

#[test]
fn that_are_gone_are_named() {
    isolated(|room| {
        require_root!("to make cgroups");
        let mut group = Group::new("gone");
        let mut victim = room.victim("threads", &["4"]);
        group.take(victim.pid());
        require!(!group.0.is_empty(), "no cgroup takes a process");
        let image = room.dump_and_kill(&mut victim, "killed.snap");
        let count = group.0.len();
        drop(group);
        let run = room.snap(["restore", "--detach"]).arg(&image).run().expect(0);
        let named = run.stderr.matches("stays in the cgroup of snap instead of").count();
        assert_eq!(named, count, "{run}");
        assert_eq!(own_groups(victim.pid()), [""; 0]);
        victim.check();
    });
}
