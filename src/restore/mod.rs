//! A restore: plan, skeleton, trampoline; owns no kind of resource.

mod aio;
mod assemble;
mod attached;
mod bpf;
mod cgroup;
mod check;
mod clocks;
mod contents;
mod core_scheduling;
mod credentials;
mod descriptors;
pub mod ending;
mod event;
mod filling;
mod finish;
mod foreground;
mod free_ids;
mod genealogy;
mod guard;
mod holders;
pub mod host;
mod inheritance;
pub mod input;
mod late;
mod layout;
mod locks;
mod lookup;
mod loose;
mod memory;
mod named_memory;
mod namespace;
pub mod network;
mod numbers;
mod opening;
mod options;
mod pages;
mod pipes;
mod plan;
mod process;
mod queues;
mod readdress;
mod renumber;
mod resume;
mod rewritten;
mod script;
mod skeleton;
mod sockets;
mod source;
mod sysv;
mod terminals;
mod thread;
mod vdso;
mod watches;
mod xstate;
mod zombie;

pub use check::unrestorable;
pub use options::{Choices, Error, FilesPolicy, Input, Options, Outcome, Restored};
pub use pages::Filler;
pub use plan::RestorePlan;
pub use readdress::Addresses;
pub use renumber::Ids;

use crate::image::model::Snapshot;
use crate::image::model::id::Pid;
use crate::image::model::process::Process;
use crate::image::model::terminal::TerminalModes;
use crate::proc::{TaskDir, stat};
use crate::resources::robust;
use crate::sys::interrupt;
use crate::sys::nftables;
use crate::sys::sched::yield_now;
use crate::sys::skeleton::{block_signals, restore_signals};
use foreground::Foreground;
use nix::sys::signal::Signal;
use readdress::Consequences;
use rewritten::Rewritten;
use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};
use sysv::Objects;

