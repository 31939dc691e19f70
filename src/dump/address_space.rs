//! Address spaces. The kernel walks the page tables for each file of /proc that tells of a whole one, which for large memory takes longer than
//! all questions to its threads: other threads of ours read these files meanwhile. For a small one, starting them takes longer.

use super::collect::Builder;
use super::content::TargetMemory;
use crate::image::model::address::{Addr, PageRange};
use crate::image::model::id::{FileId, MmId, Pid, Tid};
use crate::image::model::memory::{Inherited, MemoryPolicy, Mm, Vma};
use crate::proc::numa_maps::{self, NumaMapping};
use crate::proc::vm_flags::VmFlags;
use crate::proc::{self, TaskDir, smaps};
use crate::resources::ask::Asker;
use crate::resources::copy_on_write::{self, Side};
use crate::resources::memory::Mappings;
use crate::resources::memory_policy;
use crate::resources::pages::PageSet;
use crate::resources::{CollectError, pages, process};
use crate::sys::pagemap::Pages;
use crate::sys::sched;
use crate::tracer::RemoteSession;
use std::collections::HashMap;
use std::io;
use std::thread::{self, JoinHandle};

/// A look at an address space, under way. Nothing may change it until that is finished.
pub struct Survey {
    pid: Pid,
    scratch: PageRange,
    mappings: Look<Vec<smaps::Vma>>,
    /// `None` where it takes less time to ask for the policies one by one.
    policies: Option<Look<Vec<NumaMapping>>>,
}

/// A file that is being read, or that has been.
enum Look<T> {
    Beside(JoinHandle<Result<T, proc::Error>>),
    Done(Result<T, proc::Error>),
}

/// Resident pages up to which an address space is looked at without help.
const FEW_PAGES: i64 = 4096;

/// Resident pages whose tables the kernel walks for `numa_maps` in the time of one call in the target's place.
const PAGES_IN_A_CALL: i64 = 256;

/// What came of it.
pub struct Surveyed {
    /// Every mapping of the program's own.
    mappings: Vec<smaps::Vma>,
    /// Flags of mlockall(2) for mappings to come.
    lock_future: u32,
    /// Memory policies of mappings that have one of their own, by start address.
    policies: HashMap<u64, MemoryPolicy>,
    /// Pages that are there.
    pages: Vec<(PageRange, Pages)>,
}

impl Survey {
    /// Begins it. `resident` is the number of its pages.
    ///
    /// # Errors
    /// When the process is gone, or no thread can be started.
    pub fn begin(pid: Pid, session: &RemoteSession<'_>, resident: i64) -> Result<Self, CollectError> {
        let (first, second) = (TaskDir::process(pid)?, TaskDir::process(pid)?);
        let is_small = resident <= FEW_PAGES;
        let mappings = look(pid, is_small, move || smaps::read(&first, &mut Vec::new()))?;
        let asks = !is_small && resident / PAGES_IN_A_CALL > session.mappings() as i64;
        let policies = match asks {
            true => None,
            false => Some(look(pid, is_small, move || numa_maps::read(&second, &mut Vec::new()))?),
        };
        Ok(Self { pid, scratch: session.scratch(), mappings, policies })
    }

