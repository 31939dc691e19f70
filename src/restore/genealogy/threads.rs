//! Who makes the threads of a process: the main thread, or one that has what they share and the main thread has not (`unshare(2)`). Pure.

use super::super::check::blocker;
use super::shares::{Object, Shares, of_thread};
use crate::blocker::Blocker;
use crate::image::model::process::Process;
use std::collections::HashSet;

/// A thread that is not the main one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadBirth {
    /// Who makes it: 0 for the main thread, N for the one at place N - 1 of [`Process::others`].
    pub maker: usize,
    /// What it shares with its maker, besides memory and handlers.
    pub shares: Shares,
    /// Who has set up the table of descriptors that it uses; itself, if it is its own.
    pub table_of: usize,
}

/// Finds out, for each of [`Process::others`].
///
/// # Errors
/// Threads that nobody can make.
pub fn threads(process: &Process) -> Result<Vec<ThreadBirth>, Vec<Blocker>> {
    let others = process.others();
    // A main thread that has ended is made with what the first of those who live has.
    let main = of_thread(&process.threads[0]);
    let mut births: Vec<Option<ThreadBirth>> = vec![None; others.len()];
    let mut makers = vec![(0, main)];
    let mut held: HashSet<Object> = main.into_iter().flatten().collect();
    loop {
        let before = makers.len();
        for (at, thread) in others.iter().enumerate() {
            let own = of_thread(thread);
            let found = births[at].is_none().then(|| find(&makers, &held, own)).flatten();
            let Some((maker, shares)) = found else { continue };
            let table_of = match (shares.files, maker) {
                (false, _) => at + 1,
                (true, 0) => 0,
                (true, maker) => births[maker - 1].map_or(0, |birth| birth.table_of),
            };
            births[at] = Some(ThreadBirth { maker, shares, table_of });
            // One maker of each kind is enough.
            if makers.iter().all(|(_, has)| *has != own) {
                makers.push((at + 1, own));
                held.extend(own.into_iter().flatten());
            }
        }
        if makers.len() == before {
            break;
        }
    }
    let lost = |(thread, birth): (&crate::image::model::thread::Thread, &Option<ThreadBirth>)| {
        let reason = "it shares descriptors with one thread and its working directory with another";
        let tid = format!("tid {}", thread.tid);
        birth.is_none().then(|| blocker(process.pid, tid, reason, "no option; not supported"))
    };
    let blockers: Vec<Blocker> = others.iter().zip(&births).filter_map(lost).collect();
    if blockers.is_empty() { Ok(births.into_iter().flatten().collect()) } else { Err(blockers) }
}

/// The first maker with everything that the thread has and somebody else has already.
fn find(
    makers: &[(usize, [Option<Object>; 4])],
    held: &HashSet<Object>,
    own: [Option<Object>; 4],
) -> Option<(usize, Shares)> {
    makers.iter().find_map(|(maker, has)| {
        let mut is_shared = [false; 4];
        for at in 0..own.len() {
            is_shared[at] = own[at].is_some() && own[at] == has[at];
            if !is_shared[at] && own[at].is_some_and(|object| held.contains(&object)) {
                return None;
            }
        }
        let [files, directories, undo_list, io_context] = is_shared;
        let shares = Shares { files, directories, undo_list, io_context, ..Shares::default() };
        Some((*maker, shares))
    })
}
