//! Group stop.

use crate::support::{Facts, isolated, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn exam_05_a_stopped_process_stays_stopped() {
    isolated(|room| {
        let mut victim = room.victim("threads", &["4"]);
        let pid = Pid::from_raw(victim.pid());
        let stopped = |when: &str| wait::until(when, || (victim.state() == Some('T')).then_some(()));
        victim.check();
        kill(pid, Signal::SIGSTOP).expect("kill");
        stopped("the group stop");
        let before = Facts::of(victim.pid());
        room.dump(victim.pid(), "first.snap", &[]);
        stopped("the group stop after a dump");
        before.assert_same(&Facts::of(victim.pid()), "after a dump of a stopped process");
        kill(pid, Signal::SIGCONT).expect("kill");
        victim.check();
        kill(pid, Signal::SIGSTOP).expect("kill");
        stopped("the second group stop");
        let image = room.dump(victim.pid(), "second.snap", &["--kill"]);
        wait::gone(victim.pid());
        room.restore(&image, &[]);
        stopped("the restored process to be stopped");
        before.assert_same(&Facts::of(victim.pid()), "after the restore of a stopped process");
        kill(pid, Signal::SIGCONT).expect("kill");
        victim.check();
        victim.end();
    });
}

#[test]
fn leave_stopped_leaves_the_target_in_group_stop() {
    isolated(|room| {
        let mut victim = room.victim("threads", &["4"]);
        victim.check();
        let before = Facts::of(victim.pid());
        room.dump(victim.pid(), "first.snap", &["--leave-stopped"]);
        // Its threads pass through the kernel into the stop, without an instruction of their own.
        wait::until("the stop", || (victim.state() == Some('T')).then_some(()));
        before.assert_same(&Facts::of(victim.pid()), "after --leave-stopped");
        kill(Pid::from_raw(victim.pid()), Signal::SIGCONT).expect("kill");
        victim.check();
        victim.end();
    });
}
