//! Dispositions and queues of signals.

use crate::support::isolated;

#[test]
fn exam_02_queued_signals_with_their_siginfo() {
    isolated(|room| room.survives(room.victim("signals", &[])));
}
