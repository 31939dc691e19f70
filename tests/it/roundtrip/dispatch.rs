//! Syscall user dispatch.

use crate::support::isolated;

#[test]
fn calls_are_dispatched_while_the_program_says_so() {
    isolated(|room| room.survives(room.victim("dispatch", &["open"])));
}

/// What `snap` would call in its place would be dispatched too.
#[test]
fn a_thread_whose_calls_are_dispatched_at_this_moment_is_refused() {
    isolated(|room| {
        room.refuses(room.victim("dispatch", &["blocked"]), &["tid ", "syscall user dispatch blocks its calls"]);
    });
}
