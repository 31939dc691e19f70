//! What /proc says of the processes of a frozen tree, read by other threads of ours while the one that traces asks their tasks. Whoever needs something that
//! nobody has begun to read reads it itself; and who waits reads something else meanwhile.
//!
//! For large memory the kernel walks page tables for each file that tells of a whole address space, which takes longer than all questions to its
//! threads. For a single process with a little, starting a thread takes longer than everything else.

mod facts;

use crate::image::model::id::Pid;
use crate::proc::numa_maps::{self, NumaMapping};
use crate::proc::{self, TaskDir, smaps};
use crate::resources::CollectError;
use crate::sys::sched;
pub use facts::{Facts, Found, Link};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// Resident pages up to which an address space is looked at without help.
const FEW_PAGES: i64 = 4096;

/// Processes up to which they are looked at without help.
const FEW_PROCESSES: usize = 3;

/// Beyond these, the thread that traces is what takes the time.
const MOST_HELPERS: usize = 4;

/// How far ahead of the process that is needed they look: what was read holds descriptors open, of which `snap` has not more than the tree has processes.
const DISTANCE: usize = 64;

/// Resident pages whose tables the kernel walks for `numa_maps` in the time of one call in the target's place.
const PAGES_IN_A_CALL: i64 = 256;

/// A process to be looked at.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// The number under which /proc shows what its threads share.
    pub shown_as: Pid,
    /// Whether an earlier one has the same address space.
    pub has_known_memory: bool,
    /// Whether an earlier one has the same table of descriptors.
    pub has_known_files: bool,
}

type Mappings = Result<Vec<smaps::Vma>, proc::Error>;
type Policies = Result<Option<Vec<NumaMapping>>, proc::Error>;

/// Something that is read once.
#[derive(Debug)]
struct Item<T> {
    is_begun: AtomicBool,
    found: Mutex<Option<T>>,
}

impl<T> Default for Item<T> {
    fn default() -> Self {
        Self { is_begun: AtomicBool::new(false), found: Mutex::new(None) }
    }
}

/// What is read of one process.
#[derive(Debug)]
struct Entry {
    member: Member,
    facts: Item<Result<Facts, CollectError>>,
    mappings: Item<Mappings>,
    policies: Item<Policies>,
}

/// What all threads have in common.
#[derive(Debug)]
struct Board {
    entries: Vec<Entry>,
    /// All before this one are begun.
    begun: AtomicUsize,
    /// The one that is needed now.
    reached: AtomicUsize,
    is_over: AtomicBool,
    /// Whether one of the helpers has panicked.
    has_failed: AtomicBool,
    /// Grows with everything that was read.
    news: (Mutex<u64>, Condvar),
}

/// The processes of a tree while they are looked at. Nothing may change their memory meanwhile.
#[derive(Debug)]
pub struct Ahead {
    board: Arc<Board>,
    helpers: Vec<JoinHandle<()>>,
}

impl Ahead {
    /// Begins to look at these processes, which stand still.
    ///
    /// # Errors
    /// When one of them is gone.
    pub fn begin(members: Vec<Member>) -> Result<Self, CollectError> {
        let helpers = helpers(&members)?;
        let entries = members.into_iter().map(Entry::new).collect();
        let (begun, reached) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (is_over, has_failed) = (AtomicBool::new(false), AtomicBool::new(false));
        let news = (Mutex::new(0), Condvar::new());
        let board = Arc::new(Board { entries, begun, reached, is_over, has_failed, news });
        // Without help it takes longer.
        let start = |_| {
            let board = Arc::clone(&board);
            thread::Builder::new().spawn(move || board.work()).ok()
        };
        let helpers = (0..helpers).filter_map(start).collect();
        Ok(Self { board, helpers })
    }

    /// What was read of the process at this place. Comes once.
    ///
    /// # Errors
    /// A file of /proc that cannot be read.
    pub fn facts(&self, at: usize) -> Result<Facts, CollectError> {
        let entry = &self.board.entries[at];
        self.board.reached.store(at, Ordering::Relaxed);
        self.board.tell();
        self.board.wait(&entry.facts, |buffer| entry.facts(buffer))
    }

    /// Its mappings. Comes once.
    ///
    /// # Errors
    /// As reading `smaps`.
    pub fn mappings(&self, at: usize) -> Result<Vec<smaps::Vma>, proc::Error> {
        let entry = &self.board.entries[at];
        if entry.member.has_known_memory {
            return entry.member.mappings(&mut Vec::new());
        }
        self.board.wait(&entry.mappings, |buffer| entry.member.mappings(buffer))
    }

    /// The memory policies of its mappings; `None` where it takes less time to ask for each. Comes once.
    ///
    /// # Errors
    /// As reading `numa_maps`.
    pub fn policies(&self, at: usize) -> Result<Option<Vec<NumaMapping>>, proc::Error> {
        let entry = &self.board.entries[at];
        if entry.member.has_known_memory {
            return entry.member.policies(&mut Vec::new());
        }
        self.board.wait(&entry.policies, |buffer| entry.member.policies(buffer))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.board.is_over.store(true, Ordering::Relaxed);
        self.board.tell();
        for helper in self.helpers.drain(..) {
            let _ = helper.join();
        }
    }
}

