//! What small files of /proc say of a process, and which pages it has.

use super::Member;
use crate::image::model::address::PageRange;
use crate::image::model::id::Pid;
use crate::proc::auxv::Auxv;
use crate::proc::stat::Stat;
use crate::proc::timers::Timer;
use crate::proc::{self, TaskDir};
use crate::resources::descriptor::Look;
use crate::resources::namespace::Namespaces;
use crate::resources::{CollectError, pages, process};
use crate::sys::pagemap::Pages;
use std::fs::{File, Metadata};

/// Pages of an address space.
#[derive(Debug)]
pub struct Found {
    /// Those that are there, ascending.
    pub pages: Vec<(PageRange, Pages)>,
    /// `pagemap`.
    pub pagemap: File,
}

impl Found {
    /// Looks for them.
    ///
    /// # Errors
    /// See [`pages::find_all`].
    pub fn look(dir: &TaskDir, pid: Pid) -> Result<Self, CollectError> {
        let pagemap = dir.open("pagemap")?;
        let pages = pages::find_all(dir, &pagemap, pid)?;
        Ok(Self { pages, pagemap })
    }
}

/// Where a link of /proc leads.
#[derive(Debug)]
pub struct Link {
    /// What it says.
    pub text: Vec<u8>,
    /// Attributes of what it leads to.
    pub meta: Metadata,
}

impl Link {
    /// Looks at a link of a task.
    ///
    /// # Errors
    /// As readlink(2) and stat(2).
    pub fn look(dir: &TaskDir, pid: Pid, name: &str) -> Result<Self, CollectError> {
        let text = dir.read_link(name)?;
        let meta = std::fs::metadata(format!("{}/{name}", dir.path()));
        Ok(Self { text, meta: meta.map_err(CollectError::at(pid.leader(), "stat of a link of /proc"))? })
    }
}

/// What is read of a process beside its mappings.
#[derive(Debug)]
pub struct Facts {
    /// Its folder.
    pub dir: TaskDir,
    /// `stat`.
    pub stat: Stat,
    /// Its program.
    pub exe: Link,
    /// Its working directory.
    pub cwd: Link,
    /// Its root directory.
    pub root: Link,
    /// Its namespaces.
    pub namespaces: Namespaces,
    /// Its descriptors, unless an earlier process has the same.
    pub descriptors: Option<Vec<Look>>,
    /// Pages that are there, unless an earlier process has the same address space.
    pub pages: Option<Found>,
    /// `auxv`.
    pub auxv: Auxv,
    /// `coredump_filter`.
    pub coredump_filter: u32,
    /// `timers`.
    pub timers: Vec<Timer>,
    /// Soft and hard limits, indexed by RLIMIT_*.
    pub rlimits: Vec<[u64; 2]>,
    /// `oom_score_adj`.
    pub oom_score_adj: i32,
    /// `cmdline`.
    pub argv: Vec<Vec<u8>>,
    /// Memberships as the lines of `cgroup` name them.
    pub cgroups: Vec<String>,
    /// `loginuid`.
    pub loginuid: Option<u32>,
    /// The nice value of its `autogroup`.
    pub autogroup_nice: Option<i32>,
}

impl Facts {
    pub(super) fn read(member: Member, dir: TaskDir, stat: Stat, buffer: &mut Vec<u8>) -> Result<Self, CollectError> {
        Ok(Self {
            stat,
            exe: Link::look(&dir, member.shown_as, "exe")?,
            cwd: Link::look(&dir, member.shown_as, "cwd")?,
            root: Link::look(&dir, member.shown_as, "root")?,
            namespaces: Namespaces::of(&dir),
            descriptors: if member.has_known_files { None } else { Some(Look::at_all(&dir)?) },
            pages: if member.has_known_memory { None } else { Some(Found::look(&dir, member.shown_as)?) },
            auxv: proc::auxv::read(&dir, buffer)?,
            coredump_filter: proc::values::coredump_filter(&dir, buffer)?.unwrap_or(0),
            timers: proc::timers::read(&dir, buffer)?,
            rlimits: process::limits(&dir)?,
            oom_score_adj: proc::values::oom_score_adj(&dir, buffer)?,
            argv: proc::strings::cmdline(&dir, buffer)?,
            cgroups: cgroups(&dir, buffer)?,
            loginuid: proc::if_present(proc::values::loginuid(&dir, buffer))?,
            autogroup_nice: proc::if_present(proc::values::autogroup_nice(&dir, buffer))?.flatten(),
            dir,
        })
    }
}

/// Memberships as the lines of `/proc/PID/cgroup` name them.
fn cgroups(dir: &TaskDir, buffer: &mut Vec<u8>) -> Result<Vec<String>, CollectError> {
    let lines = dir.read_into("cgroup", buffer)?;
    Ok(String::from_utf8_lossy(lines).lines().map(str::to_owned).collect())
}
