//! What skeletons are given from outside: the pages of the image, in waves, and what /proc takes from anybody who may write there.

use super::descriptors::Carriers;
use super::pages::{Filler, Page};
use super::plan::RestorePlan;
use super::sysv::Objects;
use super::{Error, Pages, step};
use crate::image::model::Snapshot;
use crate::image::model::id::{MmId, Pid, ShmId};
use crate::image::model::memory::{ContentOwner, Remainder};
use crate::image::model::process::Process;
use crate::sys::arena::Arena;
use std::collections::{HashMap, HashSet};
use std::io;

/// What the skeletons are filled with.
pub struct Contents<'a> {
    snapshot: &'a Snapshot,
    pages: &'a dyn Pages,
    carriers: &'a Carriers<'a>,
    arenas: &'a HashMap<ShmId, Arena>,
    objects: &'a Objects,
    /// Pages of a stream that came before they were wanted.
    early: Vec<Page>,
}

impl<'a> Contents<'a> {
    /// Nothing is filled yet.
    #[must_use]
    pub fn new(
        snapshot: &'a Snapshot,
        pages: &'a dyn Pages,
        carriers: &'a Carriers<'a>,
        arenas: &'a HashMap<ShmId, Arena>,
        objects: &'a Objects,
    ) -> Self {
        Self { snapshot, pages, carriers, arenas, objects, early: Vec::new() }
    }

    /// Fills all address spaces of a wave, with the first also everything that is shared.
    ///
    /// # Errors
    /// When the image is damaged or a skeleton cannot be filled.
    pub fn fill(&mut self, plan: &RestorePlan, wave: usize) -> Result<(), Error> {
        let in_wave = |index: &usize| {
            let birth = &plan.genealogy.births[plan.genealogy.of_process[*index]];
            birth.wave == wave && !birth.shares.memory
        };
        let members: Vec<usize> = (0..plan.processes.len()).filter(in_wave).collect();
        let (memfds, others) = (&self.carriers.memfds, (&self.carriers.files, &self.carriers.bpf_maps));
        let mut filler = Filler::new(self.arenas, self.objects, memfds, others, wave == 0);
        for &index in &members {
            let (process, planned) = (&self.snapshot.processes[index], &plan.processes[index]);
            filler.add(planned.pid, process.mm, &planned.copied).map_err(step("opening the memory of a skeleton"))?;
        }
        if wave == 0 || !self.pages.is_stream() {
            if self.pages.is_stream() {
                filler.keep(self.wanted_later(plan));
            }
            self.pages.restore(&filler)?;
        } else {
            for Page { owner, start, data } in &self.early {
                filler.fill(*owner, *start, data).map_err(step("filling"))?;
            }
        }
        for &index in &members {
            if let Some((start, code)) = &plan.processes[index].old_vdso {
                let owner = ContentOwner::Mm(self.snapshot.processes[index].mm);
                filler.fill(owner, *start, code).map_err(step("writing the vdso of the dump"))?;
            }
            let mm = &self.snapshot.mms[self.snapshot.processes[index].mm.0 as usize];
            for Remainder { at, code } in &mm.remainders {
                filler.fill(ContentOwner::Mm(mm.id), *at, code).map_err(step("writing the rest of a system call"))?;
            }
            self.set_from_outside(index)?;
        }
        if wave == 0 {
            let sealed = self.carriers.seal(self.snapshot);
            sealed.map_err(|e| Error::Step { step: e.what, source: e.source })?;
            self.early = filler.into_kept();
        }
        Ok(())
    }

    /// What /proc takes for one process.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn set_from_outside(&self, index: usize) -> Result<(), Error> {
        set_from_outside(self.snapshot, &self.snapshot.processes[index])
    }

    /// Owners whose pages a later wave wants.
    fn wanted_later(&self, plan: &RestorePlan) -> HashSet<MmId> {
        let planned = self.snapshot.processes.iter().zip(&plan.processes).enumerate();
        let later = planned.filter(|(index, _)| plan.genealogy.births[plan.genealogy.of_process[*index]].wave > 0);
        let owners =
            later.flat_map(|(_, (process, planned))| planned.copied.iter().map(|(from, _)| *from).chain([process.mm]));
        owners.collect()
    }
}

/// What /proc takes from anybody who may write there.
fn set_from_outside(snapshot: &Snapshot, process: &Process) -> Result<(), Error> {
    let pid = process.pid;
    let mm = &snapshot.mms[process.mm.0 as usize];
    let notices =
        super::cgroup::join(pid, &process.cgroups).map_err(io::Error::other).map_err(step("joining cgroups"))?;
    notices.iter().for_each(|notice| tracing::warn!("{notice}"));
    if let Some(nice) = process.autogroup_nice {
        // `/autogroup-N nice M`; absent without CONFIG_SCHED_AUTOGROUP, refused to some without CAP_SYS_ADMIN.
        let path = format!("/proc/{pid}/autogroup");
        let now = std::fs::read_to_string(&path).unwrap_or_default();
        let same = now.trim_end().ends_with(&format!(" nice {nice}"));
        if !same && let Err(error) = std::fs::write(&path, nice.to_string()) {
            tracing::warn!("pid {pid}: the nice value {nice} of its autogroup cannot be set: {error}");
        }
    }
    set(pid, "oom_score_adj", &process.oom_score_adj.to_string(), |now| now.parse() == Ok(process.oom_score_adj))?;
    set(pid, "coredump_filter", &format!("{:#x}", mm.coredump_filter), |now| {
        u32::from_str_radix(now, 16) == Ok(mm.coredump_filter)
    })
}

/// Writes a file of /proc/PID unless it says the same already.
fn set(pid: Pid, name: &str, value: &str, same: impl Fn(&str) -> bool) -> Result<(), Error> {
    let path = format!("/proc/{pid}/{name}");
    let now = std::fs::read_to_string(&path).map_err(step(path.clone()))?;
    if same(now.trim()) { Ok(()) } else { std::fs::write(&path, value).map_err(step(path)) }
}
