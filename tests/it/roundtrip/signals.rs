//! Dispositions and queues of signals.

use crate::support::isolated;

#[test]
fn exam_02_queued_signals_with_their_siginfo() {
    isolated(|room| room.survives(room.victim("signals", &[])));
}

#[test]
fn exam_03_programs_that_ignore_block_or_handle_every_signal() {
    isolated(|room| {
        ["ignores", "blocks", "handles"].into_iter().for_each(|kind| room.survives(room.victim("deaf", &[kind])))
    });
}
