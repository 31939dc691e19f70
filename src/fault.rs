//! Named fault points: places at which a test can end `snap`, to show that the target survives it.
//!
//! `SNAP_FAULT=NAME` kills `snap` with SIGKILL when it reaches that point; `SNAP_FAULT=NAME:error` makes it fail there, and
//! `SNAP_FAULT=NAME:stop` stops it there with SIGSTOP, the first time.
//! `SNAP_FAULT` with the name of a [`Pretence`] makes a restore believe that it is on another kernel.

use std::io;
use std::sync::Once;

/// Every fault point, in the order in which a dump or a restore passes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// Every thread is seized, none is stopped.
    Seized,
    /// Every thread is stopped.
    Frozen,
    /// The code for the rest of a transfer stands in the target's padding; no register was changed.
    RemainderWritten,
    /// A thread will go on with the rest of a transfer.
    RemainderEntered,
    /// The stub stands in the target's padding; no register was changed.
    StubWritten,
    /// A thread's registers point into the stub; nothing has run.
    StubEntered,
    /// The scratch mapping exists.
    Mapped,
    /// A thread answers questions without a stop in between.
    Answering,
    /// A process of ours fills the rings of AIO contexts.
    AioProbing,
    /// An option of a target's socket is changed.
    OptionChanged,
    /// The packets of connections of a target that is to be killed are dropped.
    Locked,
    /// A connection of the target is in repair mode.
    Repairing,
    /// All facts are collected.
    Collected,
    /// The scratch mapping is gone; the thread that held it stands in the stub.
    Leaving,
    /// The parasite is gone and registers are the target's own.
    Cured,
    /// All threads stand by for one of them to work for us; it does not yet.
    Gathered,
    /// That one works.
    Exchanging,
    /// It has done its work; nobody has gone back to his place.
    Exchanged,
    /// Threads in the target's address space, or in its copy, copy pages.
    Copying,
    /// Half of the pages are written.
    PagesHalf,
    /// The image is complete and has no name yet.
    ImageWritten,
    /// The image is durable under its name; the target is still frozen.
    ImageDurable,
    /// The connections of a target that is to be killed are in repair mode, and the lock that outlives us is there.
    Vanishing,
    /// The skeleton exists.
    SkeletonBorn,
    /// The old world of the skeleton is unmapped.
    Unmapped,
    /// All threads are at the barrier.
    Barrier,
}

impl Point {
    /// All points.
    pub const ALL: [Self; 26] = [
        Self::Seized,
        Self::Frozen,
        Self::RemainderWritten,
        Self::RemainderEntered,
        Self::StubWritten,
        Self::StubEntered,
        Self::Mapped,
        Self::Answering,
        Self::AioProbing,
        Self::OptionChanged,
        Self::Locked,
        Self::Repairing,
        Self::Collected,
        Self::Leaving,
        Self::Cured,
        Self::Gathered,
        Self::Exchanging,
        Self::Exchanged,
        Self::Copying,
        Self::PagesHalf,
        Self::ImageWritten,
        Self::ImageDurable,
        Self::Vanishing,
        Self::SkeletonBorn,
        Self::Unmapped,
        Self::Barrier,
    ];

    /// The name in `SNAP_FAULT`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seized => "seized",
            Self::Frozen => "frozen",
            Self::RemainderWritten => "remainder-written",
            Self::RemainderEntered => "remainder-entered",
            Self::StubWritten => "stub-written",
            Self::StubEntered => "stub-entered",
            Self::Mapped => "mapped",
            Self::Answering => "answering",
            Self::AioProbing => "aio-probing",
            Self::OptionChanged => "option-changed",
            Self::Locked => "locked",
            Self::Repairing => "repairing",
            Self::Collected => "collected",
            Self::Leaving => "leaving",
            Self::Cured => "cured",
            Self::Gathered => "gathered",
            Self::Exchanging => "exchanging",
            Self::Exchanged => "exchanged",
            Self::Copying => "copying",
            Self::PagesHalf => "pages-half",
            Self::ImageWritten => "image-written",
            Self::ImageDurable => "image-durable",
            Self::Vanishing => "vanishing",
            Self::SkeletonBorn => "skeleton-born",
            Self::Unmapped => "unmapped",
            Self::Barrier => "barrier",
        }
    }
}

/// Passes a fault point.
///
/// # Errors
/// When `SNAP_FAULT` asks for a failure here. Does not return when it asks for death.
pub fn pass(point: Point) -> io::Result<()> {
    let Some(wanted) = std::env::var_os("SNAP_FAULT") else {
        return Ok(());
    };
    let wanted = wanted.to_string_lossy();
    match wanted.strip_prefix(point.name()) {
        Some("") => {
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
            // The first process of a pid namespace cannot kill itself (pid_namespaces(7)).
            std::process::exit(128 + nix::sys::signal::Signal::SIGKILL as i32)
        }
        Some(":stop") => {
            static STOPS: Once = Once::new();
            STOPS.call_once(|| {
                let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
            });
            Ok(())
        }
        Some(":error") => Err(io::Error::other(format!("fault injected at {}", point.name()))),
        _ => Ok(()),
    }
}

/// Kernels and CPUs that a test does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pretence {
    /// The vdso has another build id than that of the dump.
    OtherVdso,
    /// As before, and it has no entry point.
    BareVdso,
    /// It is sealed and cannot be moved (CONFIG_MSEAL_SYSTEM_MAPPINGS).
    SealedVdso,
    /// It makes no timer under a wanted id (before Linux 6.15).
    NoTimerIds,
    /// Its CPU has no AVX.
    NoAvx,
    /// It has no core scheduling (CONFIG_SCHED_CORE).
    NoCoreScheduling,
}

/// Whether `SNAP_FAULT` asks for this.
#[must_use]
pub fn pretends(pretence: Pretence) -> bool {
    let name = match pretence {
        Pretence::OtherVdso => "other-vdso",
        Pretence::BareVdso => "bare-vdso",
        Pretence::SealedVdso => "sealed-vdso",
        Pretence::NoTimerIds => "no-timer-ids",
        Pretence::NoAvx => "no-avx",
        Pretence::NoCoreScheduling => "no-core-scheduling",
    };
    std::env::var_os("SNAP_FAULT").is_some_and(|wanted| wanted == name)
}
