//! Open files: offsets, flags, sharing, names that are gone.

use crate::support::isolated;

#[test]
fn regular_files() {
    isolated(|room| room.survives(room.victim("files", &["regular"])));
}

#[test]
fn descriptions_shared_by_dup_and_not_by_open() {
    isolated(|room| room.survives(room.victim("files", &["sharing"])));
}

#[test]
fn directories_with_a_position() {
    isolated(|room| room.survives(room.victim("files", &["directories"])));
}

#[test]
fn exam_11_unlinked_files() {
    // Descriptors 4 and 6 come back under the other names of their files, which are then those that /proc shows.
    isolated(|room| room.survives_but(room.victim("files", &["unlinked"]), &["fd 00004", "fd 00006"]));
}

#[test]
fn memory_devices() {
    isolated(|room| room.survives(room.victim("files", &["devices"])));
}

#[test]
fn files_of_proc_and_sys() {
    isolated(|room| room.survives(room.victim("files", &["pseudo"])));
}

#[test]
fn files_of_proc_that_are_its_own() {
    isolated(|room| room.survives(room.victim("files", &["own-proc"])));
}

#[test]
fn signalfds() {
    isolated(|room| room.survives(room.victim("files", &["signalfd"])));
}

#[test]
fn namespaces_that_it_is_in() {
    isolated(|room| room.survives(room.victim("files", &["namespaces"])));
}

#[test]
fn owners_of_sigio() {
    isolated(|room| room.survives(room.victim("files", &["owners"])));
}

#[test]
fn memfds_with_seals() {
    isolated(|room| room.survives(room.victim("files", &["memfd"])));
}

#[test]
fn nine_hundred_descriptors() {
    isolated(|room| room.survives(room.victim("files", &["many"])));
}
