//! Core scheduling: each group of threads that had one cookie gets a new one, which nobody outside has.

use super::check::blocker;
use crate::blocker::Blocker;
use crate::fault::{Pretence, pretends};
use crate::image::model::Snapshot;
use crate::image::model::id::Tid;
use crate::image::model::process::Process;
use crate::proc::{TaskDir, processes};
use crate::sys::sched;
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::{fmt, io, thread};

/// What there is of it here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoreScheduling {
    /// None, and what the kernel says to whoever asks.
    Missing(Errno),
    /// `snap` has no cookie, and so has nothing that it makes.
    Plain,
    /// `snap` has a cookie, which its children inherit; a task that has none, if there is one that `snap` may look at.
    Cookie(Option<Tid>),
}

impl CoreScheduling {
    /// Looks.
    #[must_use]
    pub fn probe() -> Self {
        match sched::core_cookie(Tid(0)) {
            _ if pretends(Pretence::NoCoreScheduling) => Self::Missing(Errno::EINVAL),
            Err(errno) => Self::Missing(errno),
            Ok(0) => Self::Plain,
            Ok(_) => {
                let threads = processes().into_iter().filter_map(|pid| TaskDir::process(pid).ok()?.threads().ok());
                Self::Cookie(threads.flatten().find(|tid| sched::core_cookie(*tid) == Ok(0)))
            }
        }
    }
}

/// Who gets which cookie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cookies {
    /// Threads that have none, and whose `snap` must not leave them its own: they get that of another task, which is none.
    plain: Option<(Tid, Vec<Tid>)>,
    /// Threads with a cookie, by group.
    groups: Vec<Vec<Tid>>,
}

/// Who gets which cookie; what the user should know; what stands in the way.
#[must_use]
pub fn plan(snapshot: &Snapshot, found: CoreScheduling) -> (Cookies, Option<String>, Vec<Blocker>) {
    let mut groups: BTreeMap<u32, Vec<Tid>> = BTreeMap::new();
    for thread in snapshot.processes.iter().flat_map(|process| &process.threads) {
        groups.entry(thread.scheduling.core_group).or_default().push(thread.tid);
    }
    let plain = groups.remove(&0);
    let mut cookies = Cookies { plain: None, groups: groups.into_values().collect() };
    match (found, plain) {
        (CoreScheduling::Missing(errno), _) => (Cookies::default(), None, missing(snapshot, errno)),
        (CoreScheduling::Plain | CoreScheduling::Cookie(_), None) | (CoreScheduling::Plain, Some(_)) => {
            (cookies, None, Vec::new())
        }
        (CoreScheduling::Cookie(Some(task)), Some(plain)) => {
            cookies.plain = Some((task, plain));
            (cookies, None, Vec::new())
        }
        (CoreScheduling::Cookie(None), Some(plain)) => {
            let notice = format!(
                "core scheduling: snap has a cookie, and {} of the program that had none get it: no task without one can be seen",
                if plain.len() == 1 { "a thread".into() } else { format!("{} threads", plain.len()) }
            );
            (cookies, Some(notice), Vec::new())
        }
    }
}

/// Without it threads would run beside others that they were kept from.
fn missing(snapshot: &Snapshot, errno: Errno) -> Vec<Blocker> {
    let reason = match errno {
        Errno::ENODEV => "threads have cookies, and this machine shows no SMT, without which Linux has none",
        _ => "threads have cookies, and this kernel has none",
    };
    let remedy = "restore on a kernel with CONFIG_SCHED_CORE (Linux 5.14 or later), with SMT on";
    let has_cookies = |process: &&Process| process.threads.iter().any(|thread| thread.scheduling.core_group != 0);
    let those = snapshot.processes.iter().filter(has_cookies);
    those.map(|process| blocker(process.pid, "core scheduling", reason, remedy)).collect()
}

impl Cookies {
    /// Gives them to threads that wait. It is done by a thread of its own, for who gives a cookie must have it, and cannot have none again by itself.
    ///
    /// # Errors
    /// As prctl(2).
    pub fn give(&self) -> io::Result<()> {
        if *self == Self::default() {
            return Ok(());
        }
        let give = || -> Result<(), Errno> {
            if let Some((task, plain)) = &self.plain {
                sched::take_core_cookie(*task)?;
                // It may have got one meanwhile.
                if sched::core_cookie(Tid(0))? != 0 {
                    return Err(Errno::EAGAIN);
                }
                plain.iter().try_for_each(|tid| sched::give_core_cookie(*tid))?;
            }
            for group in &self.groups {
                let Some((first, others)) = group.split_first() else { continue };
                sched::make_core_cookie(*first)?;
                sched::take_core_cookie(*first)?;
                others.iter().try_for_each(|tid| sched::give_core_cookie(*tid))?;
            }
            Ok(())
        };
        let given = thread::scope(|scope| scope.spawn(give).join());
        given.map_err(|_| io::Error::other("the thread that gives cookies has panicked"))?.map_err(io::Error::from)
    }
}

/// A line for each step, as `snap restore --dry-run` shows it.
impl fmt::Display for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |tids: &[Tid]| tids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if let Some((_, plain)) = &self.plain {
            writeln!(f, "  take the core scheduling cookie of snap from tid {}", named(plain))?;
        }
        self.groups.iter().try_for_each(|group| writeln!(f, "  make a core scheduling cookie for tid {}", named(group)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::sample;

    /// Tids 100 and 102 in one group, 101 without a cookie, 103 in a group of its own.
    fn with_groups() -> Snapshot {
        let mut snapshot = sample::snapshot();
        let process = &mut snapshot.processes[0];
        process.threads = [(100, 1), (101, 0), (102, 1), (103, 2)]
            .map(|(tid, group)| {
                let mut thread = sample::thread(tid);
                thread.scheduling.core_group = group;
                thread
            })
            .into();
        snapshot
    }

    #[test]
    fn threads_of_one_group_get_one_cookie() {
        let groups = vec![vec![Tid(100), Tid(102)], vec![Tid(103)]];
        let wanted = Cookies { plain: None, groups: groups.clone() };
        assert_eq!(plan(&with_groups(), CoreScheduling::Plain), (wanted, None, Vec::new()));
        let (cookies, notice, blockers) = plan(&with_groups(), CoreScheduling::Cookie(Some(Tid(2))));
        assert_eq!(cookies, Cookies { plain: Some((Tid(2), vec![Tid(101)])), groups });
        assert_eq!((notice, blockers), (None, Vec::new()));
    }

    #[test]
    fn a_cookie_of_snap_that_cannot_be_taken_away_is_told_of() {
        let (cookies, notice, blockers) = plan(&with_groups(), CoreScheduling::Cookie(None));
        assert_eq!((cookies.plain, cookies.groups.len(), blockers), (None, 2, Vec::new()));
        assert!(notice.is_some_and(|notice| notice.contains("a thread of the program")));
    }

    #[test]
    fn an_image_with_cookies_is_refused_without_core_scheduling() {
        for (errno, words) in [(Errno::EINVAL, "this kernel"), (Errno::ENODEV, "SMT")] {
            let (_, _, blockers) = plan(&with_groups(), CoreScheduling::Missing(errno));
            assert_eq!(blockers.len(), 1);
            assert!(format!("{blockers:?}").contains(words), "{blockers:?}");
        }
        let mut without = with_groups();
        without.processes[0].threads.iter_mut().for_each(|thread| thread.scheduling.core_group = 0);
        assert_eq!(plan(&without, CoreScheduling::Missing(Errno::EINVAL)), (Cookies::default(), None, Vec::new()));
    }
}
