//! Who makes whom, and when: parents, sessions, process groups, and what is shared, brought about by clone3(2), setsid(2) and setpgid(2) alone. Pure.
//!
//! A process is made by its parent, in the session that it belongs to, sharing what it shares. Where the parent is in another session or
//! shares less, a brother makes it (CLONE_PARENT), or a descendant of the parent does, through a midwife that dies at once: the parent,
//! a subreaper for that moment, adopts the child. A leader that is dead is stood in for by a process with its id, which
//! ends before anything runs.

mod groups;
mod makers;
mod records;
mod shares;
#[cfg(test)]
mod tests;
mod threads;

pub use shares::Shares;
pub use threads::{ThreadBirth, threads};

use super::Choices;
use crate::blocker::Blocker;
use crate::image::model::Snapshot;
use crate::image::model::id::Pid;
use records::Records;

/// What is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Being {
    /// A process, by its place in the image.
    Process(usize),
    /// A child that was not reaped, by its place in the image.
    Zombie(usize),
    /// Somebody with the id of a dead leader.
    StandIn,
    /// Somebody with any id, who makes one other and dies, so that this is adopted.
    Midwife,
}

/// When in its maker's life something is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the maker has its own session.
    BeforeSession,
    /// Afterwards, while the maker's memory is still that in which it was born.
    Early,
    /// Once the maker's pages are there, which are inherited.
    Filled,
    /// When the turn of this adoption has come.
    Late,
}

/// Its process group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// That in which it was born.
    Born,
    /// One of its own, which it leads or makes for others.
    Own,
    /// That of another.
    Of(Pid),
    /// It makes one for others and then joins another.
    Left(Pid),
}

/// One being.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    /// What it is.
    pub being: Being,
    /// Its id; 0 for a midwife, which takes any.
    pub pid: Pid,
    /// Who makes it; `None` for the root.
    pub maker: Option<usize>,
    /// Whose child it is, in the end; `None` for the root.
    pub parent: Option<usize>,
    /// When.
    pub moment: Moment,
    /// Signal that its parent gets when it ends.
    pub exit_signal: i32,
    /// Whether it makes a session.
    pub leads_session: bool,
    /// Its group.
    pub group: Group,
    /// What it shares with its maker.
    pub shares: Shares,
    /// How many times memory has to be filled before it is born; for one that shares its maker's, as for that.
    pub wave: usize,
    /// The process of the image in whose memory, ready as it is, it is born; `None` for the memory in which its maker was born.
    pub memory_of: Option<usize>,
    /// Its place in [`Genealogy::adoptions`], for whoever is adopted.
    pub adoption: Option<usize>,
}

impl Birth {
    /// Whether its maker makes it as a brother (CLONE_PARENT).
    #[must_use]
    pub fn is_sibling(&self) -> bool {
        self.maker != self.parent && self.adoption.is_none()
    }
}

/// One birth through a midwife. All by their places among the births.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// Who is adopted.
    pub child: usize,
    /// Who makes it, and dies.
    pub midwife: usize,
    /// Who makes the midwife, in the session in which the child is to be.
    pub maker: usize,
    /// Who adopts: an ancestor of the maker.
    pub parent: usize,
}

/// All beings; whoever makes another stands before it, the root first.
#[derive(Clone, Debug, Default)]
pub struct Genealogy {
    /// In the order of their making.
    pub births: Vec<Birth>,
    /// Those made by each, in order.
    pub made: Vec<Vec<usize>>,
    /// The birth of each process of the image.
    pub of_process: Vec<usize>,
    /// In the order in which they take their turns: one is over before the next begins.
    pub adoptions: Vec<Adoption>,
    /// For each process of the image, who makes its other threads.
    pub threads: Vec<Vec<ThreadBirth>>,
}

impl Genealogy {
    /// How many times memory has to be filled.
    #[must_use]
    pub fn waves(&self) -> usize {
        self.births.iter().map(|birth| birth.wave + 1).max().unwrap_or(0)
    }

    /// How many meet: all but midwives, who are dead by then.
    #[must_use]
    pub fn meeting(&self) -> usize {
        self.births.len() - self.adoptions.len()
    }
}

/// Finds out.
///
/// # Errors
/// Relations that cannot be brought about.
pub fn genealogy(snapshot: &Snapshot, choices: &Choices<'_>) -> Result<Genealogy, Vec<Blocker>> {
    let mut records = Records::new(snapshot, choices);
    records.find_makers();
    records.groups();
    let mut made = Vec::with_capacity(snapshot.processes.len());
    for process in &snapshot.processes {
        match threads(process) {
            Ok(births) => made.push(births),
            Err(blockers) => records.blockers.extend(blockers),
        }
    }
    if !records.blockers.is_empty() {
        return Err(records.blockers);
    }
    Ok(Genealogy { threads: made, ..records.order() })
}
