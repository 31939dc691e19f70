//! Everything that stands in the way of a restore on this host, found before anything is touched. Pure.

mod files;
mod host;
mod image;
mod memory;
mod outside;

pub use image::unrestorable;

use super::core_scheduling::{self, Cookies};
use super::genealogy::{Genealogy, genealogy};
use super::host::HostFacts;
use super::vdso::Vdso;
use super::{Choices, aio, bpf, queues, sysv};
use crate::blocker::Blocker;
use crate::image::model::Snapshot;
use crate::image::model::address::PageRange;
use crate::image::model::file::HeldFutex;
use crate::image::model::id::{FileId, Pid, QueueId};
use crate::image::model::process::Process;
use crate::sys::sysv::Kind;
use std::path::PathBuf;

/// A blocker of a process.
#[must_use]
pub fn blocker(pid: Pid, object: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) -> Blocker {
    Blocker::new(format!("pid {pid}"), object, reason, remedy)
}

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// What the user should know.
    pub notices: Vec<String>,
    /// What stands in the way.
    pub blockers: Vec<Blocker>,
    /// Files to cut back to their size at the dump.
    pub cut_back: Vec<(PathBuf, u64)>,
    /// What becomes of the vdso, for each process.
    pub vdsos: Vec<Vdso>,
    /// Who makes whom.
    pub genealogy: Genealogy,
    /// Shared memory with a name that is made again.
    pub made: Vec<FileId>,
    /// Robust futexes that were marked when their holders died, and that these hold again.
    pub marked: Vec<(PathBuf, HeldFutex)>,
    /// Who gets which cookie of core scheduling.
    pub cookies: Cookies,
    /// POSIX message queues that are made again.
    pub queues: Vec<QueueId>,
    /// System V objects that are replaced.
    pub replaced: Vec<(Kind, i32)>,
}

impl Findings {
    /// Where the vdso of this host is when a process of the image is born: where its maker has put it, or where `snap` has it.
    #[must_use]
    pub fn vdso_at_birth<'a>(&'a self, process: usize, facts: &'a HostFacts) -> &'a [PageRange] {
        let births = &self.genealogy.births;
        let mut at = self.genealogy.of_process[process];
        loop {
            let birth = &births[at];
            // One that shares memory finds it as whoever it shares it with did.
            match (birth.memory_of.filter(|_| !birth.shares.memory), birth.maker) {
                (Some(above), _) => return &self.vdsos[above].parts,
                (None, Some(maker)) => at = maker,
                (None, None) => return &facts.vdso,
            }
        }
    }
}

/// Notices and blockers.
#[must_use]
pub fn check(snapshot: &Snapshot, facts: &HostFacts, choices: &Choices<'_>) -> Findings {
    let mut checker = Checker { snapshot, facts, choices, findings: Findings::default() };
    let root = &snapshot.processes[0];
    match genealogy(snapshot, choices) {
        Ok(found) => checker.findings.genealogy = found,
        Err(blockers) => {
            return Findings { blockers, ..Findings::default() };
        }
    }
    checker.ids(root);
    checker.events(root);
    for process in &snapshot.processes {
        checker.timers(process);
        checker.cpu(process);
        checker.privileges(process);
    }
    checker.address_spaces();
    checker.files(root);
    checker.externals(root);
    checker.addresses();
    checker.findings.blockers.extend(image::objects(snapshot));
    checker.findings.blockers.extend(aio::check(snapshot, facts.aio));
    let (notices, blockers) = bpf::check(snapshot, facts);
    checker.findings.notices.extend(notices);
    checker.findings.blockers.extend(blockers);
    let (cookies, notice, blockers) = core_scheduling::plan(snapshot, facts.core_scheduling);
    checker.findings.cookies = cookies;
    checker.findings.notices.extend(notice);
    checker.findings.blockers.extend(blockers);
    let (queues, blockers) = queues::check(snapshot, facts, choices);
    checker.findings.queues = queues;
    checker.findings.blockers.extend(blockers);
    let sysv::Planned { replaced, notices, blockers } = sysv::check(snapshot, facts, choices);
    checker.findings.replaced = replaced;
    checker.findings.notices.extend(notices);
    checker.findings.blockers.extend(blockers);
    checker.findings
}

struct Checker<'a> {
    snapshot: &'a Snapshot,
    facts: &'a HostFacts,
    choices: &'a Choices<'a>,
    findings: Findings,
}

impl Checker<'_> {
    fn block(
        &mut self,
        process: &Process,
        object: impl Into<String>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.findings.blockers.push(blocker(process.pid, object, reason, remedy));
    }
}
