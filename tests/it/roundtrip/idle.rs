//! Programs of every make that compute and sleep.

use crate::support::isolated;

#[test]
fn c_dynamic() {
    isolated(|room| room.survives(room.victim("c-dynamic", &[])));
}

#[test]
fn c_static() {
    isolated(|room| room.survives(room.victim("c-static", &[])));
}

#[test]
fn c_static_pie() {
    isolated(|room| room.survives(room.victim("c-static-pie", &[])));
}

#[test]
fn without_any_library() {
    isolated(|room| room.survives(room.victim("c-nolibc", &[])));
}
