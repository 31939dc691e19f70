//! Ids, groups, capabilities; as root, which may set them.

use crate::support::{isolated, require_root};

#[test]
fn an_ordinary_user() {
    isolated(|room| {
        require_root!("to become another user");
        room.survives(room.victim("credentials", &["user"]));
    });
}

#[test]
fn ids_that_all_differ() {
    isolated(|room| {
        require_root!("to become another user");
        room.survives(room.victim("credentials", &["mixed"]));
    });
}

#[test]
fn capabilities() {
    isolated(|room| room.survives(room.victim("credentials", &["capabilities"])));
}

#[test]
fn threads_of_different_users() {
    isolated(|room| {
        require_root!("to become another user");
        room.survives(room.victim("credentials", &["threads"]));
    });
}

#[test]
fn not_dumpable() {
    isolated(|room| room.survives(room.victim("credentials", &["dumpable"])));
}