    /// Does the rest and waits for the others. `task_policy` is that of the main thread.
    ///
    /// # Errors
    /// What could not be read or asked.
    pub fn finish(
        self,
        asker: &mut Asker<'_, '_>,
        tid: Tid,
        task_policy: Option<&MemoryPolicy>,
    ) -> Result<Surveyed, CollectError> {
        let pagemap = TaskDir::process(self.pid)?.open("pagemap")?;
        let pages = pages::scan_all(&pagemap);
        let mut mappings = joined(self.mappings)?;
        let policies = match self.policies {
            None => {
                let starts: Vec<Addr> = mappings.iter().map(|vma| vma.mapping.range.start).collect();
                memory_policy::ask(asker, tid, &starts)?
            }
            Some(listed) => {
                let listed = proc::if_present(joined(listed))?.unwrap_or_default();
                let (unclear, mut clear) = clear(listed, task_policy);
                clear.extend(memory_policy::ask(asker, tid, &unclear)?);
                clear
            }
        };
        let pages = pages.map_err(CollectError::at(self.pid.leader(), "PAGEMAP_SCAN"))?;
        let own = mappings.iter().position(|vma| vma.mapping.range == self.scratch);
        let lock_future = own.map_or(0, |index| lock_future(mappings.remove(index).flags));
        Ok(Surveyed { mappings, lock_future, policies, pages })
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

/// Looks now, or starts a thread that does. It is not as urgent as the one that traces, and so takes no CPU from threads of the target that
/// work for that one.
fn look<T: Send + 'static>(
    pid: Pid,
    is_small: bool,
    look: impl FnOnce() -> Result<T, proc::Error> + Send + 'static,
) -> Result<Look<T>, CollectError> {
    if is_small {
        return Ok(Look::Done(look()));
    }
    let work = || {
        let _ = sched::set_own_nice(0);
        look()
    };
    let failed = |source: io::Error| CollectError::Kernel { tid: pid.leader(), action: "starting a thread", source };
    thread::Builder::new().spawn(work).map(Look::Beside).map_err(failed)
}

fn joined<T>(look: Look<T>) -> Result<T, proc::Error> {
    match look {
        Look::Beside(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        Look::Done(found) => found,
    }
}

/// What mlockall(MCL_FUTURE) has set, which no interface tells: a mapping made after it, such as our own, shows it.
fn lock_future(new_mapping: VmFlags) -> u32 {
    let bit = |flag, value: i32| if new_mapping.contains(flag) { value.cast_unsigned() } else { 0 };
    bit(VmFlags::LOCKED, libc::MCL_FUTURE) | bit(VmFlags::LOCK_ON_FAULT, libc::MCL_ONFAULT)
}

impl Builder {
    /// Puts an address space together.
    pub(super) fn address_space(
        &mut self,
        pid: Pid,
        dir: &TaskDir,
        stat: &proc::stat::Stat,
        (greeting, answers): (process::Greeting, &process::Answers),
        surveyed: Surveyed,
    ) -> Result<MmId, CollectError> {
        let id = MmId(self.mms.len() as u32);
        let Surveyed { mappings, lock_future, policies, pages: found } = surveyed;
        self.resident += mappings.iter().map(|vma| vma.rss + vma.private_hugetlb).sum::<u64>();
        // Before the mappings, for this file can be opened.
        let exe = self.linked_file(pid, dir, "exe")?.unwrap_or(FileId(0));
        let mut collector = Mappings {
            pid,
            task: dir,
            files: &mut self.files,
            shared: &mut self.shared,
            mapped: &mut self.mapped,
            findings: &mut self.findings,
            found: &found,
            seen: HashMap::new(),
        };
        let mut vmas = collector.collect(&mappings, &policies)?;
        let mut set = pages::collect(found, &mut vmas);
        let inherited = self.inherited(pid, stat.ppid, &vmas, &set)?;
        set.leave_out(inherited.as_ref().map_or(&[], |inherited| &inherited.pages));
        self.pages.push(set);
        let shared = mappings.iter().filter(|vma| vma.shared != [0; 2]).map(|vma| vma.mapping.range).collect();
        let memory = TargetMemory::open(pid, shared);
        self.memories.push(Some(memory.map_err(CollectError::at(pid.leader(), "opening its memory"))?));
        self.mms.push(Mm {
            id,
            vmas,
            layout: process::layout(&stat.layout, answers.brk),
            auxv: proc::auxv::read(dir, &mut self.buffer)?.words,
            exe,
            dumpable: answers.dumpable,
            coredump_filter: proc::values::coredump_filter(dir, &mut self.buffer)?.unwrap_or(0),
            thp_disable: greeting.thp_disable,
            mdwe: answers.mdwe,
            ksm_merge_any: answers.ksm_merge_any,
            membarrier: answers.membarrier,
            lock_future,
            xcomp_permitted: answers.xcomp_permitted,
            inherited,
        });
        Ok(id)
    }

    /// Pages that are still those of the parent, which was collected before.
    fn inherited(&self, pid: Pid, parent: Pid, vmas: &[Vma], set: &PageSet) -> Result<Option<Inherited>, CollectError> {
        let Some(&(parent, from)) = self.spaces.get(&parent) else { return Ok(None) };
        let above = Side { pid: parent, vmas: &self.mms[from.0 as usize].vmas };
        let pages = copy_on_write::shared(above, Side { pid, vmas }, set)?;
        Ok((!pages.is_empty()).then_some(Inherited { from, pages }))
    }
}
