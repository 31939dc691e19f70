//! Interval timers and POSIX timers.

use crate::support::isolated;

#[test]
fn every_kind_of_timer() {
    // Thread 4 takes the signals of a timer with sigtimedwait(2), which unblocks them for a moment.
    isolated(|room| room.survives_but(room.victim("timers", &[]), &["task 4 Sig"]));
}

/// Before Linux 6.15 no id can be wished for; a restore counts up to it.
#[test]
fn where_the_kernel_gives_ids_in_order() {
    isolated(|room| {
        let mut victim = room.victim("timers", &[]);
        let image = room.dump(victim.pid(), "timers.snap", &["--kill"]);
        victim.killed();
        let restore = room.snap(["restore", "--detach"]).arg(&image).env("SNAP_FAULT", "no-timer-ids");
        restore.run().expect(0);
        victim.check();
        victim.ask("final");
    });
}
