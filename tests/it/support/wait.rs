//! Waiting: always for something that can be seen, never for time alone, always with a bound.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// Bound of a wait for something that takes milliseconds on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Looks for `condition` until it holds. Panics, naming `what`, when it does not come true within [`PATIENCE`].
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, condition)
}

/// As [`until`], with a bound of its own.
pub fn within<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The end of a child, or `None` when `limit` passes first.
pub fn exit_of(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let descriptor = pidfd(child.id() as i32)?;
    let deadline = Instant::now() + limit;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        let left = deadline.checked_duration_since(Instant::now())?;
        let mut wanted = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut wanted, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
    }
}

/// Waits until nobody has this pid any more; reaps it when it is ours. Returns how it ended when we reaped it.
pub fn gone(pid: i32) -> Option<WaitStatus> {
    gone_within(pid, PATIENCE)
}

/// As [`gone`], with a bound of its own.
pub fn gone_within(pid: i32, limit: Duration) -> Option<WaitStatus> {
    let mut end = None;
    within(limit, &format!("pid {pid} to be free"), || {
        let reaped = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)).ok();
        end = end.or(reaped.filter(|status| matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..))));
        (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    end
}

/// Waits until there is no process but this one in its pid namespace; reaps orphans.
pub fn alone() {
    alone_but_for(&[]);
}

/// As [`alone`], but these go on.
pub fn alone_but_for(others: &[u32]) {
    until("every orphan to be gone", || {
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
        let found = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse::<u32>().ok()?;
            (pid != std::process::id() && !others.contains(&pid)).then_some(())
        });
        (found.count() == 0).then_some(())
    });
}

fn pidfd(pid: i32) -> Option<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and returns a new descriptor that nobody else owns.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    // SAFETY: as above; negative values are turned away first.
    (descriptor >= 0).then(|| unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}
