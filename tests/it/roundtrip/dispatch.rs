//! Syscall user dispatch.

use crate::support::{isolated, require_kernel};

#[test]
fn calls_are_dispatched_while_the_program_says_so() {
    isolated(|room| {
        require_kernel!(6, 4, "nobody can see it");
        room.survives(room.victim("dispatch", &["open"]));
    });
}

/// What `snap` would call in its place would be dispatched too.
#[test]
fn a_thread_whose_calls_are_dispatched_at_this_moment_is_refused() {
    isolated(|room| {
        require_kernel!(6, 4, "nobody can see it");
        room.refuses(room.victim("dispatch", &["blocked"]), &["tid ", "syscall user dispatch blocks its calls"]);
    });
}
