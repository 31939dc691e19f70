//! Seccomp filters that a dump can live with.

use crate::support::{isolated, needs::privileged};

/// Without CAP_SYS_ADMIN nobody can read them.
#[test]
fn filters_that_answer_with_an_errno() {
    isolated(|room| match privileged() {
        true => room.survives(room.victim("seccomp", &["errno"])),
        false => room.refuses(room.victim("seccomp", &["errno"]), &["tid ", "seccomp filters that cannot be read"]),
    });
}
