//! Address spaces, from what /proc says of them and what their processes say.

use super::ahead::{Ahead, Facts, Found};
use super::collect::Builder;
use super::content::TargetMemory;
use crate::image::model::address::{Addr, PageRange};
use crate::image::model::id::{FileId, MmId, Pid, Tid};
use crate::image::model::memory::{Inherited, MemoryPolicy, Mm, Vma};
use crate::proc::numa_maps::NumaMapping;
use crate::proc::vm_flags::VmFlags;
use crate::proc::{TaskDir, smaps};
use crate::resources::aio::Rings;
use crate::resources::ask::Asker;
use crate::resources::copy_on_write::{self, Side};
use crate::resources::memory::Mappings;
use crate::resources::memory_policy;
use crate::resources::pages::PageSet;
use crate::resources::{CollectError, pages, process};
use std::collections::HashMap;
use std::fs::File;

/// A look at an address space that no process before had.
pub struct Survey<'a> {
    /// What is read of it beside.
    pub ahead: &'a Ahead,
    /// The place of its process.
    pub at: usize,
    /// The folder of that.
    pub dir: &'a TaskDir,
    /// Its number.
    pub pid: Pid,
}

/// What came of it.
pub struct Surveyed {
    /// Every mapping of the program's own.
    mappings: Vec<smaps::Vma>,
    /// Flags of mlockall(2) for mappings to come.
    lock_future: u32,
    /// Memory policies of mappings that have one of their own, by start address.
    policies: HashMap<u64, MemoryPolicy>,
    /// Its pages.
    found: Found,
}

impl Survey<'_> {
    /// Puts together what was found. `task_policy` is that of the main thread, and `pages` those that were seen, if somebody has looked.
    ///
    /// # Errors
    /// What could not be read or asked.
    pub fn finish(
        self,
        asker: &mut Asker<'_, '_>,
        tid: Tid,
        task_policy: Option<&MemoryPolicy>,
        (greeting, found): (process::Greeting, Option<Found>),
    ) -> Result<Surveyed, CollectError> {
        let found = found.map_or_else(|| Found::look(self.dir, self.pid), Ok)?;
        let mut mappings = self.ahead.mappings(self.at)?;
        let policies = match self.ahead.policies(self.at)? {
            None => {
                let starts: Vec<Addr> = mappings.iter().map(|vma| vma.mapping.range.start).collect();
                memory_policy::ask(asker, tid, &starts)?
            }
            Some(listed) => {
                let (unclear, mut clear) = clear(listed, task_policy);
                clear.extend(memory_policy::ask(asker, tid, &unclear)?);
                clear
            }
        };
        // Ours is among them, or not, as it was made before or after.
        let own = asker.mapping();
        mappings.retain(|vma| vma.mapping.range != own);
        let lock_future = if greeting.locks_new_mappings { self.lock_future(own)? } else { 0 };
        Ok(Surveyed { mappings, lock_future, policies, found })
    }

    /// What mlockall(MCL_FUTURE) has set, which no interface tells: a mapping made after it, such as our own, shows it.
    fn lock_future(&self, own: PageRange) -> Result<u32, CollectError> {
        let mappings = smaps::read(self.dir, &mut Vec::new())?;
        let flags = mappings.iter().find(|vma| vma.mapping.range == own).map_or(VmFlags::empty(), |vma| vma.flags);
        let bit = |flag, value: i32| if flags.contains(flag) { value.cast_unsigned() } else { 0 };
        Ok(bit(VmFlags::LOCKED, libc::MCL_FUTURE) | bit(VmFlags::LOCK_ON_FAULT, libc::MCL_ONFAULT))
    }
}

/// The mappings that have the policy of the task, their own or its; and the policies of the others.
fn clear(listed: Vec<NumaMapping>, task_policy: Option<&MemoryPolicy>) -> (Vec<Addr>, HashMap<u64, MemoryPolicy>) {
    let (mut unclear, mut policies) = (Vec::new(), HashMap::new());
    for NumaMapping { start, policy } in listed.into_iter().filter(|mapping| !mapping.policy.is_default()) {
        let policy = MemoryPolicy { mode: policy.mode, nodes: policy.nodes };
        if Some(&policy) == task_policy {
            unclear.push(start);
        } else {
            policies.insert(start.0, policy);
        }
    }
    (unclear, policies)
}

impl Builder {
    /// Puts an address space together.
    pub(super) fn address_space(
        &mut self,
        pid: Pid,
        facts: &Facts,
        (greeting, answers): (process::Greeting, &process::Answers),
        surveyed: Surveyed,
    ) -> Result<MmId, CollectError> {
        let id = MmId(self.mms.len() as u32);
        let Surveyed { mappings, lock_future, policies, found: Found { pages: found, pagemap } } = surveyed;
        let (dir, stat) = (&facts.dir, &facts.stat);
        self.resident += mappings.iter().map(|vma| vma.rss + vma.private_hugetlb).sum::<u64>();
        // Before the mappings, for this file can be opened.
        let exe = self.linked_file(pid, dir, "exe", &facts.exe)?.unwrap_or(FileId(0));
        let none = Rings::new();
        let mut collector = Mappings {
            pid,
            task: dir,
            files: &mut self.files,
            shared: &mut self.shared,
            mapped: &mut self.mapped,
            findings: &mut self.findings,
            found: &found,
            rings: Some(self.rings.get(&pid).unwrap_or(&none)),
            seen: HashMap::new(),
        };
        let mut vmas = collector.collect(&mappings, &policies)?;
        let mut set = pages::collect(found, &mut vmas);
        let inherited = self.inherited((pid, pagemap), stat.ppid, &vmas, &set)?;
        set.leave_out(inherited.as_ref().map_or(&[], |inherited| &inherited.pages));
        self.pages.push(set);
        let shared = mappings.iter().filter(|vma| vma.shared != [0; 2]).map(|vma| vma.mapping.range).collect();
        let memory = TargetMemory::open(pid, shared);
        self.memories.push(Some(memory.map_err(CollectError::at(pid.leader(), "opening its memory"))?));
        self.mms.push(Mm {
            id,
            vmas,
            layout: process::layout(&stat.layout, answers.brk),
            auxv: facts.auxv.words.clone(),
            exe,
            dumpable: answers.dumpable,
            coredump_filter: facts.coredump_filter,
            thp_disable: greeting.thp_disable,
            mdwe: answers.mdwe,
            ksm_merge_any: answers.ksm_merge_any,
            membarrier: answers.membarrier,
            lock_future,
            xcomp_permitted: answers.xcomp_permitted,
            inherited,
            remainders: Vec::new(),
        });
        Ok(id)
    }

    /// Pages that are still those of the parent, which was collected before.
    fn inherited(
        &mut self,
        (pid, pagemap): (Pid, File),
        parent: Pid,
        vmas: &[Vma],
        set: &PageSet,
    ) -> Result<Option<Inherited>, CollectError> {
        let Some(&(parent, from)) = self.spaces.get(&parent) else { return Ok(None) };
        let above = Side { pid: parent, vmas: &self.mms[from.0 as usize].vmas };
        let pages = copy_on_write::shared((above, &mut self.above), (Side { pid, vmas }, pagemap), set)?;
        Ok((!pages.is_empty()).then_some(Inherited { from, pages }))
    }
}
