//! Process trees: what a dump takes of them.

mod freeze;
mod inherited;
mod kills;
mod leaks;
mod own;
mod restore;
mod sharing;
mod terminals;
mod zombies;

use crate::support::{Room, Victim, needs};
use serde_json::Value;
use std::path::Path;

/// How the processes of a tree talk: only root may dump shared memory without a name.
fn channel() -> &'static str {
    if needs::privileged() { "anonymous" } else { "file" }
}

/// The report on the tree in an image.
fn tree(room: &Room, image: &Path) -> Value {
    room.snap(["inspect", "--json"]).arg(image).arg("tree").run().expect(0).json()
}

/// The report on the descriptors in an image.
fn descriptors(room: &Room, image: &Path) -> Value {
    room.snap(["inspect", "--json"]).arg(image).arg("fds").run().expect(0).json()
}

/// The processes of a tree: the victim and its children, in the order in which it made them.
fn family(victim: &Victim) -> Vec<i32> {
    let children = victim.ask("children");
    std::iter::once(victim.pid()).chain(children.split(' ').filter_map(|pid| pid.parse().ok())).collect()
}

/// The entry of a list whose `member` is `number`.
fn entry<'a>(list: &'a Value, member: &str, number: i32) -> &'a Value {
    let found = list.as_array().and_then(|list| list.iter().find(|entry| entry[member] == number));
    found.unwrap_or_else(|| panic!("no {member} {number}: {list}"))
}
