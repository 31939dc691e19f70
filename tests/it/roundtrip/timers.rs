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
        let image = room.dump_and_kill(&mut victim, "timers.snap");
        let restore = room.snap(["restore", "--detach"]).arg(&image).env("SNAP_FAULT", "no-timer-ids");
        restore.run().expect(0);
        victim.check();
        victim.ask("final");
    });
}

/// Timers go on while their process stands still: one may expire between two looks at it.
#[test]
fn exam_02_a_timer_that_expires_during_a_dump_sends_its_signal_once() {
    const TIMES: usize = 25;
    isolated(|room| {
        let mut victim = room.victim("timers", &["chains"]);
        for _ in 0..TIMES {
            let image = room.dump_and_kill(&mut victim, "chains.snap");
            assert_eq!(room.restore(&image, &[]), victim.pid());
            victim.check();
        }
        victim.end();
    });
}