/// An image as a restore sees it.
pub trait Pages {
    /// Everything but the pages.
    fn snapshot(&self) -> &Snapshot;
    /// Whether pages can be had only once.
    fn is_stream(&self) -> bool;
    /// Hands every page that it wants to `filler`.
    ///
    /// # Errors
    /// When the image is damaged or the filler fails.
    fn restore(&self, filler: &Filler<'_>) -> Result<(), Error>;
}

/// Restores a tree.
///
/// # Errors
/// See [`Error`].
pub fn run(options: &Options<'_>) -> Result<Restored, Error> {
    let outside = match options.new_pid_namespace {
        true => Some(namespace::enter(options.detach || options.stopped)?),
        false => None,
    };
    if options.new_ipc_namespace {
        namespace::leave_ipc()?;
    }
    let opened = source::Opened::open(options)?;
    namespace::give_way(opened.snapshot())?;
    let consequences = options.addresses.consequences(opened.snapshot());
    let choices = choices(options, &consequences);
    let readdressed = readdress::where_changed(&opened, &options.addresses);
    let pages: &dyn Pages = readdressed.as_ref().map_or(&opened, |readdressed| readdressed);
    let above = outside.as_ref().map(namespace::Outside::above).transpose();
    let above = above.map_err(|source| Error::Step { step: "dup".into(), source })?.flatten();
    if options.new_pids {
        return restore_under_new_ids(pages, &choices, options.stopped);
    }
    let outcome = restore(pages, &choices, options.stopped, above)?;
    let outcome = outside.map_or(outcome, |outside| outside.translate(outcome));
    Ok(Restored { outcome, ids: None })
}

/// Tries other ids when somebody takes one of those that were free. A stream can be read but once.
fn restore_under_new_ids(opened: &dyn Pages, choices: &Choices<'_>, stopped: bool) -> Result<Restored, Error> {
    const TRIES: usize = 8;
    let mut attempt = 0;
    loop {
        let ids = new_ids(opened.snapshot(), attempt)?;
        attempt += 1;
        let pages = Rewritten::new(opened, |snapshot| renumber::renumber(snapshot, &ids));
        let consequences = renumber::consequences(&ids, choices.readdressed);
        let choices = Choices { readdressed: &consequences, ..*choices };
        match restore(&pages, &choices, stopped, None) {
            Err(error) if attempt < TRIES && !opened.is_stream() && is_taken(&error) => {
                tracing::info!("other ids are tried: {error}");
            }
            Err(Error::Blocked(blockers)) => return Err(Error::Blocked(renumber::by_old_ids(blockers, &ids))),
            outcome => return Ok(Restored { outcome: outcome?, ids: Some(ids) }),
        }
    }
}

fn new_ids(snapshot: &Snapshot, attempt: usize) -> Result<Ids, Error> {
    let wanted = renumber::wanted(snapshot);
    let free = free_ids::find(wanted.len(), attempt).map_err(step("looking for free ids"))?;
    Ok(wanted.into_iter().zip(free).collect())
}

/// Whether somebody else has an id by now.
fn is_taken(error: &Error) -> bool {
    match error {
        Error::Step { step: _, source } => source.raw_os_error() == Some(libc::EEXIST),
        Error::Blocked(blockers) => blockers.iter().all(|blocker| blocker.object.starts_with("id ")),
        Error::Image { .. } | Error::Permission { .. } => false,
    }
}

/// What [`run`] would do; changes nothing.
///
/// # Errors
/// See [`Error`].
pub fn plan(options: &Options<'_>) -> Result<RestorePlan, Error> {
    let opened = source::Opened::open(options)?;
    let ids = if options.new_pids { new_ids(opened.snapshot(), 0)? } else { Ids::new() };
    let mut consequences = options.addresses.consequences(opened.snapshot());
    if options.new_pids {
        consequences = renumber::consequences(&ids, &consequences);
    }
    let choices = choices(options, &consequences);
    let readdressed = readdress::where_changed(&opened, &options.addresses);
    let pages: &dyn Pages = readdressed.as_ref().map_or(&opened, |readdressed| readdressed);
    let renumbered = Rewritten::new(pages, |snapshot| renumber::renumber(snapshot, &ids));
    let snapshot = renumbered.snapshot();
    let facts = host::probe(snapshot).map_err(|source| Error::Step { step: "looking at this host".into(), source })?;
    plan::plan(snapshot, &facts, &choices).map_err(|blockers| Error::Blocked(renumber::by_old_ids(blockers, &ids)))
}

fn choices<'a>(options: &'a Options<'_>, readdressed: &'a Consequences) -> Choices<'a> {
    let orphan = options.detach || options.stopped;
    Choices {
        files: options.files,
        ignore_changed: &options.ignore_changed,
        inherit: &options.inherit,
        orphan,
        new_pid_namespace: options.new_pid_namespace,
        new_ipc_namespace: options.new_ipc_namespace,
        readdressed,
    }
}

/// For `map_err`: says which step has failed.
fn step<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Error {
    let step = step.into();
    |source| Error::Step { step, source: source.into() }
}

/// What the program has set the one terminal to that it had outside.
fn outside_modes(snapshot: &Snapshot) -> Option<TerminalModes> {
    let mut outside = snapshot.terminals.iter().filter(|terminal| !terminal.inside);
    outside.next().filter(|_| outside.next().is_none()).map(|terminal| terminal.modes)
}

/// The group that a shell had put in front on its terminal: a job, if one was running there.
fn group_in_front(snapshot: &Snapshot, root: Pid) -> Option<Pid> {
    let shell = snapshot.processes.iter().find(|process| process.pid == root)?;
    let group = shell.controlling.as_ref()?.foreground?;
    let is_leader = |process: &&Process| process.pid == group && process.pgid == group;
    snapshot.processes.iter().find(is_leader).map(|_| group)
}

/// `--files truncate`: files that grew since the dump. Nothing can fail after it but the last step.
fn cut_back(plan: &RestorePlan) -> Result<(), Error> {
    for (path, size) in &plan.cut_back {
        let cut = File::options().write(true).open(path).and_then(|file| file.set_len(*size));
        cut.map_err(|source| Error::Step { step: format!("cutting back {}", path.display()), source })?;
    }
    Ok(())
}

