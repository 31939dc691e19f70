//! SIGINT and SIGTERM as a flag that can be polled, and death by a chosen signal.
#![allow(unsafe_code)]

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT, SIGTERM, SIGHUP and SIGQUIT set the flag instead of ending this process. Interrupted system calls fail
/// with EINTR: whoever waits for long polls [`requested`] then. A signal that is ignored (nohup(1)) stays ignored.
///
/// # Errors
/// sigaction(2).
pub fn catch() -> io::Result<()> {
    let action = SigAction::new(SigHandler::Handler(request), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        // SAFETY: the handler stores into an atomic, which is async-signal-safe.
        let old = unsafe { sigaction(signal, &action) }?;
        if matches!(old.handler(), SigHandler::SigIgn) {
            // SAFETY: SIG_IGN runs no code.
            unsafe { sigaction(signal, &old) }?;
        }
    }
    Ok(())
}

/// Whether one of the signals came since [`catch`].
#[must_use]
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

extern "C" fn request(_: libc::c_int) {
    REQUESTED.store(true, Ordering::Relaxed);
}

/// Gives a signal its default disposition.
///
/// # Errors
/// sigaction(2).
pub fn reset(signal: Signal) -> io::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: SIG_DFL runs no code of ours.
    unsafe { sigaction(signal, &default) }?;
    Ok(())
}

/// Ends this process by `signal`, without a core file of its own, so that whoever waits for it sees what ended the restored
/// program. Comes back if the signal cannot end a process.
pub fn die_by(signal: i32) {
    let Ok(signal) = Signal::try_from(signal) else { return };
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
    // SIGKILL has no other disposition: the error says so and does not matter.
    let _ = reset(signal);
    let mut set = SigSet::empty();
    set.add(signal);
    let _ = set.thread_unblock();
    let _ = raise(signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_sets_the_flag() {
        catch().expect("handlers");
        assert!(!requested());
        raise(Signal::SIGTERM).expect("a signal");
        assert!(requested());
    }
}