/// How many threads are worth their while.
fn helpers(members: &[Member]) -> Result<usize, CollectError> {
    let others = thread::available_parallelism().map_or(1, usize::from).saturating_sub(1);
    if members.len() > FEW_PROCESSES {
        return Ok(others.min(MOST_HELPERS));
    }
    for member in members {
        if proc::stat::read(&member.dir()?, &mut Vec::new())?.rss > FEW_PAGES {
            return Ok(2);
        }
    }
    Ok(0)
}

impl Member {
    fn dir(self) -> Result<TaskDir, proc::Error> {
        TaskDir::process(self.shown_as)
    }

    fn mappings(self, buffer: &mut Vec<u8>) -> Mappings {
        smaps::read(&self.dir()?, buffer)
    }

    fn policies(self, buffer: &mut Vec<u8>) -> Policies {
        let dir = self.dir()?;
        let resident = proc::stat::read(&dir, buffer)?.rss;
        policies(&dir, resident, buffer)
    }
}

/// The policies of a process with so many pages.
fn policies(dir: &TaskDir, resident: i64, buffer: &mut Vec<u8>) -> Policies {
    if resident > FEW_PAGES {
        let mappings = dir.read_into("maps", buffer)?.iter().filter(|byte| **byte == b'\n').count();
        if resident / PAGES_IN_A_CALL > mappings as i64 {
            return Ok(None);
        }
    }
    proc::if_present(numa_maps::read(dir, buffer)).map(|listed| Some(listed.unwrap_or_default()))
}

impl Entry {
    fn new(member: Member) -> Self {
        let (facts, mappings, policies) = (Item::default(), Item::default(), Item::default());
        for is_begun in [&mappings.is_begun, &policies.is_begun] {
            is_begun.store(member.has_known_memory, Ordering::Relaxed);
        }
        Self { member, facts, mappings, policies }
    }

    /// Reads the facts, and of a small address space the rest as well.
    fn facts(&self, buffer: &mut Vec<u8>) -> Result<Facts, CollectError> {
        let dir = self.member.dir()?;
        let stat = proc::stat::read(&dir, buffer)?;
        if stat.rss <= FEW_PAGES {
            if self.mappings.begin() {
                self.mappings.set(smaps::read(&dir, buffer));
            }
            if self.policies.begin() {
                self.policies.set(policies(&dir, stat.rss, buffer));
            }
        }
        Facts::read(self.member, dir, stat, buffer)
    }

    /// Reads something that nobody has begun to read; false when there is no such thing.
    fn help(&self, buffer: &mut Vec<u8>) -> bool {
        if self.facts.begin() {
            self.facts.set(self.facts(buffer));
        } else if self.mappings.begin() {
            self.mappings.set(self.member.mappings(buffer));
        } else if self.policies.begin() {
            self.policies.set(self.member.policies(buffer));
        } else {
            return false;
        }
        true
    }
}

impl<T> Item<T> {
    /// Whether nobody else has begun it.
    fn begin(&self) -> bool {
        !self.is_begun.swap(true, Ordering::Relaxed)
    }

    fn set(&self, found: T) {
        *lock(&self.found) = Some(found);
    }
}

impl Board {
    /// What a helper does. It is not as urgent as the thread that traces, and so takes no CPU from threads of the target that work for that one.
    fn work(&self) {
        let _ = sched::set_own_nice(0);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.help_on())) {
            self.has_failed.store(true, Ordering::Relaxed);
            self.tell();
            resume_unwind(panic);
        }
    }

    fn help_on(&self) {
        let mut buffer = Vec::new();
        loop {
            let seen = *lock(&self.news.0);
            if self.is_over.load(Ordering::Relaxed) || self.begun.load(Ordering::Relaxed) == self.entries.len() {
                return;
            }
            if !self.help(&mut buffer) {
                self.await_news(seen);
            }
        }
    }

    /// Reads something that nobody has begun to read and that will be needed soon; false when there is nothing left.
    fn help(&self, buffer: &mut Vec<u8>) -> bool {
        let first = self.begun.load(Ordering::Relaxed);
        let end = self.entries.len().min(self.reached.load(Ordering::Relaxed) + DISTANCE);
        for at in first..end {
            if self.entries[at].help(buffer) {
                self.tell();
                return true;
            }
            self.begun.fetch_max(at + 1, Ordering::Relaxed);
        }
        false
    }

    fn await_news(&self, seen: u64) {
        drop(self.news.1.wait_while(lock(&self.news.0), |news| *news == seen));
    }

    /// Tells those who wait that something was read.
    fn tell(&self) {
        *lock(&self.news.0) += 1;
        self.news.1.notify_all();
    }

    /// Reads an item, or waits for who does.
    fn wait<T>(&self, item: &Item<T>, read: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut buffer = Vec::new();
        if item.begin() {
            return read(&mut buffer);
        }
        loop {
            let seen = *lock(&self.news.0);
            if let Some(found) = lock(&item.found).take() {
                return found;
            }
            assert!(!self.has_failed.load(Ordering::Relaxed), "a thread that reads /proc has panicked");
            if !self.help(&mut buffer) {
                self.await_news(seen);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
