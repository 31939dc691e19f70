//! Processes that are looked at, and what is said of them.

use super::*;
use crate::sys::task;
use std::process::{Child, Command, Stdio};

/// A process that is killed and reaped in `Drop`.
struct Running(Child);

impl Running {
    /// sleep(1) without any descriptor that the test has inherited.
    fn sleep(output: Stdio) -> Self {
        const CLOSE: &str =
            "for fd in /proc/$$/fd/*; do n=${fd##*/}; ((n > 2)) && eval \"exec $n>&-\"; done; exec sleep 1000";
        let mut command = Command::new("bash");
        command.arg("-c").arg(CLOSE).stdin(Stdio::null()).stdout(output).stderr(Stdio::null());
        let running = Self(command.spawn().expect("a child"));
        let comm = || std::fs::read_to_string(format!("/proc/{}/comm", running.pid()));
        while comm().is_ok_and(|comm| comm != "sleep\n") {
            std::thread::yield_now();
        }
        running
    }

    fn pid(&self) -> Pid {
        Pid(self.0.id() as i32)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_plain_program_has_no_blocker() {
    let sleep = Running::sleep(Stdio::null());
    assert_eq!(preflight(sleep.pid()).expect("it can be looked at").blockers, []);
}

#[test]
fn a_pipe_with_an_outside_end_is_named() {
    let sleep = Running::sleep(Stdio::piped());
    let blockers = preflight(sleep.pid()).expect("it can be looked at").blockers;
    assert_eq!(blockers.len(), 1, "{blockers:?}");
    assert!(blockers[0].object.starts_with("fd 1: pipe:["), "{blockers:?}");
}

#[test]
fn a_kernel_thread_is_one() {
    // Pid 2 is kthreadd, but for pid namespaces that do not have it.
    if std::fs::read_to_string("/proc/2/comm").is_ok_and(|comm| comm == "kthreadd\n") {
        let blockers = preflight(Pid(2)).expect("a blocker").blockers;
        assert_eq!(blockers[0].object, "kernel thread");
    }
}

#[test]
fn a_zombie_is_one() {
    let mut child = Command::new("true").stdin(Stdio::null()).spawn().expect("a child");
    let pid = Pid(child.id() as i32);
    let id = nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(pid.0));
    let flags = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
    nix::sys::wait::waitid(id, flags).expect("its end");
    let Preflight { blockers, seen_only_when_frozen } = preflight(pid).expect("a blocker");
    assert_eq!(blockers[0].object, "zombie");
    assert!(seen_only_when_frozen.is_empty(), "there is nothing to freeze");
    child.wait().expect("its status");
    assert!(matches!(preflight(pid), Err(Error::Vanished(gone)) if gone == pid));
}

#[test]
fn this_process_is_refused() {
    assert_eq!(preflight(task::own_pid()).expect("a blocker").blockers[0].object, "snap");
}