/// Robust futexes whose holders live again. Should these die before they are let go of, the kernel marks the words once more.
fn give_locks_back(plan: &RestorePlan) -> Result<(), Error> {
    for (path, held) in &plan.marked {
        let given = File::options().write(true).open(path).and_then(|file| robust::give_back(&file, held));
        given.map_err(step(format!("giving back a lock in {}", path.display())))?;
    }
    Ok(())
}

static ALONE: Mutex<()> = Mutex::new(());

/// Restores what `pages` holds. `above` is the `snap` outside of this pid namespace that stands in for the program there.
///
/// # Errors
/// See [`Error`].
pub fn restore(pages: &dyn Pages, choices: &Choices<'_>, stopped: bool, above: Option<File>) -> Result<Outcome, Error> {
    let step = |step: &str| {
        let step = step.to_owned();
        |source| Error::Step { step, source }
    };
    let snapshot = pages.snapshot();
    // Ignored, as execve(2) may hand it on, it would let the kernel reap children that their parents have to.
    interrupt::reset(Signal::SIGCHLD).map_err(step("resetting SIGCHLD"))?;
    let foreground = if choices.orphan { None } else { Some(Foreground::prepare(above).map_err(step("signalfd"))?) };
    // Numbers and addresses are planned from what is free in this process: one restore at a time.
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let facts = host::probe(snapshot).map_err(step("looking at this host"))?;
    let plan = plan::plan(snapshot, &facts, choices).map_err(Error::Blocked)?;
    plan.notices.iter().for_each(|notice| tracing::warn!("{notice}"));
    if clocks::go_on(&snapshot.inventory)? {
        tracing::info!("a time namespace lets the clocks of the program go on");
    }
    let objects = Objects::make(snapshot, &plan);
    let mut objects = objects.map_err(|error| Error::Step { step: error.what, source: error.source })?;
    // The skeleton inherits the mask: nothing is delivered before it is whole.
    let mask = block_signals();
    let built = skeleton::build(&plan, pages, &mut objects, &facts.xsave, stopped);
    restore_signals(mask);
    let commit = |error: finish::FinishError| Error::Step { step: error.action.to_owned(), source: error.source };
    let skeleton::Built { tracees, mut names, watchers, connections } = built?;
    cut_back(&plan)?;
    give_locks_back(&plan)?;
    names.put().map_err(step("putting sockets where they belong"))?;
    if let Some(foreground) = &foreground {
        if let Some(modes) = outside_modes(snapshot) {
            foreground.set_modes(modes);
        }
        match group_in_front(snapshot, plan.pid) {
            Some(group) => foreground.give_terminal_to(group),
            None => foreground.give_terminal(plan.pid),
        }
    }
    connections.revive(snapshot).map_err(step("bringing TCP connections to life"))?;
    if let Some(lock) = &choices.readdressed.unlock {
        nftables::remove(lock).map_err(step("letting packets pass (nf_tables)"))?;
    }
    watchers.arm(snapshot).map_err(|error| Error::Step { step: error.what, source: error.source })?;
    drop(watchers);
    tracees.commit().map_err(commit)?;
    names.keep();
    objects.keep().map_err(step("letting System V objects go"))?;
    drop(alone);
    if let Some(foreground) = foreground.as_ref().filter(|_| outside_modes(snapshot).is_some()) {
        foreground.redraw();
    }
    if stopped {
        await_stop(plan.pid);
    }
    match foreground {
        Some(foreground) => foreground.attend(plan.pid, None).map_err(step("waiting for the program")),
        None => Ok(Outcome::Left(plan.pid)),
    }
}

/// The stop is due before the first instruction, but is seen only once a CPU was free to enter it.
fn await_stop(pid: Pid) {
    let mut buffer = Vec::new();
    let state = |buffer: &mut Vec<u8>| {
        TaskDir::process(pid).and_then(|dir| stat::read(&dir, buffer)).map_or(b'T', |stat| stat.state)
    };
    while !matches!(state(&mut buffer), b'T' | b't' | b'Z' | b'X') {
        yield_now();
    }
}

#[cfg(test)]
mod tests;
