//! A stub for each of several threads of one address space, in padding all over it.

use super::super::error::Error;
use super::super::inject::Visit;
use super::super::memory::Memory;
use super::super::padding::{self, Content, Place};
use super::super::seccomp::Policy;
use super::super::session;
use super::super::thread::StoppedThread;
use super::super::tree::FrozenTree;
use crate::image::model::address::Addr;
use crate::image::model::id::Pid;
use crate::proc::maps::Mapping;

/// Threads whose stubs are written, and where these stand.
#[derive(Debug, Default)]
pub(in crate::tracer) struct Stubs {
    pub places: Vec<Place>,
    /// In the order of the processes and their threads.
    pub visits: Vec<Visit>,
}

/// Which threads are given stubs, and what they have to undo.
#[derive(Clone, Copy, Debug)]
pub(in crate::tracer) struct Who<'a> {
    /// Processes with one memory, each with how many of its first threads are given none.
    pub processes: &'a [(Pid, usize)],
    /// Where stubs stand already, of which that of the guest is free; what is behind them is too.
    pub taken: Option<Place>,
    /// What the first of them has to unmap; the others have nothing to undo.
    pub undo: (Addr, u64),
}

impl Stubs {
    /// Writes them, where they may make calls for us. Nobody is in them yet, nor in what a killed predecessor has left.
    ///
    /// # Errors
    /// [`Error::Refused`] when a seccomp filter watches one of them, [`Error::NoRoom`]; the target is as it was before.
    pub fn write(tree: &mut FrozenTree, who: Who<'_>, maps: &[Mapping], memory: &Memory) -> Result<Self, Error> {
        let count = who.threads(tree).count();
        if count == 0 {
            return Ok(Self::default());
        }
        who.threads(tree).try_for_each(is_free)?;
        let is_taken = |place: &Place| who.taken.is_some_and(|taken| taken.start() == place.start());
        let found = padding::all_places(maps, memory)?;
        let mut found: Vec<_> = found.into_iter().filter(|(place, _)| !is_taken(place)).collect();
        let lacking = count - usize::from(who.taken.is_some());
        found.truncate(lacking.div_ceil(2));
        if found.len() * 2 < lacking {
            return Err(Error::NoRoom { pid: memory.pid(), what: "padding for a stub of each of its threads" });
        }
        let stale = found.iter().filter(|(_, content)| *content == Content::Stale).map(|(place, _)| *place);
        let stale: Vec<Place> = stale.collect();
        let places: Vec<Place> = found.iter().map(|(place, _)| *place).collect();
        for &(pid, but) in who.processes {
            session::run_out(tree, pid, &stale)?;
            for thread in tree.threads_of_mut(pid).iter_mut().skip(but) {
                session::prepare_registers(thread, memory)?;
            }
        }
        match visits(tree, who, &places, memory) {
            Ok(visits) => Ok(Self { places, visits }),
            Err(error) => {
                places.iter().try_for_each(|place| session::erase(*place, memory))?;
                Err(error)
            }
        }
    }
}

impl Who<'_> {
    fn threads<'a>(&'a self, tree: &'a FrozenTree) -> impl Iterator<Item = &'a StoppedThread> {
        self.processes.iter().flat_map(|(pid, but)| tree.threads_of(*pid).iter().skip(*but))
    }
}

/// Whether a thread may call whatever we want.
fn is_free(thread: &StoppedThread) -> Result<(), Error> {
    match Policy::of(thread)? {
        Policy::Free => Ok(()),
        Policy::Strict | Policy::Filters(_) | Policy::Hidden(_) => {
            let reason = "a seccomp filter watches what it calls".into();
            Err(Error::Refused { tid: thread.tid, reason, remedy: "" })
        }
    }
}

fn visits(tree: &FrozenTree, who: Who<'_>, places: &[Place], memory: &Memory) -> Result<Vec<Visit>, Error> {
    places.iter().try_for_each(|place| session::write_code(*place, memory))?;
    let stubs = who.taken.map(|place| place.guest).into_iter();
    let stubs = stubs.chain(places.iter().flat_map(|place| [place.host, place.guest]));
    let undo = [who.undo].into_iter().chain(std::iter::repeat(session::NOTHING));
    who.threads(tree)
        .zip(stubs)
        .zip(undo)
        .map(|((thread, stub), undo)| Visit::prepare(thread, stub, undo, memory))
        .collect()
}
