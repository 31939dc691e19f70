//! Settings of prctl, limits, directories.

use crate::support::{isolated, require_kernel};

#[test]
fn of_the_process() {
    isolated(|room| room.survives(room.victim("settings", &["process"])));
}

#[test]
fn of_prctl() {
    isolated(|room| room.survives(room.victim("settings", &["prctl"])));
}

#[test]
fn memory_deny_write_execute() {
    isolated(|room| {
        require_kernel!(6, 3, "the kernel has no PR_SET_MDWE");
        room.survives(room.victim("settings", &["mdwe"]));
    });
}

#[test]
fn membarrier_registrations() {
    isolated(|room| room.survives(room.victim("settings", &["membarrier"])));
}

#[test]
fn base_of_gs() {
    isolated(|room| room.survives(room.victim("settings", &["gs"])));
}

#[test]
fn exam_11_a_working_directory_without_a_name() {
    // It has another name before it loses it again.
    isolated(|room| room.survives_but(room.victim("settings", &["cwd-gone"]), &["cwd"]));
}
